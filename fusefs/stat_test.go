//go:build linux

package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"dupfs/chain"
	"dupfs/chain/chaintest"

	"golang.org/x/sys/unix"
)

func lstat(t testing.TB, name string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return st
}

// TestStat looks at what TestZoo does not compare.
func TestStat(t *testing.T) {
	items := append(chaintest.Devices(),
		chaintest.Dir("sub/one"), chaintest.Dir("sub/two"), chaintest.File("sub/file", "x"),
		chaintest.File("513", strings.Repeat("x", 513)),
		chaintest.Sparse("sparse", 1<<40, chaintest.Piece{Off: 4096, Data: strings.Repeat("x", 1000)}),
		chaintest.Sparse("hole", 1<<30),
		chaintest.Link("link", "twelve bytes"),
	)
	dir := only(t, mount(t, chaintest.New(chaintest.Point{Items: items}), Options{}))
	for _, c := range []struct {
		name         string
		size, blocks int64
		nlink        uint64
		rdev         uint64
	}{
		{"sub", 0, 0, 4, 0},
		{"sub/one", 0, 0, 2, 0},
		{"sub/file", 1, 1, 1, 0},
		{"513", 513, 2, 1, 0},
		{"sparse", 1 << 40, 2, 1, 0},
		{"hole", 1 << 30, 0, 1, 0},
		{"link", 12, 0, 1, 0},
		{"dev/null", 0, 0, 1, unix.Mkdev(1, 3)},
		{"dev/block", 0, 0, 1, unix.Mkdev(259, 70000)},
	} {
		st := lstat(t, dir+"/"+c.name)
		if st.Size != c.size || st.Blocks != c.blocks || uint64(st.Nlink) != c.nlink || uint64(st.Rdev) != c.rdev || st.Blksize != blockSize {
			t.Errorf("%s: %+v", c.name, st)
		}
		if st.Atim != st.Mtim || st.Ctim != st.Mtim {
			t.Errorf("%s: times %v %v %v", c.name, st.Atim, st.Mtim, st.Ctim)
		}
	}
}

// TestInodes: one version has one inode number at every point and under every
// name, also over remounts; what differs has another.
func TestInodes(t *testing.T) {
	f := chaintest.Zoo()
	one, two := "/snapshots/2023-11-14T22:13:20Z", "/snapshots/2023-11-16T02:00:00Z"
	dir := mount(t, f, Options{})
	ino := func(name string) uint64 { return lstat(t, dir+name).Ino }
	same := [][2]string{
		{one + "/docs/big.bin", two + "/docs/big.bin"}, {one + "/links/abs", two + "/links/abs"},
		{one + "/hard/one", one + "/later/three"}, {one + "/hard/two", two + "/hard/one"},
	}
	for _, p := range same {
		if ino(p[0]) != ino(p[1]) {
			t.Errorf("%s and %s have inode numbers %x and %x", p[0], p[1], ino(p[0]), ino(p[1]))
		}
	}
	differ := [][2]string{
		{one, two}, {one + "/docs", two + "/docs"}, {one + "/docs", one + "/hard"},
		{one + "/docs/changed.txt", two + "/docs/changed.txt"}, {one + "/docs/small.txt", one + "/docs/big.bin"},
		{"", "/snapshots"}, {"/snapshots", "/snapshots/latest"},
	}
	for _, p := range differ {
		if ino(p[0]) == ino(p[1]) {
			t.Errorf("%s and %s share inode number %x", p[0], p[1], ino(p[0]))
		}
	}
	again := mount(t, f, Options{})
	for _, p := range append(same, differ...) {
		if a, b := ino(p[0]), lstat(t, again+p[0]).Ino; a != b {
			t.Errorf("%s has inode number %x, then %x", p[0], a, b)
		}
	}
	if entries := readAll(t, openDirFD(t, dir+one+"/docs"), 4096); entries[2].ino != ino(one+"/docs/"+entries[2].name) {
		t.Errorf("listed inode number %x of %s", entries[2].ino, entries[2].name)
	}
}

