package snapshot

import (
	"cmp"
	"context"
	"errors"
	"math/bits"
	"slices"

	"dupfs/chain"
	"dupfs/chain/index"
	"dupfs/chain/manifest"
	"dupfs/chain/store"
)

// Plan is what must be fetched to read the versions that were added, by what
// the catalogs know: nothing of the archive is read for it. Its memory is a bit
// for each chunk of the volumes that are needed. Not safe for concurrent use.
type Plan struct {
	a     *Archive
	needs map[volumeKey]*volumeNeed
}

// volumeNeed is what is needed of a volume.
type volumeNeed struct {
	chunks []uint64 // a bit each
	whole  bool     // all of it, to learn what it holds
}

// VolumeCost is what a Plan needs of one volume, in stored bytes.
type VolumeCost struct {
	File    string // its name; "" if the archive lacks it
	Missing bool   // the archive lacks it, or it is known to be damaged

	// Whole volumes are read to their end once, because it is not known yet
	// what they hold, or because they can only be read in order.
	Whole bool

	Bytes  int64 // needed, cached or not
	Cached int64 // of Bytes: on disk already
	// Requests is how many ranges the missing bytes are, neighbours together
	// as far as one request goes; reads that are not in order may need one for
	// each chunk, MostRequests.
	Requests, MostRequests int64
}

// Fetch returns the bytes that are yet to be fetched.
func (v *VolumeCost) Fetch() int64 { return v.Bytes - v.Cached }

// NewPlan returns a plan to which nothing was added.
func (a *Archive) NewPlan() *Plan { return &Plan{a: a, needs: map[volumeKey]*volumeNeed{}} }

// Add adds the whole content of a version. known is false if the volumes that
// hold it were not read yet: then those that may hold it are added, and what
// is read of them is an estimate.
func (p *Plan) Add(ctx context.Context, version uint64) (known bool, err error) {
	l, id, err := p.a.versionLine(version)
	if err != nil {
		return false, err
	}
	err = l.doVersion(ctx, id, func(c *index.Catalog) (err error) {
		known, err = p.add(ctx, l, c, id)
		return err
	})
	return known, err
}

func (p *Plan) add(ctx context.Context, l *line, c *index.Catalog, id int64) (bool, error) {
	unknown, err := p.extents(ctx, l, c, id)
	if err != nil || unknown == nil {
		return err == nil, err
	}
	for next := unknown.Version; next != 0; {
		if err := p.whole(ctx, l, c, next); err != nil {
			return false, err
		}
		base, err := c.Base(ctx, next)
		if err != nil || base == 0 {
			return false, err
		}
		// Below, it may be known again.
		if unknown, err = p.extents(ctx, l, c, base); err != nil || unknown == nil {
			return false, err
		}
		next = unknown.Version // older than the one before
	}
	return false, nil
}

// extents adds the chunks of a version, unless it, or one below it, is
// unknown.
func (p *Plan) extents(ctx context.Context, l *line, c *index.Catalog, id int64) (*index.UnknownError, error) {
	size, known, err := c.Open(ctx, id)
	if err != nil {
		return nil, err
	}
	if !known {
		return &index.UnknownError{Version: id}, nil
	}
	for off := int64(0); off < size; {
		ext, found, err := c.Extents(ctx, id, off, size-off)
		var unknown *index.UnknownError
		if errors.As(err, &unknown) {
			return unknown, nil
		}
		if err != nil {
			return nil, err
		}
		if found == 0 {
			return nil, nil // the read will say what is wrong
		}
		for _, e := range ext {
			if err := p.extent(ctx, l, c, e); err != nil {
				return nil, err
			}
		}
		off += found
	}
	return nil, nil
}

func (p *Plan) extent(ctx context.Context, l *line, c *index.Catalog, e index.Extent) error {
	key := volumeKey{l, e.Ord, e.Volume}
	f, err := l.file(ctx, c, e.Ord, e.Volume)
	if isLost(err) {
		p.need(key) // it is told of
		return nil
	}
	if err != nil {
		return err
	}
	n := p.need(key)
	if n.chunks == nil {
		n.chunks = make([]uint64, (f.Layout.Len()+63)/64)
	}
	for k := f.Layout.Find(e.Off); k <= f.Layout.Find(e.Off+e.Len-1); k++ {
		n.chunks[k/64] |= 1 << (k % 64)
	}
	return nil
}

func isLost(err error) bool {
	var lost *lostVolumeError
	var corrupt *chain.CorruptError
	return errors.As(err, &lost) || errors.As(err, &corrupt)
}

func (p *Plan) need(key volumeKey) *volumeNeed {
	n := p.needs[key]
	if n == nil {
		n = &volumeNeed{}
		p.needs[key] = n
	}
	return n
}

// whole adds the volumes that may hold a version and were not read yet.
func (p *Plan) whole(ctx context.Context, l *line, c *index.Catalog, id int64) error {
	n, err := c.Version(ctx, id)
	if err != nil {
		return err
	}
	path, err := c.PathOf(ctx, n.Dir())
	if err != nil {
		return err
	}
	vols, err := c.Volumes(ctx, n.Ord())
	for _, v := range vols {
		if !v.Known && (manifest.Volume{First: v.First, Last: v.Last}).MayHold(path) {
			p.need(volumeKey{l, n.Ord(), v.Number}).whole = true
		}
	}
	return err
}

// Volumes returns what is needed of each volume, in order of their names.
func (p *Plan) Volumes(ctx context.Context) ([]VolumeCost, error) {
	var out []VolumeCost
	for key, n := range p.needs {
		v, err := p.volume(ctx, key, n)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b VolumeCost) int { return cmp.Compare(a.File, b.File) })
	return out, nil
}

func (p *Plan) volume(ctx context.Context, key volumeKey, n *volumeNeed) (VolumeCost, error) {
	listed, ok := key.line.stored(key.ord, key.number)
	if !ok {
		return VolumeCost{Missing: true}, nil
	}
	all := VolumeCost{File: listed.File, Whole: true, Bytes: max(listed.Size, 0), Requests: 1, MostRequests: 1}
	if n.whole {
		return all, nil
	}
	var f *store.File
	err := key.line.do(ctx, key.ord, func(c *index.Catalog) (err error) {
		f, err = key.line.file(ctx, c, key.ord, key.number)
		return err
	})
	switch {
	case isLost(err) || err == nil && n.chunks == nil:
		return VolumeCost{File: listed.File, Missing: true}, nil
	case err != nil:
		return all, err
	case f.Layout.Ordered:
		return all, nil
	}
	return p.chunks(f, n), nil
}

// chunks counts what is needed of a volume that can be read by ranges.
func (p *Plan) chunks(f *store.File, n *volumeNeed) VolumeCost {
	out := VolumeCost{File: f.File()}
	last, begun, end := -2, int64(0), int64(0) // of the request that could go on
	for i, word := range n.chunks {
		for ; word != 0; word &= word - 1 {
			k := i*64 + bits.TrailingZeros64(word)
			c := f.Layout.Chunk(k)
			if p.a.st.OnDisk(f, k) {
				out.Cached += c.StoredLen
				out.Bytes += c.StoredLen
				continue
			}
			out.MostRequests++
			if k != last+1 || c.StoredOff+c.StoredLen-begun > store.MaxGet {
				out.Requests++
				begun, end = c.StoredOff, c.StoredOff
			}
			// Chunks that are encrypted overlap a little.
			out.Bytes += c.StoredOff + c.StoredLen - end
			last, end = k, c.StoredOff+c.StoredLen
		}
	}
	return out
}
