package chaintest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dupfs/chain"
)

// Tree lists a tree, one line an entry, in path order:
//
//	PATH TYPE MODE UID:GID MTIME [size N sha HASH | -> TARGET | dev M:N] {XATTR=VALUE}
//
// The path is quoted. Hard links show by "= PATH" of the group's first name.
func Tree(t testing.TB, f chain.Forest, tr chain.Tree) []string {
	t.Helper()
	ctx := context.Background()
	root, err := tr.Root(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	first := map[uint64]chain.Path{}
	var walk func(n chain.Node, p chain.Path)
	walk = func(n chain.Node, p chain.Path) {
		sum := ""
		if n.Type == chain.File {
			sum = contentSum(t, f, n)
		}
		line := format(n.Entry, p, sum)
		if n.LinkGroup != 0 {
			if q, ok := first[n.Version]; ok {
				line += fmt.Sprintf(" = %q", q)
			} else {
				first[n.Version] = p
			}
		}
		out = append(out, line)
		if n.Type != chain.Dir {
			return
		}
		err := tr.ReadDir(ctx, n.Dir, "", true, func(k chain.Node) error {
			walk(k, p.Join(k.Name))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	walk(root, chain.Root)
	return out
}

// contentSum is the size and hash of a file's content.
func contentSum(t testing.TB, f chain.Forest, n chain.Node) string {
	t.Helper()
	c, err := f.OpenVersion(context.Background(), n.Version)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	r := io.NewSectionReader(readerAt{c}, 0, c.Size())
	if _, err := io.Copy(h, r); err != nil {
		t.Fatalf("%s: %v", n.Name, err)
	}
	return fmt.Sprintf("size %d sha %x", c.Size(), h.Sum(nil)[:8])
}

// readerAt reads a Content without a context.
type readerAt struct{ c chain.Content }

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	return r.c.ReadAt(context.Background(), p, off)
}

// format makes the line of an entry.
func format(e chain.Entry, p chain.Path, sum string) string {
	line := fmt.Sprintf("%q %s %04o %d:%d %d.%09d", p.String(), e.Type, e.Mode, e.UID, e.GID, e.Mtime.Sec, e.Mtime.Nsec)
	switch e.Type {
	case chain.File:
		line += " " + sum
	case chain.Symlink:
		line += fmt.Sprintf(" -> %q", e.Link)
	case chain.CharDevice, chain.BlockDevice:
		line += fmt.Sprintf(" dev %d:%d", e.Major, e.Minor)
	}
	for _, x := range e.Xattrs {
		line += fmt.Sprintf(" {%s=%q}", x.Name, x.Value)
	}
	return line
}

// Disk lists a real directory, or file, in the form of Tree.
func Disk(t testing.TB, dir string) []string {
	t.Helper()
	var paths []chain.Path
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		rel, ok := chain.ParsePath(strings.TrimPrefix(p, dir))
		if !ok {
			return fmt.Errorf("bad path %q", p)
		}
		paths = append(paths, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(paths, chain.Path.Compare)
	var out []string
	first := map[[2]uint64]chain.Path{}
	for _, p := range paths {
		name := dir
		if p != chain.Root {
			name = dir + "/" + string(p)
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			t.Fatal(err)
		}
		line := diskLine(t, name, p, &st)
		if id := [2]uint64{uint64(st.Dev), st.Ino}; st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
			if q, ok := first[id]; ok {
				line += fmt.Sprintf(" = %q", q)
			} else {
				first[id] = p
			}
		}
		out = append(out, line)
	}
	return out
}

// diskLine makes the line of a real file.
func diskLine(t testing.TB, name string, p chain.Path, st *unix.Stat_t) string {
	t.Helper()
	e := chain.Entry{Mode: uint32(st.Mode) & 0o7777, UID: st.Uid, GID: st.Gid}
	e.Mtime.Sec = int64(st.Mtim.Sec)
	e.Mtime.Nsec = int32(st.Mtim.Nsec)
	e.Major, e.Minor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
	sum := ""
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Type = chain.File
		sum = fileSum(t, name)
	case unix.S_IFDIR:
		e.Type = chain.Dir
	case unix.S_IFLNK:
		e.Type = chain.Symlink
		target, err := os.Readlink(name)
		if err != nil {
			t.Fatal(err)
		}
		e.Link = target
	case unix.S_IFIFO:
		e.Type = chain.Fifo
	case unix.S_IFCHR:
		e.Type = chain.CharDevice
	case unix.S_IFBLK:
		e.Type = chain.BlockDevice
	}
	e.Xattrs = diskXattrs(name)
	return format(e, p, sum)
}

// fileSum is contentSum of a real file.
func fileSum(t testing.TB, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("size %d sha %x", n, h.Sum(nil)[:8])
}

// diskXattrs returns the attributes of a file but those of SELinux, sorted.
func diskXattrs(name string) []chain.Xattr {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(name, buf)
	if err != nil {
		return nil
	}
	var out []chain.Xattr
	for _, x := range strings.Split(string(buf[:n]), "\x00") {
		if x == "" || x == "security.selinux" {
			continue
		}
		v := make([]byte, 64<<10)
		if k, err := unix.Lgetxattr(name, x, v); err == nil {
			out = append(out, chain.Xattr{Name: x, Value: v[:k]})
		}
	}
	slices.SortFunc(out, func(a, b chain.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Diff reports how two lists differ, as an error of the test.
func Diff(t testing.TB, got, want []string) {
	t.Helper()
	g, w := map[string]bool{}, map[string]bool{}
	for _, l := range got {
		g[l] = true
	}
	for _, l := range want {
		w[l] = true
		if !g[l] {
			t.Errorf("missing  %s", l)
		}
	}
	for _, l := range got {
		if !w[l] {
			t.Errorf("too much %s", l)
		}
	}
}
