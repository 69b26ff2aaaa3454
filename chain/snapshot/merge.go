package snapshot

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"

	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/chain/index"
	"dupfs/chain/manifest"
	"dupfs/chain/sigtar"
	"dupfs/chain/store"
	"dupfs/chain/volume"
)

// prepared is what was opened of a set before its turn to be merged came: what
// takes long is to wait for the archive and to derive keys.
type prepared struct {
	set     *chain.Set
	done    chan struct{} // closed once the rest is set
	man     *manifest.Manifest
	err     error // of the manifest
	index   opened[io.ReadCloser]
	sigtar  opened[*store.Scan]
	release func()
}

// opened is a stored file that may have been opened.
type opened[T io.Closer] struct {
	r   T
	err error
	has bool
}

// take returns what was opened, or opens it.
func (o *opened[T]) take(open func() (T, error)) (T, error) {
	if !o.has {
		return open()
	}
	o.has = false
	return o.r, o.err
}

func (o *opened[T]) close() {
	if o.has && o.err == nil {
		_ = o.r.Close() // nothing was read
	}
	o.has = false
}

// prepare begins to open a set.
func (l *line) prepare(ctx context.Context, set *chain.Set) *prepared {
	ctx, cancel := context.WithCancel(ctx)
	p := &prepared{set: set, done: make(chan struct{})}
	p.release = func() {
		cancel()
		<-p.done
		p.index.close()
		p.sigtar.close()
	}
	go func() {
		defer close(p.done)
		if p.man, p.err = l.a.manifest(ctx, set); p.err != nil {
			return
		}
		if f := indexOf(set, p.man); f != nil {
			p.index.r, p.index.err = l.a.st.Open(ctx, *f)
			p.index.has = true
		} else if set.Sigtar != nil {
			p.sigtar.r, p.sigtar.err = l.a.st.Scan(ctx, *set.Sigtar)
			p.sigtar.has = true
		}
	}()
	return p
}

// mergeSet reads a set into the catalog: from its index if that agrees with
// the manifest and the listing, else from its sigtar, else from its volumes.
func (l *line) mergeSet(ctx context.Context, c *index.Catalog, ord int, p *prepared) error {
	set := p.set
	<-p.done
	if p.err != nil {
		if final(p.err) {
			l.fault(ord, fmt.Sprintf("the manifest of set %s cannot be read: %v", set.Times(), p.err))
		}
		return fmt.Errorf("set %s: manifest: %w", set.Times(), p.err)
	}
	m := &merging{line: l, cat: c, ord: ord, set: set, man: p.man, prep: p}
	m.info = index.SetInfo{Ord: ord, Times: set.Times(), Manifest: *set.Manifest, Own: p.man.HasIndex}
	m.lookForVolumes()
	for _, way := range []struct {
		name string
		file *chain.Stored
		run  func(context.Context) error
	}{{"index", indexOf(set, p.man), m.fromIndex}, {"signature archive", set.Sigtar, m.fromSigtar}} {
		if way.file == nil {
			continue
		}
		err := l.a.st.Healing(ctx, way.file.File, func() error {
			err := way.run(ctx)
			var bad *badIndexError
			if errors.As(err, &bad) && l.a.st.CanHeal(way.file.File) { // or it was changed, which its layer may not show
				err = chain.CorruptBy(way.file.File, bad)
			}
			return err
		})
		if err == nil || ctx.Err() != nil || !final(err) && !m.locked(err) {
			return err
		}
		if way.file.Kind == chain.IndexFile {
			l.refuse(way.file)
		}
		l.a.note("set %s: its %s is not used: %v", set.Times(), way.name, err)
	}
	if err := m.fromVolumes(ctx); err != nil {
		if final(err) {
			l.fault(ord, fmt.Sprintf("set %s has no usable signature archive, and %v", set.Times(), err))
		}
		return fmt.Errorf("set %s: %w", set.Times(), err)
	}
	return nil
}

// final reports whether an error says that an object is damaged or missing, so
// that another way is worth a try and the same one is not.
func final(err error) bool {
	var corrupt *chain.CorruptError
	var bad *badIndexError
	return errors.As(err, &corrupt) || errors.As(err, &bad) || errors.Is(err, fs.ErrNotExist)
}

// manifest reads the manifest of a set. Of several files that claim to be it,
// the first that makes sense is taken.
func (a *Archive) manifest(ctx context.Context, set *chain.Set) (*manifest.Manifest, error) {
	if standsIn(set) {
		return a.madeManifest(ctx, set)
	}
	m, err := a.readManifest(ctx, *set.Manifest)
	for _, f := range set.Duplicates {
		if err == nil || !final(err) || f.Kind != chain.ManifestFile {
			continue
		}
		if other, otherErr := a.readManifest(ctx, f); otherErr == nil {
			a.note("%v; %s is used", err, f.File)
			return other, nil
		}
	}
	return m, err
}

