package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"dupfs/chain"
	"dupfs/chain/index"
	"dupfs/chain/store"
)

// line is one history of the archive and its catalog.
type line struct {
	a    *Archive
	key  string
	slot uint64
	lock chan struct{} // one token: who opens, merges or discards the catalog

	mu      sync.Mutex
	sets    []*chain.Set
	gaps    []string         // of sets, by ordinal: volumes that the listing lacks
	checked *index.Catalog   // whose sets were compared with those of the line
	merged  int              // sets of checked that are those of the line
	listing int              // counts the listings
	looked  bool             // the volumes of the merged sets were looked for in the listing, and new indexes
	refused map[string]int64 // indexes that do not fit, and their sizes
	private bool             // the catalog is in the temporary directory
	faults  map[int]string   // of sets, by ordinal
	lost    map[volumeKey]string
	flights map[volumeKey]chan struct{} // volumes being read
}

// update takes the sets of a new listing.
func (l *line) update(sets []*chain.Set) {
	l.mu.Lock()
	defer l.mu.Unlock()
	same := len(sets) >= len(l.sets) && slices.EqualFunc(l.sets, sets[:len(l.sets)], sameSet)
	l.sets, l.gaps = sets, make([]string, len(sets))
	for i, s := range sets {
		if n := gap(s.Volumes); n > 0 {
			l.gaps[i] = fmt.Sprintf("volume %d of set %s is missing", n, s.Times())
		}
	}
	if !same {
		l.checked, l.merged = nil, 0
	}
	// What was damaged or missing may have come back.
	l.faults, l.lost, l.looked = nil, nil, false
	l.listing++
}

// sameSet compares two sets of one place, of different listings.
func sameSet(a, b *chain.Set) bool {
	return a.Times() == b.Times() && a.Manifest.File == b.Manifest.File && a.Manifest.Size == b.Manifest.Size
}

// set returns the set with an ordinal.
func (l *line) set(ord int) *chain.Set {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ord >= len(l.sets) {
		return nil
	}
	return l.sets[ord]
}

// fault notes that a set cannot be used as it should.
func (l *line) fault(ord int, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.faults == nil {
		l.faults = map[int]string{}
	}
	l.faults[ord] = reason
}

// lose notes that a volume cannot be read.
func (l *line) lose(ord, number int, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost == nil {
		l.lost = map[volumeKey]string{}
	}
	l.lost[volumeKey{nil, ord, number}] = reason
}

// lostVolume returns why a volume cannot be read, "" if nothing is known.
func (l *line) lostVolume(ord, number int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost[volumeKey{nil, ord, number}]
}

// damage says what is known to be wrong with a point.
func (l *line) damage(ord int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, reason := range l.gaps[:min(ord+1, len(l.gaps))] {
		if fault := l.faults[i]; fault != "" {
			return fault
		}
		if reason != "" {
			return reason
		}
	}
	first := ""
	at := volumeKey{ord: ord + 1}
	for k, reason := range l.lost {
		if k.ord < at.ord || k.ord == at.ord && k.number < at.number {
			at, first = k, reason
		}
	}
	return first
}

// gap returns the number of the first volume that is missing before another
// one, 0 if there is none.
func gap(vols []chain.Stored) int {
	if len(vols) == 0 {
		return 1
	}
	for i, v := range vols {
		if v.Volume != i+1 {
			return i + 1
		}
	}
	return 0
}

// path returns where the catalog is.
func (l *line) path() (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.private {
		return filepath.Join(l.a.dir, l.key+".db"), nil
	}
	dir, err := l.a.temp()
	return filepath.Join(dir, l.key+".db"), err
}

// do calls fn with the catalog once the sets up to ord are merged. If the
// catalog turns out to be damaged, it is made again, once, and fn called again.
func (l *line) do(ctx context.Context, ord int, fn func(c *index.Catalog) error) error {
	for try := 0; ; try++ {
		err := l.try(ctx, ord, fn)
		switch {
		case try == 2, err == nil, ctx.Err() != nil:
			return err
		case errors.Is(err, index.ErrInUse), errors.Is(err, index.ErrBusy), errors.Is(err, index.ErrNoAccess):
			// Another process must not hold us up: work without it.
			l.a.note("the catalog of %s cannot be used, a private one is made: %v", l.key, err)
			l.hide()
		case errors.Is(err, index.ErrFull) && l.hidden():
			return fmt.Errorf("temporary directory %s: %w", os.TempDir(), err)
		case errors.Is(err, index.ErrFull):
			l.a.warn("%s has no room for the catalog, so a temporary one is made: %v", l.a.dir, err)
			l.hide()
		case errors.Is(err, index.ErrBadCatalog):
			l.a.note("the catalog of %s is made again: %v", l.key, err)
		default:
			return err
		}
	}
}

