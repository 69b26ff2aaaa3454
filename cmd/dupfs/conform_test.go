//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"dupfs/internal/need"
)

// What fusefs/CONFORMANCE.md tells of was run with the test suites of others; the
// tests here go over the same ground each time, in short.

// oddTree makes a tree whose names lead to every error that a look-up knows.
const oddTree = `mkdir -p src/dir/sub src/private src/searchable src/readable; cd src
	echo text > file; echo text > dir/inside; echo deep > dir/sub/deep; : > empty
	printf '#!/bin/sh\nexit 7\n' > script; chmod 755 script; echo x > none; chmod 0 none; echo x > writable; chmod 666 writable
	echo x > private/file; chmod 700 private; echo x > searchable/file; chmod 711 searchable; echo x > readable/file; chmod 744 readable
	ln -s file link; ln -s dir dirlink; ln -s nowhere dangling; ln -s loop loop; ln -s ping pong; ln -s pong ping; ln -s ../private/file dir/secret
	mkfifo fifo; mknod null c 1 3; mknod disk b 7 99; ln file hard
	echo x > $(printf '%0255d' 0); setfacl -m u:1234:r file; chown 65534:65534 writable`

// oddPaths are those tried. None leads out of the tree.
var oddPaths = []string{
	"file", "dir", "missing", "empty", "script", "none", "writable", "hard", "fifo", "null", "disk", "link", "dirlink", "dangling",
	"loop", "ping", "private", "private/file", "private/missing", "searchable", "searchable/file", "readable", "readable/file",
	"file/", "dir/", "link/", "missing/", "dirlink/", "loop/", "file/below", "link/below", "missing/below", "dangling/below", "loop/below",
	"fifo/below", "dir/inside", "dirlink/inside", "dir/secret", "dir/missing", "dir/../file", "dir/.", "dir/..", "missing/..", "file/..",
	".", "", strings.Repeat("0", 255), strings.Repeat("0", 256), "dir/" + strings.Repeat("x", 256),
	strings.Repeat("x", 256) + "/below", strings.Repeat("./", 2047) + "f", strings.Repeat("./", 2047) + "ff", strings.Repeat("dir/../", 500) + "file",
	"new\xff\xfe", "dir/sub/deep",
}

// attempt is a system call on a path beneath an open directory.
type attempt struct {
	name string
	do   func(dir int, path string) error
}

