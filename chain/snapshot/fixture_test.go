package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"dupfs/backends"
	"dupfs/backends/mem"
	"dupfs/cache"
	"dupfs/chain"
	"dupfs/chain/pgp"
	"dupfs/chain/store"
)

const fixtureDir = "../../testdata/fixtures"

// fixtures are chains made by stock duplicity, in testdata.
var fixtures = []string{
	"plain", "symmetric", "multichain", "names-old", "names-short", "orphans",
	"symmetric-single-zero-block", "handmade-multimember-gzip", "v3-jsonstat",
	"aead-symmetric", "aead-signed",
}

// expected is what stock restored at a point: a line for each entry.
type expected struct {
	time  int64
	lines []string
}

// readJSON reads a file of a fixture.
func readJSON(t testing.TB, fixture, name string, v any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(fixtureDir, fixture, name))
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// expect returns the points of a fixture. Those of orphans that stock answers
// with an older state are left out: they are lost.
func expect(t testing.TB, fixture string) []expected {
	t.Helper()
	var f struct {
		Snapshots []struct {
			Time    int64
			Restore string
		}
	}
	readJSON(t, fixture, "fixture.json", &f)
	var all []expected
	for i, s := range f.Snapshots {
		if fixture == "orphans" && (i == 1 || i == 2) {
			continue
		}
		var entries []struct {
			Path64   string `json:"path_b64"`
			Type     string
			Mode     string
			UID, GID uint32
			Mtime    int64
			Size     int64
			SHA256   string
			Target64 string `json:"target_b64"`
			Rdev     []uint32
		}
		readJSON(t, fixture, s.Restore, &entries)
		e := expected{time: s.Time}
		for _, x := range entries {
			path, err := base64.StdEncoding.DecodeString(x.Path64)
			if err != nil {
				t.Fatal(err)
			}
			target, err := base64.StdEncoding.DecodeString(x.Target64)
			if err != nil {
				t.Fatal(err)
			}
			if x.Type == "link" {
				x.Mtime = 0 // stock does not restore it
			}
			e.lines = append(e.lines, fmt.Sprintf("%q %s %s %d:%d %d %d %s %q %v",
				path, x.Type, x.Mode, x.UID, x.GID, x.Mtime, x.Size, x.SHA256, target, x.Rdev))
		}
		slices.Sort(e.lines)
		all = append(all, e)
	}
	return all
}

