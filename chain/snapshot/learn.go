package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"dupfs/chain"
	"dupfs/chain/index"
	"dupfs/chain/manifest"
	"dupfs/chain/volume"
)

// maxPasses is how many volumes are read to their end at a time.
const maxPasses = 2

// learn makes the runs of a version known, reading those volumes of its set
// that are needed and were not read yet. Versions it is a delta on are not
// looked at. A *chain.CorruptError says that it cannot be known.
func (l *line) learn(ctx context.Context, c *index.Catalog, version int64) error {
	n, err := c.Version(ctx, version)
	if err != nil || n.Known || n.Type != chain.File {
		return err
	}
	p, err := c.PathOf(ctx, n.Dir())
	if err != nil {
		return err
	}
	vols, err := c.Volumes(ctx, n.Ord())
	if err != nil {
		return err
	}
	s := &search{line: l, cat: c, version: version, ord: n.Ord(), path: p, last: len(vols) - 1, vols: vols}
	// After a run that was interrupted and resumed a manifest can be wrong on
	// where a volume begins, so the others are tried as well.
	for _, likely := range []bool{true, false} {
		err := s.look(ctx, likely)
		if !errors.Is(err, errNotThere) {
			return err
		}
		if s.lost != nil {
			return s.lost.of(p)
		}
	}
	return chain.Corrupt(p.String(), fmt.Sprintf("no volume of set %s has it", l.set(n.Ord()).Times()))
}

// errNotThere says that the volumes looked into do not have a version.
var errNotThere = errors.New("not in these volumes")

// search looks for a version in the volumes of its set.
type search struct {
	line    *line
	cat     *index.Catalog
	version int64
	ord     int
	path    chain.Path
	vols    []index.VolumeRow
	last    int              // place of the last volume
	lost    *lostVolumeError // the first volume that could not be read
}

// look reads the volumes that the manifest names for the path, or all others,
// until the version is known.
func (s *search) look(ctx context.Context, likely bool) error {
	looked := false
	for i := range s.vols {
		v := &s.vols[i]
		if (manifest.Volume{First: v.First, Last: v.Last}).MayHold(s.path) != likely {
			continue
		}
		looked = true
		if v.Known {
			continue
		}
		if err := s.read(ctx, i); err != nil {
			return err
		}
		if n, err := s.cat.Version(ctx, s.version); err != nil || n.Known {
			return err
		}
	}
	if !looked {
		return errNotThere
	}
	return s.assemble(ctx)
}

// read reads a volume; one that cannot be read is noted.
func (s *search) read(ctx context.Context, i int) error {
	err := s.line.readVolume(ctx, s.cat, s.ord, &s.vols[i], i == s.last)
	var lost *lostVolumeError
	if errors.As(err, &lost) {
		if s.lost == nil {
			s.lost = lost
		}
		return nil
	}
	s.vols[i].Known = err == nil
	return err
}

// assemble puts the pieces together that the volumes have, reading more
// volumes if those go on with it.
func (s *search) assemble(ctx context.Context) error {
	read := func(ctx context.Context, volume int, p []byte, off int64) (int, error) {
		f, err := s.line.file(ctx, s.cat, s.ord, volume)
		if err != nil {
			return 0, err
		}
		return s.line.a.st.ReadAt(ctx, f, p, off)
	}
	for range len(s.vols) + 1 {
		err := s.cat.Assemble(ctx, s.version, read)
		var more *index.MoreError
		var lost *lostVolumeError
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return errNotThere
		case errors.As(err, &lost):
			return lost.of(s.path)
		case !errors.As(err, &more):
			return err
		}
		for i := range s.vols {
			if s.vols[i].Number == more.Volume {
				if err := s.read(ctx, i); err != nil {
					return err
				}
			}
		}
		if s.lost != nil {
			return s.lost.of(s.path)
		}
	}
	return chain.Corrupt(s.path.String(), "its pieces cannot be put together")
}

// readVolume reads a volume to its end, verifies it, and keeps what it holds.
// It is read once, however many ask for it. A *lostVolumeError says that it is
// damaged or missing.
func (l *line) readVolume(ctx context.Context, c *index.Catalog, ord int, v *index.VolumeRow, last bool) error {
	key := volumeKey{l, ord, v.Number}
	for {
		if reason := l.lostVolume(ord, v.Number); reason != "" {
			return &lostVolumeError{reason}
		}
		wait, mine := l.fly(key)
		if mine {
			defer l.land(key)
			return l.pass(ctx, c, ord, v, last)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return ctx.Err()
		}
		if now, err := c.Volume(ctx, ord, v.Number); err != nil || now.Known {
			return err
		}
	}
}

// fly reports whether the volume is the caller's to read; else it returns what
// is closed when somebody else has done it.
func (l *line) fly(k volumeKey) (wait chan struct{}, mine bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := l.flights[k]; wait != nil {
		return wait, false
	}
	if l.flights == nil {
		l.flights = map[volumeKey]chan struct{}{}
	}
	l.flights[k] = make(chan struct{})
	return nil, true
}

