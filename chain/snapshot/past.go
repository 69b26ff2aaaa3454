package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"dupfs/chain"
	"dupfs/chain/index"
)

var _ chain.Past = (*Archive)(nil)

// pathBits is how many bits of a place are the number of the path in its line;
// those above are the slot of the line.
const pathBits = index.VersionBits - 16

func (l *line) place(path int64) uint64 { return l.slot<<pathBits | uint64(path) }

// sighting is a path in one line, up to the line's last point.
type sighting struct {
	line *line
	last int // ordinal of the last point
	path int64
}

// newestFirst returns the lines, that of the newest point first. Points that
// nobody can read are in none.
func (a *Archive) newestFirst() []sighting {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []sighting
	for i := len(a.points) - 1; i >= 0; i-- {
		p := &a.points[i]
		if p.line != nil && !slices.ContainsFunc(all, func(s sighting) bool { return s.line == p.line }) {
			all = append(all, sighting{line: p.line, last: p.ord})
		}
	}
	return all
}

// Parent implements chain.Past.
func (a *Archive) Parent(ctx context.Context, place uint64) (parent uint64, err error) {
	err = a.inPlace(ctx, place, func(l *line, c *index.Catalog, path int64) error {
		up, err := c.Parent(ctx, path)
		if err == nil && up != 0 {
			parent = l.place(up)
		}
		return err
	})
	return parent, err
}

// ParentDir implements chain.Past.
func (a *Archive) ParentDir(ctx context.Context, point uint32, dir uint64) (parent uint64, err error) {
	t, err := a.Tree(ctx, point)
	if err != nil {
		return 0, err
	}
	tr := t.(*tree)
	err = tr.line.do(ctx, tr.ord, func(c *index.Catalog) error {
		up, err := c.Parent(ctx, int64(dir))
		parent = uint64(up)
		return err
	})
	return parent, err
}

// pathOf returns the path of a place.
func (a *Archive) pathOf(ctx context.Context, place uint64) (p chain.Path, err error) {
	err = a.inPlace(ctx, place, func(_ *line, c *index.Catalog, path int64) error {
		p, err = c.PathOf(ctx, path)
		return err
	})
	return p, err
}

// inPlace calls fn with the line of a place, its catalog with all of its sets,
// and the number of the path in it.
func (a *Archive) inPlace(ctx context.Context, place uint64, fn func(l *line, c *index.Catalog, path int64) error) error {
	a.mu.Lock()
	l := a.slots[place>>pathBits]
	if l != nil && a.lines[l.key] != l {
		l = nil
	}
	a.mu.Unlock()
	if l == nil {
		return fmt.Errorf("place %d: %w", place, fs.ErrNotExist)
	}
	last := 0
	for _, s := range a.newestFirst() {
		if s.line == l {
			last = s.last
		}
	}
	return l.do(ctx, last, func(c *index.Catalog) error { return fn(l, c, int64(place&(1<<pathBits-1))) })
}

// sightings returns the lines that have or had the path of a place, that of
// the newest point first. newest is that point's line whether or not it has it.
func (a *Archive) sightings(ctx context.Context, place uint64) (all []sighting, newest *line, err error) {
	p, err := a.pathOf(ctx, place)
	if err != nil {
		return nil, nil, err
	}
	lines := a.newestFirst()
	for _, s := range lines {
		err := s.line.do(ctx, s.last, func(c *index.Catalog) (err error) {
			s.path, err = c.ID(ctx, p)
			return err
		})
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, nil, err
		default:
			all = append(all, s)
		}
	}
	if len(lines) > 0 {
		newest = lines[0].line
	}
	return all, newest, nil
}

// Place implements chain.Past.
func (a *Archive) Place(ctx context.Context, parent uint64, name string) (uint64, error) {
	if parent == 0 {
		for _, s := range a.newestFirst() {
			return s.line.place(rootDir), nil
		}
		return 0, fs.ErrNotExist
	}
	spot, err := a.Spot(ctx, parent, name)
	return spot.Place, err
}

