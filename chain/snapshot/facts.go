package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"dupfs/chain"
	"dupfs/chain/index"
	"dupfs/chain/manifest"
	"dupfs/chain/store"
)

var _ chain.Teller = (*Archive)(nil)

// Facts implements chain.Teller. Its memory is a bit for each chunk of the
// volumes that the version lies in.
func (a *Archive) Facts(ctx context.Context, version uint64) (chain.Facts, error) {
	l, id, err := a.versionLine(version)
	if err != nil {
		return chain.Facts{}, err
	}
	var out chain.Facts
	err = l.doVersion(ctx, id, func(c *index.Catalog) error {
		out = chain.Facts{}
		n, err := c.Version(ctx, id)
		if err != nil {
			return err
		}
		out.Set = l.set(n.Ord()).Times()
		if n.Type != chain.File || n.Size == 0 {
			return nil
		}
		t := &tally{l: l, c: c, chunks: map[volumeKey]*volumeTally{}}
		err = t.whole(ctx, id, n.Size)
		var unknown *index.UnknownError
		var corrupt *chain.CorruptError
		switch {
		case errors.As(err, &unknown):
			*t = tally{l: l, c: c, chunks: map[volumeKey]*volumeTally{}, bound: true}
			err = t.guess(ctx, id)
		case errors.As(err, &corrupt):
			t.damage, err = corrupt.Reason, nil
		}
		if err == nil {
			t.fill(&out)
		}
		return err
	})
	return out, err
}

// tally adds up what a version needs.
type tally struct {
	l      *line
	c      *index.Catalog
	chunks map[volumeKey]*volumeTally
	bound  bool
	damage string
}

// volumeTally is what is needed of a volume.
type volumeTally struct {
	file   string
	fetch  int64
	cached int64
	f      *store.File
	seen   []uint64 // bit k: chunk k is counted
}

// whole adds all of a version whose runs are known.
func (t *tally) whole(ctx context.Context, id, size int64) error {
	for off := int64(0); off < size; {
		ext, found, err := t.c.Extents(ctx, id, off, size-off)
		if err != nil {
			return err
		}
		if found == 0 {
			return chain.Corrupt("", "it is shorter than its size")
		}
		off += found
		for _, e := range ext {
			if err := t.extent(ctx, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// extent adds the chunks that an extent touches.
func (t *tally) extent(ctx context.Context, e index.Extent) error {
	k := volumeKey{t.l, e.Ord, e.Volume}
	v := t.chunks[k]
	if v == nil {
		f, err := t.l.file(ctx, t.c, e.Ord, e.Volume)
		var lost *lostVolumeError
		if errors.As(err, &lost) {
			t.damage = cmp.Or(t.damage, lost.reason)
			t.chunks[k] = &volumeTally{}
			return nil
		}
		if err != nil {
			return err
		}
		v = &volumeTally{file: f.File(), f: f, seen: make([]uint64, f.Layout.Len()/64+1)}
		t.chunks[k] = v
	}
	if v.f == nil || e.Len == 0 {
		return nil
	}
	if reason := t.l.lostVolume(e.Ord, e.Volume); reason != "" {
		t.damage = cmp.Or(t.damage, reason)
	}
	for i, last := v.f.Layout.Find(e.Off), v.f.Layout.Find(e.Off+e.Len-1); i <= last; i++ {
		if v.seen[i/64]>>(i%64)&1 != 0 {
			continue
		}
		v.seen[i/64] |= 1 << (i % 64)
		if n := v.f.Layout.Chunk(i).StoredLen; t.l.a.st.Holds(v.f, i) {
			v.cached += n
		} else {
			v.fetch += n
		}
	}
	return nil
}

// guess adds the volumes that may hold a version, or those before that its
// delta may need.
func (t *tally) guess(ctx context.Context, id int64) error {
	p, err := t.c.PathOf(ctx, index.PathOf(id))
	if err != nil {
		return err
	}
	for ; id != 0; id, err = t.c.Base(ctx, id) {
		if err != nil {
			return err
		}
		ord := index.OrdOf(id)
		rows, err := t.c.Volumes(ctx, ord)
		if err != nil {
			return err
		}
		listed := map[int]chain.Stored{}
		for _, v := range t.l.set(ord).Volumes {
			listed[v.Volume] = v
		}
		for _, r := range rows {
			if !(manifest.Volume{First: r.First, Last: r.Last}).MayHold(p) {
				continue
			}
			v, ok := listed[r.Number]
			if !ok {
				t.damage = cmp.Or(t.damage, fmt.Sprintf("volume %d of set %s is missing", r.Number, t.l.set(ord).Times()))
				continue
			}
			if reason := t.l.lostVolume(ord, r.Number); reason != "" {
				t.damage = cmp.Or(t.damage, reason)
			}
			t.chunks[volumeKey{t.l, ord, r.Number}] = &volumeTally{file: v.File, fetch: max(v.Size, 0)}
		}
	}
	return nil
}

// fill writes the sums.
func (t *tally) fill(out *chain.Facts) {
	keys := make([]volumeKey, 0, len(t.chunks))
	for k := range t.chunks {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b volumeKey) int {
		return cmp.Or(cmp.Compare(a.ord, b.ord), cmp.Compare(a.number, b.number))
	})
	for _, k := range keys {
		v := t.chunks[k]
		if v.file == "" {
			continue
		}
		out.Volumes = append(out.Volumes, v.file)
		out.Fetch += v.fetch
		out.Cached += v.cached
		if tier := t.l.a.st.Tier(v.file); tier != "" && !slices.Contains(out.Tiers, tier) {
			out.Tiers = append(out.Tiers, tier)
		}
	}
	out.Bound, out.Damaged = t.bound, t.damage
}

// Damaged returns what is known to be damaged or missing in any set, each
// once.
func (a *Archive) Damaged() []string {
	a.mu.Lock()
	lines := make([]*line, 0, len(a.lines))
	for _, l := range a.lines {
		lines = append(lines, l)
	}
	a.mu.Unlock()
	var all []string
	for _, l := range lines {
		all = append(all, l.troubles()...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// troubles returns everything known to be wrong with the line.
func (l *line) troubles() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for _, reason := range l.gaps {
		if reason != "" {
			all = append(all, reason)
		}
	}
	for _, reason := range l.faults {
		all = append(all, reason)
	}
	for _, reason := range l.lost {
		all = append(all, reason)
	}
	return all
}
