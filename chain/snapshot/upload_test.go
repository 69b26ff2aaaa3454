package snapshot

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"dupfs/backends"
	"dupfs/backends/backendtest"
	"dupfs/backends/mem"
	"dupfs/cache"
	"dupfs/chain"
	"dupfs/chain/pgp"
	"dupfs/chain/store"
)

// encrypter is shared by all tests: to derive its key is slow.
var encrypter = sync.OnceValues(func() (*pgp.Encrypter, error) { return pgp.NewEncrypter("fixture") })

// openWriter opens an archive to which indexes can be added.
func openWriter(t testing.TB, b backends.Backend, enc func() (*pgp.Encrypter, error)) *archive {
	t.Helper()
	disk, err := cache.OpenDir(filepath.Join(t.TempDir(), "cache"), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	st := store.New(b, store.Options{Keys: keys(), Encrypter: enc, Disk: disk, TempDir: t.TempDir()})
	var notes []string
	var mu sync.Mutex
	a, err := Open(t.Context(), st, Options{Note: func(s string) {
		mu.Lock()
		defer mu.Unlock()
		notes = append(notes, s)
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(a.Close(), st.Close()); err != nil {
			t.Error(err)
		}
	})
	return &archive{a, st, &notes}
}

// withIndexes returns a fixture with an index beside each set.
func withIndexes(t testing.TB, fixture string) *mem.Backend {
	t.Helper()
	b := load(t, fixture)
	a := openWriter(t, b, encrypter)
	if err := errors.Join(a.LearnAll(t.Context()), a.Upload(t.Context())); err != nil {
		t.Fatal(err)
	}
	if n := a.Progress().Damaged.Load(); n > 0 {
		t.Errorf("%d files are damaged", n)
	}
	return b
}

// stored returns the names in a backend that have a word.
func stored(t testing.TB, b backends.Backend, word string) []string {
	t.Helper()
	files, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		if strings.Contains(f.Name, word) {
			names = append(names, f.Name)
		}
	}
	slices.Sort(names)
	return names
}

// walkAll looks at every entry of all points, with exact sizes.
func walkAll(t testing.TB, a *archive) {
	t.Helper()
	for _, p := range based(t, a) {
		tree, err := a.Tree(t.Context(), p.Number)
		if err != nil {
			t.Fatal(err)
		}
		var walk func(dir uint64)
		walk = func(dir uint64) {
			if err := tree.ReadDir(t.Context(), dir, "", true, func(n chain.Node) error {
				if n.Type == chain.Dir {
					walk(n.Dir)
				} else if n.Type == chain.File && n.Size < 0 {
					t.Errorf("%s: no size", n.Name)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		walk(rootDir)
	}
}

// With indexes put beside them, sets of stock need neither sigtars nor passes
// over volumes, and are what they were.
func TestUpload(t *testing.T) {
	for _, name := range fixtures {
		t.Run(name, func(t *testing.T) {
			b := withIndexes(t, name)
			count := backendtest.NewCount(b)
			a := openWriter(t, count, nil)
			sets := 0
			for _, l := range a.Collection().Lines {
				sets += len(l.Sets)
			}
			if got := len(stored(t, b, "dupfs-index")); got != sets {
				t.Fatalf("%d indexes of %d sets", got, sets)
			}
			walkAll(t, a)
			if got := count.Total().Calls; got != 1+2*sets {
				t.Errorf("%d requests, want a listing and two for each of %d sets", got, sets)
			}
			compare(t, a, expect(t, name), true)
			for _, n := range append(stored(t, b, "sigtar"), stored(t, b, "-signatures.")...) {
				if count.File(backendtest.Get, n).Calls > 0 {
					t.Errorf("%s was read", n)
				}
			}
			if len(*a.notes) > 0 || a.Progress().Volumes.Load() > 0 {
				t.Errorf("%d volumes read, notes %q", a.Progress().Volumes.Load(), *a.notes)
			}
			// It is done once only.
			before := count.Of(backendtest.Put).Calls
			a = openWriter(t, count, encrypter)
			if err := errors.Join(a.LearnAll(t.Context()), a.Upload(t.Context())); err != nil {
				t.Fatal(err)
			}
			if got := count.Of(backendtest.Put).Calls; got != before {
				t.Errorf("%d indexes were written again", got-before)
			}
		})
	}
}

// Indexes that are damaged, of another set, or not encrypted as the set is are
// not used: the archive is the same without them, and new ones replace them.
func TestUploadedIndexesRefused(t *testing.T) {
	for _, c := range []struct {
		name, fixture string
		quiet         bool // there is nothing to be noted
		spoil         func(t *testing.T, b *mem.Backend, names []string)
	}{
		{"damaged", "symmetric", false, func(t *testing.T, b *mem.Backend, names []string) {
			for _, n := range names {
				data := backendtest.Read(t, b, n)
				data[len(data)*3/4] ^= 4
				backendtest.Write(t, b, n, data)
			}
		}},
		{"cut", "plain", false, func(t *testing.T, b *mem.Backend, names []string) {
			for _, n := range names {
				data := backendtest.Read(t, b, n)
				backendtest.Write(t, b, n, data[:len(data)/2])
			}
		}},
		{"of another set", "symmetric", false, func(t *testing.T, b *mem.Backend, names []string) {
			first := backendtest.Read(t, b, names[0])
			for i := range names[1:] {
				backendtest.Write(t, b, names[i], backendtest.Read(t, b, names[i+1]))
			}
			backendtest.Write(t, b, names[len(names)-1], first)
		}},
		{"of another archive", "plain", false, func(t *testing.T, b *mem.Backend, names []string) {
			other := withIndexes(t, "symmetric") // made of a like source, at the same times
			a := openWriter(t, other, nil)
			for _, n := range names {
				plain := stored(t, other, strings.TrimSuffix(n, ".gz"))
				name, ok := chain.ParseName(plain[0], chain.Prefixes{})
				if !ok {
					t.Fatal(plain)
				}
				text, err := plaintext(t.Context(), a.st, name)
				if err != nil {
					t.Fatal(err)
				}
				name, _ = chain.ParseName(n, chain.Prefixes{})
				if err := openWriter(t, b, nil).st.Put(t.Context(), name, text); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"not encrypted", "symmetric", true, func(t *testing.T, b *mem.Backend, names []string) {
			a := openWriter(t, b, nil)
			for _, n := range names {
				name, _ := chain.ParseName(n, chain.Prefixes{})
				text, err := plaintext(t.Context(), a.st, name)
				if err != nil {
					t.Fatal(err)
				}
				name.Layer = chain.Gzip
				if err := errors.Join(a.st.Put(t.Context(), name, text), b.Delete(t.Context(), n)); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"encrypted for somebody else", "symmetric", false, func(t *testing.T, b *mem.Backend, names []string) {
			a := openWriter(t, b, func() (*pgp.Encrypter, error) { return pgp.NewEncrypter("somebody else's") })
			for _, n := range names {
				name, _ := chain.ParseName(n, chain.Prefixes{})
				text, err := plaintext(t.Context(), a.st, name)
				if err == nil {
					err = a.st.Put(t.Context(), name, text)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := withIndexes(t, c.fixture)
			names := stored(t, b, "dupfs-index")
			if len(names) < 2 {
				t.Fatal(names)
			}
			c.spoil(t, b, names)
			a := openWriter(t, b, encrypter)
			compare(t, a, expect(t, c.fixture), true)
			if got := len(*a.notes) == 0; got != c.quiet {
				t.Errorf("notes: %q", *a.notes)
			}
			if a.Progress().Volumes.Load() == 0 {
				t.Error("the index was used")
			}
			if err := errors.Join(a.LearnAll(t.Context()), a.Upload(t.Context())); err != nil {
				t.Fatal(err)
			}
			a = openWriter(t, b, nil)
			walkAll(t, a)
			if len(*a.notes) > 0 || a.Progress().Volumes.Load() > 0 {
				t.Errorf("after they were replaced: %q", *a.notes)
			}
		})
	}
}

// A set of which something is missing gets no index, and no error.
func TestUploadIncomplete(t *testing.T) {
	b := load(t, "plain")
	vols := stored(t, b, ".vol")
	if err := b.Delete(t.Context(), vols[0]); err != nil {
		t.Fatal(err)
	}
	a := openWriter(t, b, encrypter)
	sets := len(a.Collection().Lines[0].Sets)
	if err := errors.Join(a.LearnAll(t.Context()), a.Upload(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got := len(stored(t, b, "dupfs-index")); got != sets-1 {
		t.Errorf("%d indexes of %d sets: %q", got, sets, *a.notes)
	}
}

// plaintext returns that of a stored file.
func plaintext(ctx context.Context, st *store.Store, name chain.Name) (text []byte, err error) {
	err = st.ReadThrough(ctx, chain.Stored{Name: name, Size: -1}, func(r io.Reader) (err error) {
		text, err = io.ReadAll(r)
		return err
	})
	return text, err
}
