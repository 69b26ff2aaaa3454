package repair

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/chain/manifest"
	"dupfs/chain/sigtar"
	"dupfs/chain/store"
	"dupfs/delta"
)

// Sigtar writes the signatures of a set that has none, so that increments can be
// built on it again: those of the entries that its volumes have, of their content
// at the set's own point, which tree is. Temporary space in dir: one file's
// signature.
func Sigtar(ctx context.Context, st *store.Store, s *chain.Set, m *manifest.Manifest, f chain.Forest, tree chain.Tree, dir string) error {
	if s.Sigtar != nil {
		return fmt.Errorf("set %s has signatures", s.Times())
	}
	n := chain.Name{Kind: chain.SigtarFile, Full: s.Full, Start: s.Start, End: s.End, Layer: s.Volumes[0].Layer}
	w, err := st.Create(ctx, n)
	if err != nil {
		return err
	}
	defer w.Abort()
	g := &signing{ctx: ctx, forest: f, tree: tree, dir: dir, out: sigtar.NewWriter(w)}
	for _, row := range m.Volumes {
		if err := g.volume(st, s, row); err != nil {
			return err
		}
	}
	if err := g.out.Close(); err != nil {
		return err
	}
	_, err = w.Commit(ctx)
	return err
}

// signing is a sigtar being made.
type signing struct {
	ctx    context.Context // of Sigtar
	forest chain.Forest
	tree   chain.Tree
	dir    string
	out    *sigtar.Writer
	last   chain.Path
	any    bool
}

// volume adds the entries of a volume.
func (g *signing) volume(st *store.Store, s *chain.Set, row manifest.Volume) error {
	for _, v := range s.Volumes {
		if v.Volume != row.Number {
			continue
		}
		sc, err := st.Scan(g.ctx, v)
		if err != nil {
			return err
		}
		return of(v.File, errors.Join(g.members(difftar.NewReader(sc)), sc.Close()))
	}
	return chain.Corrupt("set "+s.Times(), fmt.Sprintf("volume %d is missing", row.Number))
}

func (g *signing) members(r *difftar.Reader) error {
	for {
		m, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Drain()
		}
		if err != nil {
			return err
		}
		if g.any && m.Entry.Path == g.last { // another piece
			continue
		}
		g.last, g.any = m.Entry.Path, true
		if err := g.entry(m); err != nil {
			return fmt.Errorf("%s: %w", m.Entry.Path, err)
		}
	}
}

// entry adds one entry.
func (g *signing) entry(m *difftar.Member) error {
	rec := sigtar.Member{Entry: m.Entry, Deleted: m.Kind == difftar.Deleted}
	if rec.Deleted || m.Entry.Type != chain.File {
		_, err := g.out.Header(&rec)
		return err
	}
	n, err := resolve(g.ctx, g.tree, m.Entry.Path)
	if err != nil {
		return err
	}
	spool, hash, err := g.sign(n)
	if err != nil {
		return err
	}
	defer spool.Close()
	rec.Entry.Size, rec.Entry.Hash, rec.Entry.HasHash = n.Size, hash, true
	if rec.Len, err = spool.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	if _, err = spool.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err = g.out.Header(&rec); err == nil {
		_, err = io.Copy(g.out, spool)
	}
	return err
}

// sign writes the signature of a file's content to a temporary file, and returns
// the content's SHA-256 as well.
func (g *signing) sign(n chain.Node) (f *os.File, hash [32]byte, err error) {
	content, err := g.forest.OpenVersion(g.ctx, n.Version)
	if err != nil {
		return nil, hash, err
	}
	if f, err = os.CreateTemp(g.dir, "dupfs-repair-"); err != nil {
		return nil, hash, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err = os.Remove(f.Name()); err != nil {
		return nil, hash, err
	}
	signer := delta.NewSigner(f, delta.BlockLen(content.Size()))
	r := io.NewSectionReader(contentAt{g.ctx, content}, 0, content.Size())
	sum := sha256.New()
	copied, err := io.CopyBuffer(io.MultiWriter(signer, sum), struct{ io.Reader }{r}, make([]byte, 256<<10))
	if err == nil && copied != content.Size() {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = signer.Close()
	}
	sum.Sum(hash[:0])
	return f, hash, err
}

// contentAt reads a content while ctx lasts.
type contentAt struct {
	ctx     context.Context
	content chain.Content
}

// ReadAt implements io.ReaderAt.
func (c contentAt) ReadAt(p []byte, off int64) (int, error) { return c.content.ReadAt(c.ctx, p, off) }

// resolve returns the node at a path.
func resolve(ctx context.Context, t chain.Tree, p chain.Path) (chain.Node, error) {
	n, err := t.Root(ctx)
	for _, name := range p.Components() {
		if err != nil {
			return n, err
		}
		n, err = t.Lookup(ctx, n.Dir, name)
	}
	return n, err
}