func (a *Archive) readManifest(ctx context.Context, f chain.Stored) (m *manifest.Manifest, err error) {
	err = a.st.ReadThrough(ctx, f, func(r io.Reader) (err error) {
		m, err = manifest.Parse(r)
		return err
	})
	return m, err
}

// Manifest reads the manifest of a set.
func (a *Archive) Manifest(ctx context.Context, set *chain.Set) (*manifest.Manifest, error) {
	m, err := a.manifest(ctx, set)
	if err != nil {
		return nil, fmt.Errorf("manifest of set %s: %w", set.Times(), err)
	}
	return m, nil
}

// merging is a set on its way into a catalog.
type merging struct {
	line *line
	cat  *index.Catalog
	ord  int
	set  *chain.Set
	man  *manifest.Manifest // nil if the set was written just now
	prep *prepared
	info index.SetInfo

	differs string // in what an index differs from the listing, "" if in nothing
}

// lookForVolumes notes the volumes that the listing lacks.
func (m *merging) lookForVolumes() {
	for _, v := range m.man.Volumes {
		if _, ok := m.line.stored(m.ord, v.Number); !ok {
			_ = m.line.missing(m.ord, v.Number) // it is noted
		}
	}
	for _, gap := range m.man.Missing(m.set.Volumes) {
		m.line.a.note("set %s: %v", m.set.Times(), gap)
	}
}

// locked reports whether an error says that the index of a set that another
// program wrote is encrypted for somebody else than the set.
func (m *merging) locked(err error) bool {
	return !m.man.HasIndex && (errors.Is(err, chain.ErrNoKey) || errors.Is(err, chain.ErrNoPassphrase))
}

// badIndexError says that an index does not belong to its set.
type badIndexError struct{ reason string }

func (e *badIndexError) Error() string { return e.reason }

func badIndex(format string, args ...any) error {
	return &badIndexError{fmt.Sprintf(format, args...)}
}

// fromIndex merges the set's index.
func (m *merging) fromIndex(ctx context.Context) error {
	f := indexOf(m.set, m.man)
	r, err := m.prep.index.take(func() (io.ReadCloser, error) { return m.line.a.st.Open(ctx, *f) })
	if err != nil {
		return err
	}
	if err = m.readIndex(ctx, r); err != nil {
		err = fmt.Errorf("%s: %w", f.File, err)
	}
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	return err
}

