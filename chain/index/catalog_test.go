package index

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dupfs/chain"
	"dupfs/chain/difftar"
)

// model is a line in memory: what each set says, and what each point holds.
type model struct {
	sets   [][]Record
	runs   []map[chain.Path][]Run
	points []map[chain.Path]*modelEntry
}

type modelEntry struct {
	rec     Record
	content []byte
}

// volumeByte is the byte of a made-up volume.
func volumeByte(ord, volume int, off int64) byte {
	x := uint64(ord)*0x9e3779b97f4a7c15 ^ uint64(volume)*0xc2b2ae3d27d4eb4f ^ uint64(off)*0x165667b19e3779f9
	x ^= x >> 29
	x *= 0xbf58476d1ce4e5b9
	return byte(x >> 40)
}

// newModel makes a random line of n sets.
func newModel(r *rand.Rand, n int) *model {
	m := &model{}
	state := map[chain.Path]*modelEntry{}
	for ord := range n {
		next := map[chain.Path]*modelEntry{}
		for p, e := range state {
			next[p] = e
		}
		var set []Record
		runs := map[chain.Path][]Run{}
		add := func(p chain.Path, typ chain.Type) {
			e := &modelEntry{rec: Record{Entry: chain.Entry{Path: p, Type: typ, Mode: uint32(r.IntN(0o10000)), UID: uint32(r.IntN(3)),
				User: []string{"", "root", "me"}[r.IntN(3)], Mtime: chain.Time{Sec: r.Int64N(1<<40) - 1<<38, Nsec: int32(r.IntN(2) * r.IntN(1e9))}},
				Change: difftar.Snapshot, SigLen: -1}}
			if old := state[p]; old != nil && old.rec.Type == chain.File && typ == chain.File && r.IntN(2) == 0 {
				e.rec.Change = difftar.Diff
			}
			if typ == chain.File {
				runs[p] = randomRuns(r, ord, e, state[p])
				e.rec.Size = int64(len(e.content))
				if r.IntN(2) == 0 {
					e.rec.SigOff, e.rec.SigLen = r.Int64N(1<<30), r.Int64N(1<<20)
				}
				if r.IntN(2) == 0 {
					e.rec.HasHash, e.rec.Hash = true, sha256.Sum256(e.content)
				}
			}
			if typ == chain.Symlink {
				e.rec.Link = strings.Repeat("x/", r.IntN(5))
			}
			if typ == chain.CharDevice {
				e.rec.Major, e.rec.Minor = r.Uint32(), r.Uint32()
			}
			if r.IntN(4) == 0 {
				e.rec.Xattrs = []chain.Xattr{{Name: "user.a", Value: []byte{0, 1}}, {Name: "user.b", Value: []byte{}}}
			}
			next[p] = e
			set = append(set, e.rec)
		}
		if ord == 0 {
			add(chain.Root, chain.Dir)
		}
		names := []string{"a", "b", "a b", "a.b", "c\xff", "日"}
		for range 12 {
			p := chain.Root
			for range 1 + r.IntN(3) {
				parent := next[p]
				if parent == nil || parent.rec.Type != chain.Dir {
					break
				}
				p = p.Join(names[r.IntN(len(names))])
				if next[p] == nil {
					break
				}
			}
			if p == chain.Root || slices.ContainsFunc(set, func(s Record) bool { return p.Has(s.Path) || s.Path.Has(p) && s.Path != chain.Root }) {
				continue
			}
			old := next[p]
			if old != nil && (r.IntN(3) == 0 || old.rec.Type == chain.Dir && r.IntN(2) == 0) {
				for q := range state {
					if p.Has(q) {
						delete(next, q)
						set = append(set, Record{Entry: chain.Entry{Path: q}, Change: difftar.Deleted, SigLen: -1})
					}
				}
				continue
			}
			if old != nil && old.rec.Type == chain.Dir {
				continue
			}
			add(p, []chain.Type{chain.File, chain.File, chain.Dir, chain.Dir, chain.Symlink, chain.CharDevice, chain.Fifo}[r.IntN(7)])
		}
		slices.SortFunc(set, func(a, b Record) int { return a.Path.Compare(b.Path) })
		m.sets, m.runs, m.points = append(m.sets, set), append(m.runs, runs), append(m.points, next)
		state = next
	}
	return m
}

