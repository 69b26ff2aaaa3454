//go:build linux

package fusefs

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dupfs/chain"
	"dupfs/chain/chaintest"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// wide is a forest of one point that computes its tree: top directories of
// files each, without content.
type wide struct {
	chain.Forest
	tops, files int
}

func (w *wide) Points(context.Context) ([]chain.Point, error) {
	return []chain.Point{{Number: 1, Time: time.Unix(1700000000, 0)}}, nil
}

func (w *wide) Tree(context.Context, uint32) (chain.Tree, error) { return w, nil }

func (w *wide) Root(ctx context.Context) (chain.Node, error) { return w.Dir(ctx, 1) }

func (w *wide) Dir(ctx context.Context, dir uint64) (chain.Node, error) {
	n := chain.Node{Dir: dir, Nlink: 2}
	n.Type, n.Mode = chain.Dir, 0o755
	if dir > 1 {
		n.Name = childName("d", int(dir)-2)
	} else {
		n.Nlink += uint32(w.tops)
	}
	return n, nil
}

// childName is the name of child i; the order of names is that of numbers.
func childName(prefix string, i int) string { return prefix + strconv.Itoa(10_000_000 + i)[1:] }

func (w *wide) Version(ctx context.Context, version uint64) (chain.Node, error) {
	i := int(version-1) % w.files
	n := chain.Node{Version: version, Nlink: 1, Name: childName("f", i)}
	n.Type, n.Mode, n.Size = chain.File, 0o644, int64(i)
	return n, nil
}

func (w *wide) Lookup(ctx context.Context, dir uint64, name string) (chain.Node, error) {
	var n chain.Node
	err := w.ReadDir(ctx, dir, name[:len(name)-1], true, func(x chain.Node) error {
		if n = x; n.Name >= name {
			return os.ErrClosed
		}
		return nil
	})
	if err == nil || n.Name != name {
		return n, os.ErrNotExist
	}
	return n, nil
}

func (w *wide) ReadDir(ctx context.Context, dir uint64, after string, exact bool, fn func(chain.Node) error) error {
	count, prefix := w.files, "f"
	if dir == 1 {
		count, prefix = w.tops, "d"
	}
	start := sort.Search(count, func(i int) bool { return childName(prefix, i) > after })
	for i := start; i < count; i++ {
		var n chain.Node
		if dir == 1 {
			n, _ = w.Dir(ctx, uint64(i+2))
		} else {
			n, _ = w.Version(ctx, (dir-2)*uint64(w.files)+uint64(i)+1)
		}
		if err := fn(n); err != nil {
			return err
		}
	}
	return nil
}

// dirent is an entry as the kernel gives it.
type dirent struct {
	name string
	ino  uint64
	off  int64 // after it
	kind byte
}

// getdents reads once, with room for size bytes.
func getdents(t testing.TB, fd, size int) []dirent {
	t.Helper()
	buf := make([]byte, size)
	n, err := unix.Getdents(fd, buf)
	if err != nil {
		t.Error(err)
		return nil
	}
	var out []dirent
	for buf = buf[:n]; len(buf) > 0; {
		size := binary.NativeEndian.Uint16(buf[16:])
		name, _, _ := strings.Cut(string(buf[19:size]), "\x00")
		out = append(out, dirent{name, binary.NativeEndian.Uint64(buf), int64(binary.NativeEndian.Uint64(buf[8:])), buf[18]})
		buf = buf[size:]
	}
	return out
}

// readAll reads an open directory from where it is.
func readAll(t testing.TB, fd, size int) []dirent {
	t.Helper()
	var all []dirent
	for {
		some := getdents(t, fd, size)
		if len(some) == 0 {
			return all
		}
		all = append(all, some...)
	}
}