// Spot implements chain.Past.
func (a *Archive) Spot(ctx context.Context, place uint64, name string) (chain.Spot, error) {
	all, newest, err := a.sightings(ctx, place)
	if err != nil {
		return chain.Spot{}, err
	}
	var spot chain.Spot
	for _, s := range all {
		var n *index.Name
		err := s.line.do(ctx, s.last, func(c *index.Catalog) (err error) {
			n, err = c.NameOf(ctx, s.last, s.path, name)
			return err
		})
		switch {
		case err != nil:
			return chain.Spot{}, err
		case n == nil:
		case spot.Place == 0:
			spot = s.spot(n, newest)
		default:
			spot.WasDir = spot.WasDir || wasDir(n)
		}
	}
	if spot.Place == 0 {
		return spot, fs.ErrNotExist
	}
	return spot, nil
}

// wasDir reports whether a name was a directory, with something in it if it is
// one no more.
func wasDir(n *index.Name) bool { return n.WasDir || n.Type == chain.Dir }

func (s *sighting) spot(n *index.Name, newest *line) chain.Spot {
	spot := chain.Spot{Name: n.Name, Place: s.line.place(n.Path), WasDir: wasDir(n)}
	if s.line == newest && !n.Gone {
		spot.Now = n.Type
	}
	return spot
}

// Names implements chain.Past. It holds a page of names of each line.
func (a *Archive) Names(ctx context.Context, place uint64, after string, fn func(chain.Spot) error) error {
	all, newest, err := a.sightings(ctx, place)
	if err != nil {
		return err
	}
	pages := make([]namePage, len(all))
	for i := range all {
		pages[i] = namePage{sighting: all[i], after: after}
	}
	for {
		first := -1
		for i := range pages {
			if err := pages[i].fill(ctx); err != nil {
				return err
			}
			if len(pages[i].names) > 0 && (first < 0 || pages[i].names[0].Name < pages[first].names[0].Name) {
				first = i
			}
		}
		if first < 0 {
			return nil
		}
		spot := pages[first].spot(&pages[first].names[0], newest)
		for i := range pages {
			if p := &pages[i]; len(p.names) > 0 && p.names[0].Name == spot.Name {
				spot.WasDir = spot.WasDir || wasDir(&p.names[0])
				p.names = p.names[1:]
			}
		}
		if err := fn(spot); err != nil {
			return err
		}
	}
}

// namePage is some of the names of one line, those next in order.
type namePage struct {
	sighting
	names []index.Name
	after string
	end   bool
}

// fill reads more if there is none left.
func (p *namePage) fill(ctx context.Context) error {
	if len(p.names) > 0 || p.end {
		return nil
	}
	err := p.line.do(ctx, p.last, func(c *index.Catalog) (err error) {
		p.names, err = c.Names(ctx, p.last, p.path, p.after, pageSize)
		return err
	})
	if err != nil {
		return err
	}
	p.end = len(p.names) < pageSize
	if len(p.names) > 0 {
		p.after = p.names[len(p.names)-1].Name
	}
	return nil
}

// everLost takes the place of the first point in a changedKey for the
// directories beneath which anything is gone since any point.
const everLost = -1

// Lost implements chain.Past. The newest line's catalog knows what it lost; the
// names of the other lines are compared with those of the newest point.
func (a *Archive) Lost(ctx context.Context, place uint64) (bool, error) {
	all, newest, err := a.sightings(ctx, place)
	if err != nil {
		return false, err
	}
	if len(all) == 0 || all[0].line != newest {
		return true, nil
	}
	dirs, err := a.changedDirs(ctx, newest, everLost, all[0].last)
	if err != nil || dirs == nil || dirs[all[0].path] != 0 {
		return true, err
	}
	for _, old := range all[1:] {
		budget := maxPeek
		bits, err := a.remember(beneath{from: old, to: all[0], ever: true}, func(k beneath) (uint8, error) {
			bits, err := a.lostIn(ctx, k, &budget)
			if errors.Is(err, errPeeked) {
				return chain.Deleted, nil
			}
			return bits, err
		})
		if err != nil || bits != 0 {
			return true, err
		}
	}
	return false, nil
}

