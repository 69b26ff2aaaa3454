package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dupfs/backends"
	"dupfs/backends/backendtest"
	"dupfs/backends/mem"
	"dupfs/cache"
	"dupfs/chain"
	"dupfs/chain/backup"
	"dupfs/chain/chaintest"
	"dupfs/chain/pgp"
	"dupfs/chain/store"
	"dupfs/chain/volume"
)

// base makes a Base what the backup engine wants, as the command does.
type base struct{ *Base }

func (b base) Walk(ctx context.Context) iter.Seq2[*backup.BaseEntry, error] {
	return func(yield func(*backup.BaseEntry, error) bool) {
		for e, err := range b.Base.Walk(ctx) {
			if err != nil {
				yield(nil, err)
				return
			}
			out := &backup.BaseEntry{Entry: e.Entry, Exact: e.Exact, SigOff: e.SigOff, SigLen: e.SigLen,
				Set: e.Set, Ctime: e.Ctime, Ino: e.Ino, ID: e.ID}
			if !yield(out, nil) {
				return
			}
		}
	}
}

func (b base) Signature(ctx context.Context, e *backup.BaseEntry) (io.ReadCloser, error) {
	return b.Base.Signature(ctx, &BaseEntry{Entry: e.Entry, SigOff: e.SigOff, SigLen: e.SigLen, Set: e.Set, ID: e.ID})
}

// world is a source and the archive of its backups.
type world struct {
	t       testing.TB
	src     string
	b       *mem.Backend
	layer   chain.Layer
	dir     string // of the catalogs; "": a new one for each Archive
	now     time.Time
	want    [][]string // what the source was at each point
	volSize int64
	chunk   int
	indexes [][]byte
	known   []backup.Known
	extend  bool // merge the index of each backup at once
	seed    uint64
}

func newWorld(t testing.TB, layer chain.Layer) *world {
	w := &world{t: t, src: t.TempDir(), b: mem.New(), layer: layer, now: time.Unix(1700000000, 0), volSize: 40_000, chunk: 3000}
	w.write("a/first", 100)
	w.write("a/big", 150_000) // in several volumes
	w.write("a/empty", 0)
	w.write("b c/\xff\n\"name", 5000)
	w.write("b.c", 70_000)
	w.write("z", 10)
	w.must(os.Link(w.path("a/big"), w.path("b c/link")))
	w.must(os.Symlink("../nowhere", w.path("b c/sym")))
	w.must(unix.Mkfifo(w.path("fifo"), 0o640))
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) path(name string) string { return filepath.Join(w.src, name) }

// data returns n bytes that do not compress well.
func (w *world) data(n int) []byte {
	w.seed++
	return backendtest.Data(w.seed, n)
}

func (w *world) write(name string, n int) {
	w.t.Helper()
	w.must(os.MkdirAll(filepath.Dir(w.path(name)), 0o755))
	w.must(os.WriteFile(w.path(name), w.data(n), 0o644))
	w.touch(name)
}

// touch gives a file an mtime of its own.
func (w *world) touch(name string) {
	w.t.Helper()
	w.seed++
	at := time.Unix(1600000000+int64(w.seed), 123456789)
	w.must(os.Chtimes(w.path(name), at, at))
}

// patch changes a few bytes of a file.
func (w *world) patch(name string, off int) {
	w.t.Helper()
	b, err := os.ReadFile(w.path(name))
	w.must(err)
	copy(b[off:], w.data(50))
	b = slices.Insert(b, len(b)/2, w.data(777)...)
	w.must(os.WriteFile(w.path(name), b, 0o644))
	w.touch(name)
}

// rewrite keeps the first bytes of a file and replaces the rest.
func (w *world) rewrite(name string, n int) {
	w.t.Helper()
	b, err := os.ReadFile(w.path(name))
	w.must(err)
	b = append(append(b[:2000:2000], w.data(n)...), b[:30_000]...)
	w.must(os.WriteFile(w.path(name), b, 0o644))
	w.touch(name)
}

