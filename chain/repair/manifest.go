// Package repair makes derived files of a set anew from what is left of it:
// its manifest (Manifest) and its signatures (Sigtar). Nothing is written here
// that was not read from verified files, and nothing that is there is replaced.
package repair

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"strings"

	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/chain/index"
	"dupfs/chain/manifest"
	"dupfs/chain/sigtar"
	"dupfs/chain/store"
)

// ErrUnsure says that what is left of a set does not show that it is whole.
var ErrUnsure = errors.New("what is left of it does not show that it is whole")

// Manifest writes the manifest of a set that has none. All its volumes are read
// and verified. That the set is whole is shown by its index, which names all
// volumes and their hashes, or by its signatures, which are stored after all
// volumes and must end where the last one does; else it is ErrUnsure: then the
// backup most likely never finished. hostname and localdir are those of the
// manifests beside it.
func Manifest(ctx context.Context, st *store.Store, s *chain.Set, hostname, localdir string) error {
	if s.Manifest != nil {
		return fmt.Errorf("set %s has a manifest", s.Times())
	}
	if s.Sigtar == nil && s.Index == nil || len(s.Volumes) == 0 {
		return fmt.Errorf("set %s: %w", s.Times(), ErrUnsure)
	}
	for i, v := range s.Volumes {
		if v.Volume != i+1 {
			return chain.Corrupt("set "+s.Times(), fmt.Sprintf("volume %d is missing", i+1))
		}
	}
	rows, err := readRows(ctx, st, s, func(_ chain.Stored, err error) error { return err })
	if err == nil {
		err = gapless(rows)
	}
	if err != nil {
		return err
	}
	m := &manifest.Manifest{Hostname: hostname, Localdir: localdir, Volumes: settle(rows)}
	files, err := bindIndex(ctx, st, s, m)
	if err == nil && !m.HasIndex {
		files, err = agreeing(ctx, st, s, m.Volumes[len(m.Volumes)-1].Last)
	}
	if err != nil {
		return err
	}
	return write(ctx, st, s, m, files)
}

// Volumes reads and verifies the volumes of a set and returns what its manifest
// says of them. bad decides about one that cannot be read: it is left out, or an
// error ends it.
func Volumes(ctx context.Context, st *store.Store, s *chain.Set, bad func(v chain.Stored, err error) error) ([]manifest.Volume, error) {
	rows, err := readRows(ctx, st, s, bad)
	return settle(rows), err
}

