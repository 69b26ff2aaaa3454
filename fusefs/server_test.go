//go:build linux

package fusefs

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dupfs/chain"
	"dupfs/chain/chaintest"
	"dupfs/internal/need"

	"golang.org/x/sys/unix"
)

// mountEnv makes the test binary mount a forest at the directory it names, and
// serve it until it is told to unmount.
const mountEnv = "FUSEFS_TEST_MOUNT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(mountEnv); dir != "" {
		os.Exit(helper(dir))
	}
	os.Exit(m.Run())
}

func helper(dir string) int {
	s, err := Mount(chaintest.Zoo(), dir, Options{Source: `file:///a,b\c d`, NonEmpty: os.Getenv("NONEMPTY") != ""})
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		return 1
	}
	os.Stdout.WriteString("mounted\n")
	io.Copy(io.Discard, os.Stdin)
	if err := s.Unmount(); err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		return 1
	}
	return 0
}

// helperProcess is a process that serves a mount.
type helperProcess struct {
	*exec.Cmd
	said  string
	stdin io.Closer
	rest  *bufio.Reader
}

// startHelper has another process mount at dir, as another user if uid is not 0.
func startHelper(t *testing.T, binary, dir string, uid uint32) *helperProcess {
	t.Helper()
	h := &helperProcess{Cmd: exec.Command(binary)}
	h.Env = append(os.Environ(), mountEnv+"="+dir)
	h.Stderr = os.Stderr
	if uid != 0 {
		h.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	out, err := h.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if h.stdin, err = h.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := h.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.Process.Kill()
		h.Wait()
	})
	h.rest = bufio.NewReader(out)
	line, err := h.rest.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	h.said = strings.TrimSuffix(line, "\n")
	return h
}

func self(t *testing.T) string {
	t.Helper()
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// TestDeadMount kills a process that serves a mount: what it leaves is
// recognised and replaced.
func TestDeadMount(t *testing.T) {
	need.FUSE(t)
	dir := tempDir(t)
	for range 2 {
		h := startHelper(t, self(t), dir, 0)
		if h.said != "mounted" {
			t.Fatal(h.said)
		}
		if IsDead(dir) {
			t.Error("a live mount counts as dead")
		}
		if _, err := Mount(chaintest.New(), dir, Options{}); !errors.Is(err, ErrMounted) {
			t.Errorf("over a live mount: %v", err)
		}
		h.Process.Kill()
		h.Wait()
		if !IsDead(dir) {
			t.Fatal("a dead mount is not recognised")
		}
	}
	s, err := Mount(chaintest.Zoo(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	names(t, dir+"/snapshots/latest/")
	if err := s.Unmount(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); got != "" || IsDead(dir) {
		t.Errorf("left: %q", got)
	}
	h := startHelper(t, self(t), dir, 0)
	h.Process.Kill()
	h.Wait()
	if err := Unmount(dir); err != nil || IsDead(dir) {
		t.Errorf("unmount of a dead mount: %v", err)
	}
}

// TestBusy unmounts while a file is open: the mount goes, the file stays.
func TestBusy(t *testing.T) {
	need.FUSE(t)
	dir := tempDir(t)
	s, err := Mount(chaintest.Zoo(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir + "/snapshots/latest/docs/big.bin")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.Unmount(); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), dir) {
		t.Errorf("unmount: %v", err)
	}
	if got := names(t, dir); got != "" {
		t.Errorf("left: %q", got)
	}
	if b, err := io.ReadAll(f); err != nil || len(b) < 200<<10 {
		t.Errorf("the open file: %d bytes, %v", len(b), err)
	}
	select {
	case <-s.Done():
		t.Error("done while a file is open")
	default:
	}
	f.Close()
	s.Wait()
	if err := s.Unmount(); err != nil {
		t.Error(err)
	}
}

// TestUnmountElsewhere unmounts by name, as another process would.
func TestUnmountElsewhere(t *testing.T) {
	need.FUSE(t)
	dir := tempDir(t)
	if err := Unmount(dir); !errors.Is(err, ErrNotMounted) {
		t.Errorf("nothing there: %v", err)
	}
	if err := Unmount(dir + "/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	s, err := Mount(chaintest.Zoo(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	link := t.TempDir() + "/link"
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if err := Unmount(link); err != nil {
		t.Error(err)
	}
	s.Wait()
	if err := s.Unmount(); err != nil {
		t.Error(err)
	}
}

// TestGoneWhileReading: a read that still waits when the mount goes, because the
// kernel read ahead for a file that was closed, does not hold the server up.
func TestGoneWhileReading(t *testing.T) {
	name, g := gated(t)
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(fd, 0, 0, unix.FADV_WILLNEED); err != nil {
		t.Fatal(err)
	}
	<-g.waits
	unix.Close(fd)
	dir, _, _ := strings.Cut(name, "/snapshots/")
	if err := Unmount(dir); err != nil && !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	// The end of the test waits for the server.
}

func TestUnfitMountPoints(t *testing.T) {
	need.FUSE(t)
	dir := tempDir(t)
	file := dir + "/full/file"
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir  string
		want error
	}{
		{dir + "/none", fs.ErrNotExist}, {dir + "/none/none", fs.ErrNotExist}, {file, ErrNotDir}, {dir + "/full", ErrNotEmpty},
	} {
		_, err := Mount(chaintest.Zoo(), c.dir, Options{})
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), filepath.Base(c.dir)) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %v", c.dir, err, c.want)
		}
	}
	s, err := Mount(chaintest.Zoo(), dir+"/full", Options{NonEmpty: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir+"/full"); got != "snapshots" {
		t.Errorf("over a full directory: %q", got)
	}
	if err := s.Unmount(); err != nil {
		t.Error(err)
	}
	want := errors.New("no archive")
	if _, err := Mount(&broken{err: want}, tempDir(t), Options{}); err != want {
		t.Errorf("no archive: %v", err)
	}
}