// backup makes a set.
func (w *world) backup(full bool) {
	w.t.Helper()
	a := w.open(w.b)
	defer a.Close()
	o := backup.Options{
		Now: w.now, Layer: w.layer, VolSize: w.volSize, PieceSize: 16 << 10, TempDir: w.t.TempDir(),
		OnKnown: func(k backup.Known) error { w.known = append(w.known, k); return nil },
		OnIndex: func(ctx context.Context, r io.Reader) error {
			b, err := io.ReadAll(r)
			w.indexes = append(w.indexes, b)
			if err == nil && w.extend {
				err = a.Extend(ctx, bytes.NewReader(b))
			}
			return err
		},
	}
	var on backup.Base
	if !full {
		bs, err := a.Base(w.t.Context())
		w.must(err)
		sets := bs.Chain().Sets
		o.Last = sets[len(sets)-1].End
		on = base{bs}
	}
	w.known = nil
	stats, err := backup.Run(w.t.Context(), w.src, a.st, on, o)
	w.must(err)
	w.must(stats.IndexErr)
	w.want = append(w.want, chaintest.Disk(w.t, w.src))
	w.now = w.now.Add(time.Hour)
}

// history makes a full set and increments with all kinds of changes.
func (w *world) history() {
	w.backup(true)
	w.patch("a/big", 70_000)
	w.touch("z")
	w.write("new/file", 20_000)
	w.rewrite("a/big", 100_000) // a delta in several volumes
	w.backup(false)
	w.must(os.RemoveAll(w.path("b c")))
	w.write("b c", 300) // a file instead of a directory
	w.patch("a/big", 10)
	w.must(os.Remove(w.path("a/first")))
	w.backup(false)
	w.must(os.Remove(w.path("b c")))
	w.write("b c/again", 1)
	w.write("a/first", 100)
	w.patch("b.c", 1000)
	w.patch("a/big", 100_000)
	w.backup(false)
}

// open opens the archive at a backend.
func (w *world) open(b backends.Backend) *archive {
	w.t.Helper()
	dir := w.dir
	if dir == "" {
		dir = w.t.TempDir()
	}
	disk, err := cache.OpenDir(filepath.Join(w.t.TempDir(), "cache"), 64<<20)
	w.must(err)
	st := store.New(b, store.Options{
		Keys: keys(), Encrypter: func() (*pgp.Encrypter, error) { return pgp.NewEncrypter("fixture") },
		Layer: w.layer, Disk: disk, TempDir: w.t.TempDir(), Volume: volume.Options{Chunk: w.chunk},
	})
	var notes []string
	var mu sync.Mutex
	a, err := Open(w.t.Context(), st, Options{Dir: dir, Note: func(s string) {
		mu.Lock()
		defer mu.Unlock()
		notes = append(notes, s)
	}})
	w.must(err)
	w.t.Cleanup(func() { w.must(errors.Join(a.Close(), st.Close())) })
	return &archive{a, st, &notes}
}

// compare compares all points with what the source was.
func (w *world) compare(a *archive) {
	w.t.Helper()
	points, err := a.Points(w.t.Context())
	w.must(err)
	if len(points) != len(w.want) {
		w.t.Fatalf("%d points, want %d", len(points), len(w.want))
	}
	for i, p := range points {
		tree, err := a.Tree(w.t.Context(), p.Number)
		w.must(err)
		if got := chaintest.Tree(w.t, a, tree); !slices.Equal(got, w.want[i]) {
			w.t.Errorf("point %d:\n got %s\nwant %s", i, strings.Join(got, "\n     "), strings.Join(w.want[i], "\n     "))
		}
	}
}

// without copies the archive but for files that drop chooses.
func (w *world) without(drop func(name string) bool) *mem.Backend {
	w.t.Helper()
	out := mem.New()
	files, err := w.b.List(w.t.Context())
	w.must(err)
	for _, f := range files {
		if !drop(f.Name) {
			w.put(out, f.Name, w.get(f.Name))
		}
	}
	return out
}

func (w *world) get(name string) []byte {
	w.t.Helper()
	r, err := w.b.Open(w.t.Context(), name, 0, -1)
	w.must(err)
	b, err := io.ReadAll(r)
	w.must(err)
	return b
}