func tryOpen(flags int) func(int, string) error {
	return func(dir int, path string) error {
		fd, err := unix.Openat(dir, path, flags|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

// throughProc turns a path into one for a call that takes no directory.
func throughProc(do func(path string) error) func(int, string) error {
	return func(dir int, path string) error {
		if path == "" || path[0] == '/' {
			return do(path)
		}
		return do(fmt.Sprintf("/proc/self/fd/%d/%s", dir, path))
	}
}

func attempts() []attempt {
	all := []attempt{
		{"stat", func(d int, p string) error { return unix.Fstatat(d, p, new(unix.Stat_t), 0) }},
		{"lstat", func(d int, p string) error {
			return unix.Fstatat(d, p, new(unix.Stat_t), unix.AT_SYMLINK_NOFOLLOW)
		}},
		{"statx", func(d int, p string) error {
			return unix.Statx(d, p, unix.AT_STATX_FORCE_SYNC, unix.STATX_ALL, new(unix.Statx_t))
		}},
		{"readlink", func(d int, p string) error { _, err := unix.Readlinkat(d, p, make([]byte, 99)); return err }},
		{"mkdir", func(d int, p string) error { return unix.Mkdirat(d, p, 0o755) }},
		{"rmdir", func(d int, p string) error { return unix.Unlinkat(d, p, unix.AT_REMOVEDIR) }},
		{"unlink", func(d int, p string) error { return unix.Unlinkat(d, p, 0) }},
		{"rename from", func(d int, p string) error { return unix.Renameat(d, p, d, "other") }},
		{"rename to", func(d int, p string) error { return unix.Renameat(d, "file", d, p) }},
		{"rename dir to", func(d int, p string) error { return unix.Renameat(d, "dir", d, p) }},
		{"exchange", func(d int, p string) error { return unix.Renameat2(d, "file", d, p, unix.RENAME_EXCHANGE) }},
		{"link from", func(d int, p string) error { return unix.Linkat(d, p, d, "other", 0) }},
		{"link to", func(d int, p string) error { return unix.Linkat(d, "file", d, p, 0) }},
		{"symlink", func(d int, p string) error { return unix.Symlinkat("file", d, p) }},
		{"mkfifo", func(d int, p string) error { return unix.Mknodat(d, p, unix.S_IFIFO|0o600, 0) }},
		{"mknod", func(d int, p string) error { return unix.Mknodat(d, p, unix.S_IFCHR|0o600, 0x103) }},
		{"chmod", func(d int, p string) error { return unix.Fchmodat(d, p, 0o644, 0) }},
		{"chown", func(d int, p string) error { return unix.Fchownat(d, p, 65534, 65534, 0) }},
		{"lchown", func(d int, p string) error { return unix.Fchownat(d, p, 65534, 65534, unix.AT_SYMLINK_NOFOLLOW) }},
		{"utimens", func(d int, p string) error {
			return unix.UtimesNanoAt(d, p, []unix.Timespec{{Sec: 1}, {Sec: 2}}, 0)
		}},
		{"touch", func(d int, p string) error { return unix.UtimesNanoAt(d, p, nil, unix.AT_SYMLINK_NOFOLLOW) }},
		{"truncate", throughProc(func(p string) error { return unix.Truncate(p, 2) })},
		{"statfs", throughProc(func(p string) error { return unix.Statfs(p, new(unix.Statfs_t)) })},
		{"setxattr", throughProc(func(p string) error { return unix.Setxattr(p, "user.other", []byte("bad"), 0) })},
		{"lsetxattr", throughProc(func(p string) error { return unix.Lsetxattr(p, "trusted.mood", []byte("bad"), 0) })},
		{"set acl", throughProc(func(p string) error {
			return unix.Setxattr(p, "system.posix_acl_access", []byte("\x02\x00\x00\x00"), 0)
		})},
		{"removexattr", throughProc(func(p string) error { return unix.Removexattr(p, "user.other") })},
		{"getxattr", throughProc(func(p string) error {
			_, err := unix.Getxattr(p, "system.posix_acl_access", make([]byte, 99))
			return err
		})},
		{"getxattr short", throughProc(func(p string) error {
			_, err := unix.Getxattr(p, "system.posix_acl_access", make([]byte, 1))
			return err
		})},
		{"listxattr", throughProc(func(p string) error { _, err := unix.Listxattr(p, make([]byte, 99)); return err })},
	}
	for name, mode := range map[string]uint32{"F": unix.F_OK, "R": unix.R_OK, "W": unix.W_OK, "X": unix.X_OK} {
		all = append(all, attempt{"access " + name, func(d int, p string) error { return unix.Faccessat(d, p, mode, unix.AT_EACCESS) }})
	}
	for name, flags := range map[string]int{
		"RDONLY": 0, "WRONLY": unix.O_WRONLY, "RDWR": unix.O_RDWR, "APPEND": unix.O_WRONLY | unix.O_APPEND, "TRUNC": unix.O_TRUNC,
		"CREAT": unix.O_CREAT, "CREAT|EXCL": unix.O_CREAT | unix.O_EXCL, "CREAT|RDWR": unix.O_CREAT | unix.O_RDWR,
		"CREAT|DIRECTORY": unix.O_CREAT | unix.O_DIRECTORY, "DIRECTORY": unix.O_DIRECTORY, "NOFOLLOW": unix.O_NOFOLLOW, "PATH": unix.O_PATH,
		"TMPFILE": unix.O_TMPFILE | unix.O_RDWR, "NOATIME": unix.O_NOATIME, "access mode 3": 3,
	} {
		all = append(all, attempt{"open " + name, tryOpen(flags)})
	}
	return all
}

// TestErrorsAsTheKernel makes each call on each path, as root and as another user,
// on the mount and on a copy in a file system that the kernel itself keeps from being
// written to: the errors must be the same ones.
func TestErrorsAsTheKernel(t *testing.T) {
	need.FUSE(t)
	need.Root(t)
	w := newWorld(t)
	w.sh(oddTree)
	w.dupfs("backup", "--no-encryption", "src", w.url("archive"))
	mnt, _ := w.mount(w.url("archive"), "--no-encryption", "--allow-other")
	sides := [2]int{readOnlyCopy(t, w), beginAt(t, filepath.Join(mnt, "snapshots/latest"))}
	for _, user := range []int{0, 65534} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread() // and the thread ends with it
			if user != 0 {
				_, _ = unix.SetfsgidRetGid(user)
				_, _ = unix.SetfsuidRetUid(user)
			}
			tryAll(t, user, sides)
		}()
		<-done
	}
	tryFiles(t, sides)
}

// tryAll compares every attempt on every path.
func tryAll(t *testing.T, user int, sides [2]int) {
	kinds := map[error]int{}
	for _, a := range attempts() {
		for _, p := range oddPaths {
			want, got := a.do(sides[0], p), a.do(sides[1], p)
			kinds[want]++
			if want != got {
				t.Errorf("user %d: %s %.40q: %v, want %v", user, a.name, p, got, want)
			}
		}
	}
	for _, e := range []error{nil, unix.EROFS, unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ENAMETOOLONG, unix.EISDIR, unix.EEXIST} {
		if kinds[e] == 0 {
			t.Errorf("user %d: no attempt gave %v", user, e)
		}
	}
	if n := kinds[unix.EACCES]; (n > 100) != (user != 0) {
		t.Errorf("user %d: %d attempts gave EACCES", user, n)
	}
	t.Logf("user %d: %d calls, errors %v", user, len(attempts())*len(oddPaths), kinds)
}

// tryFiles makes calls on what is open for reading.
func tryFiles(t *testing.T, sides [2]int) {
	calls := map[string]func(fd int) error{
		"write":     func(fd int) error { _, err := unix.Write(fd, []byte("x")); return err },
		"pwrite":    func(fd int) error { _, err := unix.Pwrite(fd, []byte("x"), 1); return err },
		"ftruncate": func(fd int) error { return unix.Ftruncate(fd, 0) },
		"fallocate": func(fd int) error { return unix.Fallocate(fd, 0, 0, 10) },
		"punch": func(fd int) error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 10)
		},
		"fchmod":    func(fd int) error { return unix.Fchmod(fd, 0o600) },
		"fchown":    func(fd int) error { return unix.Fchown(fd, 1, 1) },
		"fsetxattr": func(fd int) error { return unix.Fsetxattr(fd, "user.x", []byte("x"), 0) },
		"fremove":   func(fd int) error { return unix.Fremovexattr(fd, "user.other") },
		"fsync":     unix.Fsync,
		"fdatasync": unix.Fdatasync,
		"flock":     func(fd int) error { return unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) },
		"read lock": func(fd int) error {
			return unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_RDLCK})
		},
		"write lock": func(fd int) error {
			return unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
		},
		"seek before": func(fd int) error { _, err := unix.Seek(fd, -1, io.SeekStart); return err },
		"seek how":    func(fd int) error { _, err := unix.Seek(fd, 0, 99); return err },
		"pread at -1": func(fd int) error { _, err := unix.Pread(fd, make([]byte, 1), -1); return err },
		"getdents":    func(fd int) error { _, err := unix.Getdents(fd, make([]byte, 4096)); return err },
		"getdents 1": func(fd int) error {
			_, _ = unix.Seek(fd, 0, 0)
			_, err := unix.Getdents(fd, make([]byte, 1))
			return err
		},
		"shared map": func(fd int) error {
			b, err := unix.Mmap(fd, 0, 4, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			if err == nil {
				_ = unix.Munmap(b)
			}
			return err
		},
		"copy into": func(fd int) error { _, err := unix.CopyFileRange(fd, nil, fd, nil, 1, 0); return err },
		"dedupe":    func(fd int) error { return unix.IoctlFileClone(fd, fd) },
		"advise":    func(fd int) error { return unix.Fadvise(fd, 0, 0, unix.FADV_WILLNEED) },
	}
	for _, name := range []string{"file", "dir", "empty"} {
		for what, call := range calls {
			var errs [2]error
			for i, dir := range sides {
				fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				errs[i] = call(fd)
				unix.Close(fd)
			}
			if errs[0] != errs[1] {
				t.Errorf("%s of %s that is open: %v, want %v", what, name, errs[1], errs[0])
			}
		}
	}
	fd, err := unix.Openat(sides[1], "file", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const fiemap = 0xc020660b
	var ask [32]byte
	*(*uint64)(unsafe.Pointer(&ask[8])) = 1 << 40
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), fiemap, uintptr(unsafe.Pointer(&ask))); e != unix.EOPNOTSUPP && e != unix.ENOTTY {
		t.Errorf("FIEMAP: %v", e)
	}
}