func TestXattrs(t *testing.T) {
	acl := []byte("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe8\x03\x00\x00\x04\x00\x04\x00\xff\xff\xff\xff" +
		"\x10\x00\x06\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff")
	xattrs := []chain.Xattr{
		{Name: "security.capability", Value: []byte("\x01\x00\x00\x02\x00\x04" + strings.Repeat("\x00", 14))}, {Name: "system.posix_acl_access", Value: acl},
		{Name: "trusted.secret", Value: []byte("t")}, {Name: "user.empty", Value: []byte{}},
		{Name: "user.long", Value: bytes.Repeat([]byte("v"), 60000)}, {Name: "user.mime", Value: []byte("text/plain")},
	}
	with := func(e *chain.Entry) { e.Xattrs = xattrs }
	forest := &counting{Forest: chaintest.New(chaintest.Point{Items: []chaintest.Item{
		chaintest.File("file", "x").With(with), chaintest.Dir("dir").With(with),
		chaintest.File("bare", "x"), chaintest.Dir("baredir"),
	}})}
	dir := only(t, mount(t, forest, Options{}))
	if os.Geteuid() != 0 {
		xattrs = slices.Delete(slices.Clone(xattrs), 2, 3) // trusted.* is for root
	}
	for _, name := range []string{"file", "dir"} {
		buf := make([]byte, 1<<16)
		n, err := unix.Lgetxattr(dir+"/"+name, "system.posix_acl_access", buf)
		if err != nil || !bytes.Equal(buf[:n], acl) {
			t.Errorf("%s: access list %x, %v", name, buf[:max(n, 0)], err)
		}
		var list string
		for _, x := range xattrs {
			n, err := unix.Lgetxattr(dir+"/"+name, x.Name, nil)
			if n != len(x.Value) {
				t.Errorf("%s: %s has length %d, %v", name, x.Name, n, err)
			}
			n, err = unix.Lgetxattr(dir+"/"+name, x.Name, buf)
			if err != nil || !bytes.Equal(buf[:n], x.Value) {
				t.Errorf("%s: %s is %q, %v", name, x.Name, buf[:max(n, 0)], err)
			}
			list += x.Name + "\x00"
		}
		if n, err := unix.Llistxattr(dir+"/"+name, buf); err != nil || string(buf[:n]) != list {
			t.Errorf("%s: list %q, %v", name, buf[:max(n, 0)], err)
		}
		if n, err := unix.Llistxattr(dir+"/"+name, nil); n != len(list) {
			t.Errorf("%s: list has length %d, %v", name, n, err)
		}
		for _, c := range []struct {
			err error
			op  func() (int, error)
		}{
			{unix.ENODATA, func() (int, error) { return unix.Lgetxattr(dir+"/"+name, "user.none", buf) }},
			{unix.ENODATA, func() (int, error) { return unix.Lgetxattr(dir+"/"+name, "system.posix_acl_default", buf) }},
			{unix.ERANGE, func() (int, error) { return unix.Lgetxattr(dir+"/"+name, "user.mime", buf[:9]) }},
			{unix.ERANGE, func() (int, error) { return unix.Llistxattr(dir+"/"+name, buf[:9]) }},
			{unix.EROFS, func() (int, error) { return 0, unix.Lsetxattr(dir+"/"+name, "user.x", buf[:1], 0) }},
			{unix.EROFS, func() (int, error) { return 0, unix.Lremovexattr(dir+"/"+name, "user.mime") }},
		} {
			if _, err := c.op(); err != c.err {
				t.Errorf("%s: %v, want %v", name, err, c.err)
			}
		}
	}
	names(t, dir)
	asked := forest.asked.Load()
	for _, name := range []string{"bare", "baredir"} {
		buf := make([]byte, 100)
		for _, x := range []string{"system.posix_acl_access", "security.capability", "user.mime"} {
			if _, err := unix.Lgetxattr(dir+"/"+name, x, buf); err != unix.ENODATA {
				t.Errorf("%s: %v", name, err)
			}
		}
		if n, err := unix.Llistxattr(dir+"/"+name, buf); n != 0 || err != nil {
			t.Errorf("%s: list of %d, %v", name, n, err)
		}
	}
	if n := forest.asked.Load(); n != asked {
		t.Errorf("the forest was asked %d times for attributes that are not there", n-asked)
	}
}

