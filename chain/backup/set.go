package backup

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/chain/index"
	"dupfs/chain/manifest"
	"dupfs/chain/sigtar"
	"dupfs/chain/store"
	"dupfs/chain/volume"
)

// closeAhead is how near to its size a volume is closed, in stored bytes, as
// duplicity does.
const closeAhead = 64 << 10

// volumeWriter is the volume being built.
type volumeWriter struct {
	w   *store.Writer
	tar *difftar.Writer
	row manifest.Volume
	n   int // members
}

// setWriter writes the files of a set. Use: place, change and the sigs and
// index writers for each entry; then commit; abort in any case.
type setWriter struct {
	*run
	st   *store.Store
	name chain.Name // of the set, Kind and Volume open
	set  *chain.Set

	vol     *volumeWriter // nil if none is open
	rows    []manifest.Volume
	paths   int    // bytes of the paths of rows
	layouts *spool // of the volumes; they hold keys

	uploads   errgroup.Group
	uploadCtx context.Context
	mu        sync.Mutex
	started   []chain.Stored  // files whose upload was begun
	arrived   map[string]bool // those by name whose upload succeeded

	sigFile   *store.Writer
	sigs      *sigtar.Writer
	indexFile *store.Writer
	index     *index.Writer
	spool     *spool // for OnIndex, nil if nobody wants it
	changes   *changeList
}

// newSetWriter begins a set. ctx ends the uploads.
func newSetWriter(ctx context.Context, r *run, st *store.Store) (_ *setWriter, err error) {
	s := &setWriter{run: r, st: st, uploadCtx: ctx, name: r.name, arrived: map[string]bool{}, changes: newChangeList(r.o.TempDir)}
	s.layouts = &spool{dir: r.o.TempDir}
	defer func() {
		if err != nil {
			s.abort()
		}
	}()
	s.uploads.SetLimit(r.o.Uploads)
	s.set = &chain.Set{Full: s.name.Full, Start: s.name.Start, End: s.name.End}
	if s.sigFile, err = st.Create(ctx, s.named(chain.SigtarFile, 0)); err != nil {
		return s, err
	}
	s.sigs = sigtar.NewWriter(s.sigFile)
	if s.indexFile, err = st.Create(ctx, s.named(chain.IndexFile, 0)); err != nil {
		return s, err
	}
	var w io.Writer = s.indexFile
	if r.o.OnIndex != nil {
		s.spool = &spool{dir: r.o.TempDir}
		w = io.MultiWriter(s.indexFile, s.spool)
	}
	s.index = index.NewWriter(w, s.set)
	if r.o.Resume != nil {
		err = s.replay(r.o.Resume)
	}
	return s, err
}

// named returns the name of one of the set's files.
func (s *setWriter) named(k chain.Kind, volume int) chain.Name {
	n := s.name
	n.Kind, n.Volume = k, volume
	if k == chain.ManifestFile {
		n = manifestName(n)
	}
	return n
}

// manifestName returns the name of the manifest of the set that n is of.
func manifestName(n chain.Name) chain.Name {
	n.Kind, n.Volume = chain.ManifestFile, 0
	if n.Layer == chain.Gzip {
		n.Layer = chain.Plain // duplicity never compresses manifests
	}
	return n
}

// empty reports whether nothing was placed.
func (s *setWriter) empty() bool { return s.vol == nil && len(s.rows) == 0 }

