// Package snapshot shows an archive as its points in time: it reads sets into
// the catalogs of their lines, learns what stock duplicity's sets do not tell,
// and implements chain.Forest over them. Begin with Open.
//
// A set that dupfs wrote is read from its index, a small object. For any
// other the sigtar gives names and metadata, and its volumes are read, once
// each and verified, when the exact size or the content of a file in them is
// asked for. What was read stays in the catalogs.
//
// Memory: that of the open catalogs (at most maxOpen) and layoutBudget for the
// layouts of volumes, beside what the store holds.
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"dupfs/chain"
	"dupfs/chain/index"
	"dupfs/chain/manifest"
	"dupfs/chain/store"
	"dupfs/internal/scratch"
)

// ErrBefore says that the archive has no point at or before a time.
var ErrBefore = errors.New("the archive has no backup from that time or before")

// Options of an Archive.
type Options struct {
	// Dir keeps the catalogs, private to the user; "": a temporary directory
	// that Close removes. It must not be shared by different archives.
	Dir string
	// MaxAge is how old the listing may be before Points lists the archive
	// again; 0: the listing of Open serves until Refresh.
	MaxAge time.Duration
	// Note, if not nil, receives remarks on what was found wrong and how it
	// was helped. It may be called from several goroutines.
	Note func(string)
	// Warn is Note for what the user should do something about.
	Warn func(string)
	// Salvage opens sets whose base is missing, too: their trees have what these
	// sets hold themselves, and a file of which they hold only the change is
	// damaged. What they do not mention is not there. And sets without a
	// manifest: all their volumes are read, and their trees have what those that
	// are intact hold.
	Salvage bool
	// Progress, if not nil, counts long work.
	Progress *Progress
}

// Progress counts what was read into catalogs. Any goroutine may read it.
type Progress struct {
	Sets    atomic.Int64 // merged
	Volumes atomic.Int64 // read to learn what they hold
	Bytes   atomic.Int64 // stored bytes of these volumes
	// Expected is how many bytes LearnAll will have added to Bytes in the end,
	// as far as it knows.
	Expected atomic.Int64
	Damaged  atomic.Int64 // files that LearnAll could not learn
	Indexes  atomic.Int64 // stored by Upload
}

// Archive is a chain.Forest over an archive in a store. Safe for concurrent use.
type Archive struct {
	st      *store.Store
	o       Options
	dir     string // of the catalogs
	temp    func() (string, error)
	cleanup func() error

	counts   *Progress
	catalogs *pool
	layouts  *layoutCache
	passes   chan struct{} // one token for each volume being read
	refresh  singleflight.Group
	diffing  singleflight.Group

	mu      sync.Mutex
	col     *chain.Collection
	asked   time.Time // when the archive was listed last, or that was tried
	lines   map[string]*line
	slots   map[uint64]*line
	numbers map[string]uint32 // of points, by key
	taken   map[uint32]string
	points  []point
	diffs   []changed // the pair used last is last
	answers map[beneath]uint8
	made    map[string]*manifest.Manifest // by Salvage, by the name they would have
}

// point is a chain.Point and where it is.
type point struct {
	chain.Point
	line *line // nil for a set whose base is missing
	ord  int
}

var _ chain.Forest = (*Archive)(nil)