// counting counts what is asked for by number.
type counting struct {
	*chaintest.Forest
	asked atomic.Int64
}

func (c *counting) Tree(ctx context.Context, n uint32) (chain.Tree, error) {
	c.asked.Add(1)
	return c.Forest.Tree(ctx, n)
}

func (c *counting) Version(ctx context.Context, v uint64) (chain.Node, error) {
	c.asked.Add(1)
	return c.Forest.Version(ctx, v)
}

func TestSparse(t *testing.T) {
	const size = 1 << 20
	pieces := []chaintest.Piece{{Off: 0, Data: "begin"}, {Off: 300 << 10, Data: "middle"}, {Off: size - 3, Data: "end"}}
	dir := only(t, mount(t, chaintest.New(chaintest.Point{Items: []chaintest.Item{
		chaintest.Sparse("sparse", size, pieces...), chaintest.Sparse("hole", size), chaintest.File("full", "full"),
		chaintest.File("empty", ""),
	}}), Options{}))
	for _, c := range []struct {
		name     string
		whence   int
		off, end int64 // end < 0: ENXIO
	}{
		{"sparse", unix.SEEK_DATA, 0, 0}, {"sparse", unix.SEEK_DATA, 4, 4}, {"sparse", unix.SEEK_DATA, 5, 300 << 10},
		{"sparse", unix.SEEK_DATA, 300<<10 + 6, size - 3}, {"sparse", unix.SEEK_DATA, size - 1, size - 1},
		{"sparse", unix.SEEK_DATA, size, -1}, {"sparse", unix.SEEK_HOLE, 0, 5}, {"sparse", unix.SEEK_HOLE, 5, 5},
		{"sparse", unix.SEEK_HOLE, 300<<10 + 1, 300<<10 + 6}, {"sparse", unix.SEEK_HOLE, size - 2, size},
		{"sparse", unix.SEEK_HOLE, size, -1}, {"sparse", unix.SEEK_DATA, -1, -1},
		{"hole", unix.SEEK_DATA, 0, -1}, {"hole", unix.SEEK_HOLE, 77, 77},
		{"full", unix.SEEK_DATA, 2, 2}, {"full", unix.SEEK_HOLE, 2, 4}, {"full", unix.SEEK_HOLE, 4, -1},
		{"empty", unix.SEEK_DATA, 0, -1}, {"empty", unix.SEEK_HOLE, 0, -1},
	} {
		f, err := os.Open(dir + "/" + c.name)
		if err != nil {
			t.Fatal(err)
		}
		end, err := unix.Seek(int(f.Fd()), c.off, c.whence)
		f.Close()
		if c.end >= 0 && (end != c.end || err != nil) || c.end < 0 && err != unix.ENXIO {
			t.Errorf("%s: seek from %d (whence %d) gives %d, %v; want %d", c.name, c.off, c.whence, end, err, c.end)
		}
	}
	out := tempDir(t)
	sh(t, dir, `cp --sparse=auto sparse "$1/copy" && cmp sparse "$1/copy"`, out)
	if st := lstat(t, out+"/copy"); st.Blocks*512 >= size {
		t.Errorf("the copy takes %d blocks", st.Blocks)
	}
}

func TestStatfs(t *testing.T) {
	for _, c := range []struct{ size, blocks int64 }{{0, 1}, {4096, 1}, {4097, 2}, {10 << 30, 10 << 18}} {
		dir := mount(t, chaintest.New(), Options{Size: func() int64 { return c.size }})
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		if st.Blocks != uint64(c.blocks) || st.Bfree != 0 || st.Bavail != 0 || st.Namelen != 255 || st.Bsize != blockSize {
			t.Errorf("size %d: %+v", c.size, st)
		}
		if st.Flags&unix.ST_RDONLY == 0 || st.Flags&unix.ST_NOSUID == 0 || st.Flags&unix.ST_NODEV == 0 {
			t.Errorf("flags %x", st.Flags)
		}
	}
}