func openDirFD(t testing.TB, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func checkWide(t testing.TB, all []dirent, files int) {
	t.Helper()
	if len(all) != files+2 || all[0].name != "." || all[1].name != ".." {
		t.Errorf("%d entries", len(all))
		return
	}
	for i, e := range all[2:] {
		if e.name != childName("f", i) || e.kind != unix.DT_REG {
			t.Errorf("entry %d is %+v", i, e)
			return
		}
	}
}

// TestSeekDir seeks to every offset of a directory, in any order, also one
// that was not read before, with buffers that hold few entries.
func TestSeekDir(t *testing.T) {
	const files = 1000
	for _, handle := range []string{"same", "fresh"} {
		t.Run(handle, func(t *testing.T) {
			dir := only(t, mount(t, &wide{tops: 1, files: files}, Options{})) + "/d0000000"
			fd := openDirFD(t, dir)
			all := readAll(t, fd, 500)
			checkWide(t, all, files)
			for _, i := range rand.Perm(len(all)) {
				if handle == "fresh" {
					fd = openDirFD(t, dir)
				}
				if _, err := unix.Seek(fd, all[i].off, 0); err != nil {
					t.Fatal(err)
				}
				got := getdents(t, fd, 300)
				if i+1 == len(all) && len(got) == 0 {
					continue
				}
				if len(got) == 0 || got[0] != all[i+1] {
					t.Fatalf("after entry %d: %v, want %v", i, got, all[i+1])
				}
			}
			if _, err := unix.Seek(fd, 0, 0); err != nil {
				t.Fatal(err)
			}
			checkWide(t, readAll(t, fd, 4096), files)
		})
	}
}

// TestOffsets asks the server itself, without the kernel's cache of directories
// between, for entries after any offset.
func TestOffsets(t *testing.T) {
	const files = 40_000 // enough for the marks to be thinned out
	forest := &wide{tops: 1, files: files}
	ctx := context.Background()
	f := newFileSystem(ctx, forest, Options{}.withDefaults())
	id := uint64(dirBit | 1<<dirBits | 2)
	var open fuse.OpenOut
	in := &fuse.OpenIn{}
	in.NodeId = id
	if s := f.OpenDir(nil, in, &open); s != fuse.OK {
		t.Fatal(s)
	}
	read := func(off uint64, plus bool) (names []string, next uint64) {
		in := &fuse.ReadIn{Fh: open.Fh, Offset: off}
		in.NodeId = id
		out := fuse.NewDirEntryList(make([]byte, 1000), off)
		list, parse := f.ReadDir, func(b []byte) ([]fuse.DirEntry, error) { return fuse.ParseDirEntries(b) }
		if plus {
			list, parse = f.ReadDirPlus, func(b []byte) ([]fuse.DirEntry, error) {
				e, _, err := fuse.ParseDirLookupEntries(b)
				return e, err
			}
		}
		if s := list(nil, in, out); s != fuse.OK {
			t.Fatal(s)
		}
		entries, err := parse(out.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		next = off
		for _, e := range entries {
			names, next = append(names, e.Name), e.Off
		}
		return names, next
	}
	check := func(off uint64, plus bool) uint64 {
		names, next := read(off, plus)
		for i, name := range names {
			want := []string{".", ".."}[min(off+uint64(i), 1)]
			if k := int(off) + i - 2; k >= 0 {
				want = childName("f", k)
			}
			if name != want {
				t.Fatalf("offset %d holds %q, want %q", off+uint64(i), name, want)
			}
		}
		if next != off+uint64(len(names)) || len(names) == 0 && off < files+2 {
			t.Fatalf("offset %d: %d names, next %d", off, len(names), next)
		}
		return next
	}
	for range 300 {
		check(rand.Uint64N(files+10), rand.IntN(2) == 0)
	}
	for off := uint64(0); off < files+2; {
		off = check(off, off%2 == 0)
	}
	for range 300 {
		check(rand.Uint64N(files+10), rand.IntN(2) == 0)
	}
	dir, _ := f.dirs.get(open.Fh)
	if n := len(dir.marks.kept); n < maxMarks/2 || n >= maxMarks {
		t.Errorf("%d marks", n)
	}
	f.ReleaseDir(&fuse.ReleaseIn{Fh: open.Fh})
	if n := f.dirs.len(); n != 0 {
		t.Errorf("%d directories open", n)
	}
}

// TestHugeDir has 100,000 entries in one directory and reads them with several
// readers at once, one of them jumping.
func TestHugeDir(t *testing.T) {
	const files = 100_000
	dir := only(t, mount(t, &wide{tops: 1, files: files}, Options{})) + "/d0000000"
	shared := openDirFD(t, dir)
	var readers sync.WaitGroup
	for i := range 4 {
		fd := shared
		if i > 0 {
			fd = openDirFD(t, dir)
		}
		readers.Go(func() { checkWide(t, readAll(t, fd, 32<<10), files) })
	}
	jump := openDirFD(t, dir)
	readers.Go(func() {
		for range 200 {
			k := rand.IntN(files)
			unix.Seek(jump, int64(k)+2, 0)
			if got := getdents(t, jump, 600); len(got) == 0 || got[0].name != childName("f", k) {
				t.Errorf("offset %d: %v", k+2, got)
				return
			}
		}
	})
	readers.Wait()
}

func TestMarks(t *testing.T) {
	var m marks
	const n = firstStride * maxMarks * 5
	for i := uint64(1); i <= n; i++ {
		m.passed(mark{i, fmt.Sprint(i)})
		if len(m.kept) >= maxMarks {
			t.Fatalf("%d marks", len(m.kept))
		}
	}
	m.last = mark{n - 1, fmt.Sprint(n - 1)}
	for k := uint64(0); k <= n+1000; k += 7 {
		got := m.before(k)
		if got.index > k || got.index > 0 && got.name != fmt.Sprint(got.index) {
			t.Fatalf("before %d is %v", k, got)
		}
		if k <= n && k-got.index > m.stride {
			t.Fatalf("before %d is %v, stride %d", k, got, m.stride)
		}
	}
	if got := m.before(n - 1); got != m.last {
		t.Errorf("before the last is %v", got)
	}
}

// TestFailingDir has a tree that fails in the middle of a directory: what comes
// before is shown, then there is an error, and no end.
func TestFailingDir(t *testing.T) {
	book := new(logBook)
	dir := only(t, mount(t, &failing{wide{tops: 1, files: 500}, 300}, Options{Log: book.log})) + "/d0000000"
	entries, err := os.ReadDir(dir)
	if err == nil || len(entries) != 300 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	if _, err := os.Stat(dir + "/" + childName("f", 400)); err != nil {
		t.Error(err)
	}
	if s := book.String(); strings.Count(s, "set 7: index page 3 is damaged") != 1 {
		t.Errorf("logged %q", s)
	}
}

type failing struct {
	wide
	after int
}

func (f *failing) Tree(context.Context, uint32) (chain.Tree, error) { return f, nil }

func (f *failing) ReadDir(ctx context.Context, dir uint64, after string, exact bool, fn func(chain.Node) error) error {
	return f.wide.ReadDir(ctx, dir, after, exact, func(n chain.Node) error {
		if dir > 1 && n.Name >= childName("f", f.after) {
			return chain.Corrupt("set 7", "index page 3 is damaged")
		}
		return fn(n)
	})
}

// TestRewind makes sure that reading a view again shows new points.
func TestRewind(t *testing.T) {
	f := chaintest.New(at(1000), at(2000))
	dir := mount(t, f, Options{Refresh: 1})
	d, err := os.Open(dir + "/snapshots")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for i := range 2 {
		names, err := d.Readdirnames(-1)
		if err != nil || len(names) != 3+i {
			t.Errorf("%q, %v", names, err)
		}
		f.Add(at(3000))
		d.Seek(0, 0)
	}
}

// counted counts how often its trees are listed.
type counted struct {
	wide
	lists atomic.Int64
}

func (c *counted) Tree(context.Context, uint32) (chain.Tree, error) { return c, nil }

func (c *counted) ReadDir(ctx context.Context, dir uint64, after string, exact bool, fn func(chain.Node) error) error {
	c.lists.Add(1)
	return c.wide.ReadDir(ctx, dir, after, exact, fn)
}

// TestListedOnce: a directory that fits into a buffer is listed once; the
// question for what comes after its end costs nothing.
func TestListedOnce(t *testing.T) {
	forest := &counted{wide: wide{tops: 30, files: 20}}
	dir := only(t, mount(t, forest, Options{}))
	before := forest.lists.Load()
	sh(t, dir, "find . -ls >/dev/null")
	if n := forest.lists.Load() - before; n != 31 {
		t.Errorf("31 directories were listed %d times", n)
	}
}