func (w *world) put(b backends.Backend, name string, data []byte) {
	w.t.Helper()
	w.must(b.Put(w.t.Context(), name, bytes.NewReader(data)))
}

// names returns the archive's files that have a word in their name.
func (w *world) names(word string) []string {
	w.t.Helper()
	files, err := w.b.List(w.t.Context())
	w.must(err)
	var names []string
	for _, f := range files {
		if strings.Contains(f.Name, word) {
			names = append(names, f.Name)
		}
	}
	slices.Sort(names)
	return names
}

func has(words ...string) func(string) bool {
	return func(name string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(name, w) })
	}
}

// A chain of our own is the same by its indexes, by its sigtars if these are
// lost, and by its volumes alone.
func TestOwnChain(t *testing.T) {
	for _, layer := range []chain.Layer{chain.Plain, chain.Gzip, chain.OpenPGP} {
		t.Run(layer.String(), func(t *testing.T) {
			w := newWorld(t, layer)
			w.history()
			if len(w.names(".vol3.")) < 2 {
				t.Fatal("the volumes are too big for this test")
			}
			a := w.open(w.b)
			w.compare(a)
			if len(*a.notes) > 0 {
				t.Errorf("notes: %q", *a.notes)
			}
			w.compare(w.open(w.without(has("index"))))
			w.compare(w.open(w.without(has("index", "sigtar"))))
		})
	}
}

// With indexes, no volume and no sigtar is asked for before content is read,
// and each set costs its manifest and its index.
func TestRequests(t *testing.T) {
	w := newWorld(t, chain.Gzip)
	w.history()
	count := backendtest.NewCount(w.b)
	w.dir = t.TempDir()
	for round, want := range []int{1 + 2*4, 1} {
		count.Reset()
		a := w.open(count)
		points, err := a.Points(t.Context())
		w.must(err)
		for _, p := range points {
			tree, err := a.Tree(t.Context(), p.Number)
			w.must(err)
			var walk func(dir uint64)
			walk = func(dir uint64) {
				w.must(tree.ReadDir(t.Context(), dir, "", true, func(n chain.Node) error {
					if n.Size < 0 {
						t.Errorf("%s: no size", n.Name)
					}
					if n.Type == chain.Dir {
						walk(n.Dir)
					}
					return nil
				}))
			}
			walk(rootDir)
		}
		if got := count.Total().Calls; got != want {
			t.Errorf("round %d: %d requests, want %d", round, got, want)
		}
	}
}

// Each foreign volume is read once, whatever is asked for in which order.
func TestVolumesReadOnce(t *testing.T) {
	w := newWorld(t, chain.Gzip)
	w.history()
	count := backendtest.NewCount(w.without(has("index")))
	w.compare(w.open(count))
	for _, name := range w.names(".vol") {
		// Not even once if only the second name of a file is in it.
		if got := count.File(backendtest.Get, name).Calls; got > 1 {
			t.Errorf("%s: %d requests", name, got)
		}
	}
}

// An index that does not belong to its set is not used.
func TestBadIndexes(t *testing.T) {
	w := newWorld(t, chain.Plain)
	w.history()
	names := w.names("index")
	if len(names) != 4 {
		t.Fatal(names)
	}
	for name, damage := range map[string]func(b *mem.Backend){
		"cut":       func(b *mem.Backend) { d := w.get(names[1]); w.put(b, names[1], d[:len(d)/2]) },
		"empty":     func(b *mem.Backend) { w.put(b, names[0], nil) },
		"garbage":   func(b *mem.Backend) { w.put(b, names[0], w.data(1000)) },
		"longer":    func(b *mem.Backend) { w.put(b, names[2], append(w.get(names[2]), 0)) },
		"of others": func(b *mem.Backend) { w.put(b, names[1], w.get(names[2])) },
		"one bit": func(b *mem.Backend) {
			d := w.get(names[3])
			d[len(d)/2] ^= 1
			w.put(b, names[3], d)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := w.without(has("\x00"))
			damage(b)
			a := w.open(b)
			w.compare(a)
			if len(*a.notes) != 1 || !strings.Contains((*a.notes)[0], "index is not used") {
				t.Errorf("notes: %q", *a.notes)
			}
		})
	}
}