// beginAt opens a directory under a number of three digits, so that paths through
// /proc are of equal length.
func beginAt(t *testing.T, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 100)
	unix.Close(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(high) })
	return high
}

// readOnlyCopy copies the source to a file system of the kernel's that is read-only.
func readOnlyCopy(t *testing.T, w *world) int {
	t.Helper()
	dir := w.path("oracle")
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		err = unix.Mount("oracle", dir, "tmpfs", flags, "mode=755,size=4m")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	w.sh("cp -a src/. oracle")
	if err := unix.Mount("", dir, "", flags|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	return beginAt(t, dir)
}

// TestEveryWayToRead reads files at random in every way there is, by many handles
// at once, and compares what comes with the source.
func TestEveryWayToRead(t *testing.T) {
	need.FUSE(t)
	w := newWorld(t)
	url := w.url("archive")
	r := rand.New(rand.NewPCG(21, 12))
	for name, size := range map[string]int{"empty": 0, "byte": 1, "page": 4096, "odd": 70_001, "big": 3<<20 + 13, "changed": 2 << 20} {
		w.write("src/"+name, string(randomBytes(r, size)))
	}
	w.sh("cd src; truncate -s 2500001 sparse; for at in 0 300000 1048576 2400000; do printf 'data of some length' | dd of=sparse bs=1 seek=$at conv=notrunc status=none; done")
	w.dupfs("backup", "--volsize", "1", "--no-encryption", "--current-time", at(0), "src", url)
	w.sh("cd src; for at in 5 70000 1500000; do printf 'not what it was' | dd of=changed bs=1 seek=$at conv=notrunc status=none; done")
	w.dupfs("backup", "--volsize", "1", "--no-encryption", "--current-time", at(1), "src", url)
	mnt, unmount := w.mount(url, "--no-encryption", "--memory", "1M")
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 77))
			for _, name := range []string{"empty", "byte", "page", "odd", "big", "changed", "sparse"} {
				want, err := os.ReadFile(w.path("src", name))
				if err == nil {
					err = readAnyhow(r, filepath.Join(mnt, "snapshots/latest", name), want, w.path("out", fmt.Sprint(i)), 150)
				}
				if err != nil {
					t.Errorf("reader %d, %s: %v", i, name, err)
				}
			}
		})
	}
	group.Wait()
	if s := statusClosed(t, mnt); s.Mount.Errors != 0 || s.Mount.OpenFiles != 0 {
		t.Errorf("status: %+v", s.Mount)
	}
	unmount()
}