// place writes a member. last says that no piece of its entry follows. It
// returns the number of the volume and the plainOff of the body there.
func (s *setWriter) place(ctx context.Context, m *difftar.Member, body []byte, last bool) (int, int64, error) {
	size := grown(s.o.VolSize, len(s.rows)+1)
	if s.vol != nil && s.vol.n > 0 && s.vol.w.StoredSize() >= size-min(closeAhead, size/8) {
		if err := s.closeVolume(); err != nil {
			return 0, 0, err
		}
	}
	if s.vol == nil {
		if err := s.openVolume(ctx); err != nil {
			return 0, 0, err
		}
	}
	v := s.vol
	m.Len = int64(len(body))
	v.w.CutBefore(m.Len)
	off, err := v.tar.Header(m)
	if err == nil {
		_, err = v.tar.Write(body)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("volume %d: %w", v.row.Number, err)
	}
	block := -1
	if m.Piece > 0 && !last {
		block = m.Piece
	}
	if v.n == 0 {
		v.row.First, v.row.FirstBlock = m.Entry.Path, block
	}
	v.row.Last, v.row.LastBlock = m.Entry.Path, block
	v.n++
	return v.row.Number, off, nil
}

// grown returns the size of a volume: each time that a quarter of the volumes that
// a set may have is full it doubles, so that all sets stay readable.
func grown(size int64, number int) int64 {
	return size << min((number-1)/(manifest.MaxVolumes/4), 3)
}

// openVolume begins the next volume.
func (s *setWriter) openVolume(ctx context.Context) error {
	number := len(s.rows) + 1
	if number > manifest.MaxVolumes || s.paths > manifest.MaxPaths-2*chain.MaxPath {
		return fmt.Errorf("volume %d would be more than anything reads: a set of this size needs larger volumes", number)
	}
	w, err := s.st.Create(ctx, s.named(chain.VolumeFile, number))
	if err != nil {
		return err
	}
	s.vol = &volumeWriter{w: w, tar: difftar.NewWriter(w)}
	s.vol.row = manifest.Volume{Number: number, FirstBlock: -1, LastBlock: -1}
	if number > 1 { // of an empty volume, as duplicity has it
		s.vol.row.Last = s.rows[number-2].Last
	}
	return nil
}

// closeVolume seals the open volume and uploads it in the background. It
// waits while as many uploads as are allowed go on.
func (s *setWriter) closeVolume() error {
	v := s.vol
	s.vol = nil
	if err := v.tar.Close(); err != nil {
		v.w.Abort()
		return fmt.Errorf("%s: %w", v.w.Name().File, err)
	}
	layout, err := v.w.Seal()
	if err != nil {
		v.w.Abort()
		return err
	}
	v.row.SHA1, v.row.HasSHA1 = layout.SHA1, true
	if sums := v.w.Sums(); sums != nil {
		v.row.MD5, v.row.HasMD5 = sums.MD5, true
		v.row.Parts, v.row.PartSize = sums.Parts, sums.PartSize
	}
	s.sealed(v.row)
	if err := s.keepLayout(v, layout); err != nil {
		v.w.Abort()
		return err
	}
	s.uploads.Go(func() error {
		s.told(v, false)
		err := s.upload(v.w)
		if err != nil {
			s.fail(err)
			return err
		}
		s.journal.uploaded(v.row.Number)
		s.o.Progress.Volumes.Add(1)
		s.told(v, true)
		return nil
	})
	return nil
}

// sealed notes the next volume.
func (s *setWriter) sealed(row manifest.Volume) {
	s.rows = append(s.rows, row)
	s.paths += len(row.First) + len(row.Last)
}

// told tells of the upload of a volume.
func (s *setWriter) told(v *volumeWriter, done bool) {
	if s.o.OnVolume != nil {
		s.o.OnVolume(VolumeEvent{v.row.Number, v.w.Name().File, done})
	}
}

// keepLayout spools the layout of the next volume, and notes that it is sealed.
func (s *setWriter) keepLayout(v *volumeWriter, l *volume.Layout) error {
	b, err := l.MarshalBinary()
	if err == nil {
		s.journal.add(&event{Kind: evVolume, Volume: &volumeNote{
			File: v.w.Name().File, Size: v.w.Size(), Row: v.row, Layout: b, Counts: countsOf(&s.stats),
		}})
		_, err = s.layouts.Write(append(binary.AppendUvarint(nil, uint64(len(b))), b...))
	}
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	return nil
}