// check compares the points of an archive that lost something: every file is
// as it was or cannot be read, and only those in lost cannot.
func (w *world) check(a *archive, lost func(point int, line string) bool) {
	w.t.Helper()
	points, err := a.Points(w.t.Context())
	w.must(err)
	for i, p := range points {
		tree, err := a.Tree(w.t.Context(), p.Number)
		w.must(err)
		got, broken := survivors(w.t, a, tree)
		for _, line := range w.want[i] {
			path, _, _ := strings.Cut(line, " file ")
			line, _, _ = strings.Cut(line, " = ") // links show by their first name that can be read
			if lost(i, line) {
				if !slices.Contains(broken, path) {
					w.t.Errorf("point %d: %s can be read", i, path)
				}
			} else if !slices.Contains(got, line) {
				w.t.Errorf("point %d: %s is not there or differs; broken: %q", i, line, broken)
			}
		}
		if len(got)+len(broken) != len(w.want[i]) {
			w.t.Errorf("point %d: %d entries and %d broken, want %d", i, len(got), len(broken), len(w.want[i]))
		}
	}
}

// survivors lists a tree as chaintest.Tree does, without links, and the paths
// that cannot be read.
func survivors(t testing.TB, a *archive, tree chain.Tree) (lines, broken []string) {
	var walk func(n chain.Node, p chain.Path)
	walk = func(n chain.Node, p chain.Path) {
		if n.Type == chain.File {
			if _, err := sum(t.Context(), a, n); err != nil {
				var corrupt *chain.CorruptError
				if !errors.As(err, &corrupt) {
					t.Errorf("%s: %v is no CorruptError", p, err)
				}
				broken = append(broken, fmt.Sprintf("%q", p.String()))
				return
			}
		}
		// The one entry by itself, as a tree of its own.
		one := chaintest.Tree(t, a, &single{n})
		lines = append(lines, strings.Replace(one[0], `"."`, fmt.Sprintf("%q", p.String()), 1))
		if n.Type == chain.Dir {
			err := tree.ReadDir(t.Context(), n.Dir, "", true, func(k chain.Node) error {
				walk(k, p.Join(k.Name))
				return nil
			})
			if err != nil {
				t.Error(p, err)
			}
		}
	}
	root, err := tree.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	walk(root, chain.Root)
	return lines, broken
}

// single is a tree of one entry.
type single struct{ n chain.Node }

func (s *single) Root(context.Context) (chain.Node, error)                   { return s.n, nil }
func (s *single) Dir(context.Context, uint64) (chain.Node, error)            { return s.n, nil }
func (s *single) Lookup(context.Context, uint64, string) (chain.Node, error) { return s.n, nil }
func (s *single) ReadDir(context.Context, uint64, string, bool, func(chain.Node) error) error {
	return nil
}

// A volume that is missing or damaged costs the files in it, at the points
// where they need it, and nothing else.
func TestLostVolume(t *testing.T) {
	w := newWorld(t, chain.Plain)
	w.volSize = 1 << 20
	w.history()
	vol := w.names("inc")[0] // of the second set
	if !strings.HasSuffix(vol, "vol1.difftar") {
		vol = w.names("vol1.difftar")[1]
	}
	// In it are changes of a/big and its link, z and new/file.
	// Of z the metadata changed: an index tells that without the volume.
	indexed := false
	lost := func(point int, line string) bool {
		switch {
		case point == 0:
			return false
		case strings.HasPrefix(line, `"z"`):
			return !indexed
		case strings.HasPrefix(line, `"new/file"`), strings.HasPrefix(line, `"a/big"`):
			return true
		case strings.HasPrefix(line, `"b c/link"`):
			return point == 1
		}
		return false
	}
	bits := w.get(vol)
	bits[len(bits)/2] ^= 4
	for _, index := range []bool{true, false} {
		indexed = index
		drop := has("\x00")
		if !index {
			drop = has("index")
		}
		t.Run(fmt.Sprint("missing, index ", index), func(t *testing.T) {
			b := w.without(func(name string) bool { return name == vol || drop(name) })
			a := w.open(b)
			w.check(a, lost)
			points, err := a.Points(t.Context())
			w.must(err)
			if points[0].Damage != "" || !strings.Contains(points[1].Damage, "missing") || !strings.Contains(points[3].Damage, "missing") {
				t.Errorf("%+v", points)
			}
		})
		t.Run(fmt.Sprint("damaged, index ", index), func(t *testing.T) {
			b := w.without(drop)
			w.put(b, vol, bits)
			a := w.open(b)
			if index { // then only what is in the damaged chunks is lost
				points, err := a.Points(t.Context())
				w.must(err)
				tree, err := a.Tree(t.Context(), points[1].Number)
				w.must(err)
				if _, broken := survivors(t, a, tree); len(broken) == 0 || len(broken) > 3 {
					t.Errorf("broken: %q", broken)
				}
				return
			}
			w.check(a, lost)
			w.put(b, vol, w.get(vol)) // it comes back
			w.must(a.Refresh(t.Context()))
			w.compare(a)
		})
	}
}