// lostIn returns chain.Deleted if a directory had a name in an older line that
// the newest point has not, or a directory beneath it had, and else 0.
func (a *Archive) lostIn(ctx context.Context, k beneath, budget *int) (uint8, error) {
	old, now := namePage{sighting: k.from}, namePage{sighting: k.to}
	for {
		if err := errors.Join(old.fill(ctx), now.fill(ctx)); err != nil {
			return 0, err
		}
		if len(old.names) == 0 {
			return 0, nil
		}
		if *budget--; *budget < 0 {
			return 0, errPeeked
		}
		n := &old.names[0]
		if len(now.names) > 0 && now.names[0].Name < n.Name {
			now.names = now.names[1:]
			continue
		}
		if len(now.names) == 0 || now.names[0].Name != n.Name || now.names[0].Gone {
			return chain.Deleted, nil
		}
		m := &now.names[0]
		switch {
		case m.Type != chain.Dir && wasDir(n):
			return chain.Deleted, nil
		case m.Type == chain.Dir:
			down := k
			down.from.path, down.to.path = n.Path, m.Path
			bits, err := a.remember(down, func(k beneath) (uint8, error) { return a.lostIn(ctx, k, budget) })
			if err != nil || bits != 0 {
				return bits, err
			}
		}
		old.names = old.names[1:]
	}
}

// beneath is a question about two points: what of a directory at the second
// differs beneath it from the first; or if ever, is not there of what the
// directory had in all of the first's line.
type beneath struct {
	from, to sighting
	ever     bool
}

// maxAnswers is how many answers are remembered: some 10 MiB.
const maxAnswers = 1 << 16

// remember returns what find says, or once said. Two points do not change, so
// neither does the answer.
func (a *Archive) remember(k beneath, find func(beneath) (uint8, error)) (uint8, error) {
	a.mu.Lock()
	bits, ok := a.answers[k]
	a.mu.Unlock()
	if ok {
		return bits, nil
	}
	bits, err := find(k)
	if err != nil {
		return bits, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.answers) >= maxAnswers || a.answers == nil {
		a.answers = make(map[beneath]uint8)
	}
	a.answers[k] = bits
	return bits, nil
}

// Versions implements chain.Past. What a fork shares with its chain is told
// once.
func (a *Archive) Versions(ctx context.Context, place uint64) ([]chain.PastVersion, error) {
	all, _, err := a.sightings(ctx, place)
	if err != nil {
		return nil, err
	}
	var out []chain.PastVersion
	for _, s := range all {
		found, err := a.versionsIn(ctx, s)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	slices.SortStableFunc(out, func(v, w chain.PastVersion) int { return v.Time.Compare(w.Time) })
	return slices.CompactFunc(out, func(v, w chain.PastVersion) bool { return Same(&v.Node, &w.Node) }), nil
}

// versionsIn returns the versions of a path in one line, at points of its own.
func (a *Archive) versionsIn(ctx context.Context, s sighting) ([]chain.PastVersion, error) {
	first := a.firstOrd(s.line)
	var out []chain.PastVersion
	err := s.line.do(ctx, s.last, func(c *index.Catalog) error {
		out = nil
		history, err := c.History(ctx, s.path)
		if err != nil {
			return err
		}
		for i, h := range history {
			ord := index.OrdOf(h.Version)
			if h.Deleted || ord > s.last || i+1 < len(history) && index.OrdOf(history[i+1].Version) <= first {
				continue
			}
			n, err := c.Version(ctx, h.Version)
			if err != nil {
				return err
			}
			ord = max(ord, first)
			out = append(out, chain.PastVersion{
				Time: s.line.set(ord).End, Point: a.numberOf(s.line, ord), Node: s.line.node(n),
			})
		}
		return nil
	})
	return out, err
}

// PointOf implements chain.Past.
func (a *Archive) PointOf(_ context.Context, version uint64) (uint32, error) {
	l, id, err := a.versionLine(version)
	if err != nil {
		return 0, err
	}
	return a.numberOf(l, max(index.OrdOf(id), a.firstOrd(l))), nil
}

// Needed returns the sets that a point is made from, oldest first; nil if there
// is no such point.
func (a *Archive) Needed(number uint32) []*chain.Set {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.points {
		if p.Number == number && p.line != nil {
			p.line.mu.Lock()
			defer p.line.mu.Unlock()
			return p.line.sets[:min(p.ord+1, len(p.line.sets))]
		}
	}
	return nil
}

// firstOrd returns the ordinal of a line's first point: 0, but in a fork.
func (a *Archive) firstOrd(l *line) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	first := 0
	for i := len(a.points) - 1; i >= 0; i-- {
		if a.points[i].line == l {
			first = a.points[i].ord
		}
	}
	return first
}