// hide makes the catalog a private, temporary one.
func (l *line) hide() {
	l.mu.Lock()
	l.private, l.checked = true, nil
	l.mu.Unlock()
	l.a.catalogs.forgetLine(l)
}

func (l *line) hidden() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.private
}

// doVersion is do with the point of a version.
func (l *line) doVersion(ctx context.Context, version int64, fn func(c *index.Catalog) error) error {
	ord := index.OrdOf(version)
	if l.set(ord) == nil {
		return fs.ErrNotExist
	}
	return l.do(ctx, ord, fn)
}

func (l *line) try(ctx context.Context, ord int, fn func(c *index.Catalog) error) error {
	e, err := l.ready(ctx, ord)
	if err != nil {
		return err
	}
	defer func() { l.a.catalogs.release(e) }()
	err = fn(e.cat)
	switch {
	case err == nil:
	case l.a.catalogs.isGone(e): // another one found it damaged and closed it
		err = fmt.Errorf("%w: %w", index.ErrBadCatalog, err)
	case errors.Is(err, index.ErrBadCatalog):
		err = errors.Join(err, l.discard(ctx, e))
	}
	return err
}

// discard removes a catalog that is damaged.
func (l *line) discard(ctx context.Context, e *entry) error {
	select {
	case l.lock <- struct{}{}:
		defer func() { <-l.lock }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if l.a.catalogs.isGone(e) {
		return nil
	}
	l.a.layouts.drop(l)
	l.a.catalogs.forget(e)
	return e.cat.Discard()
}

// ready returns the catalog with the sets up to ord merged.
func (l *line) ready(ctx context.Context, ord int) (*entry, error) {
	if e := l.a.catalogs.use(l); e != nil {
		if l.isMerged(e.cat, ord) {
			if err := l.look(ctx, e.cat); err != nil {
				l.a.catalogs.release(e)
				return nil, err
			}
			return e, nil
		}
		l.a.catalogs.release(e)
	}
	select {
	case l.lock <- struct{}{}:
		defer func() { <-l.lock }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	e, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	merged := false
	defer func() {
		if !merged { // also when it panics: the catalog must not stay in use
			l.a.catalogs.release(e)
		}
	}()
	if err := l.mergeTo(ctx, e, ord); err != nil {
		return nil, err
	}
	merged = true
	return e, nil
}

// opened returns the catalog, with whatever is merged.
func (l *line) opened(ctx context.Context) (*entry, error) {
	select {
	case l.lock <- struct{}{}:
		defer func() { <-l.lock }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return l.open(ctx)
}

// open opens the catalog. The line's lock is held.
func (l *line) open(ctx context.Context) (*entry, error) {
	if e := l.a.catalogs.use(l); e != nil {
		return e, nil
	}
	path, err := l.path()
	if err != nil {
		return nil, err
	}
	c, err := index.OpenCatalog(ctx, path)
	if err != nil {
		return nil, err
	}
	return l.a.catalogs.add(l, c)
}

func (l *line) isMerged(c *index.Catalog, ord int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.checked == c && l.merged > ord
}

// maxAhead is how many sets are opened before their turn comes.
const maxAhead = 4

// mergeTo merges the sets up to ord that are not merged yet. The line's lock
// is held. A catalog that is not of these sets is thrown away.
func (l *line) mergeTo(ctx context.Context, e *entry, ord int) error {
	ahead := map[int]*prepared{}
	defer func() {
		for _, p := range ahead {
			p.release()
		}
	}()
	for !l.isMerged(e.cat, ord) {
		next, err := l.check(ctx, e.cat)
		if errors.Is(err, index.ErrBadCatalog) {
			l.a.layouts.drop(l)
			l.a.catalogs.forget(e)
			return errors.Join(err, e.cat.Discard())
		}
		if err != nil {
			return err
		}
		if next > ord {
			break
		}
		for i := next; i <= min(ord, next+maxAhead); i++ {
			set := l.set(i)
			if set == nil { // a new listing lacks it
				return fmt.Errorf("set %d of %s: %w", i, l.key, fs.ErrNotExist)
			}
			if ahead[i] == nil {
				ahead[i] = l.prepare(ctx, set)
			}
		}
		err = l.mergeSet(ctx, e.cat, next, ahead[next])
		ahead[next].release()
		delete(ahead, next)
		if err != nil && !errors.Is(err, index.ErrMerged) {
			return err
		}
		l.a.progress().Sets.Add(1)
	}
	return nil
}

// check compares what is merged with the sets of the line, and returns the
// ordinal of the first one that is not.
func (l *line) check(ctx context.Context, c *index.Catalog) (int, error) {
	have, err := c.Sets(ctx)
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	sets, listing := l.sets, l.listing
	l.mu.Unlock()
	for i, h := range have[:min(len(have), len(sets))] {
		s := sets[i]
		if h.Times != s.Times() || h.Manifest.File != s.Manifest.File || h.Manifest.Size != s.Manifest.Size {
			return 0, fmt.Errorf("%w: it is of another archive", index.ErrBadCatalog)
		}
	}
	if err := l.look(ctx, c); err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listing == listing {
		l.checked, l.merged = c, len(have)
	}
	return len(have), nil
}

// look notes which volumes of the merged sets a new listing lacks, and takes
// indexes that it has and that were not there when their sets were merged.
func (l *line) look(ctx context.Context, c *index.Catalog) error {
	l.mu.Lock()
	sets, looked := l.sets, l.looked
	l.looked = true
	l.mu.Unlock()
	if looked {
		return nil
	}
	listed := -1
	var there map[int]bool
	err := c.EachVolume(ctx, func(ord, number int) {
		if ord >= len(sets) {
			return
		}
		if ord != listed {
			listed, there = ord, map[int]bool{}
			for _, v := range sets[ord].Volumes {
				there[v.Volume] = true
			}
		}
		if !there[number] {
			_ = l.missing(ord, number) // it is noted
		}
	})
	if err != nil {
		return err
	}
	return l.adopt(ctx, c)
}

// stored returns a volume as it is listed; false if it is missing.
func (l *line) stored(ord, number int) (chain.Stored, bool) {
	set := l.set(ord)
	if set == nil {
		return chain.Stored{}, false
	}
	for _, v := range set.Volumes {
		if v.Volume == number {
			return v, true
		}
	}
	return chain.Stored{}, false
}

// file returns a volume that can be read by ranges. A volume that nobody read
// yet is read first.
func (l *line) file(ctx context.Context, c *index.Catalog, ord, number int) (*store.File, error) {
	k := volumeKey{l, ord, number}
	if f := l.a.layouts.get(k); f != nil {
		return f, nil
	}
	v, err := c.Volume(ctx, ord, number)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", index.ErrBadCatalog, err)
	}
	if err != nil {
		return nil, err
	}
	listed, ok := l.stored(ord, number)
	if !ok {
		return nil, l.missing(ord, number)
	}
	if v.Layout == nil {
		return nil, fmt.Errorf("%w: %s has no layout", index.ErrBadCatalog, listed.File)
	}
	if listed.Size >= 0 && listed.Size != v.Layout.StoredSize && !l.a.st.CanHeal(listed.File) {
		// What is left of it may be intact: each chunk has its hash.
		l.fault(ord, fmt.Sprintf("%s has %d bytes instead of %d", listed.File, listed.Size, v.Layout.StoredSize))
	}
	v.Layout.Name = listed.File
	f := &store.File{Stored: listed, Layout: v.Layout}
	l.a.layouts.add(k, f)
	return f, nil
}

// missing notes a missing volume and returns the error for it.
func (l *line) missing(ord, number int) error {
	return l.lostError(ord, number, fmt.Sprintf("volume %d of set %s is missing", number, l.set(ord).Times()))
}

// lostError notes that a volume cannot be used and returns the error for it.
func (l *line) lostError(ord, number int, reason string) error {
	l.lose(ord, number, reason)
	return &lostVolumeError{reason}
}

// lostVolumeError is a *chain.CorruptError of a volume, before it is known
// which file it hits.
type lostVolumeError struct{ reason string }

func (e *lostVolumeError) Error() string { return e.reason }

// of returns the error as that of an entry.
func (e *lostVolumeError) of(p chain.Path) error { return chain.Corrupt(p.String(), e.reason) }
