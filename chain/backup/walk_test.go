package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dupfs/backends/mem"
	"dupfs/chain"
	"dupfs/chain/selection"
)

// recorder is a visitor that notes what it is told.
type recorder struct {
	lines   []string
	entries map[chain.Path]source
}

func (r *recorder) entry(s *source) error {
	if r.entries == nil {
		r.entries = make(map[chain.Path]source)
	}
	if err := s.loadXattrs("", os.Geteuid() == 0); err != nil {
		return err
	}
	r.entries[s.Path] = *s
	r.lines = append(r.lines, s.Path.String())
	return nil
}

func (r *recorder) keep(p chain.Path) error {
	r.lines = append(r.lines, "keep "+p.String())
	return nil
}

func (r *recorder) notice(n Notice) {
	r.lines = append(r.lines, fmt.Sprintf("notice %d %s", n.Class, n.Path))
}

// walkAll returns what a walk of src tells.
func walkAll(t *testing.T, src string, rules []selection.Rule, h *hooks) *recorder {
	t.Helper()
	sel, err := selection.New(src, rules)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{}
	w := &walker{sel: sel, v: r, facts: &facts{}, hooks: h}
	if err := w.walk(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	return r
}

// lay makes files (content is their name) and directories (names ending in a
// slash) below dir.
func lay(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, n := range names {
		full := filepath.Join(dir, n)
		if strings.HasSuffix(n, "/") {
			must(t, os.MkdirAll(full, 0o755))
			continue
		}
		must(t, os.MkdirAll(filepath.Dir(full), 0o755))
		must(t, os.WriteFile(full, []byte(n), 0o644))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWalkOrder(t *testing.T) {
	src := t.TempDir()
	lay(t, src, "a/b", "a/x/", "a b", "a-b", "a.b", "a0", "B", "é", "\xff", "z/z/z/z")
	want := []string{".", "B", "a", "a/b", "a/x", "a b", "a-b", "a.b", "a0", "z", "z/z", "z/z/z", "z/z/z/z", "é", "\xff"}
	if got := walkAll(t, src, nil, nil).lines; !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestWalkScan(t *testing.T) {
	src := t.TempDir()
	lay(t, src, "a/b/c/d", "a/b/e", "a/f/g/", "h/i/j", "k", "l/m/n/o")
	include := func(p string) selection.Rule { return selection.Rule{Include: true, Pattern: src + "/" + p} }
	all := selection.Rule{Pattern: "**"}
	for _, tt := range []struct {
		rules []selection.Rule
		want  []string
	}{
		{[]selection.Rule{include("a/b/c"), all}, []string{".", "a", "a/b", "a/b/c", "a/b/c/d"}},
		{[]selection.Rule{include("a/f/g"), include("l/**/o"), all}, []string{".", "a", "a/f", "a/f/g", "l", "l/m", "l/m/n", "l/m/n/o"}},
		{[]selection.Rule{include("a/f/x"), include("h/i/k"), all}, []string{"."}},
		{[]selection.Rule{{Kind: selection.IfPresent, Pattern: "e"}}, []string{".", "a", "a/f", "a/f/g", "h", "h/i", "h/i/j", "k", "l", "l/m", "l/m/n", "l/m/n/o"}},
	} {
		if got := walkAll(t, src, tt.rules, nil).lines; !slices.Equal(got, tt.want) {
			t.Errorf("%v:\ngot  %q\nwant %q", tt.rules, got, tt.want)
		}
	}
}

// TestWalkVanished: what is gone after it was listed is kept, not deleted.
func TestWalkVanished(t *testing.T) {
	src := t.TempDir()
	lay(t, src, "a/x", "b", "c/d/e")
	h := &hooks{onListed: func(p chain.Path) {
		if p == chain.Root {
			must(t, os.RemoveAll(filepath.Join(src, "a")))
			must(t, os.Remove(filepath.Join(src, "b")))
		}
		if p == "c" {
			must(t, os.RemoveAll(filepath.Join(src, "c/d")))
		}
	}}
	rules := []selection.Rule{{Include: true, Pattern: src + "/c/d/e"}, {Include: true, Pattern: src + "/a"}, {Include: true, Pattern: src + "/b"}, {Pattern: "**"}}
	want := []string{".", "notice 2 a", "keep a", "notice 2 b", "keep b", "notice 2 c/d", "c", "keep c/d"}
	if got := walkAll(t, src, rules, h).lines; !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestWalkTypes(t *testing.T) {
	src := t.TempDir()
	lay(t, src, "f", "d/")
	must(t, os.Link(filepath.Join(src, "f"), filepath.Join(src, "g")))
	must(t, os.Symlink(strings.Repeat("t", 1000), filepath.Join(src, "l")))
	must(t, unix.Mkfifo(filepath.Join(src, "p"), 0o600))
	must(t, os.Chmod(filepath.Join(src, "f"), 0o755|fs.ModeSetuid|fs.ModeSticky))
	old := time.Unix(-100, 5)
	must(t, os.Chtimes(filepath.Join(src, "f"), old, old))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(t, err)
	defer unix.Close(fd)
	t.Chdir(src) // the path of a socket must be short
	must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: "s"}))
	attr := unix.Setxattr(filepath.Join(src, "f"), "user.b", []byte("2"), 0)
	if attr == nil {
		must(t, unix.Setxattr(filepath.Join(src, "f"), "user.a", []byte{}, 0))
		must(t, unix.Setxattr(filepath.Join(src, "d"), "user.d", make([]byte, 2000), 0))
	}
	root := os.Geteuid() == 0
	if root {
		must(t, unix.Mknod(filepath.Join(src, "c"), unix.S_IFCHR|0o600, int(unix.Mkdev(5, 70000))))
	}
	r := walkAll(t, src, nil, nil)
	if !slices.Contains(r.lines, "notice 0 s") {
		t.Errorf("no notice of the socket in %q", r.lines)
	}
	f, g := r.entries["f"], r.entries["g"]
	if f.Mode != 0o5755 || f.Type != chain.File || f.Size != 1 || f.Mtime != (chain.Time{Sec: -100, Nsec: 5}) {
		t.Errorf("f: %+v", f)
	}
	if f.LinkGroup == 0 || f.LinkGroup != g.LinkGroup {
		t.Errorf("link groups %d, %d", f.LinkGroup, g.LinkGroup)
	}
	if f.User == "" && os.Getuid() == 0 {
		t.Error("no name for the owner")
	}
	if l := r.entries["l"]; l.Type != chain.Symlink || len(l.Link) != 1000 {
		t.Errorf("l: %+v", l)
	}
	if r.entries["p"].Type != chain.Fifo || r.entries["d"].Type != chain.Dir || r.entries["d"].Size != 0 {
		t.Errorf("p, d: %+v, %+v", r.entries["p"], r.entries["d"])
	}
	if c := r.entries["c"]; root && (c.Type != chain.CharDevice || c.Major != 5 || c.Minor != 70000) {
		t.Errorf("c: %+v", c)
	}
	if attr == nil {
		x, d := f.Xattrs, r.entries["d"].Xattrs
		if len(x) != 2 || x[0].Name != "user.a" || x[1].Name != "user.b" || string(x[1].Value) != "2" ||
			len(d) != 1 || len(d[0].Value) != 2000 {
			t.Errorf("xattrs %v, %v", x, d)
		}
	}
}

func TestWalkRoots(t *testing.T) {
	dir := t.TempDir()
	lay(t, dir, "d/x", "f")
	must(t, os.Symlink("d", filepath.Join(dir, "toDir")))
	must(t, os.Symlink("f", filepath.Join(dir, "toFile")))
	for src, want := range map[string][]string{
		"d": {".", "x"}, "d/": {".", "x"}, "toDir": {".", "x"}, "f": {"."}, "toFile": {"."},
	} {
		r := walkAll(t, dir+"/"+src, nil, nil)
		if !slices.Equal(r.lines, want) {
			t.Errorf("%s: %q, want %q", src, r.lines, want)
		}
	}
	w := &walker{v: &recorder{}, facts: &facts{}}
	if err := w.walk(t.Context(), filepath.Join(dir, "no")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing source: %v", err)
	}
	if err := w.walk(t.Context(), "/dev/null"); err == nil {
		t.Error("a device as the source was accepted")
	}
}

// TestWalkDeep goes deeper than any path the system takes.
func TestWalkDeep(t *testing.T) {
	src := t.TempDir()
	name := strings.Repeat("d", 255)
	fd, err := unix.Open(src, unix.O_DIRECTORY, 0)
	must(t, err)
	const depth = 30
	for range depth {
		must(t, unix.Mkdirat(fd, name, 0o755))
		next, err := unix.Openat(fd, name, unix.O_DIRECTORY, 0)
		must(t, err)
		must(t, unix.Close(fd))
		fd = next
	}
	must(t, unix.Close(fd))
	r := walkAll(t, src, nil, nil)
	if n := len(r.lines); n != depth+1 || len(r.lines[n-1]) != depth*256-1 {
		t.Errorf("%d entries, the last at %d bytes", n, len(r.lines[n-1]))
	}
}

// asNobody runs the calling test again as a user without privileges if it
// runs as root, and reports whether it did.
func asNobody(t *testing.T) bool {
	if os.Geteuid() != 0 {
		return false
	}
	dir, err := os.MkdirTemp("", "dupfs-nobody-*")
	must(t, err)
	defer os.RemoveAll(dir)
	must(t, os.Chmod(dir, 0o755))
	self, err := os.Executable()
	must(t, err)
	program := filepath.Join(dir, "test")
	text, err := os.ReadFile(self)
	must(t, err)
	must(t, os.WriteFile(program, text, 0o755))
	tmp := filepath.Join(dir, "tmp")
	must(t, os.Mkdir(tmp, 0o777))
	must(t, os.Chmod(tmp, 0o777))
	cmd := exec.Command(program, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir, cmd.Env = tmp, append(os.Environ(), "TMPDIR="+tmp, "HOME="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("as nobody: %v\n%s", err, out)
	}
	return true
}

func TestWalkUnreadable(t *testing.T) {
	if asNobody(t) {
		return
	}
	src := t.TempDir()
	lay(t, src, "a/x", "b/y", "c")
	must(t, os.Chmod(filepath.Join(src, "a"), 0))
	must(t, os.Chmod(filepath.Join(src, "b"), 0o444)) // can be listed, not entered
	t.Cleanup(func() {
		_ = os.Chmod(filepath.Join(src, "a"), 0o755)
		_ = os.Chmod(filepath.Join(src, "b"), 0o755)
	})
	r := walkAll(t, src, nil, nil)
	want := []string{".", "a", "notice 1 a", "keep a", "b", "notice 1 b/y", "keep b/y", "c"}
	if !slices.Equal(r.lines, want) {
		t.Errorf("got  %q\nwant %q", r.lines, want)
	}
	if m := r.entries["a"].Mode; m != 0 {
		t.Errorf("mode of a: %o", m)
	}
}

func TestDataMap(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	must(t, err)
	defer f.Close()
	const page = 64 << 10
	check := func(size int64, want []chain.Extent) {
		t.Helper()
		must(t, f.Truncate(size))
		got := dataMap(f, size)
		if !slices.Equal(got, want) || (got == nil) != (want == nil) {
			t.Errorf("size %d: %v, want %v", size, got, want)
		}
		var b strings.Builder
		r := &sparseReader{f: f, data: got, size: size}
		buf := make([]byte, 1000)
		for {
			n, err := r.Read(buf)
			b.Write(buf[:n])
			if err != nil {
				break
			}
		}
		content, err := os.ReadFile(f.Name())
		must(t, err)
		if got != nil && b.String() != string(content) {
			t.Errorf("size %d: what is read differs", size)
		}
	}
	check(0, nil)
	check(3*page, []chain.Extent{})
	_, err = f.WriteAt([]byte(strings.Repeat("x", page)), page)
	must(t, err)
	check(3*page, []chain.Extent{{Off: page, Len: page}})
	check(2*page, []chain.Extent{{Off: page, Len: page}})
	check(page+5, []chain.Extent{{Off: page, Len: 5}})
	_, err = f.WriteAt([]byte(strings.Repeat("y", 2*page)), 0)
	must(t, err)
	check(2*page, nil)
	check(2*page+1, []chain.Extent{{Off: 0, Len: 2 * page}})
}

// What lies deeper than a restore goes is named, and not stored.
func TestTooDeep(t *testing.T) {
	w := newWorld(t, chain.Gzip)
	w.backend = mem.New()
	dir, err := os.OpenRoot(w.src)
	must(t, err)
	for range chain.MaxDepth + 3 { // no path leads there
		must(t, dir.Mkdir("d", 0o755))
		below, err := dir.OpenRoot("d")
		must(t, err)
		must(t, dir.Close())
		dir = below
	}
	must(t, dir.Close())
	stored := 0
	o := w.options()
	o.OnChange = func(Change, chain.Path) { stored++ }
	stats, err := Run(t.Context(), w.src, w.store(), nil, o)
	must(t, err)
	if stats.Errors != 1 || len(w.notices) != 1 || !strings.Contains(w.notices[0].Err.Error(), "2048 directories deep") {
		t.Errorf("%d errors, %v", stats.Errors, len(w.notices))
	}
	if stored != chain.MaxDepth {
		t.Errorf("%d directories are stored", stored)
	}
}