// A set without its manifest, or one that cannot be read, takes the points
// after it away, never shows older ones in their place.
func TestLostManifest(t *testing.T) {
	w := newWorld(t, chain.Gzip)
	w.history()
	man := w.names("manifest")
	t.Run("missing", func(t *testing.T) {
		a := w.open(w.without(has(man[2])))
		points, err := a.Points(t.Context())
		w.must(err)
		if len(points) != 3 || points[2].Damage == "" || len(based(t, a)) != 2 || len(a.Collection().Orphaned) != 1 || len(a.Collection().Incomplete) != 1 {
			t.Fatalf("%+v", points)
		}
	})
	t.Run("damaged", func(t *testing.T) {
		b := w.without(has("\x00"))
		w.put(b, man[2], []byte("Volume one:\n"))
		a := w.open(b)
		points, err := a.Points(t.Context())
		w.must(err)
		var corrupt *chain.CorruptError
		for i, p := range points {
			_, err := a.Tree(t.Context(), p.Number)
			if i < 2 && err != nil || i >= 2 && !errors.As(err, &corrupt) {
				t.Errorf("point %d: %v", i, err)
			}
		}
		if points, err = a.Points(t.Context()); err != nil || points[1].Damage != "" || points[2].Damage == "" || points[3].Damage == "" {
			t.Errorf("%+v %v", points, err)
		}
	})
}

// Without sigtar, index and one volume nobody can tell what a set changed.
func TestLostSet(t *testing.T) {
	w := newWorld(t, chain.Plain)
	w.history()
	second := w.names("inc")[0][:len("duplicity-inc.20231114T221320Z.to.20231114T231320Z")]
	times := strings.TrimPrefix(second, "duplicity-inc.")
	vol := second + ".vol1.difftar"
	a := w.open(w.without(func(name string) bool {
		return name == vol || strings.Contains(name, times) && (strings.Contains(name, "index") || strings.Contains(name, "sigtar"))
	}))
	points, err := a.Points(t.Context())
	w.must(err)
	_, err = a.Tree(t.Context(), points[0].Number)
	w.must(err)
	var corrupt *chain.CorruptError
	if _, err := a.Tree(t.Context(), points[1].Number); !errors.As(err, &corrupt) {
		t.Fatal(err)
	}
}

// Catalogs are made again from anything.
func TestCatalogsLost(t *testing.T) {
	w := newWorld(t, chain.Plain)
	w.dir = t.TempDir()
	w.history()
	first := w.open(w.b)
	w.compare(first)
	w.must(first.Close())
	r := rand.New(rand.NewPCG(3, 4))
	for name, damage := range map[string]func(path string, data []byte) error{
		"deleted": func(path string, data []byte) error { return os.Remove(path) },
		"garbage": func(path string, data []byte) error { return os.WriteFile(path, w.data(10_000), 0o600) },
		"empty":   func(path string, data []byte) error { return os.WriteFile(path, nil, 0o600) },
		"cut":     func(path string, data []byte) error { return os.WriteFile(path, data[:len(data)/2], 0o600) },
		"another schema": func(path string, data []byte) error {
			const word = "versions(id INTEGER PRIMARY"
			if !bytes.Contains(data, []byte(word)) {
				t.Errorf("no %q in the catalog", word)
			}
			return os.WriteFile(path, bytes.ReplaceAll(data, []byte(word), []byte("versions(id INTEGER PRIMARX")), 0o600)
		},
		"flipped": func(path string, data []byte) error {
			for range 200 {
				data[r.IntN(len(data))] ^= byte(1 << r.IntN(8))
			}
			return os.WriteFile(path, data, 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			files, err := filepath.Glob(filepath.Join(w.dir, "*.db"))
			if err != nil || len(files) != 1 {
				t.Fatal(files, err)
			}
			data, err := os.ReadFile(files[0])
			w.must(err)
			w.must(damage(files[0], data))
			inner := *w
			inner.t = t
			a := inner.open(w.b)
			inner.compare(a)
			w.must(a.Close())
		})
	}
}