// anyReader is a file that is open several times.
type anyReader struct {
	r    *rand.Rand
	want []byte
	fds  []int
	at   []int64 // where each of them is
	out  *os.File
}

// readAnyhow makes n random reads of a file.
func readAnyhow(r *rand.Rand, name string, want []byte, out string, n int) (err error) {
	a := &anyReader{r: r, want: want}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	if a.out, err = os.Create(out); err != nil {
		return err
	}
	defer a.out.Close()
	for _, flags := range []int{0, 0, unix.O_DIRECT, unix.O_NOATIME} {
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		a.fds, a.at = append(a.fds, fd), append(a.at, 0)
	}
	ways := []struct {
		name string
		read func(k int, off int64, n int) ([]byte, error)
	}{
		{"pread", a.pread}, {"preadv", a.preadv}, {"read", a.read}, {"mmap", a.mmap}, {"splice", a.splice},
		{"sendfile", a.sendfile}, {"copy_file_range", a.copyRange}, {"lseek", a.holes}, {"evict", a.evict},
	}
	for range n {
		way, k := ways[a.r.IntN(len(ways))], a.r.IntN(len(a.fds))
		off, size := a.r.Int64N(int64(len(want))+100), a.r.IntN(1<<a.r.IntN(19))
		got, err := way.read(k, off, size)
		if err != nil {
			return fmt.Errorf("%s of %d bytes at %d: %w", way.name, size, off, err)
		}
		if end := min(off+int64(len(got)), int64(len(want))); !bytes.Equal(got, want[min(off, end):end]) {
			return fmt.Errorf("%s of %d bytes at %d gives %d wrong ones", way.name, size, off, len(got))
		}
	}
	return nil
}

