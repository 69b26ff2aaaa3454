// Package audit checks the stored files of an archive one by one: first what the
// listing and the small files alone tell (List), then each file read to its end
// (Check). A Ledger remembers what was checked when, so that a little each night
// covers all of it in the end.
//
// Memory: a record of some 200 bytes for each stored file.
package audit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"dupfs/chain"
	"dupfs/chain/index"
	"dupfs/chain/manifest"
	"dupfs/chain/sigtar"
	"dupfs/chain/store"
)

// File is a stored file of a complete set, and what it should be.
type File struct {
	chain.Stored
	Set  *chain.Set
	SHA1 []byte     // of a volume, as the manifest has it; nil if it has none
	Last bool       // a volume, and the last one of its set
	End  chain.Path // of a sigtar: the last path in the set's volumes
	// Sums are what the store may say of the content, as the manifest has them;
	// Told is what the listing says; both in the form of backends.File.
	Sums []string
	Told string
}

// Same reports whether two findings are of one damage: a file that is missing,
// or has another size than it should, is found damaged again when it is read.
func (f Finding) Same(g Finding) bool {
	return f.File != "" && f.File == g.File && errors.Is(f.Err, ErrHealable) && errors.Is(g.Err, ErrHealable)
}

// Finding is something wrong with a set.
type Finding struct {
	Set  *chain.Set
	File string // the stored file, as it is or should be named
	Err  error
}

// What a set can lack without any of its data being lost.
var (
	ErrNoSigtar = errors.New("it has no signatures: no increment can be built on it")
	ErrNoIndex  = errors.New("its index is missing: it is read more slowly")
	// ErrHealable says that a file is damaged or missing, and has recovery files.
	ErrHealable = errors.New("its recovery files may make it whole")
)

// List reads the manifest of every complete set, and its index if there is one,
// and compares them with the listing: whether everything is there, with the size
// it should have. It returns the files that Check can look into. An error is one
// of the store, or the end of ctx.
func List(ctx context.Context, st *store.Store, sets []*chain.Set) ([]File, []Finding, error) {
	l := &lister{st: st}
	for _, s := range sets {
		if err := l.set(ctx, s); err != nil {
			return nil, l.found, fmt.Errorf("set %s: %w", s.Times(), err)
		}
	}
	return l.files, l.found, nil
}

type lister struct {
	st    *store.Store
	files []File
	found []Finding
}

func (l *lister) wrong(s *chain.Set, file string, err error) {
	l.found = append(l.found, Finding{s, file, err})
}

// healed is the error of a file that was healed when it was read, else nil.
func healed(st *store.Store, file string) error {
	if h, ok := st.HealedFile(file); ok {
		return &chain.CorruptError{Name: file, Reason: h.Reason + "; its recovery files make it whole", Err: ErrHealable}
	}
	return nil
}

// healable is what is wrong with a file that has recovery files, if it has some.
func healable(st *store.Store, file, reason string) error {
	if !st.CanHeal(file) {
		return errors.New(reason)
	}
	return &chain.CorruptError{Name: file, Reason: reason + "; " + ErrHealable.Error(), Err: ErrHealable}
}

// damage reports whether an error is about the file, not the way to it.
func damage(err error) bool {
	var corrupt *chain.CorruptError
	return errors.As(err, &corrupt)
}

func (l *lister) set(ctx context.Context, s *chain.Set) error {
	man, err := l.manifest(ctx, s)
	if err != nil && !damage(err) {
		return err
	}
	l.add(File{Stored: *s.Manifest, Set: s})
	if err != nil {
		l.wrong(s, s.Manifest.File, err)
		return nil
	}
	if err := healed(l.st, s.Manifest.File); err != nil {
		l.wrong(s, s.Manifest.File, err)
	}
	for _, f := range s.Files() {
		if l.st.Lost(f.File) {
			l.wrong(s, f.File, healable(l.st, f.File, "it is missing"))
		}
	}
	l.volumes(s, man)
	if s.Sigtar == nil {
		l.wrong(s, "", ErrNoSigtar)
	} else {
		f := File{Stored: *s.Sigtar, Set: s, End: man.Volumes[len(man.Volumes)-1].Last}
		if man.SigtarSum != "" {
			f.Sums = []string{man.SigtarSum}
		}
		l.add(f)
	}
	switch {
	case s.Index != nil:
		l.add(File{Stored: *s.Index, Set: s})
		return l.index(ctx, s, man)
	case man.HasIndex:
		l.wrong(s, "", ErrNoIndex)
	}
	return nil
}

func (l *lister) add(f File) {
	f.Told = l.st.Sum(f.File)
	l.files = append(l.files, f)
}

func (l *lister) manifest(ctx context.Context, s *chain.Set) (m *manifest.Manifest, err error) {
	err = l.st.ReadThrough(ctx, *s.Manifest, func(r io.Reader) (err error) {
		m, err = manifest.Parse(r)
		return err
	})
	return m, err
}