// Same reports whether two nodes are known to be the same in all that a backup
// holds. Of contents it compares the hashes, or else size and time; those
// whose size nobody knows differ.
func Same(v, w *chain.Node) bool {
	if v.Type == chain.File && (v.Size < 0 || w.Size < 0) && v.Version != w.Version {
		return false
	}
	return v.Type == w.Type && v.Mode == w.Mode && v.UID == w.UID && v.GID == w.GID && v.Mtime == w.Mtime &&
		v.Size == w.Size && v.Link == w.Link && v.Major == w.Major && v.Minor == w.Minor &&
		(!v.HasHash || !w.HasHash || v.Hash == w.Hash) &&
		slices.EqualFunc(v.Xattrs, w.Xattrs, func(x, y chain.Xattr) bool {
			return x.Name == y.Name && string(x.Value) == string(y.Value)
		})
}

// maxPeek is how many names are compared to find out whether anything differs
// beneath a directory, where the catalog cannot tell: some three seconds.
const maxPeek = 1 << 18

// Changes implements chain.Past.
func (a *Archive) Changes(ctx context.Context, from, to uint32, dir uint64, after string, fn func(chain.Change) error) error {
	d, err := a.pairDiff(ctx, from, to, dir)
	if err != nil {
		return err
	}
	return a.changes(ctx, d, after, nil, fn)
}

// changes does so for two directories. Names that are compared are taken from a
// budget, if there is one, and errPeeked is the end of it.
func (a *Archive) changes(ctx context.Context, d *pairDiff, after string, budget *int, fn func(chain.Change) error) error {
	old, now := children{tree: d.from, dir: d.fromDir, after: after}, children{tree: d.to, dir: d.toDir, after: after}
	for {
		if err := errors.Join(old.fill(ctx), now.fill(ctx)); err != nil {
			return err
		}
		if len(old.page) == 0 && len(now.page) == 0 {
			return nil
		}
		if budget != nil {
			if *budget--; *budget < 0 {
				return errPeeked
			}
		}
		v, w := takeFirst(&old, &now)
		c, ok, err := a.change(ctx, d, v, w, budget)
		if ok && err == nil {
			err = fn(c)
		}
		if err != nil {
			return err
		}
	}
}

// errPeeked ends a look at what is beneath a directory: the budget is used up.
// errAll ends it where nothing more can be found.
var (
	errPeeked = errors.New("enough was compared")
	errAll    = errors.New("every kind of difference was found")
)

// change is d.change, and finds out what is beneath a directory where d does
// not know it.
func (a *Archive) change(ctx context.Context, d *pairDiff, v, w *index.Node, budget *int) (chain.Change, bool, error) {
	c, ok := d.change(v, w)
	if !ok || d.below != nil || c.Below == 0 {
		return c, ok, nil
	}
	own := budget == nil
	if own {
		budget = new(int)
		*budget = maxPeek
	}
	down := *d
	down.fromDir, down.toDir = v.Dir(), w.Dir()
	k := beneath{from: sighting{d.from.line, d.from.ord, down.fromDir}, to: sighting{d.to.line, d.to.ord, down.toDir}}
	bits, err := a.remember(k, func(beneath) (uint8, error) {
		bits, err := a.peek(ctx, &down, budget)
		if own && errors.Is(err, errPeeked) {
			return c.Below, nil // whoever asked once will be told the same again
		}
		return bits, err
	})
	c.Below = bits
	return c, bits != 0, err
}