// rest returns how many of n bytes at off there are.
func (a *anyReader) rest(off int64, n int) int {
	return int(max(0, min(int64(n), int64(len(a.want))-off)))
}

// all returns b, or an error if it is not as long as it can be.
func (a *anyReader) all(b []byte, off int64, n int, err error) ([]byte, error) {
	if err == nil && len(b) != a.rest(off, n) {
		err = fmt.Errorf("%d bytes", len(b))
	}
	return b, err
}

func (a *anyReader) pread(k int, off int64, n int) ([]byte, error) {
	b := make([]byte, n)
	m, err := unix.Pread(a.fds[k], b, off)
	return a.all(b[:max(m, 0)], off, n, err)
}

func (a *anyReader) preadv(k int, off int64, n int) ([]byte, error) {
	var parts [][]byte
	for left := n; left > 0; {
		size := min(left, 1+a.r.IntN(20_000))
		parts, left = append(parts, make([]byte, size)), left-size
	}
	m, err := unix.Preadv(a.fds[k], parts, off)
	return a.all(bytes.Join(parts, nil)[:max(m, 0)], off, n, err)
}

// read goes on where the handle is, after moving it in one of three ways.
func (a *anyReader) read(k int, off int64, n int) ([]byte, error) {
	var at int64
	var err error
	switch a.r.IntN(3) {
	case 0:
		at, err = unix.Seek(a.fds[k], off, io.SeekStart)
	case 1:
		at, err = unix.Seek(a.fds[k], off-a.at[k], io.SeekCurrent)
	case 2:
		at, err = unix.Seek(a.fds[k], off-int64(len(a.want)), io.SeekEnd)
	}
	if err != nil || at != off {
		return nil, fmt.Errorf("lseek leads to %d, %w", at, err)
	}
	b := make([]byte, n)
	m, err := unix.Read(a.fds[k], b)
	a.at[k] = off + int64(max(m, 0))
	return a.all(b[:max(m, 0)], off, n, err)
}

// mmap also writes into a private mapping, which nobody else may see.
func (a *anyReader) mmap(k int, off int64, n int) ([]byte, error) {
	page := int64(os.Getpagesize())
	first := off / page * page
	if n = a.rest(off, n); n == 0 {
		return nil, nil
	}
	how, prot := unix.MAP_SHARED, unix.PROT_READ
	if a.r.IntN(2) == 0 {
		how, prot = unix.MAP_PRIVATE, unix.PROT_READ|unix.PROT_WRITE
	}
	b, err := unix.Mmap(a.fds[k], first, int(off-first)+n, prot, how)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Munmap(b) }()
	got := bytes.Clone(b[off-first:])
	if end := first + int64(len(b)); end == int64(len(a.want)) {
		tail := unsafe.Slice(&b[0], (int64(len(b))+page-1)/page*page)[len(b):]
		if len(bytes.Trim(tail, "\x00")) > 0 {
			return nil, errors.New("the last page has something after the end")
		}
	}
	if how == unix.MAP_PRIVATE {
		for i := range b {
			b[i] = ^b[i]
		}
	}
	return got, nil
}