// volumes adds the volumes that the manifest names.
func (l *lister) volumes(s *chain.Set, man *manifest.Manifest) {
	there := map[int]chain.Stored{}
	for _, v := range s.Volumes {
		there[v.Volume] = v
	}
	for _, gap := range man.Missing(s.Volumes) {
		l.wrong(s, "", errors.New(gap.String()))
	}
	for i, row := range man.Volumes {
		v, ok := there[row.Number]
		if !ok {
			continue
		}
		delete(there, row.Number)
		f := File{Stored: v, Set: s, Last: i == len(man.Volumes)-1}
		if row.HasSHA1 {
			f.SHA1 = row.SHA1[:]
		}
		f.Sums = sums(row, v.Size)
		l.add(f)
	}
	for _, v := range there {
		l.wrong(s, v.File, errors.New("the manifest knows nothing of it"))
	}
}

// index compares the sizes that the set's index has with the listing. One that
// does not agree with the manifest says nothing of the volumes: it is what is wrong.
func (l *lister) index(ctx context.Context, s *chain.Set, man *manifest.Manifest) error {
	var wrong []Finding
	err := l.st.Healing(ctx, s.Index.File, func() error {
		r, err := l.st.Open(ctx, *s.Index)
		if err != nil {
			return err
		}
		wrong, err = l.sizes(s, man, r)
		return errors.Join(err, r.Close())
	})
	if err == nil && !l.st.Lost(s.Index.File) {
		err = healed(l.st, s.Index.File)
	}
	switch {
	case err == nil:
	case !damage(err):
		return err
	default:
		l.wrong(s, s.Index.File, err)
		if !errors.Is(err, ErrHealable) {
			return nil
		}
	}
	l.found = append(l.found, wrong...)
	return nil
}

// sizes reads an index, and returns the volumes that have another size.
func (l *lister) sizes(s *chain.Set, man *manifest.Manifest, r io.Reader) (wrong []Finding, err error) {
	listed, rows := map[int]chain.Stored{}, map[int]manifest.Volume{}
	for _, v := range s.Volumes {
		listed[v.Volume] = v
	}
	for _, row := range man.Volumes {
		rows[row.Number] = row
	}
	in := &summed{r: r, sum: sha256.New()}
	err = index.ReadIndex(in, index.Handler{
		Set: func(times string) error {
			if times != s.Times() {
				return chain.Corrupt(s.Index.File, "it is of another set")
			}
			return nil
		},
		Volume: func(v *index.VolumeInfo) error {
			if row := rows[v.Number]; row.SHA1 != v.Layout.SHA1 {
				return chain.Corrupt(s.Index.File, "it speaks of other volumes than the manifest")
			}
			if f, ok := listed[v.Number]; ok && f.Size >= 0 && f.Size != v.Layout.StoredSize {
				reason := fmt.Sprintf("it has %d bytes instead of %d", f.Size, v.Layout.StoredSize)
				wrong = append(wrong, Finding{s, f.File, healable(l.st, f.File, reason)})
			}
			return nil
		},
	})
	switch {
	case in.err != nil: // of the store, or what it says of the file
		return nil, in.err
	case err != nil && !damage(err):
		err = chain.Corrupt(s.Index.File, err.Error())
	case err == nil && s.Index.Layer == chain.Plain && man.HasIndex && [32]byte(in.sum.Sum(nil)) != man.IndexSHA256:
		// Nothing else shows a wrong bit there. In other layers it may have been made anew.
		err = chain.Corrupt(s.Index.File, "it is not the one of the manifest")
	}
	return wrong, err
}

// summed hashes what is read, and keeps the error of who is read from.
type summed struct {
	r   io.Reader
	sum hash.Hash
	err error
}

func (s *summed) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.sum.Write(p[:n])
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// Check reads a file to its end and verifies all that can be: its SHA-1, its
// chunks, modification detection code and signature, a volume's tar structure,
// and that a sigtar is that of its set. Damage is a *chain.CorruptError or fs.ErrNotExist;
// one that wraps ErrHealable was healed for this. Temporary space
// in dir: what a volume's members are called and where they are.
func Check(ctx context.Context, st *store.Store, f File, dir string) error {
	if err := st.Healing(ctx, f.File, func() error { return check(ctx, st, f, dir) }); err != nil {
		return err
	}
	return healed(st, f.File)
}

func check(ctx context.Context, st *store.Store, f File, dir string) error {
	if f.Kind == chain.VolumeFile {
		p, err := index.ReadVolume(ctx, st, f.Stored, f.SHA1, f.Last, dir)
		if err != nil {
			return err
		}
		return p.Close()
	}
	r, err := st.Open(ctx, f.Stored)
	if err != nil {
		return err
	}
	if f.Kind == chain.SigtarFile {
		return errors.Join(checkSigtar(ctx, st, f, r), r.Close())
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}

// checkSigtar reads a sigtar and compares it with the manifest of its set.
func checkSigtar(ctx context.Context, st *store.Store, f File, r io.Reader) error {
	man, err := st.Open(ctx, *f.Set.Manifest)
	if err != nil {
		return err
	}
	var g sigtar.Agreement
	err = manifest.ParseFileList(man, func(c manifest.Change) error {
		if c.Kind != "deleted" {
			g.List(c.Path)
		}
		return nil
	})
	if err = errors.Join(err, man.Close()); err != nil {
		return err
	}
	in := sigtar.NewReader(r)
	for {
		m, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		g.Entry(m)
	}
	if err := in.Drain(); err != nil {
		return err
	}
	if why := g.Verdict(f.End); why != "" {
		return chain.Corrupt(f.File, why)
	}
	return nil
}
