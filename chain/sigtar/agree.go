package sigtar

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"

	"dupfs/chain"
)

// Agreement compares a sigtar with the manifest of its set. Nothing in
// duplicity's format binds the two, so that the sigtar of another set in its
// place would show older data, or apply deltas to what they were not made for.
// A sigtar that does not agree should not be used: the volumes, whose hashes the
// manifest has, tell what is in the set. The zero value is ready to use.
type Agreement struct {
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

// List takes a new or changed file of the manifest's list.
func (g *Agreement) List(p chain.Path) { g.listed.add(p) }

// Entry takes a member of the sigtar, in its order.
func (g *Agreement) Entry(m *Member) {
	g.last, g.any = m.Entry.Path, true
	if !m.Deleted && m.Entry.Type == chain.File {
		g.found.add(m.Entry.Path)
	}
}

// Verdict says why the sigtar is not that of the manifest's set, "" if it can
// be. end is the last path of the last volume. The list may have been left out
// when the set was written.
func (g *Agreement) Verdict(end chain.Path) string {
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