// volumes yields what the index tells of the volumes.
func (s *setWriter) volumes() iter.Seq2[*index.VolumeInfo, error] {
	return func(yield func(*index.VolumeInfo, error) bool) {
		r := bufio.NewReader(s.layouts.reader())
		for _, row := range s.rows {
			v := &index.VolumeInfo{Number: row.Number, First: row.First, Last: row.Last, Layout: new(volume.Layout)}
			v.File = s.st.Prefixes().Format(s.named(chain.VolumeFile, row.Number))
			b, err := readBlob(r)
			if err == nil {
				err = v.Layout.UnmarshalBinary(b)
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

// readBlob reads bytes after their number.
func readBlob(r *bufio.Reader) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return b, err
}

// upload stores a sealed file. From its beginning on the file counts as being
// there.
func (s *setWriter) upload(w *store.Writer) error {
	defer w.Abort()
	if err := s.uploadCtx.Err(); err != nil {
		return context.Cause(s.uploadCtx)
	}
	s.mu.Lock()
	s.started = append(s.started, chain.Stored{Name: w.Name(), Size: w.Size()})
	s.mu.Unlock()
	err := w.UploadNew(s.uploadCtx)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", w.Name().File, ErrRival)
	}
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	s.mu.Lock()
	s.arrived[w.Name().File] = true
	s.mu.Unlock()
	s.o.Progress.BytesStored.Add(w.Size())
	return nil
}

// change notes a line of the manifest's list of changed files.
func (s *setWriter) change(kind string, p chain.Path) error {
	if s.o.NoFilesChanged {
		return nil
	}
	s.journal.add(&event{Kind: evChange, Word: kind, Path: p})
	return s.changes.add(kind, p)
}

// commit finishes the set. When it returns nil the set exists.
func (s *setWriter) commit(ctx context.Context) error {
	if s.empty() { // duplicity wants at least one
		if err := s.openVolume(ctx); err != nil {
			return err
		}
	}
	if s.vol != nil {
		if err := s.closeVolume(); err != nil {
			return err
		}
	}
	if err := s.uploads.Wait(); err != nil {
		return err
	}
	if err := s.alone(ctx, true); err != nil {
		return err
	}
	if err := s.sigs.Close(); err != nil {
		return fmt.Errorf("signatures: %w", err)
	}
	sigLayout, err := s.sigFile.Seal()
	if err != nil {
		return err
	}
	if err := s.upload(s.sigFile); err != nil {
		return err
	}
	if err := s.index.CloseWith(s.volumes(), sigLayout); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	if _, err := s.indexFile.Seal(); err != nil {
		return err
	}
	if err := s.upload(s.indexFile); err != nil {
		return err
	}
	if err := s.writeManifest(ctx); err != nil {
		return err
	}
	return s.settled(ctx)
}

// writeManifest makes the set exist.
func (s *setWriter) writeManifest(ctx context.Context) error {
	w, err := s.st.Create(ctx, s.named(chain.ManifestFile, 0))
	if err != nil {
		return err
	}
	defer w.Abort()
	m := &manifest.Manifest{Hostname: s.o.Hostname, Localdir: s.o.Localdir, Volumes: s.rows, HasIndex: true}
	m.IndexSHA256, m.IndexSize = s.index.Sum()
	if sums := s.sigFile.Sums(); sums != nil {
		m.SigtarSum = sums.String()
	}
	b := bufio.NewWriterSize(w, 64<<10)
	if err := manifest.Write(b, m, s.changes.n, s.changes.all()); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if _, err := w.Seal(); err != nil {
		return err
	}
	if s.o.Verify != nil {
		set, _ := s.stored()
		set.Manifest = &chain.Stored{Name: w.Name(), Size: w.Size()}
		if err := s.o.Verify(ctx, set, w.Sealed()); err != nil {
			return err
		}
	}
	if s.token != "" { // nothing but this look keeps two sets of one second apart
		if err := s.alone(ctx, true); err != nil {
			return err
		}
	}
	return s.upload(w)
}

// stored returns the files of the set and their total size.
func (s *setWriter) stored() (*chain.Set, int64) {
	set, total := s.set, int64(0)
	for i := range s.started {
		f := &s.started[i]
		total += f.Size
		switch f.Kind {
		case chain.ManifestFile:
			set.Manifest = f
		case chain.SigtarFile:
			set.Sigtar = f
		case chain.IndexFile:
			set.Index = f
		}
	}
	set.Volumes = make([]chain.Stored, len(s.rows))
	for _, f := range s.started {
		if f.Kind == chain.VolumeFile {
			set.Volumes[f.Volume-1] = f
		}
	}
	return set, total
}

// abort frees what the writer holds and waits for its uploads.
func (s *setWriter) abort() {
	if s.vol != nil {
		s.vol.w.Abort()
		s.vol = nil
	}
	_ = s.uploads.Wait() // commit returned it, or the run failed anyway
	for _, w := range []*store.Writer{s.sigFile, s.indexFile} {
		if w != nil {
			w.Abort()
		}
	}
	if s.spool != nil {
		s.spool.close()
	}
	s.changes.close()
	s.layouts.close()
}

// removeTimeout bounds the removal of the files of a run that failed.
const removeTimeout = 2 * time.Minute

// retreat removes what a run that failed has uploaded, but for what its journal
// says that another one can go on with.
func (s *setWriter) retreat(ctx context.Context, cause error) error {
	kept := make(map[string]bool)
	if errors.Is(cause, ErrRival) {
		s.disown()
	}
	if s.journal != nil && !errors.Is(cause, ErrRival) && !errors.Is(cause, ErrUnsound) {
		if s.journal.close() == nil {
			if in, err := ReadJournal(s.journalPath()); err == nil && len(in.Kept) > 0 {
				s.stats.Kept = len(in.Kept)
				for _, f := range in.Kept {
					kept[f.File] = true
				}
			}
		}
	}
	err := s.remove(ctx, kept)
	if s.journal != nil && len(kept) == 0 && err == nil {
		return (&Interrupted{path: s.journalPath()}).Forget()
	}
	return err
}

// remove deletes the files that were uploaded and are not kept: the manifest
// first, so that at no time there is one without its volumes. It runs also when
// ctx has ended.
func (s *setWriter) remove(ctx context.Context, kept map[string]bool) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
	defer cancel()
	var errs []error
	for i := len(s.started) - 1; i >= 0; i-- {
		if kept[s.started[i].File] {
			continue
		}
		if err := s.st.Delete(ctx, s.started[i]); err != nil {
			errs = append(errs, fmt.Errorf("left behind: %w", err))
		}
	}
	return errors.Join(errs...)
}

// changeList holds the list of changed files of a manifest in a spool.
type changeList struct {
	spool
	n int
}

func newChangeList(dir string) *changeList { return &changeList{spool: spool{dir: dir}} }

// kinds of changes, by their code in the spool.
func changeKinds() [3]string { return [3]string{"new", "changed", "deleted"} }

// add appends a line.
func (l *changeList) add(kind string, p chain.Path) error {
	code := 0
	for i, k := range changeKinds() {
		if k == kind {
			code = i
		}
	}
	b := binary.AppendUvarint([]byte{byte(code)}, uint64(len(p)))
	l.n++
	_, err := l.Write(append(b, p...))
	return err
}

// all yields the lines.
func (l *changeList) all() iter.Seq2[manifest.Change, error] {
	return func(yield func(manifest.Change, error) bool) {
		r := bufio.NewReader(l.reader())
		for range l.n {
			c, err := readChange(r)
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// readChange reads a line.
func readChange(r *bufio.Reader) (c manifest.Change, err error) {
	code, err := r.ReadByte()
	if err != nil {
		return c, err
	}
	path, err := readBlob(r)
	if err != nil {
		return c, err
	}
	return manifest.Change{Kind: changeKinds()[code], Path: chain.Path(path)}, nil
}
