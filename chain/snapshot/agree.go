package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/bits"

	"dupfs/chain"
	"dupfs/chain/manifest"
)

// agreement compares a sigtar with the manifest of its set. Nothing in
// duplicity's format binds the two, so that the sigtar of another set in its
// place would show older data, or apply deltas to what they were not made for.
// A sigtar that does not agree is not used: the volumes, whose hashes the
// manifest has, tell what is in the set.
type agreement struct {
	listed, found bag
	last          chain.Path // of the sigtar's entries
	any           bool
}

// bag is a set of paths, whatever their order: the sum of their hashes.
type bag struct {
	n   int
	sum [4]uint64
}

func (b *bag) add(p chain.Path) {
	h := sha256.Sum256([]byte(p))
	var carry uint64
	for i := range b.sum {
		b.sum[i], carry = bits.Add64(b.sum[i], binary.LittleEndian.Uint64(h[8*i:]), carry)
	}
	b.n++
}

// readList reads the manifest's list of new and changed files.
func (g *agreement) readList(ctx context.Context, m *merging) error {
	r, err := m.line.a.st.Open(ctx, *m.set.Manifest)
	if err != nil {
		return err
	}
	err = manifest.ParseFileList(r, func(c manifest.Change) error {
		if c.Kind != "deleted" {
			g.listed.add(c.Path)
		}
		return nil
	})
	return errors.Join(err, r.Close())
}

// entry takes an entry of the sigtar, in its order.
func (g *agreement) entry(e *chain.Entry, deleted bool) {
	g.last, g.any = e.Path, true
	if !deleted && e.Type == chain.File {
		g.found.add(e.Path)
	}
}

// verdict says why the sigtar is not that of the manifest's set, "" if it can
// be. The list may have been left out when the set was written.
func (g *agreement) verdict(man *manifest.Manifest) string {
	if len(man.Volumes) == 0 {
		return ""
	}
	end := man.Volumes[len(man.Volumes)-1].Last
	switch {
	case g.listed.n > 0 && g.listed != g.found:
		return "it has other files than the manifest"
	case g.any && g.last != end, !g.any && end != chain.Root:
		// A set without changes has its root in the volume, which the sigtar
		// may lack.
		return "it ends elsewhere than the volumes"
	}
	return ""
}