// broken is a forest that can list its points for a while.
type broken struct {
	*chaintest.Forest
	calls int
	good  int
	err   error
	wait  chan struct{}
}

func (b *broken) Points(ctx context.Context) ([]chain.Point, error) {
	if b.calls++; b.calls > b.good {
		if b.wait != nil {
			select {
			case <-b.wait:
			case <-ctx.Done():
			}
		}
		return nil, b.err
	}
	return b.Forest.Points(ctx)
}

// TestStoreGone: when new points cannot be listed any more the old ones are
// shown, and nobody waits for long.
func TestStoreGone(t *testing.T) {
	need.FUSE(t)
	book := new(logBook)
	f := &broken{Forest: chaintest.Zoo(), good: 1, err: errors.New("network is down"), wait: make(chan struct{})}
	dir := tempDir(t)
	s, err := Mount(f, dir, Options{Log: book.log, Refresh: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Millisecond)
	start := time.Now()
	for range 20 {
		if n := strings.Count(names(t, dir+"/snapshots"), " "); n != 3 {
			t.Errorf("%d points", n)
		}
		names(t, dir+"/snapshots/latest/docs")
	}
	if d := time.Since(start); d > 20*patience {
		t.Errorf("listing took %v", d)
	}
	close(f.wait)
	eventually(t, "the failure to be logged", func() bool { return strings.Contains(book.String(), "network is down") })
	if n := strings.Count(names(t, dir+"/snapshots"), " "); n != 3 {
		t.Errorf("%d points", n)
	}
	if err := s.Unmount(); err != nil {
		t.Error(err)
	}
}

// TestOrdinaryUser mounts as a user who is not root, by fusermount3.
func TestOrdinaryUser(t *testing.T) {
	need.FUSE(t)
	need.Root(t) // to become somebody else
	if info, err := os.Stat("/dev/fuse"); err != nil || info.Mode()&0o006 != 0o006 {
		t.Skipf("/dev/fuse is for root alone here: %v, %v", info.Mode(), err)
	}
	const uid = 65534
	base, err := os.MkdirTemp("/tmp", "fusefs")
	if err != nil {
		t.Fatal(err)
	}
	dir, binary, forbidden := base+"/mnt", base+"/test", base+"/root"
	t.Cleanup(func() {
		unix.Unmount(dir, unix.MNT_DETACH)
		os.RemoveAll(base)
	})
	b, err := os.ReadFile(self(t))
	for _, err := range []error{
		err, os.Chmod(base, 0o755), os.WriteFile(binary, b, 0o755), os.Mkdir(dir, 0o755), os.Chown(dir, uid, uid),
		os.Mkdir(forbidden, 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if h := startHelper(t, binary, forbidden, uid); !strings.Contains(h.said, "permission denied") {
		t.Errorf("on a directory of root: %s", h.said)
	}
	h := startHelper(t, binary, dir, uid)
	if h.said != "mounted" {
		t.Fatal(h.said)
	}
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil || !strings.Contains(string(table), `file:///a,b\134c\040d `+dir+" fuse.dupfs ro,nosuid,nodev,") {
		t.Errorf("mounted as %s, %v", tail(string(table)), err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, unix.EACCES) {
		t.Errorf("root may see it: %v", err)
	}
	asUser := func(script string) (string, error) {
		cmd := exec.Command("sh", "-ec", script, dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	// The user reads everything, also what belongs to root alone.
	out, err := asUser(`cat "$0/snapshots/latest/modes/none"; ls "$0/snapshots/latest/docs"`)
	if err != nil || !strings.HasPrefix(out, "secret") {
		t.Errorf("the user sees %q, %v", out, err)
	}
	h.Process.Kill()
	h.Wait()
	if out, err := asUser(`ls "$0"`); err == nil {
		t.Errorf("a dead mount lists %q", out)
	}
	h = startHelper(t, binary, dir, uid)
	if h.said != "mounted" {
		t.Fatal(h.said)
	}
	h.stdin.Close()
	if rest, _ := io.ReadAll(h.rest); len(rest) > 0 {
		t.Errorf("unmount: %s", rest)
	}
	if err := h.Wait(); err != nil {
		t.Error(err)
	}
	if got := names(t, dir); got != "" {
		t.Errorf("left: %q", got)
	}
}

// TestAllowOther: others see what the recorded permissions and access lists let
// them.
func TestAllowOther(t *testing.T) {
	need.Root(t)
	const uid = 65534
	// user::rw-, user:uid:r-- or group:uid:r-- with nothing for the group of
	// the file, mask::r--
	acl := func(tag string) func(e *chain.Entry) {
		return func(e *chain.Entry) {
			e.Mode, e.GID = 0o640, uid
			list := "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff"
			if tag != "" {
				list += tag + "\x00\x04\x00\xfe\xff\x00\x00"
			}
			list += "\x04\x00\x00\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff"
			e.Xattrs = []chain.Xattr{{Name: "system.posix_acl_access", Value: []byte(list)}}
		}
	}
	dir := only(t, mount(t, chaintest.New(chaintest.Point{Items: []chaintest.Item{
		chaintest.File("open", "open"),
		chaintest.File("closed", "closed").With(func(e *chain.Entry) { e.Mode = 0o600 }),
		chaintest.File("user", "user").With(acl("\x02")),
		chaintest.File("masked", "masked").With(acl("")),
	}}), Options{AllowOther: true}))
	os.Chmod(filepath.Dir(filepath.Dir(filepath.Dir(dir))), 0o755) // t.TempDir's parent
	for name, want := range map[string]string{"open": "open", "closed": "", "user": "user", "masked": ""} {
		cmd := exec.Command("cat", dir+"/"+name)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		if out, _ := cmd.Output(); string(out) != want {
			t.Errorf("%s reads as %q", name, out)
		}
		if _, err := os.ReadFile(dir + "/" + name); err != nil {
			t.Errorf("root: %v", err)
		}
	}
}

func TestMountInfo(t *testing.T) {
	for _, c := range []struct {
		line string
		want mountInfo
		ok   bool
	}{
		{"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n", mountInfo{"98:0", "/mnt2", "ext3"}, true},
		{`36 35 0:50 / /a\040b\134c\012d ro - fuse.dupfs x\040y ro`, mountInfo{"0:50", "/a b\\c\nd", "fuse.dupfs"}, true},
		{`36 35 0:50 / /a\0 ro - fuse x ro`, mountInfo{"0:50", `/a\0`, "fuse"}, true},
		{"36 35 0:50 / /a ro", mountInfo{}, false},
		{"36 - x", mountInfo{}, false},
		{"", mountInfo{}, false},
	} {
		if got, ok := parseMountInfo(c.line); got != c.want || ok != c.ok {
			t.Errorf("%q: %+v, %v", c.line, got, ok)
		}
	}
}