// Open lists the archive and returns it. Catalogs are filled when a point is
// first used. The store must stay open until Close.
func Open(ctx context.Context, st *store.Store, o Options) (*Archive, error) {
	a := &Archive{
		st: st, o: o, dir: o.Dir,
		catalogs: newPool(), layouts: newLayoutCache(), passes: make(chan struct{}, maxPasses),
		lines: map[string]*line{}, slots: map[uint64]*line{}, numbers: map[string]uint32{}, taken: map[uint32]string{},
	}
	if a.counts = o.Progress; a.counts == nil {
		a.counts = new(Progress)
	}
	var once sync.Once
	var temp *scratch.Dir
	var tempErr error
	a.temp = func() (string, error) {
		once.Do(func() { temp, tempErr = scratch.New("", "dupfs-catalog-") })
		if tempErr != nil {
			return "", tempErr
		}
		return temp.Path, nil
	}
	a.cleanup = func() error {
		once.Do(func() {})
		if temp == nil {
			return nil
		}
		return temp.Close()
	}
	if o.Dir == "" {
		dir, err := a.temp()
		if err != nil {
			return nil, fmt.Errorf("directory for catalogs: %w", err)
		}
		a.dir = dir
	}
	if err := a.Refresh(ctx); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

// Close closes the catalogs. Nothing of the archive may be used after it.
func (a *Archive) Close() error { return errors.Join(a.catalogs.close(), a.cleanup()) }

func (a *Archive) note(format string, args ...any) {
	if a.o.Note != nil {
		a.o.Note(fmt.Sprintf(format, args...))
	}
}

func (a *Archive) warn(format string, args ...any) {
	if a.o.Warn != nil {
		a.o.Warn(fmt.Sprintf(format, args...))
	}
}

// Progress returns the counters of the Options, or of the Archive's own.
func (a *Archive) Progress() *Progress { return a.progress() }

func (a *Archive) progress() *Progress { return a.counts }

// Collection returns the sets of the newest listing. Nobody may change it.
func (a *Archive) Collection() *chain.Collection {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.col
}

// Refresh lists the archive again. One request.
func (a *Archive) Refresh(ctx context.Context) error {
	files, unknown, err := a.st.ListAll(ctx)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = time.Now()
	if err != nil {
		return err
	}
	a.col = chain.Collect(files)
	if lost := a.standIns(); len(lost) > 0 {
		a.col = chain.Collect(slices.Concat(files, lost))
	}
	a.col.Unknown = append(a.col.Unknown, unknown...)
	slices.Sort(a.col.Unknown)
	a.draw()
	return nil
}

// draw makes lines and points of the collection. The lock is held.
func (a *Archive) draw() {
	lines := map[string]*line{}
	a.points = nil
	for _, l := range a.col.Lines {
		key := lineKey(l)
		ln := a.lines[key]
		if ln == nil {
			if ln = a.newLine(key); ln == nil {
				continue
			}
		}
		ln.update(l.Sets)
		lines[key] = ln
		first := 0
		if l.Fork {
			first = len(l.Sets) - 1 // the others are points of the chain's own line
		}
		for ord := first; ord < len(l.Sets); ord++ {
			a.points = append(a.points, a.newPoint(ln, ord, l))
		}
	}
	a.drawOrphans(lines)
	a.lines = lines
	slices.SortStableFunc(a.points, func(p, q point) int { return p.Time.Compare(q.Time) })
}

// drawOrphans makes points of the sets whose base is missing. Nobody can read
// them, unless they are salvaged, but without them an older point would pass for
// the newest one. The lock is held.
func (a *Archive) drawOrphans(lines map[string]*line) {
	salvaged := map[*line][]*chain.Set{}
	for _, s := range a.col.Orphaned {
		if slices.ContainsFunc(a.col.Lines, func(l *chain.Line) bool { return slices.Contains(l.Sets, s) }) {
			continue
		}
		p := point{Point: chain.Point{Time: s.End, Full: s.Full, Number: a.number("orphan " + s.Times()), Orphan: true}}
		p.Damage = "it builds on the set of " + s.Start.UTC().Format(time.RFC3339) + ", which is missing or has no manifest"
		if a.o.Salvage {
			p.line = a.orphanLine(s, salvaged)
			p.ord = len(salvaged[p.line]) - 1
		}
		a.points = append(a.points, p)
	}
	for ln, sets := range salvaged {
		ln.update(sets)
		lines[ln.key] = ln
	}
}

// orphanLine adds an orphan to the line of that which it builds on, or to one of
// its own; nil if there is no place for one. Its catalog does not outlive the
// process: the base may come back. The lock is held.
func (a *Archive) orphanLine(s *chain.Set, all map[*line][]*chain.Set) *line {
	for ln, sets := range all {
		if sets[len(sets)-1].End.Equal(s.Start) {
			all[ln] = append(sets, s)
			return ln
		}
	}
	key := "orphan-" + strings.ReplaceAll(s.Times(), ".", "-")
	ln := a.lines[key]
	if ln == nil {
		if ln = a.newLine(key); ln == nil {
			return nil
		}
		ln.private = true
	}
	all[ln] = []*chain.Set{s}
	return ln
}

// lineKey names a line for ever: by its full set, and for a fork its last one.
func lineKey(l *chain.Line) string {
	key := l.Sets[0].Times()
	if l.Fork {
		key += "-" + strings.ReplaceAll(l.Sets[len(l.Sets)-1].Times(), ".", "-")
	}
	return key
}

const (
	slotBits = 56 - index.VersionBits // of a Version number
	numBits  = 24                     // of a Point's number
)

func spread(s string, bits int) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s)) // never fails
	v := h.Sum64()
	return (v ^ v>>32) & (1<<bits - 1)
}