// A catalog of another archive in the same place is thrown away.
func TestCatalogOfAnother(t *testing.T) {
	v, w := newWorld(t, chain.Plain), newWorld(t, chain.Plain)
	v.dir = t.TempDir()
	w.dir = v.dir
	v.backup(true)
	w.write("other", 5)
	w.now = w.now.Add(0)
	w.history()
	v.compare(v.open(v.b))
	w.compare(w.open(w.b))
}

// Several archives share catalogs, as several processes do, while sets are
// merged and volumes learned.
func TestSharedCatalogs(t *testing.T) {
	w := newWorld(t, chain.Gzip)
	w.history()
	w.dir = t.TempDir()
	b := w.without(has("index"))
	var wg sync.WaitGroup
	for range 4 {
		a := w.open(b)
		wg.Go(func() { w.compare(a) })
		wg.Go(func() { w.compare(a) })
	}
	wg.Wait()
}

// A backup's own index extends the catalog, so that nothing is fetched, and
// what the file system said of the source is there for the next one.
func TestExtendAndNotes(t *testing.T) {
	w := newWorld(t, chain.Gzip)
	w.extend, w.dir = true, t.TempDir()
	w.backup(true)
	w.patch("b.c", 5)
	w.backup(false)
	count := backendtest.NewCount(w.b)
	a := w.open(count)
	w.must(a.NoteSource(t.Context(), func(yield func(Source, error) bool) {
		for _, k := range w.known {
			if !yield(Source{Path: k.Path, ID: k.ID, Ctime: k.Ctime, Ino: k.Ino}, nil) {
				return
			}
		}
	}))
	b, err := a.Base(t.Context())
	w.must(err)
	known := 0
	for e, err := range b.Walk(t.Context()) {
		w.must(err)
		if e.Ino != 0 {
			known++
		}
		if !e.Exact {
			t.Errorf("%s is not exact", e.Path)
		}
		if e.Type == chain.File {
			r, err := b.Signature(t.Context(), e)
			w.must(err)
			sig, err := io.ReadAll(r)
			w.must(errors.Join(err, r.Close()))
			if int64(len(sig)) != e.SigLen || !bytes.HasPrefix(sig, []byte("rs\x016")) {
				t.Errorf("%s: signature of %d bytes", e.Path, len(sig))
			}
		}
	}
	if known == 0 || known != len(w.known) {
		t.Errorf("%d entries known, %d noted", known, len(w.known))
	}
	for _, name := range append(w.names("index"), w.names("manifest")...) {
		if n := count.File(backendtest.Get, name).Calls; n > 0 {
			t.Errorf("%s was fetched", name)
		}
	}
	w.compare(a)
}