// load copies a fixture's archive into memory.
func load(t testing.TB, fixture string) *mem.Backend {
	t.Helper()
	b := mem.New()
	files, err := filepath.Glob(filepath.Join(fixtureDir, fixture, "archive", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no archive of fixture %s: %v", fixture, err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err == nil {
			err = b.Put(t.Context(), filepath.Base(f), bytes.NewReader(data))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// keys are shared by all tests: to derive one from the passphrase is slow.
var keys = sync.OnceValue(func() *pgp.Keys {
	k := pgp.NewKeys("fixture")
	file, err := os.ReadFile(filepath.Join(fixtureDir, "aead-signed", "key.sec.asc"))
	if err == nil {
		err = k.AddKeyFile(file)
	}
	if err != nil {
		panic(err)
	}
	return k
})

// archive is an Archive over a backend, for tests.
type archive struct {
	*Archive
	st    *store.Store
	notes *[]string
}

// open opens an archive, its catalogs in dir.
func open(t testing.TB, b backends.Backend, dir string) *archive {
	t.Helper()
	a, err := tryOpen(t, b, dir)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// tryOpen is open where that may fail.
func tryOpen(t testing.TB, b backends.Backend, dir string) (*archive, error) {
	t.Helper()
	disk, err := cache.OpenDir(filepath.Join(t.TempDir(), "cache"), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	st := store.New(b, store.Options{Keys: keys(), Disk: disk, TempDir: t.TempDir()})
	var notes []string
	lock := make(chan struct{}, 1)
	a, err := Open(t.Context(), st, Options{Dir: dir, Note: func(s string) {
		lock <- struct{}{}
		notes = append(notes, s)
		<-lock
	}})
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	t.Cleanup(func() {
		if err := errors.Join(a.Close(), st.Close()); err != nil {
			t.Error(err)
		}
	})
	return &archive{a, st, &notes}, nil
}

// sum hashes the content of a node.
func sum(ctx context.Context, f chain.Forest, n chain.Node) (string, error) {
	c, err := f.OpenVersion(ctx, n.Version)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if c.Size() != n.Size {
		return "", fmt.Errorf("the content has %d bytes, the node says %d", c.Size(), n.Size)
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, io.NewSectionReader(readerAt{ctx, c}, 0, 1<<62), make([]byte, 100_000)); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

type readerAt struct {
	ctx context.Context
	c   chain.Content
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r.c.ReadAt(r.ctx, p, off) }

// listing returns a line for each entry of a tree, as expect has them. broken is
// called for what cannot be read.
func listing(t testing.TB, f chain.Forest, tree chain.Tree, exact bool, broken func(p chain.Path, err error)) []string {
	t.Helper()
	ctx := t.Context()
	var lines []string
	var walk func(n chain.Node, p chain.Path)
	walk = func(n chain.Node, p chain.Path) {
		hash, rdev := "", []uint32(nil)
		if n.Type == chain.File {
			var err error
			if hash, err = sum(ctx, f, n); err != nil {
				broken(p, err)
				return
			}
		}
		mtime := n.Mtime.Sec
		if n.Type == chain.Symlink {
			mtime = 0
		}
		if n.Type == chain.CharDevice || n.Type == chain.BlockDevice {
			rdev = []uint32{n.Major, n.Minor}
		}
		lines = append(lines, fmt.Sprintf("%q %s %04o %d:%d %d %d %s %q %v", p.String(), n.Type, n.Mode, n.UID, n.GID, mtime, n.Size, hash, n.Link, rdev))
		if n.Type != chain.Dir {
			return
		}
		var kids []chain.Node
		subdirs := uint32(0)
		if err := tree.ReadDir(ctx, n.Dir, "", exact, func(k chain.Node) error {
			kids = append(kids, k)
			return nil
		}); err != nil {
			broken(p, err)
			return
		}
		for _, k := range kids {
			got, err := tree.Lookup(ctx, n.Dir, k.Name)
			if err != nil {
				broken(p.Join(k.Name), err)
				continue
			}
			if k.Size < 0 && !exact {
				k.Size, k.Hash, k.HasHash = got.Size, got.Hash, got.HasHash
			}
			if fmt.Sprint(got) != fmt.Sprint(k) {
				t.Fatalf("Lookup gives %+v, ReadDir %+v", got, k)
			}
			if k.Type == chain.Dir {
				subdirs++
			}
			walk(k, p.Join(k.Name))
		}
		if n.Nlink != 2+subdirs {
			t.Errorf("%s: nlink %d with %d subdirectories", p, n.Nlink, subdirs)
		}
	}
	root, err := tree.Root(ctx)
	if err != nil {
		broken(chain.Root, err)
		return nil
	}
	walk(root, chain.Root)
	slices.Sort(lines)
	return lines
}

// intact fails the test: nothing may be broken.
func intact(t testing.TB) func(p chain.Path, err error) {
	return func(p chain.Path, err error) {
		t.Helper()
		t.Errorf("%s: %v", p, err)
	}
}

// compare compares all points of an archive with what is expected.
func compare(t testing.TB, a *archive, want []expected, exact bool) {
	t.Helper()
	points := based(t, a)
	if len(points) != len(want) {
		t.Fatalf("%d points, want %d", len(points), len(want))
	}
	for i, p := range points {
		if p.Time.Unix() != want[i].time || p.Damage != "" {
			t.Fatalf("point %d: %+v, want time %d", i, p, want[i].time)
		}
		tree, err := a.Tree(t.Context(), p.Number)
		if err != nil {
			t.Fatal(err)
		}
		diff(t, p, listing(t, a, tree, exact, intact(t)), want[i].lines)
	}
}

// based returns the points but those whose base is missing, which nobody can
// read.
func based(t testing.TB, a *archive) (points []chain.Point) {
	t.Helper()
	all, err := a.Points(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if !strings.Contains(p.Damage, "it builds on") {
			points = append(points, p)
			continue
		}
		var corrupt *chain.CorruptError
		if _, err := a.Tree(t.Context(), p.Number); !errors.As(err, &corrupt) {
			t.Errorf("a point without its base: %v", err)
		}
	}
	return points
}

func diff(t testing.TB, p chain.Point, got, want []string) {
	t.Helper()
	if slices.Equal(got, want) {
		return
	}
	for _, l := range got {
		if !slices.Contains(want, l) {
			t.Errorf("%v:  got %s", p.Time, l)
		}
	}
	for _, l := range want {
		if !slices.Contains(got, l) {
			t.Errorf("%v: want %s", p.Time, l)
		}
	}
	if !t.Failed() {
		t.Errorf("%v: repeated lines", p.Time)
	}
}

// Every point of each chain is what stock restores.
func TestFixtures(t *testing.T) {
	for _, name := range fixtures {
		t.Run(name, func(t *testing.T) {
			want := expect(t, name)
			dir := t.TempDir()
			b := load(t, name)
			compare(t, open(t, b, dir), want, true)
			compare(t, open(t, b, dir), want, false) // from the catalogs
			compare(t, open(t, b, ""), want, false)
		})
	}
}

// Ranges are those of the whole.
func TestRanges(t *testing.T) {
	for _, name := range []string{"plain", "symmetric"} {
		t.Run(name, func(t *testing.T) {
			a := open(t, load(t, name), t.TempDir())
			points, err := a.Points(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			r := rand.New(rand.NewPCG(1, 2))
			for _, p := range points {
				tree, err := a.Tree(t.Context(), p.Number)
				if err != nil {
					t.Fatal(err)
				}
				for _, path := range []chain.Path{"large.bin", "small.txt", "z.bin"} {
					n, err := Resolve(t.Context(), tree, path)
					if err != nil {
						continue
					}
					ranges(t, a, n, r)
				}
			}
		})
	}
}

func ranges(t *testing.T, a *archive, n chain.Node, r *rand.Rand) {
	t.Helper()
	c, err := a.OpenVersion(t.Context(), n.Version)
	if err != nil {
		t.Fatal(err)
	}
	whole := make([]byte, c.Size())
	if k, err := c.ReadAt(t.Context(), whole, 0); int64(k) != c.Size() || err != nil && err != io.EOF {
		t.Fatal(k, err)
	}
	for range 40 {
		off := r.Int64N(c.Size() + 10)
		p := make([]byte, r.IntN(200_000))
		k, err := c.ReadAt(t.Context(), p, off)
		var want []byte
		if off < c.Size() {
			want = whole[off:min(off+int64(len(p)), c.Size())]
		}
		if !bytes.Equal(p[:k], want) || (err == nil) != (k == len(p)) {
			t.Fatalf("%s: %d bytes at %d: %d, %v", n.Name, len(p), off, k, err)
		}
	}
	if _, err := c.ReadAt(t.Context(), make([]byte, 1), -1); err == nil {
		t.Fatal("no error for a negative offset")
	}
}

// What is in a chain that lost a set in the middle is not shown as if it were
// whole, and is reported.
func TestOrphans(t *testing.T) {
	a := open(t, load(t, "orphans"), t.TempDir())
	c := a.Collection()
	if len(c.Orphaned) != 1 || len(c.Incomplete) != 1 || !strings.HasSuffix(c.Orphaned[0].Times(), "20231117T054640Z") {
		t.Fatalf("%+v", c)
	}
}