func readRows(ctx context.Context, st *store.Store, s *chain.Set, bad func(v chain.Stored, err error) error) ([]*row, error) {
	var rows []*row
	for _, v := range s.Volumes {
		r, err := readRow(ctx, st, v)
		if err == nil && r.members == 0 && len(s.Volumes) > 1 { // one alone is that of a set without changes
			err = chain.Corrupt(v.File, "nothing is in it")
		}
		if err != nil {
			if err = bad(v, err); err != nil {
				return nil, err
			}
			continue
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// agreeing returns the files of the set's sigtar, if that ends where the volumes
// do.
func agreeing(ctx context.Context, st *store.Store, s *chain.Set, end chain.Path) ([]chain.Path, error) {
	if s.Sigtar == nil {
		return nil, fmt.Errorf("set %s: its index is not one of it: %w", s.Times(), ErrUnsure)
	}
	files, last, err := sigtarFiles(ctx, st, *s.Sigtar)
	if err == nil && last != end && (last != "" || end != chain.Root) {
		err = fmt.Errorf("set %s: its signatures end at %s, its volumes at %s: %w", s.Times(), last, end, ErrUnsure)
	}
	return files, err
}

// row is a volume as its members show it.
type row struct {
	manifest.Volume
	first, last int  // pieces of the first and the last member; 0: whole files
	members     int  // at most 2
	more        bool // the second member is the next piece of the first one's file
}

// readRow reads a volume whole.
func readRow(ctx context.Context, st *store.Store, f chain.Stored) (*row, error) {
	sc, err := st.Scan(ctx, f)
	if err != nil {
		return nil, err
	}
	v := &row{Volume: manifest.Volume{Number: f.Volume, FirstBlock: -1, LastBlock: -1}}
	err = v.scan(difftar.NewReader(sc))
	if err == nil {
		lay, layErr := sc.Layout()
		if err = layErr; err == nil {
			v.SHA1, v.HasSHA1 = lay.SHA1, true
		}
	}
	return v, of(f.File, errors.Join(err, sc.Close()))
}

// of names the stored file that an error is about, unless that does.
func of(file string, err error) error {
	if err == nil || strings.Contains(err.Error(), file) {
		return err
	}
	return fmt.Errorf("%s: %w", file, err)
}

func (v *row) scan(r *difftar.Reader) error {
	for {
		m, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Drain()
		}
		if err != nil {
			return err
		}
		switch v.members {
		case 0:
			v.First, v.first = m.Entry.Path, m.Piece
			v.members = 1
		case 1:
			v.more = m.Entry.Path == v.First && m.Piece > v.first
			v.members = 2
		}
		v.Last, v.last = m.Entry.Path, m.Piece
	}
}

// gapless returns an error if pieces of a file are missing between two volumes.
func gapless(rows []*row) error {
	before := &row{}
	for _, v := range rows {
		if v.first > 1 && (v.First != before.Last || v.first > before.last+1) {
			return chain.Corrupt(fmt.Sprintf("volume %d", v.Number),
				fmt.Sprintf("it begins with piece %d of %s, and the one before it does not end with the piece before", v.first, v.First))
		}
		before = v
	}
	return nil
}

// settle sets the block numbers, which are those of pieces but the last one of a
// file.
func settle(rows []*row) (out []manifest.Volume) {
	for i, v := range rows {
		goesOn := i+1 < len(rows) && rows[i+1].Number == v.Number+1 && rows[i+1].First == v.Last && rows[i+1].first > v.last
		if v.last > 0 && goesOn {
			v.LastBlock = v.last
		}
		if v.first > 0 && (v.more || v.members == 1 && goesOn) {
			v.FirstBlock = v.first
		}
		out = append(out, v.Volume)
	}
	return out
}

// sigtarFiles returns the files of a sigtar, at most maxListed, and its last path.
func sigtarFiles(ctx context.Context, st *store.Store, f chain.Stored) (files []chain.Path, last chain.Path, err error) {
	rc, err := st.Open(ctx, f)
	if err != nil {
		return nil, "", err
	}
	r := sigtar.NewReader(rc)
	for {
		m, nextErr := r.Next()
		if errors.Is(nextErr, io.EOF) {
			err = r.Drain()
			break
		}
		if err = nextErr; err != nil {
			break
		}
		last = m.Entry.Path
		if !m.Deleted && m.Entry.Type == chain.File && len(files) <= maxListed {
			files = append(files, last)
		}
	}
	return files, last, of(f.File, errors.Join(err, rc.Close()))
}

// maxListed bounds the list of files in a manifest that is made anew; with more
// it has none, which duplicity knows from --no-files-changed.
const maxListed = 100_000

// bindIndex puts the hash of the set's index into the manifest, if there is one,
// and returns its files, maxListed or one more. One that is damaged, or of another
// set, is as good as none. One that cannot be read now is an error, since without it
// the set would pass for one of duplicity's, and so is one that knows other volumes:
// the manifest would make the wrong ones right.
func bindIndex(ctx context.Context, st *store.Store, s *chain.Set, m *manifest.Manifest) (files []chain.Path, err error) {
	if s.Index == nil {
		return nil, nil
	}
	r, err := st.Open(ctx, *s.Index)
	if err != nil {
		return nil, unlessDamaged(err)
	}
	in := &summed{r: r, sum: sha256.New()}
	volumes, differs := 0, ""
	err = index.ReadIndex(in, index.Handler{
		Set: func(times string) error {
			if times != s.Times() {
				return chain.Corrupt(s.Index.File, "it is of another set")
			}
			return nil
		},
		Record: func(r *index.Record) error {
			if r.Change != difftar.Deleted && r.Type == chain.File && len(files) <= maxListed {
				files = append(files, r.Path)
			}
			return nil
		},
		Volume: func(v *index.VolumeInfo) error {
			volumes++
			switch {
			case v.Number > len(m.Volumes):
				differs = fmt.Sprintf("volume %d is missing, which its index names", v.Number)
			case v.Layout.SHA1 != m.Volumes[v.Number-1].SHA1:
				differs = fmt.Sprintf("volume %d has another hash than its index says", v.Number)
			}
			return nil
		},
	})
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, unlessDamaged(in.err)
	}
	if differs == "" && volumes != len(m.Volumes) {
		differs = fmt.Sprintf("it has %d volumes, and its index names %d", len(m.Volumes), volumes)
	}
	if differs != "" {
		return nil, chain.Corrupt("set "+s.Times(), differs)
	}
	m.HasIndex, m.IndexSize = true, in.n
	in.sum.Sum(m.IndexSHA256[:0])
	return files, nil
}

// unlessDamaged returns an error that is not about the file itself.
func unlessDamaged(err error) error {
	var corrupt *chain.CorruptError
	if errors.As(err, &corrupt) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, chain.ErrNoKey) {
		return nil
	}
	return err
}

// summed hashes what is read, and keeps the error of who is read from.
type summed struct {
	r   io.Reader
	sum hash.Hash
	n   int64
	err error
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

// write stores the manifest, which makes the set exist.
func write(ctx context.Context, st *store.Store, s *chain.Set, m *manifest.Manifest, files []chain.Path) error {
	kind := "changed"
	if s.Full {
		kind = "new"
	}
	if len(files) > maxListed {
		files = nil
	}
	var text bytes.Buffer
	err := manifest.Write(&text, m, len(files), func(yield func(manifest.Change, error) bool) {
		for _, p := range files {
			if !yield(manifest.Change{Kind: kind, Path: p}, nil) {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	n := chain.Name{Kind: chain.ManifestFile, Full: s.Full, Start: s.Start, End: s.End, Layer: s.Volumes[0].Layer}
	if n.Layer == chain.Gzip {
		n.Layer = chain.Plain // duplicity never compresses manifests
	}
	return st.Put(ctx, n, text.Bytes())
}