// summed is a reader that hashes what is read.
type summed struct {
	r   io.Reader
	sum hash.Hash
	n   int64
	err error // of r, but io.EOF
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.sum.Write(p[:n])
	s.n += int64(n)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// sink takes the parts of an index.
type sink interface {
	Runs(runs []index.Run) error
	Record(r *index.Record) error
	Volume(v *index.VolumeInfo) error
	Sigtar(l *volume.Layout) error
}

// nowhere is a sink for an index that is only checked.
type nowhere struct{}

func (nowhere) Runs([]index.Run) error         { return nil }
func (nowhere) Record(*index.Record) error     { return nil }
func (nowhere) Volume(*index.VolumeInfo) error { return nil }
func (nowhere) Sigtar(*volume.Layout) error    { return nil }

// readIndex merges an index in plaintext. Nothing is kept if it does not agree.
func (m *merging) readIndex(ctx context.Context, r io.Reader) error {
	return m.cat.Merge(ctx, &m.info, func(mg *index.Merger) error { return m.check(ctx, r, mg) })
}

// check reads an index in plaintext into a sink. A *badIndexError if it does
// not agree with the set.
func (m *merging) check(ctx context.Context, r io.Reader, to sink) error {
	in := &summed{r: r, sum: sha256.New()}
	volumes := 0
	var mergeErr error // of the catalog, not of the index
	merged := func(err error) error {
		mergeErr = err
		return err
	}
	err := index.ReadIndex(in, index.Handler{
		Set: func(times string) error {
			if times != m.set.Times() {
				return badIndex("it is of set %q", times)
			}
			return nil
		},
		Runs: func(runs []index.Run) error { return merged(to.Runs(runs)) },
		Record: func(rec *index.Record) error {
			if err := ctx.Err(); err != nil {
				return merged(err)
			}
			return merged(to.Record(rec))
		},
		Volume: func(v *index.VolumeInfo) error {
			volumes++
			if err := m.agrees(v); err != nil {
				return err
			}
			return merged(to.Volume(v))
		},
		Sigtar: func(lay *volume.Layout) error { return m.sigtar(to, lay) },
	})
	var bad *badIndexError
	switch {
	case mergeErr != nil:
		return mergeErr
	case in.err != nil:
		return in.err
	case errors.As(err, &bad):
		return err
	case err != nil:
		return badIndex("%v", err)
	case m.man == nil:
		return nil
	case volumes != len(m.man.Volumes):
		return badIndex("it has %d volumes, the manifest %d", volumes, len(m.man.Volumes))
	case m.man.HasIndex && (in.n != m.man.IndexSize || string(in.sum.Sum(nil)) != string(m.man.IndexSHA256[:])):
		return m.remade()
	}
	return nil
}

// remade returns an error unless an index that is not the one whose digest the
// manifest has may be used nevertheless: see Upload.
func (m *merging) remade() error {
	f := indexOf(m.set, m.man)
	switch {
	case m.differs != "":
		return badIndex("it is not the one of the manifest, and %s", m.differs)
	case f == nil || (f.Layer == chain.OpenPGP) != encrypted(m.set):
		return badIndex("it is not the one of the manifest, nor encrypted as the set is")
	case f.Layer == chain.Plain: // in which nothing shows a wrong bit
		return badIndex("it is not the one of the manifest")
	}
	return nil
}

// sigtar keeps the layout of the sigtar, if it is that of the listing.
func (m *merging) sigtar(to sink, lay *volume.Layout) error {
	s := m.set.Sigtar
	if s == nil {
		return nil
	}
	if s.Size >= 0 && s.Size != lay.StoredSize && !m.line.a.st.CanHeal(s.File) {
		if m.bound() { // so it is the sigtar that is not what it was
			m.differs = fmt.Sprintf("%s has %d bytes, not %d", s.File, s.Size, lay.StoredSize)
			m.line.a.note("%s", m.differs)
			return nil
		}
		return badIndex("%s has %d bytes, not %d", s.File, s.Size, lay.StoredSize)
	}
	m.info.Sigtar = *s
	return to.Sigtar(lay)
}

// bound reports whether the manifest has the hash of the index: what is listed
// otherwise than it says was changed, and is told chunk by chunk when it is read.
func (m *merging) bound() bool { return m.man != nil && m.man.HasIndex }

// agrees checks a volume of an index against the manifest and the listing.
func (m *merging) agrees(v *index.VolumeInfo) error {
	if m.man != nil {
		row := m.volume(v.Number)
		if row == nil {
			return badIndex("the manifest has no volume %d", v.Number)
		}
		if !row.HasSHA1 || row.SHA1 != v.Layout.SHA1 {
			return badIndex("the manifest has another volume %d", v.Number)
		}
	}
	listed, ok := m.line.stored(m.ord, v.Number)
	if !ok {
		return nil // missing, which is no fault of the index
	}
	if listed.File == v.File && (listed.Size < 0 || listed.Size == v.Layout.StoredSize || m.line.a.st.CanHeal(listed.File)) {
		return nil
	}
	reason := fmt.Sprintf("%s is listed with %d bytes, it speaks of %s with %d", listed.File, listed.Size, v.File, v.Layout.StoredSize)
	if !m.bound() {
		return badIndex("%s", reason)
	}
	m.differs = reason
	if listed.Size >= 0 && listed.Size != v.Layout.StoredSize {
		m.line.a.note("%s has %d bytes, not %d", listed.File, listed.Size, v.Layout.StoredSize)
	}
	return nil
}

func (m *merging) volume(number int) *manifest.Volume {
	for i := range m.man.Volumes {
		if m.man.Volumes[i].Number == number {
			return &m.man.Volumes[i]
		}
	}
	return nil
}

// row returns what the catalog keeps of a volume.
func (m *merging) row(v *manifest.Volume) *index.VolumeRow {
	row := &index.VolumeRow{VolumeInfo: index.VolumeInfo{Number: v.Number, First: v.First, Last: v.Last}, Size: -1}
	if listed, ok := m.line.stored(m.ord, v.Number); ok {
		row.File, row.Size = listed.File, listed.Size
	}
	if v.HasSHA1 {
		row.SHA1 = v.SHA1[:]
	}
	return row
}

// emptySignature is the length of the signature of an empty file: its header.
const emptySignature = 12

// fromSigtar merges the set's names and metadata.
func (m *merging) fromSigtar(ctx context.Context) error {
	sc, err := m.prep.sigtar.take(func() (*store.Scan, error) { return m.line.a.st.Scan(ctx, *m.set.Sigtar) })
	if err != nil {
		return err
	}
	m.info.Sigtar = *m.set.Sigtar
	err = m.cat.Merge(ctx, &m.info, func(mg *index.Merger) error {
		var g sigtar.Agreement
		if err := m.readList(ctx, &g); err != nil {
			return err
		}
		if err := m.records(ctx, mg, sigtar.NewReader(sc), &g); err != nil {
			return err
		}
		if why := g.Verdict(m.man.Volumes[len(m.man.Volumes)-1].Last); why != "" {
			return chain.Corrupt(m.set.Sigtar.File, why)
		}
		lay, err := sc.Layout()
		if err == nil {
			err = mg.Sigtar(lay)
		}
		if err != nil && !errors.Is(err, volume.ErrNotSeekable) {
			return err
		}
		for i := range m.man.Volumes {
			if err := mg.AddVolume(m.row(&m.man.Volumes[i])); err != nil {
				return err
			}
		}
		return nil
	})
	if cerr := sc.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", m.set.Sigtar.File, err)
	}
	return err
}

