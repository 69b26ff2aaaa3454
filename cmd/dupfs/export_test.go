//go:build linux

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"dupfs/internal/need"
)

// TestHandles finds entries again as an NFS server does: by handles that were
// made before the mount was made anew.
func TestHandles(t *testing.T) {
	need.FUSE(t)
	need.Root(t)
	w := newWorld(t)
	url := w.url("archive")
	w.write("src/a/b/c/file", "x")
	w.write("src/a/b/gone", "x")
	w.dupfs("backup", "--no-encryption", "--current-time", at(0), "src", url)
	w.write("src/a/b/c/file", "xyz")
	w.sh("rm src/a/b/gone")
	w.dupfs("backup", "--no-encryption", "--current-time", at(1), "src", url)
	names := []string{
		"", "snapshots", "snapshots/latest/", "snapshots/latest/a/b/c", "snapshots/latest/a/b/c/file",
		"versions/a/b/c", "versions/a/b/c/file", "deleted/a/b", "deleted/a/b/gone", "at", ".dupfs", "changes",
	}
	handles := make([]unix.FileHandle, len(names))
	inodes := make([]uint64, len(names))
	mnt, unmount := w.mount(url, "--no-encryption")
	for i, n := range names {
		h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, filepath.Join(mnt, n)+"/.", 0)
		if errors.Is(err, unix.ENOTDIR) {
			h, _, err = unix.NameToHandleAt(unix.AT_FDCWD, filepath.Join(mnt, n), 0)
		}
		if err != nil {
			t.Fatalf("%s: %v", n, err)
		}
		handles[i] = h
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(mnt, n), &st); err != nil {
			t.Fatal(err)
		}
		inodes[i] = st.Ino
	}
	unmount()
	mnt, _ = w.mount(url, "--no-encryption")
	root, err := unix.Open(mnt, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	for i, n := range names {
		fd, err := unix.OpenByHandleAt(root, handles[i], unix.O_RDONLY)
		if err != nil {
			t.Errorf("%q: %v", n, err)
			continue
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Ino != inodes[i] {
			t.Errorf("%q: inode %d, not %d, %v", n, st.Ino, inodes[i], err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR { // it is connected to the root
			if path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err != nil || !filepath.IsAbs(path) {
				t.Errorf("%q: %q, %v", n, path, err)
			}
		}
		unix.Close(fd)
	}
}