// newLine makes a line and finds it a place among the version numbers; nil if
// there is none left. The lock is held.
func (a *Archive) newLine(key string) *line {
	slot := spread(key, slotBits)
	for range 1 << slotBits {
		if a.slots[slot] == nil {
			ln := &line{a: a, key: key, slot: slot, lock: make(chan struct{}, 1)}
			a.slots[slot] = ln
			return ln
		}
		if a.slots[slot].key == key { // it was gone for a while
			return a.slots[slot]
		}
		slot = (slot + 1) & (1<<slotBits - 1)
	}
	a.note("more than %d chains: %s is left out", 1<<slotBits, key)
	return nil
}

// newPoint makes the point at a set. Its number is that of its names, or the
// next one that is free. The lock is held.
func (a *Archive) newPoint(ln *line, ord int, l *chain.Line) point {
	set := l.Sets[ord]
	number := a.number(ln.key + " " + set.Times())
	p := point{line: ln, ord: ord, Point: chain.Point{Time: set.End, Number: number, Full: set.Full}}
	for _, s := range l.Sets[:ord+1] {
		if standsIn(s) {
			p.Unsure, p.Damage = true, "the set of "+s.End.UTC().Format(time.RFC3339)+" has no manifest: nothing shows that what is left is all of it"
		}
	}
	return p
}

// number returns the number of the point with that key. The lock is held.
func (a *Archive) number(key string) uint32 {
	number, ok := a.numbers[key]
	if !ok {
		number = uint32(spread(key, numBits))
		for a.taken[number] != "" {
			number = (number + 1) & (1<<numBits - 1)
		}
		a.numbers[key], a.taken[number] = number, key
	}
	return number
}

// Points implements chain.Forest. When the archive cannot be listed again, the
// points known before are returned.
func (a *Archive) Points(ctx context.Context) ([]chain.Point, error) {
	if a.stale() {
		_, err, _ := a.refresh.Do("", func() (any, error) {
			if !a.stale() {
				return nil, nil
			}
			return nil, a.Refresh(ctx)
		})
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			a.note("the archive could not be listed again: %v", err)
		}
	}
	a.mu.Lock()
	points := slices.Clone(a.points)
	a.mu.Unlock()
	out := make([]chain.Point, len(points))
	for i, p := range points {
		out[i] = p.Point
		if p.line != nil && !p.Orphan && !p.Unsure {
			out[i].Damage = p.line.damage(p.ord)
		}
	}
	return out, nil
}

func (a *Archive) stale() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.o.MaxAge > 0 && time.Since(a.asked) > a.o.MaxAge
}

// Tree implements chain.Forest. The sets up to that point are merged into the
// line's catalog first if they are not yet.
func (a *Archive) Tree(ctx context.Context, number uint32) (chain.Tree, error) {
	a.mu.Lock()
	i := slices.IndexFunc(a.points, func(p point) bool { return p.Number == number })
	var p point
	if i >= 0 {
		p = a.points[i]
	}
	a.mu.Unlock()
	if i < 0 {
		return nil, fmt.Errorf("point %d: %w", number, fs.ErrNotExist)
	}
	if p.line == nil {
		return nil, chain.Corrupt("the backup of "+p.Time.UTC().Format(time.RFC3339), p.Damage)
	}
	err := p.line.do(ctx, p.ord, func(*index.Catalog) error { return nil })
	if err != nil {
		return nil, err
	}
	return &tree{p.line, p.ord}, nil
}

// versionLine splits the number of a version.
func (a *Archive) versionLine(version uint64) (*line, int64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ln := a.slots[version>>index.VersionBits]
	id := int64(version & (1<<index.VersionBits - 1))
	if ln == nil || a.lines[ln.key] != ln {
		return nil, 0, fmt.Errorf("version %d: %w", version, fs.ErrNotExist)
	}
	return ln, id, nil
}

// Version implements chain.Forest.
func (a *Archive) Version(ctx context.Context, version uint64) (chain.Node, error) {
	ln, id, err := a.versionLine(version)
	if err != nil {
		return chain.Node{}, err
	}
	var out chain.Node
	err = ln.doVersion(ctx, id, func(c *index.Catalog) error {
		n, err := ln.exact(ctx, c, id)
		if err == nil {
			out = ln.node(n)
		}
		return err
	})
	return out, err
}