// readList reads the manifest's list of new and changed files.
func (m *merging) readList(ctx context.Context, g *sigtar.Agreement) error {
	if standsIn(m.set) {
		return nil
	}
	r, err := m.line.a.st.Open(ctx, *m.set.Manifest)
	if err != nil {
		return err
	}
	err = manifest.ParseFileList(r, func(c manifest.Change) error {
		if c.Kind != "deleted" {
			g.List(c.Path)
		}
		return nil
	})
	return errors.Join(err, r.Close())
}

// records merges the records of a sigtar.
func (m *merging) records(ctx context.Context, mg *index.Merger, r *sigtar.Reader, g *sigtar.Agreement) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		s, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Drain()
		}
		if err != nil {
			return err
		}
		g.Entry(s)
		rec := &index.Record{Entry: s.Entry, Change: difftar.Snapshot, SigLen: -1}
		switch {
		case s.Deleted:
			rec.Change = difftar.Deleted
		case s.Entry.Type == chain.File:
			rec.Change, rec.SigOff, rec.SigLen = 0, s.Off, s.Len
			if s.Len == emptySignature && rec.Size < 0 {
				rec.Size = 0
			}
		}
		if err := mg.Record(rec); err != nil {
			return err
		}
	}
}

// fromVolumes merges a set whose sigtar is missing or damaged, by reading all
// its volumes. If one of them cannot be read, nobody can tell what the set
// changed, and nothing is merged.
func (m *merging) fromVolumes(ctx context.Context) error {
	a := m.line.a
	a.note("set %s: its volumes are read to find out what is in it", m.set.Times())
	return m.cat.Merge(ctx, &m.info, func(mg *index.Merger) error {
		for i := range m.man.Volumes {
			v := &m.man.Volumes[i]
			listed, ok := m.line.stored(m.ord, v.Number)
			if !ok {
				return (&lostVolumeError{fmt.Sprintf("volume %d is missing", v.Number)}).of(chain.Path(m.set.Times()))
			}
			row := m.row(v)
			p, err := index.ReadVolume(ctx, a.st, listed, row.SHA1, i == len(m.man.Volumes)-1, a.dir)
			if err != nil {
				return err
			}
			a.progress().Volumes.Add(1)
			a.progress().Bytes.Add(max(listed.Size, 0))
			if err = mg.Pass(p); err == nil {
				row.Layout = p.Layout
				err = mg.AddVolume(row)
			}
			if cerr := p.Close(); err == nil {
				err = cerr
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Extend merges the index of a set that was written just now into the catalog
// of its line, so that it need not be fetched. It lists the archive again.
func (a *Archive) Extend(ctx context.Context, r io.Reader) error {
	br := bufio.NewReader(r)
	times, err := index.Times(br)
	if err != nil {
		return err
	}
	if err := a.Refresh(ctx); err != nil {
		return err
	}
	l, ord := a.find(times)
	if l == nil {
		return fmt.Errorf("set %s: %w", times, fs.ErrNotExist)
	}
	if ord > 0 {
		if err := l.do(ctx, ord-1, func(*index.Catalog) error { return nil }); err != nil {
			return err
		}
	}
	return l.extend(ctx, ord, br)
}

// find returns where the set with those times is, in the line of a chain.
func (a *Archive) find(times string) (*line, int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.col.Lines {
		for ord, s := range l.Sets {
			if !l.Fork && s.Times() == times {
				return a.lines[lineKey(l)], ord
			}
		}
	}
	return nil, 0
}

// extend merges an index that this process wrote.
func (l *line) extend(ctx context.Context, ord int, r io.Reader) error {
	e, err := l.opened(ctx)
	if err != nil {
		return err
	}
	defer l.a.catalogs.release(e)
	select {
	case l.lock <- struct{}{}:
		defer func() { <-l.lock }()
	case <-ctx.Done():
		return ctx.Err()
	}
	set := l.set(ord)
	m := &merging{line: l, cat: e.cat, ord: ord, set: set}
	m.info = index.SetInfo{Ord: ord, Times: set.Times(), Manifest: *set.Manifest, Own: true}
	if err := m.readIndex(ctx, r); err != nil && !errors.Is(err, index.ErrMerged) {
		return err
	}
	_, err = l.check(ctx, e.cat)
	return err
}