func (l *line) land(k volumeKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.flights[k])
	delete(l.flights, k)
}

// pass reads a volume and commits what it holds.
func (l *line) pass(ctx context.Context, c *index.Catalog, ord int, v *index.VolumeRow, last bool) error {
	if now, err := c.Volume(ctx, ord, v.Number); err != nil || now.Known {
		return err // somebody else was faster
	}
	listed, ok := l.stored(ord, v.Number)
	if !ok {
		return l.missing(ord, v.Number)
	}
	select {
	case l.a.passes <- struct{}{}:
		defer func() { <-l.a.passes }()
	case <-ctx.Done():
		return ctx.Err()
	}
	dir, err := l.path()
	if err != nil {
		return err
	}
	p, err := index.ReadVolume(ctx, l.a.st, listed, v.SHA1, last, filepath.Dir(dir))
	if err != nil {
		var corrupt *chain.CorruptError
		if errors.As(err, &corrupt) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, volume.ErrNotSeekable) {
			l.a.note("set %s: %v", l.set(ord).Times(), err)
			return l.lostError(ord, v.Number, err.Error())
		}
		return fmt.Errorf("%s: %w", listed.File, err)
	}
	err = c.Learn(ctx, ord, p)
	if cerr := p.Close(); err == nil {
		err = cerr
	}
	l.a.progress().Volumes.Add(1)
	l.a.progress().Bytes.Add(max(listed.Size, 0))
	return err
}

// LearnAll reads every set, and every volume that was not read yet, of all
// lines, so that nothing needs to be read again to know names, sizes and where
// the bytes are; and then those files whose content nobody has hashed: deltas,
// and what lies in several volumes. What is damaged is noted and left out.
func (a *Archive) LearnAll(ctx context.Context) error {
	// All sets first: how much there is to read is known then.
	err := a.eachSet(ctx, func(l *line, c *index.Catalog, ord int) error { return l.expect(ctx, c, ord) })
	if err != nil {
		return err
	}
	last := map[*line]int{}
	err = a.eachSet(ctx, func(l *line, c *index.Catalog, ord int) error {
		last[l] = ord
		return l.learnSet(ctx, c, ord)
	})
	if err != nil {
		return err
	}
	for l, ord := range last {
		if err := l.do(ctx, ord, func(c *index.Catalog) error { return l.hashAll(ctx, c, ord) }); err != nil {
			return err
		}
	}
	return nil
}

// eachSet calls fn for all sets of all lines, once they are merged. A line ends
// before a set that cannot be: that was noted.
func (a *Archive) eachSet(ctx context.Context, fn func(l *line, c *index.Catalog, ord int) error) error {
	type part struct {
		line  *line
		first int
	}
	a.mu.Lock()
	var parts []part
	for _, l := range a.col.Lines {
		p := part{line: a.lines[lineKey(l)]}
		if l.Fork { // the others are sets of the chain's own line as well
			p.first = len(l.Sets) - 1
		}
		if p.line != nil {
			parts = append(parts, p)
		}
	}
	a.mu.Unlock()
	for _, p := range parts {
		for ord := p.first; p.line.set(ord) != nil; ord++ {
			err := p.line.do(ctx, ord, func(c *index.Catalog) error { return fn(p.line, c, ord) })
			if err != nil && (!final(err) || ctx.Err() != nil) {
				return err
			}
			if err != nil {
				break
			}
		}
	}
	return nil
}

// expect counts the bytes of a set that are to be read.
func (l *line) expect(ctx context.Context, c *index.Catalog, ord int) error {
	vols, err := c.Volumes(ctx, ord)
	if err != nil {
		return err
	}
	for _, v := range vols {
		if listed, ok := l.stored(ord, v.Number); ok && !v.Known {
			l.a.progress().Expected.Add(max(listed.Size, 0))
		}
	}
	return nil
}

// learnSet reads the volumes of a set and puts the files together that lie in
// several.
func (l *line) learnSet(ctx context.Context, c *index.Catalog, ord int) error {
	vols, err := c.Volumes(ctx, ord)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(maxPasses)
	for i := range vols {
		if vols[i].Known {
			continue
		}
		g.Go(func() error {
			err := l.readVolume(gctx, c, ord, &vols[i], i == len(vols)-1)
			var lost *lostVolumeError
			if errors.As(err, &lost) {
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return c.Unknown(ctx, ord, func(version int64) error {
		err := l.learn(ctx, c, version)
		var corrupt *chain.CorruptError
		if errors.As(err, &corrupt) {
			l.a.progress().Damaged.Add(1)
			l.a.note("set %s: %v", l.set(ord).Times(), err)
			return nil
		}
		return err
	})
}