// TestReadOnly: nothing can be changed.
func TestReadOnly(t *testing.T) {
	dir := only(t, mount(t, chaintest.New(chaintest.Point{Items: []chaintest.Item{
		chaintest.File("file", "x"), chaintest.File("script", "x").With(func(e *chain.Entry) { e.Mode = 0o755 }),
		chaintest.File("none", "x").With(func(e *chain.Entry) { e.Mode = 0 }), chaintest.Dir("dir"),
	}}), Options{}))
	file := dir + "/file"
	for what, err := range map[string]error{
		"write":    os.WriteFile(file, []byte("y"), 0o600),
		"create":   os.WriteFile(dir+"/new", nil, 0o600),
		"truncate": os.Truncate(file, 0),
		"mkdir":    os.Mkdir(dir+"/new", 0o700),
		"remove":   os.Remove(file),
		"rmdir":    os.Remove(dir + "/dir"),
		"rename":   os.Rename(file, dir+"/new"),
		"link":     os.Link(file, dir+"/new"),
		"symlink":  os.Symlink("x", dir+"/new"),
		"chmod":    os.Chmod(file, 0o600),
		"chown":    os.Chown(file, 1, 1),
		"mknod":    unix.Mknod(dir+"/new", unix.S_IFIFO, 0),
		"access":   unix.Access(file, unix.W_OK),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, c := range []struct {
		name string
		mode uint32
		err  error
	}{
		{"file", unix.R_OK, nil}, {"file", unix.X_OK, unix.EACCES}, {"script", unix.X_OK | unix.R_OK, nil},
		{"none", unix.R_OK, nil}, {"dir", unix.R_OK | unix.X_OK, nil}, {"file", unix.F_OK, nil},
	} {
		if err := unix.Access(dir+"/"+c.name, c.mode); err != c.err {
			t.Errorf("access to %s for %o: %v", c.name, c.mode, err)
		}
	}
	if got, err := os.ReadFile(dir + "/none"); err != nil || string(got) != "x" {
		t.Errorf("a file of mode 0: %q, %v", got, err)
	}
}

// TestBounds: numbers that the ids have no room for are errors, not other nodes.
func TestBounds(t *testing.T) {
	node := func(kind chain.Type, dir, version uint64) *chain.Node {
		n := &chain.Node{Dir: dir, Version: version}
		n.Type = kind
		return n
	}
	seen := map[uint64]string{}
	for _, c := range []struct {
		point uint32
		n     *chain.Node
		ok    bool
	}{
		{0, node(chain.Dir, 1, 0), true}, {1<<24 - 1, node(chain.Dir, 1, 0), true}, {5, node(chain.Dir, 1<<39-1, 0), true},
		{1 << 24, node(chain.Dir, 1, 0), false}, {5, node(chain.Dir, 1<<39, 0), false}, {5, node(chain.Dir, 0, 7), false},
		{5, node(chain.File, 0, 1), true}, {5, node(chain.Symlink, 0, 1<<56-1), true}, {5, node(chain.File, 0, 1<<56), false},
		{5, node(chain.File, 3, 0), false},
	} {
		id, err := nodeID(c.point, c.n)
		if (err == nil) != c.ok {
			t.Errorf("point %d, %+v: %v", c.point, c.n, err)
		}
		if err != nil {
			continue
		}
		what := fmt.Sprint(c.point, c.n.Type, c.n.Dir, c.n.Version)
		if other, ok := seen[id]; ok || id <= 1<<40 {
			t.Errorf("%s and %s share id %x", what, other, id)
		}
		seen[id] = what
		if point, dir := splitDir(id); isDir(id) && (point != c.point || dir != c.n.Dir || isVersion(id)) {
			t.Errorf("id of %s is read as directory %d at point %d", what, dir, point)
		}
		if isVersion(id) && splitVersion(id) != c.n.Version {
			t.Errorf("id of %s is read as version %d", what, splitVersion(id))
		}
	}
}