func randomRuns(r *rand.Rand, ord int, e, old *modelEntry) []Run {
	var runs []Run
	for range r.IntN(4) {
		n := 1 + r.Int64N(700)
		run := Run{FileOff: int64(len(e.content)), Len: n, Volume: 1 + r.IntN(3), Off: r.Int64N(100000)}
		if e.rec.Change == difftar.Diff && len(old.content) > 0 && r.IntN(3) > 0 {
			run.Volume, run.Off = 0, r.Int64N(int64(len(old.content)))
			run.Len = min(n, int64(len(old.content))-run.Off)
			e.content = append(e.content, old.content[run.Off:run.Off+run.Len]...)
		} else {
			for i := range n {
				e.content = append(e.content, volumeByte(ord, run.Volume, run.Off+i))
			}
		}
		runs = append(runs, run)
	}
	return runs
}

func setInfo(ord int) *SetInfo {
	return &SetInfo{Ord: ord, Times: fmt.Sprint("set", ord), Manifest: chain.Stored{Name: chain.Name{File: fmt.Sprint("m", ord)}, Size: 7}}
}

// merge adds set ord of the model to a catalog.
func (m *model) merge(t *testing.T, c *Catalog, ord int) {
	t.Helper()
	err := c.Merge(context.Background(), setInfo(ord), func(mg *Merger) error {
		for _, rec := range m.sets[ord] {
			if err := mg.Runs(m.runs[ord][rec.Path]); err != nil {
				return err
			}
			if err := mg.Record(&rec); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// check compares point ord of a catalog with the model.
func (m *model) check(t *testing.T, c *Catalog, ord int) {
	t.Helper()
	ctx := context.Background()
	var want []chain.Path
	for p := range m.points[ord] {
		want = append(want, p)
	}
	slices.SortFunc(want, chain.Path.Compare)
	var got []chain.Path
	for n, err := range c.Walk(ctx, ord) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, n.Path)
		e := m.points[ord][n.Path]
		if e == nil {
			t.Fatalf("point %d: %q should not be there", ord, n.Path)
		}
		if a, b := fmt.Sprintf("%+v", n.Record), fmt.Sprintf("%+v", e.rec); a != b {
			t.Fatalf("point %d:\n got %s\nwant %s", ord, a, b)
		}
		if n.Type == chain.File {
			if b := m.read(t, c, n.ID); !bytes.Equal(b, e.content) {
				t.Fatalf("point %d: %q: content differs, %d bytes, want %d", ord, n.Path, len(b), len(e.content))
			}
		}
		subdirs := 0
		for p, e := range m.points[ord] {
			if p != chain.Root && p.Parent() == n.Path && e.rec.Type == chain.Dir {
				subdirs++
			}
		}
		if n.Type == chain.Dir && n.Subdirs != int64(subdirs) {
			t.Fatalf("point %d: %q: %d subdirectories, want %d", ord, n.Path, n.Subdirs, subdirs)
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("point %d:\n got %q\nwant %q", ord, got, want)
	}
}

// read returns the content of a version, by its extents.
func (m *model) read(t *testing.T, c *Catalog, version int64) []byte {
	t.Helper()
	n, err := c.Version(context.Background(), version)
	if err != nil {
		t.Fatal(err)
	}
	b, err := readRange(c, version, 0, n.Size+10)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if len(b) == 0 {
			break
		}
		off := rand.Int64N(int64(len(b)))
		k := 1 + rand.Int64N(int64(len(b))-off)
		part, err := readRange(c, version, off, k)
		if err != nil || !bytes.Equal(part, b[off:off+k]) {
			t.Fatalf("range %d+%d differs: %v", off, k, err)
		}
	}
	return b
}

func readRange(c *Catalog, version, off, n int64) ([]byte, error) {
	var b []byte
	for {
		ext, found, err := c.Extents(context.Background(), version, off, n)
		if err != nil || found == 0 {
			return b, err
		}
		have := len(b)
		for _, e := range ext {
			for i := range e.Len {
				b = append(b, volumeByte(e.Ord, e.Volume, e.Off+i))
			}
		}
		if int64(len(b)-have) != found || found > n {
			return nil, fmt.Errorf("%d bytes of extents, %d found of %d", len(b)-have, found, n)
		}
		off, n = off+found, n-found
	}
}

func open(t testing.TB, path string) *Catalog {
	t.Helper()
	c, err := OpenCatalog(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestCatalogAgainstModel(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newModel(rand.New(rand.NewPCG(seed, 1)), 6)
			c := open(t, filepath.Join(t.TempDir(), "c.db"))
			for ord := range m.sets {
				m.merge(t, c, ord)
				for k := range ord + 1 {
					m.check(t, c, k)
				}
			}
		})
	}
}

// A catalog that was closed goes on where it was, and a set is merged once.
func TestCatalogReopened(t *testing.T) {
	m := newModel(rand.New(rand.NewPCG(1, 1)), 4)
	path := filepath.Join(t.TempDir(), "a %?#b", "c.db")
	for ord := range m.sets {
		c := open(t, path)
		m.merge(t, c, ord)
		if err := c.Merge(t.Context(), setInfo(ord), nil); !errors.Is(err, ErrMerged) {
			t.Fatal(err)
		}
		if err := c.Merge(t.Context(), setInfo(ord+2), nil); !errors.Is(err, ErrOrder) {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	c := open(t, path)
	sets, err := c.Sets(t.Context())
	if err != nil || len(sets) != 4 || sets[3].Times != "set3" {
		t.Fatalf("%+v %v", sets, err)
	}
	for k := range m.sets {
		m.check(t, c, k)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("%v %v", info.Mode(), err)
	}
}

// A merge that fails leaves nothing behind.
func TestMergeUndone(t *testing.T) {
	m := newModel(rand.New(rand.NewPCG(3, 1)), 3)
	c := open(t, filepath.Join(t.TempDir(), "c.db"))
	m.merge(t, c, 0)
	m.merge(t, c, 1)
	fail := errors.New("no more")
	err := c.Merge(t.Context(), setInfo(2), func(mg *Merger) error {
		for _, rec := range m.sets[2] {
			if err := mg.Runs(m.runs[2][rec.Path]); err != nil {
				return err
			}
			if err := mg.Record(&rec); err != nil {
				return err
			}
		}
		return fail
	})
	if !errors.Is(err, fail) {
		t.Fatal(err)
	}
	m.check(t, c, 1)
	m.merge(t, c, 2)
	m.check(t, c, 2)
}

// Children can be listed a few at a time, beginning after any name.
func TestChildrenResumed(t *testing.T) {
	c := open(t, filepath.Join(t.TempDir(), "c.db"))
	names := []string{"", "\x01", "a", "a b", "a.", "b", "\xff"}
	err := c.Merge(t.Context(), setInfo(0), func(m *Merger) error {
		for _, name := range names {
			if err := m.Record(&Record{Entry: chain.Entry{Path: chain.Path(name), Type: chain.Dir}, Change: difftar.Snapshot, SigLen: -1}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for limit := 1; limit < 8; limit++ {
		var got []string
		after := ""
		for {
			nodes, err := c.Children(t.Context(), 0, rootPath, after, limit)
			if err != nil {
				t.Fatal(err)
			}
			if len(nodes) == 0 {
				break
			}
			for _, n := range nodes {
				got = append(got, n.Name)
			}
			after = got[len(got)-1]
		}
		if !slices.Equal(got, names[1:]) {
			t.Fatalf("limit %d: %q", limit, got)
		}
	}
	if _, err := c.Lookup(t.Context(), 0, rootPath, "c"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, id := range []int64{0, -1, 99, 1 << 50} {
		if _, err := c.At(t.Context(), 0, id); !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(id, err)
		}
	}
}

// Parents that the set does not have are made, and records out of order
// replace earlier ones.
func TestMergeOddSets(t *testing.T) {
	c := open(t, filepath.Join(t.TempDir(), "c.db"))
	rec := func(p string, typ chain.Type, mode uint32) *Record {
		return &Record{Entry: chain.Entry{Path: chain.Path(p), Type: typ, Mode: mode}, Change: difftar.Snapshot, SigLen: -1}
	}
	gone := func(p string) *Record {
		return &Record{Entry: chain.Entry{Path: chain.Path(p)}, Change: difftar.Deleted, SigLen: -1}
	}
	sets := [][]*Record{
		{rec("a/b/c", chain.Fifo, 1), rec("a/b/d", chain.Fifo, 2), rec("x", chain.Fifo, 3), rec("a/b", chain.Dir, 4), rec("a/b/c", chain.Fifo, 5)},
		{gone(""), gone("a/b/c"), gone("never/was"), rec("x/y", chain.Fifo, 6)},
		{gone("a"), gone("a/b"), gone("a/b/d"), rec("x", chain.Fifo, 7), gone("x/y")},
		{rec("a", chain.Fifo, 8)},
	}
	want := []string{
		". a a/b/4 a/b/c/5 a/b/d/2 x/3",
		". a a/b/4 a/b/d/2 x x/y/6",
		". x/7",
		". a/8 x/7",
	}
	for ord, set := range sets {
		if err := c.Merge(t.Context(), setInfo(ord), func(m *Merger) error {
			for _, r := range set {
				if err := m.Record(r); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for k := range ord + 1 {
			var got []string
			for n, err := range c.Walk(t.Context(), k) {
				if err != nil {
					t.Fatal(err)
				}
				s := n.Path.String()
				if n.Mode != 0o755 {
					s += fmt.Sprintf("/%d", n.Mode)
				}
				got = append(got, s)
				if p, err := c.PathOf(t.Context(), n.Dir()); err != nil || p != n.Path {
					t.Fatal(p, err)
				}
				if id, err := c.ID(t.Context(), n.Path); err != nil || id != n.Dir() {
					t.Fatal(id, err)
				}
			}
			if s := strings.Join(got, " "); s != want[k] {
				t.Fatalf("after set %d, point %d: %s\nwant %s", ord, k, s, want[k])
			}
		}
	}
	id, err := c.ID(t.Context(), "a/b/c")
	if err != nil {
		t.Fatal(err)
	}
	h, err := c.History(t.Context(), id)
	if err != nil || len(h) != 2 || h[0].Deleted || !h[1].Deleted {
		t.Fatalf("%+v %v", h, err)
	}
}

// Names that are hard links to each other share a leader.
func TestLinks(t *testing.T) {
	c := open(t, filepath.Join(t.TempDir(), "c.db"))
	file := func(p string, group uint64, sec int64) *Record {
		return &Record{Entry: chain.Entry{Path: chain.Path(p), Type: chain.File, LinkGroup: group, Mtime: chain.Time{Sec: sec}}, Change: difftar.Snapshot, SigLen: -1}
	}
	gone := func(p string) *Record {
		return &Record{Entry: chain.Entry{Path: chain.Path(p)}, Change: difftar.Deleted, SigLen: -1}
	}
	sets := [][]*Record{
		{file("a", 7, 1), file("b", 7, 1), file("c", 0, 1), file("d", 1<<63+1, 1), file("e", 1<<63+1, 1)},
		{file("f", 7, 1)},                  // one more name
		{gone("a")},                        // one name less
		{file("b", 7, 2), file("f", 7, 2)}, // changed
		{file("b", 0, 2), gone("d")},
	}
	// For each point: name, number of links, a letter for the leader.
	want := []string{
		"a2a b2a c0c d2d e2d",
		"a3a b3a c0c d2d e2d f3a",
		"b2a c0c d2d e2d f2a",
		"b2g c0c d2d e2d f2g",
		"b0h c0c e1d f1g",
	}
	for ord, set := range sets {
		if err := c.Merge(t.Context(), setInfo(ord), func(m *Merger) error {
			if err := m.Record(&Record{Entry: chain.Entry{Type: chain.Dir}, Change: difftar.Snapshot, SigLen: -1}); err != nil {
				return err
			}
			for _, r := range set {
				if err := m.Record(r); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	letters := map[int64]byte{}
	for k := range sets {
		var got []string
		for n, err := range c.Walk(t.Context(), k) {
			if err != nil {
				t.Fatal(err)
			}
			if n.Path == chain.Root {
				continue
			}
			if letters[n.Leader] == 0 {
				l := n.Name[0]
				if k >= 3 {
					l = byte('g' + k - 3)
				}
				letters[n.Leader] = l
			}
			got = append(got, fmt.Sprintf("%s%d%c", n.Name, n.Links, letters[n.Leader]))
		}
		if s := strings.Join(got, " "); s != want[k] {
			t.Errorf("point %d: %s\nwant %s", k, s, want[k])
		}
	}
}

// A file of more runs than fit in memory is put aside in between.
func TestManyRuns(t *testing.T) {
	c := open(t, filepath.Join(t.TempDir(), "c.db"))
	const n = 300_000
	m := &model{}
	err := c.Merge(t.Context(), setInfo(0), func(mg *Merger) error {
		for i := range int64(n) {
			if err := mg.Runs([]Run{{FileOff: i * 3, Len: 3, Volume: 1 + int(i%2), Off: i * 7919 % 1000003}}); err != nil {
				return err
			}
		}
		return mg.Record(&Record{Entry: chain.Entry{Path: "big", Type: chain.File, Size: 3 * n}, Change: difftar.Snapshot, SigLen: -1})
	})
	if err != nil {
		t.Fatal(err)
	}
	node, err := c.Lookup(t.Context(), 0, rootPath, "big")
	if err != nil || !node.Known {
		t.Fatal(node, err)
	}
	b := m.read(t, c, node.ID)
	for i := range int64(n) {
		for k := range int64(3) {
			if b[i*3+k] != volumeByte(0, 1+int(i%2), i*7919%1000003+k) {
				t.Fatal("byte", i*3+k)
			}
		}
	}
	var left int
	if err := c.r.QueryRow("SELECT count(*) FROM runs WHERE version<0").Scan(&left); err != nil || left != 0 {
		t.Fatal(left, err)
	}
}

// A long chain of deltas is followed without recursion, and the extents of a
// file that never changed in one place are one extent.
func TestLongChain(t *testing.T) {
	c := open(t, filepath.Join(t.TempDir(), "c.db"))
	const sets = 400
	for ord := range sets {
		err := c.Merge(t.Context(), setInfo(ord), func(m *Merger) error {
			runs := []Run{{Len: 1000, Volume: 1, Off: 512}}
			rec := &Record{Entry: chain.Entry{Path: "f", Type: chain.File, Size: 1000}, Change: difftar.Snapshot, SigLen: -1}
			if ord > 0 {
				rec.Change = difftar.Diff
				runs = []Run{{Len: 500, Off: 0}, {FileOff: 500, Len: 1, Volume: 1, Off: int64(ord)}, {FileOff: 501, Len: 499, Off: 501}}
			}
			if err := m.Runs(runs); err != nil {
				return err
			}
			return m.Record(rec)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	n, err := c.Lookup(t.Context(), sets-1, rootPath, "f")
	if err != nil {
		t.Fatal(err)
	}
	got, found, err := c.Extents(t.Context(), n.ID, 0, 2000)
	want := []Extent{{0, 1, 512, 500}, {sets - 1, 1, sets - 1, 1}, {0, 1, 1013, 499}}
	if err != nil || found != 1000 || !slices.Equal(got, want) {
		t.Fatalf("%v %d %v", got, found, err)
	}
}

// What a delta says wrong is an error that names the file.
func TestExtentsOfBadDeltas(t *testing.T) {
	c := open(t, filepath.Join(t.TempDir(), "c.db"))
	file := func(p string, change difftar.Kind, size int64) *Record {
		return &Record{Entry: chain.Entry{Path: chain.Path(p), Type: chain.File, Size: size}, Change: change, SigLen: -1}
	}
	add := func(ord int, rec *Record, runs ...Run) {
		t.Helper()
		if err := c.Merge(t.Context(), setInfo(ord), func(m *Merger) error {
			if err := m.Runs(runs); err != nil {
				return err
			}
			return m.Record(rec)
		}); err != nil {
			t.Fatal(err)
		}
	}
	add(0, file("d/f", difftar.Snapshot, 10), Run{Len: 10, Volume: 1, Off: 512})
	add(1, file("d/f", difftar.Diff, 11), Run{Len: 11})
	add(2, file("d/g", difftar.Diff, 5), Run{Len: 5})
	add(3, file("d/h", 0, -1))
	for name, want := range map[string]string{"f": "d/f: a delta copies from beyond", "g": "d/g: a delta without", "h": "not read yet"} {
		n, err := c.Lookup(t.Context(), 3, 2, name)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = c.Extents(t.Context(), n.ID, 0, 100)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever a disk does to a catalog, it is an error and never another answer.
func TestCatalogDamaged(t *testing.T) {
	m := newModel(rand.New(rand.NewPCG(5, 5)), 4)
	dir := t.TempDir()
	path := filepath.Join(dir, "c.db")
	c := open(t, path)
	for ord := range m.sets {
		m.merge(t, c, ord)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	const page = 4096
	for i := range 160 {
		b := slices.Clone(good)
		switch i % 8 {
		case 0:
			b = b[:r.IntN(len(b))]
		case 1:
			b = bytes.Repeat([]byte("garbage "), 1000)
		case 2, 3, 4: // in the head of a page, or its list of cells
			b[r.IntN(len(b)/page)*page+r.IntN(60)] ^= 1 << r.IntN(8)
		default:
			for range 1 + r.IntN(3) {
				b[r.IntN(len(b))] ^= 1 << r.IntN(8)
			}
		}
		p := filepath.Join(dir, fmt.Sprint("bad", i))
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := OpenCatalog(t.Context(), p)
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if sets, err := c.Sets(t.Context()); err == nil && len(sets) == len(m.sets) {
			for k := range sets {
				// Of the rows of children there is no checksum: one can be hidden.
				if !m.sound(t, c, k, i%8 < 5) {
					t.Errorf("%d: point %d is not what it was", i, k)
				}
			}
		}
		if err := c.Discard(); err != nil {
			t.Fatal(err)
		}
	}
}

// A value of another type than its column has comes from a damaged file, too.
func TestScanErrors(t *testing.T) {
	c := open(t, filepath.Join(t.TempDir(), "c.db"))
	var n int64
	for _, query := range []string{"SELECT NULL", "SELECT 'text'", "SELECT 1.5"} {
		if err := bad(c.r.QueryRow(query).Scan(&n)); !errors.Is(err, ErrBadCatalog) {
			t.Errorf("%s: %v", query, err)
		}
	}
	if err := bad(c.r.QueryRow("SELECT 1 WHERE 0").Scan(&n)); !errors.Is(err, sql.ErrNoRows) || errors.Is(err, ErrBadCatalog) {
		t.Errorf("no row: %v", err)
	}
}

// sound reports whether what a catalog tells of a point is right, as far as it
// gives no error; whole: and all of it.
func (m *model) sound(t *testing.T, c *Catalog, ord int, whole bool) bool {
	entries := 0
	for n, err := range c.Walk(t.Context(), ord) {
		if err != nil {
			return errors.Is(err, ErrBadCatalog)
		}
		entries++
		e := m.points[ord][n.Path]
		if e == nil || fmt.Sprintf("%+v", n.Record) != fmt.Sprintf("%+v", e.rec) {
			t.Logf("%q: %+v, want %+v", n.Path, n.Record, e)
			return false
		}
		if n.Type != chain.File {
			continue
		}
		b, err := readRange(c, n.ID, 0, n.Size+1)
		if err == nil && !bytes.Equal(b, e.content) {
			t.Logf("%q: content differs", n.Path)
			return false
		}
	}
	if whole && entries != len(m.points[ord]) {
		t.Logf("%d entries of %d", entries, len(m.points[ord]))
		return false
	}
	return true
}

// Two of them at once, as two processes have it, merge each set once.
func TestCatalogShared(t *testing.T) {
	m := newModel(rand.New(rand.NewPCG(9, 9)), 5)
	path := filepath.Join(t.TempDir(), "c.db")
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			c, err := OpenCatalog(t.Context(), path)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for ord := range m.sets {
				err := c.Merge(t.Context(), setInfo(ord), func(mg *Merger) error {
					for _, rec := range m.sets[ord] {
						if err := mg.Runs(m.runs[ord][rec.Path]); err != nil {
							return err
						}
						if err := mg.Record(&rec); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil && !errors.Is(err, ErrMerged) {
					t.Error(err)
				}
				for _, err := range c.Walk(t.Context(), ord) {
					if err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	c := open(t, path)
	for k := range m.sets {
		m.check(t, c, k)
	}
	// A catalog in use is not pulled away.
	d := open(t, path)
	if err := d.Discard(); !errors.Is(err, ErrInUse) {
		t.Fatal(err)
	}
	m.check(t, c, 4)
}

func TestNoteSource(t *testing.T) {
	m := newModel(rand.New(rand.NewPCG(2, 2)), 2)
	c := open(t, filepath.Join(t.TempDir(), "c.db"))
	m.merge(t, c, 0)
	m.merge(t, c, 1)
	ino := map[chain.Path]uint64{"not/there": 1}
	for p := range m.points[1] {
		ino[p] = 1<<63 + uint64(len(ino))
	}
	err := c.NoteSource(t.Context(), 1, func(yield func(Source, error) bool) {
		for p, i := range ino {
			if !yield(Source{Path: p, Ctime: -int64(i >> 8), Ino: i}, nil) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for n, err := range c.Walk(t.Context(), 1) {
		if err != nil || n.Ino != ino[n.Path] || n.Ctime != -int64(n.Ino>>8) {
			t.Fatalf("%+v %v", n, err)
		}
	}
}

func BenchmarkMerge(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		c := open(b, filepath.Join(b.TempDir(), "c.db"))
		b.StartTimer()
		start := time.Now()
		if err := mergeMany(c, 60_000); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms/60k")
		b.StopTimer()
		c.Close()
		b.StartTimer()
	}
}

func BenchmarkWalk(b *testing.B) {
	c := open(b, filepath.Join(b.TempDir(), "c.db"))
	if err := mergeMany(c, 60_000); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for _, err := range c.Walk(b.Context(), 0) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func mergeMany(c *Catalog, n int) error {
	return c.Merge(context.Background(), setInfo(0), func(m *Merger) error {
		var off int64
		for i := range n {
			dir := fmt.Sprintf("dir%05d", i/10)
			if i%10 == 0 {
				r := &Record{Entry: chain.Entry{Path: chain.Path(dir), Type: chain.Dir, Mode: 0o755, User: "root", Group: "root", Mtime: chain.Time{Sec: 1700000000}}, Change: difftar.Snapshot, SigLen: -1}
				if err := m.Record(r); err != nil {
					return err
				}
				continue
			}
			if err := m.Runs([]Run{{Len: 1000, Volume: 1, Off: off + 512}}); err != nil {
				return err
			}
			r := &Record{Entry: chain.Entry{Path: chain.Path(fmt.Sprintf("%s/file%d.txt", dir, i%10)), Type: chain.File, Mode: 0o644, User: "root", Group: "root", Size: 1000,
				Mtime: chain.Time{Sec: 1700000000 + int64(i), Nsec: 5}, HasHash: true}, Change: difftar.Snapshot, SigOff: off, SigLen: 36}
			if err := m.Record(r); err != nil {
				return err
			}
			off += 1536
		}
		return nil
	})
}
