package snapshot

import (
	"errors"
	"strings"
	"testing"

	"dupfs/backends"
	"dupfs/backends/backendtest"
	"dupfs/chain"
)

// versions lists all points without learning anything, and returns the number
// of each file's version and how many sizes are not known.
func versions(t testing.TB, a *archive) (all []uint64, unknown int) {
	t.Helper()
	for _, p := range based(t, a) {
		tree, err := a.Tree(t.Context(), p.Number)
		if err != nil {
			t.Fatal(err)
		}
		var walk func(dir uint64)
		walk = func(dir uint64) {
			var dirs []uint64
			if err := tree.ReadDir(t.Context(), dir, "", false, func(n chain.Node) error {
				all = append(all, n.Version)
				if n.Type == chain.Dir {
					dirs = append(dirs, n.Dir)
				} else if n.Type == chain.File && n.Size < 0 {
					unknown++
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			for _, d := range dirs {
				walk(d)
			}
		}
		walk(rootDir)
	}
	return all, unknown
}

// uploadFrom lets another machine learn an archive and put indexes beside it.
func uploadFrom(t testing.TB, b backends.Backend) {
	t.Helper()
	a := openWriter(t, b, encrypter)
	if err := errors.Join(a.LearnAll(t.Context()), a.Upload(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// A machine that knows an archive of stock's by its sigtars only takes the
// indexes that another one puts beside it later: it reads no volume for a size
// any more, and numbers stay what they were, also while it has the archive open.
func TestLaterIndexes(t *testing.T) {
	for _, name := range []string{"plain", "symmetric", "multichain"} {
		for _, again := range []string{"another process", "the same"} {
			t.Run(name+"/"+again, func(t *testing.T) {
				b := backendtest.NewCount(load(t, name))
				dir := t.TempDir()
				a := open(t, b, dir)
				before, unknown := versions(t, a)
				if unknown == 0 {
					t.Fatal("all sizes are known")
				}
				uploadFrom(t, b)
				if again == "the same" {
					if err := a.Refresh(t.Context()); err != nil {
						t.Fatal(err)
					}
				} else {
					if err := a.Close(); err != nil {
						t.Fatal(err)
					}
					a = open(t, b, dir)
				}
				vols := stored(t, b, ".difftar")
				reads := func(names []string) (n int) {
					for _, name := range names {
						n += b.File(backendtest.Get, name).Calls
					}
					return n
				}
				had, hadIndex := reads(vols), reads(stored(t, b, "dupfs-index"))
				after, unknown := versions(t, a)
				walkAll(t, a)
				if unknown > 0 || reads(vols) > had {
					t.Errorf("%d sizes not known, %d volumes read", unknown, reads(vols)-had)
				}
				if got, want := reads(stored(t, b, "dupfs-index"))-hadIndex, len(stored(t, b, "dupfs-index")); got != want {
					t.Errorf("%d requests for %d indexes", got, want)
				}
				if len(before) != len(after) {
					t.Fatalf("%d entries, then %d", len(before), len(after))
				}
				for i := range before {
					if before[i] != after[i] {
						t.Fatalf("version %x became %x", before[i], after[i])
					}
				}
				compare(t, a, expect(t, name), true)
				if len(*a.notes) > 0 || a.Progress().Volumes.Load() > 0 {
					t.Errorf("%d volumes read, notes %q", a.Progress().Volumes.Load(), *a.notes)
				}
			})
		}
	}
}

// A later index that does not fit is fetched once, noted, and changes nothing.
func TestLaterIndexBad(t *testing.T) {
	b := backendtest.NewCount(load(t, "plain"))
	a := open(t, b, t.TempDir())
	versions(t, a)
	uploadFrom(t, b)
	names := stored(t, b, "dupfs-index")
	data := backendtest.Read(t, b, names[0])
	for i := range data {
		data[i] ^= 0x55
	}
	backendtest.Write(t, b, names[0], data)
	had := b.File(backendtest.Get, names[0]).Calls
	for range 3 {
		if err := a.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		versions(t, a)
	}
	if got := b.File(backendtest.Get, names[0]).Calls - had; got != 1 {
		t.Errorf("%d requests for an index that is no good", got)
	}
	if len(*a.notes) != 1 || !strings.Contains((*a.notes)[0], names[0]) {
		t.Errorf("notes %q, want one on %s", *a.notes, names[0])
	}
	compare(t, a, expect(t, "plain"), true)
}