func (a *anyReader) splice(k int, off int64, n int) ([]byte, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	defer unix.Close(p[0])
	n = min(n, 32<<10) // it holds 64 KiB
	from := off
	m, err := unix.Splice(a.fds[k], &from, p[1], nil, n, 0)
	unix.Close(p[1])
	if err != nil || from != off+m {
		return nil, fmt.Errorf("%d bytes, to %d: %w", m, from, err)
	}
	b := make([]byte, m)
	if m > 0 {
		got, err := unix.Read(p[0], b)
		if err != nil || int64(got) != m {
			return nil, fmt.Errorf("%d bytes of %d in the pipe: %w", got, m, err)
		}
	} else if a.rest(off, n) > 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return b, nil
}

// put returns what a call put in the file out.
func (a *anyReader) put(off int64, n int, call func(from *int64) (int, error)) ([]byte, error) {
	if err := a.out.Truncate(0); err != nil {
		return nil, err
	}
	if _, err := a.out.Seek(0, 0); err != nil {
		return nil, err
	}
	from := off
	m, err := call(&from)
	if err != nil {
		return nil, err
	}
	b := make([]byte, m)
	got, err := a.out.ReadAt(b, 0)
	if got != m || from != off+int64(m) {
		return nil, fmt.Errorf("%d bytes of %d, to %d: %w", got, m, from, err)
	}
	if m == 0 && a.rest(off, n) > 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return b, nil
}

func (a *anyReader) sendfile(k int, off int64, n int) ([]byte, error) {
	return a.put(off, n, func(from *int64) (int, error) { return unix.Sendfile(int(a.out.Fd()), a.fds[k], from, n) })
}

func (a *anyReader) copyRange(k int, off int64, n int) ([]byte, error) {
	b, err := a.put(off, n, func(from *int64) (int, error) {
		return unix.CopyFileRange(a.fds[k], from, int(a.out.Fd()), nil, n, 0)
	})
	if errors.Is(err, unix.EXDEV) { // as the kernel says between two file systems
		return nil, nil
	}
	return b, err
}

// holes looks for the next data and the hole after it: what it passes is zeros.
func (a *anyReader) holes(k int, off int64, _ int) ([]byte, error) {
	defer func() { a.at[k], _ = unix.Seek(a.fds[k], 0, io.SeekCurrent) }()
	size := int64(len(a.want))
	data, err := unix.Seek(a.fds[k], off, unix.SEEK_DATA)
	if err == unix.ENXIO {
		if off < size && len(bytes.Trim(a.want[off:], "\x00")) > 0 {
			return nil, errors.New("no data is found")
		}
		return nil, nil
	}
	if err != nil || data < off || data >= size || len(bytes.Trim(a.want[off:data], "\x00")) > 0 {
		return nil, fmt.Errorf("the data begins at %d: %w", data, err)
	}
	hole, err := unix.Seek(a.fds[k], data, unix.SEEK_HOLE)
	if err != nil || hole <= data || hole > size {
		return nil, fmt.Errorf("data at %d, hole at %d: %w", data, hole, err)
	}
	return nil, nil
}

// evict has the kernel forget, or fetch, a part of the file.
func (a *anyReader) evict(k int, off int64, n int) ([]byte, error) {
	advice := []int{unix.FADV_DONTNEED, unix.FADV_WILLNEED, unix.FADV_RANDOM, unix.FADV_SEQUENTIAL, unix.FADV_NORMAL}
	return nil, unix.Fadvise(a.fds[k], off, int64(n), advice[a.r.IntN(len(advice))])
}