// New backups appear in an archive that is open, and versions keep their
// numbers.
func TestRefresh(t *testing.T) {
	w := newWorld(t, chain.Plain)
	w.backup(true)
	a := w.open(w.b)
	w.compare(a)
	before, err := a.Points(t.Context())
	w.must(err)
	tree, err := a.Tree(t.Context(), before[0].Number)
	w.must(err)
	z, err := Resolve(t.Context(), tree, "z")
	w.must(err)
	w.patch("b.c", 7)
	w.backup(false)
	w.backup(true)
	w.must(a.Refresh(t.Context()))
	w.compare(a)
	after, err := a.Points(t.Context())
	w.must(err)
	if after[0] != before[0] {
		t.Errorf("%+v, was %+v", after[0], before[0])
	}
	tree, err = a.Tree(t.Context(), after[1].Number)
	w.must(err)
	if n, err := Resolve(t.Context(), tree, "z"); err != nil || n.Version != z.Version {
		t.Errorf("%+v %v", n, err)
	}
	if n, err := a.Version(t.Context(), z.Version); err != nil || n.Name != "z" || n.Size != z.Size {
		t.Errorf("%+v %v", n, err)
	}
	hist, err := a.History(t.Context(), tree, "b.c")
	if err != nil || len(hist) != 2 || hist[1].Number != after[1].Number {
		t.Errorf("%+v %v", hist, err)
	}
	// The same from a new start.
	n, err := Resolve(t.Context(), w.treeOf(w.open(w.b), 1), "z")
	if err != nil || n.Version != z.Version {
		t.Errorf("%+v %v", n, err)
	}
	if got, err := At(after, time.Unix(1, 0)); !errors.Is(err, ErrBefore) {
		t.Errorf("%+v %v", got, err)
	}
	if got, err := At(after, after[1].Time.Add(time.Second)); err != nil || got != after[1] {
		t.Errorf("%+v %v", got, err)
	}
}

func (w *world) treeOf(a *archive, point int) chain.Tree {
	points, err := a.Points(w.t.Context())
	w.must(err)
	tree, err := a.Tree(w.t.Context(), points[point].Number)
	w.must(err)
	return tree
}

// LearnAll leaves nothing to be learned.
func TestLearnAll(t *testing.T) {
	w := newWorld(t, chain.Gzip)
	w.history()
	w.dir = t.TempDir()
	count := backendtest.NewCount(w.without(has("index")))
	a := w.open(count)
	w.must(a.LearnAll(t.Context()))
	for _, name := range w.names(".vol") {
		if n := count.File(backendtest.Get, name).Calls; n != 1 {
			t.Errorf("%s: %d requests", name, n)
		}
	}
	w.compare(a)
}

// A manifest of a run that was interrupted and resumed says wrongly where a
// volume begins: what is not where it should be is looked for elsewhere.
func TestWrongManifest(t *testing.T) {
	b := load(t, "plain")
	name := "duplicity-full.20231114T221320Z.manifest"
	text, err := os.ReadFile(filepath.Join(fixtureDir, "plain", "archive", name))
	if err != nil {
		t.Fatal(err)
	}
	wrong := bytes.Replace(text, []byte("StartingPath   . "), []byte("StartingPath   large.bin "), 1)
	if bytes.Equal(wrong, text) {
		t.Fatal("the manifest is not as this test expects")
	}
	if err := b.Put(t.Context(), name, bytes.NewReader(wrong)); err != nil {
		t.Fatal(err)
	}
	compare(t, open(t, b, t.TempDir()), expect(t, "plain"), true)
}