// peek returns the kinds of differences beneath two directories.
func (a *Archive) peek(ctx context.Context, d *pairDiff, budget *int) (bits uint8, err error) {
	err = a.changes(ctx, d, "", budget, func(c chain.Change) error {
		bits |= c.Below
		switch {
		case c.Below != 0:
		case c.Old == nil:
			bits |= chain.Added
		case c.New == nil:
			bits |= chain.Deleted
		default:
			bits |= index.Difference(c.Old.Type, c.New.Type)
		}
		if bits == chain.Added|chain.Modified|chain.Deleted {
			return errAll
		}
		return nil
	})
	if errors.Is(err, errAll) {
		err = nil
	}
	return bits, err
}

// takeFirst takes the next name, from both if both have it.
func takeFirst(old, now *children) (v, w *index.Node) {
	order := old.compare(now)
	if order <= 0 {
		v = old.take()
	}
	if order >= 0 {
		w = now.take()
	}
	return v, w
}

// Change implements chain.Past.
func (a *Archive) Change(ctx context.Context, from, to uint32, dir uint64, name string) (chain.Change, error) {
	d, err := a.pairDiff(ctx, from, to, dir)
	if err != nil {
		return chain.Change{}, err
	}
	v, err1 := d.from.child(ctx, d.fromDir, name)
	w, err2 := d.to.child(ctx, int64(dir), name)
	if err := errors.Join(err1, err2); err != nil {
		return chain.Change{}, err
	}
	c, ok, err := a.change(ctx, d, v, w, nil)
	if err == nil && !ok {
		err = fs.ErrNotExist
	}
	return c, err
}

// ChangedDir implements chain.Past.
func (a *Archive) ChangedDir(ctx context.Context, from, to uint32, dir uint64) (chain.Change, error) {
	d, err := a.pairDiff(ctx, from, to, dir)
	if err != nil {
		return chain.Change{}, err
	}
	old, err1 := d.from.Dir(ctx, uint64(d.fromDir))
	now, err2 := d.to.Dir(ctx, dir)
	return chain.Change{Name: now.Name, Old: &old, New: &now}, errors.Join(err1, err2)
}

