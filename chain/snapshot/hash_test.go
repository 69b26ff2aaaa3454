package snapshot

import (
	"fmt"
	"testing"

	"dupfs/backends/backendtest"
	"dupfs/chain"
)

// nodes calls fn for every file of all points.
func nodes(t testing.TB, a *archive, fn func(p chain.Path, n chain.Node)) {
	t.Helper()
	for _, p := range based(t, a) {
		tree, err := a.Tree(t.Context(), p.Number)
		if err != nil {
			t.Fatal(err)
		}
		var walk func(at chain.Path, dir uint64)
		walk = func(at chain.Path, dir uint64) {
			var kids []chain.Node
			if err := tree.ReadDir(t.Context(), dir, "", true, func(n chain.Node) error {
				kids = append(kids, n)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			for _, n := range kids {
				switch n.Type {
				case chain.Dir:
					walk(at.Join(n.Name), n.Dir)
				case chain.File:
					fn(at.Join(n.Name), n)
				}
			}
		}
		walk(chain.Root, rootDir)
	}
}

// After LearnAll every file of what stock wrote has the hash of its content,
// be it a delta or in several volumes; and, once indexes were put beside the
// sets, at every other machine, which reads no volume for it.
func TestLearnHashes(t *testing.T) {
	for _, name := range []string{"plain", "symmetric", "multichain"} {
		t.Run(name, func(t *testing.T) {
			a := openWriter(t, load(t, name), encrypter)
			if err := a.LearnAll(t.Context()); err != nil {
				t.Fatal(err)
			}
			want := map[uint64][32]byte{}
			nodes(t, a, func(p chain.Path, n chain.Node) {
				got, err := sum(t.Context(), a, n)
				if err != nil {
					t.Fatal(p, err)
				}
				if !n.HasHash || got != fmt.Sprintf("%x", n.Hash) {
					t.Errorf("%s: hash %v %x, content has %s", p, n.HasHash, n.Hash, got)
				}
				want[n.Version] = n.Hash
			})
			if len(want) == 0 {
				t.Fatal("no files")
			}
			count := backendtest.NewCount(withIndexes(t, name))
			b := openWriter(t, count, nil)
			if err := b.LearnAll(t.Context()); err != nil {
				t.Fatal(err)
			}
			hashed := 0
			nodes(t, b, func(p chain.Path, n chain.Node) {
				if n.HasHash {
					hashed++
				}
			})
			if hashed < len(want) {
				t.Errorf("%d hashes from the indexes, not %d", hashed, len(want))
			}
			for _, vol := range append(stored(t, count, ".vol"), stored(t, count, ".difftar")...) {
				if count.File(backendtest.Get, vol).Calls > 0 {
					t.Errorf("%s was read although all is in the index", vol)
				}
			}
		})
	}
}