// swapped returns the archive with the signatures of one full set in the place
// of another's.
func swapped(t *testing.T) *mem.Backend {
	b := load(t, "multichain")
	sig := func(time string) string { return "duplicity-full-signatures." + time + ".sigtar.gz" }
	data, err := os.ReadFile(filepath.Join(fixtureDir, "multichain", "archive", sig("20231119T132000Z")))
	if err == nil {
		err = b.Put(t.Context(), sig("20231118T093320Z"), bytes.NewReader(data))
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The sigtar of another set is not used: the volumes tell what the set holds.
func TestAnothersSigtar(t *testing.T) {
	compare(t, open(t, swapped(t), t.TempDir()), expect(t, "multichain"), true)
}

// What a sigtar tells of and no volume has is there to be seen, and cannot be
// read, where the manifest does not show that it is of another set.
func TestNotInVolumes(t *testing.T) {
	b := swapped(t)
	const name = "duplicity-full.20231118T093320Z.manifest"
	text, err := os.ReadFile(filepath.Join(fixtureDir, "multichain", "archive", name))
	if err != nil {
		t.Fatal(err)
	}
	text = regexp.MustCompile(`(?s)Filelist.*`).ReplaceAll(text, []byte("Filelist 0\n"))
	if err := b.Put(t.Context(), name, bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	a := open(t, b, t.TempDir())
	points, err := a.Points(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tree, err := a.Tree(t.Context(), points[3].Number)
	if err != nil {
		t.Fatal(err)
	}
	var broken []string
	listing(t, a, tree, true, func(p chain.Path, err error) {
		var corrupt *chain.CorruptError
		if !errors.As(err, &corrupt) || !strings.Contains(err.Error(), "no volume of set 20231118T093320Z has it") {
			t.Errorf("%s: %v", p, err)
		}
		broken = append(broken, p.String())
		if n, err := Resolve(t.Context(), tree, p); err != nil || n.Size != -1 {
			t.Errorf("%s: %+v %v", p, n, err)
		}
	})
	if len(broken) == 0 {
		t.Error("nothing is broken")
	}
}

// Where no catalog can be kept, one is made for as long as it is needed.
func TestNoPlaceForCatalogs(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root can write everywhere")
	}
	w := newWorld(t, chain.Plain)
	w.backup(true)
	w.dir = filepath.Join(t.TempDir(), "dir")
	w.must(os.Mkdir(w.dir, 0o500))
	w.compare(w.open(w.b))
}

// A missing volume shows in the points before anything is read, also when it
// is the last one and the catalog is there already.
func TestDamageOfPoints(t *testing.T) {
	w := newWorld(t, chain.Plain)
	w.backup(true)
	w.touch("z")
	w.backup(false)
	w.dir = t.TempDir()
	a := w.open(w.b)
	w.compare(a)
	vols := w.names("duplicity-full.20231114T221320Z.vol")
	last := fmt.Sprintf(".vol%d.", len(vols))
	a = w.open(w.without(has(last)))
	w.treeOf(a, 1)
	points, err := a.Points(t.Context())
	w.must(err)
	for i, p := range points {
		if !strings.Contains(p.Damage, fmt.Sprintf("volume %d of set", len(vols))) {
			t.Errorf("point %d: %+v", i, p)
		}
	}
}

// A set that another one replaced is a point as well.
func TestFork(t *testing.T) {
	w := newWorld(t, chain.Plain)
	w.backup(true)
	full := w.without(has("\x00"))
	w.patch("b.c", 9)
	w.backup(false)
	// The same again, as if the increment were not there.
	fork := w.b
	w.b = full
	w.patch("b.c", 90)
	w.backup(false)
	for _, name := range w.names("duplicity-") {
		w.put(fork, name, w.get(name))
	}
	for _, name := range w.names("index") {
		w.put(fork, name, w.get(name))
	}
	w.b = fork
	a := w.open(w.b)
	w.compare(a)
	if c := a.Collection(); len(c.Chains) != 1 || len(c.Lines) != 2 {
		t.Errorf("%d chains, %d lines", len(c.Chains), len(c.Lines))
	}
	bs, err := a.Base(t.Context())
	w.must(err)
	if sets := bs.Chain().Sets; len(sets) != 2 || !sets[1].End.Equal(w.now.Add(-time.Hour)) {
		t.Errorf("base: %s", sets[len(sets)-1].Times())
	}
}

// With more chains than catalogs stay open each point is read all the same, one
// after the other and at once.
func TestManyChains(t *testing.T) {
	w := newWorld(t, chain.Gzip)
	for i := range maxOpen + 2 {
		w.write("z", 100+i)
		w.backup(true)
	}
	w.dir = t.TempDir()
	a := w.open(w.b)
	w.compare(a)
	w.compare(a)
	points, err := a.Points(t.Context())
	w.must(err)
	var wg sync.WaitGroup
	for i, p := range points {
		wg.Go(func() {
			tree, err := a.Tree(t.Context(), p.Number)
			if err != nil {
				t.Error(err)
				return
			}
			got := listing(t, a, tree, true, func(p chain.Path, err error) { t.Errorf("%s: %v", p, err) })
			if len(got) != len(w.want[i]) {
				t.Errorf("point %d: %d entries of %d", i, len(got), len(w.want[i]))
			}
		})
	}
	wg.Wait()
}