// child returns a child, nil if there is none.
func (t *tree) child(ctx context.Context, dir int64, name string) (n *index.Node, err error) {
	err = t.line.do(ctx, t.ord, func(c *index.Catalog) error {
		n, err = c.Lookup(ctx, t.ord, dir, name)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return n, err
}

// children reads a directory page by page.
type children struct {
	tree  *tree
	dir   int64
	page  []index.Node
	after string
	end   bool
}

func (c *children) fill(ctx context.Context) error {
	if len(c.page) > 0 || c.end {
		return nil
	}
	err := c.tree.line.do(ctx, c.tree.ord, func(cat *index.Catalog) (err error) {
		c.page, err = cat.Children(ctx, c.tree.ord, c.dir, c.after, pageSize)
		return err
	})
	if err != nil {
		return err
	}
	c.end = len(c.page) < pageSize
	if len(c.page) > 0 {
		c.after = c.page[len(c.page)-1].Name
	}
	return nil
}

// compare tells whose next name is first; one without any comes last.
func (c *children) compare(d *children) int {
	switch {
	case len(c.page) == 0:
		return 1
	case len(d.page) == 0:
		return -1
	}
	return cmp.Compare(c.page[0].Name, d.page[0].Name)
}

func (c *children) take() *index.Node {
	n := &c.page[0]
	c.page = c.page[1:]
	return n
}

// pairDiff compares a directory at two points.
type pairDiff struct {
	from, to *tree
	fromDir  int64
	toDir    int64
	below    map[int64]uint8 // of directories in the line of both; nil if that is not known
	back     bool            // below is for the other direction
}

func (a *Archive) pairDiff(ctx context.Context, from, to uint32, dir uint64) (*pairDiff, error) {
	d := &pairDiff{toDir: int64(dir)}
	for _, side := range []struct {
		tree   **tree
		number uint32
	}{{&d.from, from}, {&d.to, to}} {
		t, err := a.Tree(ctx, side.number)
		if err != nil {
			return nil, err
		}
		*side.tree = t.(*tree)
	}
	if d.from.line == d.to.line {
		d.fromDir = int64(dir)
		var err error
		first, last := d.from.ord, d.to.ord
		if d.back = first > last; d.back {
			first, last = last, first
		}
		d.below, err = a.changedDirs(ctx, d.from.line, first, last)
		return d, err
	}
	return d, d.elsewhere(ctx)
}

// elsewhere finds the directory in a line that has other numbers.
func (d *pairDiff) elsewhere(ctx context.Context) error {
	var p chain.Path
	err := d.to.line.do(ctx, d.to.ord, func(c *index.Catalog) (err error) {
		p, err = c.PathOf(ctx, d.toDir)
		return err
	})
	if err != nil {
		return err
	}
	return d.from.line.do(ctx, d.from.ord, func(c *index.Catalog) (err error) {
		d.fromDir, err = c.ID(ctx, p)
		return err
	})
}

// change says how a name differs; false if it does not.
func (d *pairDiff) change(v, w *index.Node) (c chain.Change, differs bool) {
	if v != nil {
		n := d.from.line.node(v)
		c.Old, c.Name = &n, n.Name
	}
	if w != nil {
		n := d.to.line.node(w)
		c.New, c.Name = &n, n.Name
	}
	switch {
	case c.Old == nil && c.New == nil:
		return c, false
	case c.Old == nil || c.New == nil:
		return c, true
	case c.Old.Type != chain.Dir || c.New.Type != chain.Dir:
		return c, (d.from.line != d.to.line || v.ID != w.ID) && !Same(c.Old, c.New)
	case d.below == nil:
		c.Below = chain.Added | chain.Modified | chain.Deleted
	default:
		c.Below = d.below[w.Dir()]
		if added, deleted := c.Below&chain.Added, c.Below&chain.Deleted; d.back {
			c.Below = c.Below&chain.Modified | added*chain.Deleted | deleted/chain.Deleted
		}
	}
	return c, c.Below != 0
}

// maxDiffs is how many pairs of points are remembered with the directories in
// which they differ: at most some 16 MiB each, where that is known at all.
const maxDiffs = 3

// changedKey names a pair of points of a line. from may be everLost.
type changedKey struct {
	line     *line
	from, to int
}

// changedDirs returns the directories beneath which two points of a line
// differ, or that lost something up to to if from is everLost; nil if they are
// too many.
func (a *Archive) changedDirs(ctx context.Context, l *line, from, to int) (map[int64]uint8, error) {
	k := changedKey{l, from, to}
	for {
		v, err, shared := a.diffing.Do(fmt.Sprint(l.key, from, to), func() (any, error) { return a.findChanged(ctx, k) })
		if err == nil {
			return v.(map[int64]uint8), nil
		}
		if !shared || ctx.Err() != nil || !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			return nil, err
		} // another one gave up
	}
}

// findChanged finds them among those remembered, or in the catalog.
func (a *Archive) findChanged(ctx context.Context, k changedKey) (map[int64]uint8, error) {
	a.mu.Lock()
	for i, d := range a.diffs {
		if d.key == k {
			a.diffs = append(slices.Delete(a.diffs, i, i+1), d)
			a.mu.Unlock()
			return d.dirs, nil
		}
	}
	a.mu.Unlock()
	var dirs map[int64]uint8
	err := k.line.do(ctx, k.to, func(c *index.Catalog) (err error) {
		if k.from == everLost {
			dirs, err = c.Lost(ctx)
		} else {
			dirs, err = c.Changed(ctx, k.from, k.to)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.diffs = append(a.diffs, changed{k, dirs})
	a.diffs = a.diffs[max(0, len(a.diffs)-maxDiffs):]
	return dirs, nil
}

// changed are the directories beneath which two points differ.
type changed struct {
	key  changedKey
	dirs map[int64]uint8
}
