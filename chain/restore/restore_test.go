//go:build linux

package restore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"dupfs/chain"
	"dupfs/chain/chaintest"
	"dupfs/internal/need"
)

// outcome is a restore and what it said.
type outcome struct {
	*Report
	err  error
	warn []string // "PATH: ERROR"
}

// restoreTo restores path of the newest tree.
func restoreTo(t *testing.T, f *chaintest.Forest, path chain.Path, target string, o Options) outcome {
	t.Helper()
	return restoreTree(t, f, f.Newest(), path, target, o)
}

// restoreTree restores path of a tree.
func restoreTree(t *testing.T, f chain.Forest, tr chain.Tree, path chain.Path, target string, o Options) outcome {
	t.Helper()
	var out outcome
	o.Warn = func(p chain.Path, err error) { out.warn = append(out.warn, fmt.Sprintf("%s: %v", p, err)) }
	out.Report, out.err = Run(context.Background(), f, tr, path, target, o)
	return out
}

// clean fails the test if anything went wrong.
func (o outcome) clean(t *testing.T) {
	t.Helper()
	if o.err != nil || o.Failed != 0 || o.Warnings != 0 || len(o.warn) != 0 {
		t.Errorf("restore: %v, report %+v, %q", o.err, *o.Report, o.warn)
	}
}

// forest makes a forest of one point.
func forest(items ...chaintest.Item) *chaintest.Forest {
	return chaintest.New(chaintest.Point{Full: true, Items: items})
}

// below drops the line of the root, and temporary names must not be there.
func below(t *testing.T, dir string) []string {
	t.Helper()
	lines := chaintest.Disk(t, dir)
	for _, l := range lines {
		if strings.Contains(l, ".dupfs-restore") {
			t.Errorf("left over: %s", l)
		}
	}
	return lines[1:]
}

// content reads a file.
func content(t *testing.T, name string) string {
	t.Helper()
	p, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(p)
}

// removable lets t.TempDir remove what was restored without write permission.
func removable(t *testing.T, dir string) {
	t.Cleanup(func() {
		filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				os.Chmod(p, 0o700)
			}
			return nil
		})
	})
}

func TestZoo(t *testing.T) {
	f := chaintest.Zoo()
	for number := uint32(1); number <= 3; number++ {
		for _, n := range []int{1, 3} {
			t.Run(fmt.Sprintf("point %d, %d workers", number, n), func(t *testing.T) {
				tr, err := f.Tree(context.Background(), number)
				if err != nil {
					t.Fatal(err)
				}
				dir := filepath.Join(t.TempDir(), "made/on/the/way")
				removable(t, dir)
				var p Progress
				out := restoreTree(t, f, tr, "", dir, Options{Workers: n, Progress: &p})
				out.clean(t)
				want := chaintest.Tree(t, f, tr)
				if os.Geteuid() != 0 {
					// It cannot be read to compare.
					if err := os.Chmod(dir+"/modes/none", 0o400); err != nil {
						t.Fatal(err)
					}
					for i, l := range want {
						want[i] = strings.Replace(l, `"modes/none" file 0000`, `"modes/none" file 0400`, 1)
					}
				} else if total := out.Files + out.Dirs + out.Others; total != int64(len(want)) || p.Entries.Load() != total {
					t.Errorf("%d entries restored, %d counted, of %d", total, p.Entries.Load(), len(want))
				}
				chaintest.Diff(t, chaintest.Disk(t, dir), want)
				if p.Bytes.Load() != out.Bytes || p.Files.Load() != out.Files {
					t.Errorf("progress %d bytes, %d files; report %+v", p.Bytes.Load(), p.Files.Load(), *out.Report)
				}
			})
		}
	}
}

func TestSubPaths(t *testing.T) {
	f := forest(
		chaintest.Dir("a").With(func(e *chain.Entry) { e.Mode = 0o700 }),
		chaintest.File("a/b/c", "one"), chaintest.File("a/d", "two"), chaintest.Link("l", "a/d"),
	)
	for _, row := range []struct{ path, want string }{
		{"a", `"." "b" "b/c" "d"`}, {"a/b", `"." "c"`}, {"a/b/c", `"."`}, {"l", `"."`},
	} {
		dir := filepath.Join(t.TempDir(), "new/target")
		restoreTo(t, f, chain.Path(row.path), dir, Options{}).clean(t)
		var got []string
		for _, l := range chaintest.Disk(t, dir) {
			got = append(got, strings.Fields(l)[0])
		}
		if strings.Join(got, " ") != row.want {
			t.Errorf("%s: %s, want %s", row.path, got, row.want)
		}
	}
	for _, path := range []string{"x", "a/x", "a/d/x", "l/x"} {
		dir := filepath.Join(t.TempDir(), "new")
		out := restoreTo(t, f, chain.Path(path), dir, Options{})
		if !errors.Is(out.err, fs.ErrNotExist) || !strings.Contains(out.err.Error(), path) {
			t.Errorf("%s: %v", path, out.err)
		}
		if _, err := os.Lstat(dir); err == nil {
			t.Errorf("%s: the target was made", path)
		}
	}
}

func TestBackupOfOneFile(t *testing.T) {
	f := forest(chaintest.File("", "alone"))
	target := filepath.Join(t.TempDir(), "sub/file")
	restoreTo(t, f, "", target, Options{}).clean(t)
	if got := content(t, target); got != "alone" {
		t.Errorf("content %q", got)
	}
}

func TestTargetExists(t *testing.T) {
	f := forest(chaintest.File("a", "new"))
	for _, row := range []struct {
		name       string
		path       chain.Path
		make       func(target string) error
		force, bad bool
	}{
		{"absent", "", func(string) error { return nil }, false, false},
		{"empty directory", "", func(p string) error { return os.Mkdir(p, 0o755) }, false, false},
		{"full directory", "", func(p string) error { return os.MkdirAll(p+"/x", 0o755) }, false, true},
		{"full directory, forced", "", func(p string) error { return os.MkdirAll(p+"/x", 0o755) }, true, false},
		{"file for a directory", "", func(p string) error { return os.WriteFile(p, nil, 0o644) }, false, true},
		{"file for a directory, forced", "", func(p string) error { return os.WriteFile(p, nil, 0o644) }, true, false},
		{"link to a directory", "", func(p string) error {
			return errors.Join(os.Mkdir(p+".real", 0o755), os.Symlink(p+".real", p))
		}, false, false},
		{"file for a file", "a", func(p string) error { return os.WriteFile(p, nil, 0o644) }, false, true},
		{"file for a file, forced", "a", func(p string) error { return os.WriteFile(p, nil, 0o644) }, true, false},
		{"link for a file", "a", func(p string) error { return os.Symlink("/etc/passwd", p) }, false, true},
		{"link for a file, forced", "a", func(p string) error { return os.Symlink("/dev/full", p) }, true, false},
		{"empty directory for a file", "a", func(p string) error { return os.Mkdir(p, 0o755) }, false, false},
		{"full directory for a file", "a", func(p string) error { return os.MkdirAll(p+"/x", 0o755) }, false, true},
		{"full directory for a file, forced", "a", func(p string) error { return os.MkdirAll(p+"/x", 0o755) }, true, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			target := filepath.Join(t.TempDir(), "target")
			if err := row.make(target); err != nil {
				t.Fatal(err)
			}
			before := chaintest.Disk(t, filepath.Dir(target))
			out := restoreTo(t, f, row.path, target, Options{Force: row.force})
			if row.bad {
				if !errors.Is(out.err, ErrExists) || !strings.Contains(out.err.Error(), target) {
					t.Errorf("error %v, want ErrExists", out.err)
				}
				chaintest.Diff(t, chaintest.Disk(t, filepath.Dir(target)), before)
				return
			}
			out.clean(t)
			name := target
			if row.path == "" {
				name += "/a"
			}
			if st, err := os.Lstat(name); err != nil || !st.Mode().IsRegular() || content(t, name) != "new" {
				t.Errorf("restored as %v, %v", st, err)
			}
		})
	}
}

func TestForceReplaces(t *testing.T) {
	f := forest(
		chaintest.File("file", "new"), chaintest.File("dir/in", "new"), chaintest.Link("link", "new"),
		chaintest.File("was-empty-dir", "new"), chaintest.File("was-full-dir", "new"),
		chaintest.File("dir-was-file/in", "new"), chaintest.File("dir-was-link/in", "new"),
		chaintest.File("file-was-link", "new"), chaintest.File("readonly/in", "new"),
		chaintest.Fifo("fifo"),
	)
	dir, outside := t.TempDir(), t.TempDir()
	for _, err := range []error{
		os.WriteFile(dir+"/file", []byte("old"), 0o400), os.WriteFile(dir+"/stays", []byte("old"), 0o644),
		os.Mkdir(dir+"/dir", 0o755), os.WriteFile(dir+"/dir/stays", nil, 0o644),
		os.WriteFile(dir+"/link", nil, 0o644), os.Mkdir(dir+"/was-empty-dir", 0o755),
		os.MkdirAll(dir+"/was-full-dir/x", 0o755), os.WriteFile(dir+"/dir-was-file", nil, 0o644),
		os.Symlink(outside, dir+"/dir-was-link"), os.WriteFile(outside+"/kept", []byte("kept"), 0o644),
		os.Symlink(outside+"/kept", dir+"/file-was-link"),
		os.Mkdir(dir+"/readonly", 0o500), os.WriteFile(dir+"/fifo", nil, 0o644),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	out := restoreTo(t, f, "", dir, Options{Force: true})
	if out.err != nil || out.Failed != 1 || len(out.warn) != 1 || !strings.HasPrefix(out.warn[0], "was-full-dir: directory in the way") {
		t.Errorf("%v, %+v, %q", out.err, *out.Report, out.warn)
	}
	lines := strings.Join(below(t, dir), "\n")
	for _, name := range []string{"file", "dir/in", "was-empty-dir", "dir-was-file/in", "dir-was-link/in", "file-was-link", "readonly/in"} {
		if content(t, dir+"/"+name) != "new" {
			t.Errorf("%s is not new", name)
		}
	}
	for _, want := range []string{`"stays" file`, `"dir/stays" file`, `"was-full-dir/x" dir`, `"link" link`, `"file-was-link" file`, `"fifo" fifo`, `"readonly" dir 0755`} {
		if !strings.Contains(lines, want) {
			t.Errorf("no %s in\n%s", want, lines)
		}
	}
	if got := below(t, outside); len(got) != 1 || content(t, outside+"/kept") != "kept" {
		t.Errorf("outside: %q", got)
	}
}

// Everything that an archive may say to get out of the target, or to harm it.
func TestHostileTrees(t *testing.T) {
	abs := t.TempDir()
	outside := filepath.Join(abs, "outside")
	file := chaintest.File
	for _, row := range []struct {
		name  string
		items []chaintest.Item
		fails int64
		want  []string // paths restored
	}{
		{"dot dot", []chaintest.Item{file("x", "1").As(".."), file("ok", "1")}, 1, []string{"ok"}},
		{"dot", []chaintest.Item{file("x", "1").As("."), file("ok", "1")}, 1, []string{"ok"}},
		{"slash", []chaintest.Item{file("d/x", "1").As("../../outside/evil"), file("ok", "1")}, 1, []string{"d", "ok"}},
		{"absolute", []chaintest.Item{file("d/x", "1").As(outside + "/evil"), file("ok", "1")}, 1, []string{"d", "ok"}},
		{"trailing slash", []chaintest.Item{file("d/x", "1").As("x/")}, 1, []string{"d"}},
		{"NUL", []chaintest.Item{file("x", "1").As("a\x00b")}, 1, nil},
		{"directory with a bad name", []chaintest.Item{chaintest.Dir("x").As("..")}, 1, nil},
		{"too long", []chaintest.Item{file(strings.Repeat("n", 256), "1"), file("ok", "")}, 1, []string{"ok"}},
		{"empty link", []chaintest.Item{chaintest.Link("l", ""), file("ok", "")}, 1, []string{"ok"}},
		{"link with NUL", []chaintest.Item{chaintest.Link("l", "a\x00"), file("ok", "")}, 1, []string{"ok"}},
		{"unknown type", []chaintest.Item{file("x", "").With(func(e *chain.Entry) { e.Type = 99 }), file("ok", "")}, 1, []string{"ok"}},
		{"links lead out", []chaintest.Item{chaintest.Link("l", outside), chaintest.Link("m", "/etc/passwd")}, 0, []string{"l", "m"}},
		{"giant size", []chaintest.Item{
			chaintest.Big("x", chaintest.Sparse("", 1<<62).Content).With(func(e *chain.Entry) { e.Data = []chain.Extent{} }), file("ok", ""),
		}, 1, []string{"ok"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := filepath.Join(abs, t.Name())
			if err := errors.Join(os.RemoveAll(outside), os.Mkdir(outside, 0o755)); err != nil {
				t.Fatal(err)
			}
			out := restoreTo(t, forest(row.items...), "", dir, Options{})
			if out.err != nil || out.Failed != row.fails || int64(len(out.warn)) != row.fails {
				t.Errorf("%v, %+v, %q", out.err, *out.Report, out.warn)
			}
			var got []string
			for _, l := range below(t, dir) {
				got = append(got, strings.Trim(strings.Fields(l)[0], `"`))
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("restored %q, want %q", got, row.want)
			}
			if got := chaintest.Disk(t, outside); len(got) != 1 {
				t.Errorf("outside: %q", got)
			}
		})
	}
}

// oddTree is a tree whose listings are as they are given, by directory number.
type oddTree map[uint64][]chain.Node

func (o oddTree) Root(context.Context) (chain.Node, error) { return odd("", chain.Dir, 1), nil }
func (o oddTree) Dir(context.Context, uint64) (chain.Node, error) {
	return chain.Node{}, fs.ErrNotExist
}
func (o oddTree) Lookup(context.Context, uint64, string) (chain.Node, error) {
	return chain.Node{}, fs.ErrNotExist
}
func (o oddTree) ReadDir(_ context.Context, dir uint64, after string, _ bool, fn func(chain.Node) error) error {
	for _, n := range o[dir] {
		if n.Name > after || after == "" {
			if err := fn(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// stuckTree begins each listing anew.
type stuckTree struct{ oddTree }

func (s stuckTree) ReadDir(ctx context.Context, dir uint64, _ string, exact bool, fn func(chain.Node) error) error {
	return s.oddTree.ReadDir(ctx, dir, "", exact, fn)
}

// odd makes a node.
func odd(name string, typ chain.Type, dir uint64) chain.Node {
	e := chaintest.Dir("").Entry
	e.Type, e.Link = typ, "/tmp"
	return chain.Node{Entry: e, Name: name, Dir: dir, Version: 1}
}

func TestOddTrees(t *testing.T) {
	many := make([]chain.Node, pageLen+1)
	for i := range many {
		many[i] = odd(fmt.Sprintf("%04d", i), chain.Symlink, 0)
	}
	for _, row := range []struct {
		name  string
		tree  chain.Tree
		fails int64
		want  string // part of a warning
	}{
		{"directory within itself", oddTree{1: {odd("a", chain.Dir, 2)}, 2: {odd("b", chain.Dir, 1)}}, 1, "a/b: directory lies within itself"},
		{"link, then directory of that name", oddTree{1: {odd("a", chain.Symlink, 0), odd("a", chain.Dir, 2)}, 2: {odd("b", chain.Fifo, 0)}}, 1, "exists already"},
		{"directory, then link of that name", oddTree{1: {odd("a", chain.Dir, 2), odd("a", chain.Symlink, 0)}, 2: {odd("b", chain.Fifo, 0)}}, 1, "exists already"},
		{"listing does not go on", stuckTree{oddTree{1: many}}, 1, "goes back"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "t")
			out := restoreTree(t, forest(), row.tree, "", dir, Options{Workers: 1})
			if out.err != nil || out.Failed != row.fails || !strings.Contains(strings.Join(out.warn, "\n"), row.want) {
				t.Errorf("%v, %+v, %q", out.err, *out.Report, out.warn)
			}
		})
	}
}

func TestDeepTree(t *testing.T) {
	tr := oddTree{}
	for i := range uint64(chain.MaxDepth + 10) {
		tr[i+1] = []chain.Node{odd("d", chain.Dir, i+2)}
	}
	dir := filepath.Join(t.TempDir(), "t")
	out := restoreTree(t, forest(), tr, "", dir, Options{Force: true})
	if out.err != nil || out.Failed != 1 || out.Dirs != chain.MaxDepth || !strings.HasSuffix(out.warn[0], "too deep") {
		t.Errorf("%v, %+v, %d warnings", out.err, *out.Report, len(out.warn))
	}
}

func TestFaults(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 5<<20/16)
	items := []chaintest.Item{
		chaintest.File("a", "good"), chaintest.File("bad", "content of bad"), chaintest.File("big", big),
		chaintest.File("c/d", "good"), chaintest.Sparse("sparse", 4<<20, chaintest.Piece{Off: 3 << 20, Data: "x"}),
	}
	corrupt := chain.Corrupt("volume 1", "hash differs")
	for _, row := range []struct {
		name string
		bad  string
		wrap func(c chain.Content) chain.Content
		want string
	}{
		{"at once", "bad", func(c chain.Content) chain.Content { return chaintest.Faulty{Content: c, Err: corrupt} }, "hash differs"},
		{"in the middle", "bad", func(c chain.Content) chain.Content { return chaintest.Faulty{Content: c, Off: 3, Err: corrupt} }, "hash differs"},
		{"any error", "bad", func(c chain.Content) chain.Content {
			return chaintest.Faulty{Content: c, Off: 3, Err: os.ErrDeadlineExceeded}
		}, "timeout"},
		{"early end", "bad", func(c chain.Content) chain.Content { return chaintest.Faulty{Content: c, Off: 3} }, "unexpected EOF"},
		{"other content", "bad", func(chain.Content) chain.Content { return chaintest.Bytes("content of BAD") }, "SHA-256"},
		{"shorter content", "bad", func(chain.Content) chain.Content { return chaintest.Bytes("content of") }, "size"},
		{"in a large file", "big", func(c chain.Content) chain.Content {
			return chaintest.Faulty{Content: c, Off: 3<<20 + 5, Err: corrupt}
		}, "hash differs"},
		{"last byte of a large file", "big", func(c chain.Content) chain.Content {
			return chaintest.Faulty{Content: c, Off: c.Size() - 1, Err: corrupt}
		}, "hash differs"},
		{"one byte of a large file", "big", func(chain.Content) chain.Content {
			return chaintest.Bytes(big[:2<<20] + "X" + big[2<<20+1:])
		}, "SHA-256"},
		{"sparse", "sparse", func(c chain.Content) chain.Content {
			return chaintest.Faulty{Content: c, Off: 3 << 20, Err: corrupt}
		}, "hash differs"},
	} {
		for _, n := range []int{1, 4} {
			t.Run(fmt.Sprintf("%s/%d", row.name, n), func(t *testing.T) {
				f := forest(items...)
				f.Wrap = func(nd chain.Node, c chain.Content) chain.Content {
					if nd.Name == row.bad {
						return row.wrap(c)
					}
					return c
				}
				dir := filepath.Join(t.TempDir(), "t")
				out := restoreTo(t, f, "", dir, Options{Workers: n})
				if out.err != nil || out.Failed != 1 || len(out.warn) != 1 || !strings.Contains(out.warn[0], row.want) {
					t.Errorf("%v, %+v, %q", out.err, *out.Report, out.warn)
				}
				want := slices.DeleteFunc(chaintest.Tree(t, forest(items...), forest(items...).Newest()), func(l string) bool {
					return strings.HasPrefix(l, `"`+row.bad+`"`)
				})
				chaintest.Diff(t, append(below(t, dir), want[0]), want)
			})
		}
	}
}

// A fault keeps what stood there before.
func TestFaultKeepsTheOldFile(t *testing.T) {
	f := forest(chaintest.File("x", "new"))
	f.Wrap = func(_ chain.Node, c chain.Content) chain.Content {
		return chaintest.Faulty{Content: c, Off: 2, Err: chain.Corrupt("volume 1", "bad")}
	}
	for _, path := range []chain.Path{"", "x"} {
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/x", []byte("old"), 0o644); err != nil {
			t.Fatal(err)
		}
		out := restoreTo(t, f, path, filepath.Join(dir, string(path)), Options{Force: true})
		if out.err != nil || out.Failed != 1 || content(t, dir+"/x") != "old" {
			t.Errorf("%v, %+v, now %q", out.err, *out.Report, content(t, dir+"/x"))
		}
		below(t, dir)
	}
}

func TestUnreadableDirectory(t *testing.T) {
	f := forest(chaintest.File("a/x", "1"), chaintest.File("b/y", "2"))
	tr := failDir{f.Newest(), 2, chain.Corrupt("index", "bad page")}
	out := restoreTree(t, f, tr, "", filepath.Join(t.TempDir(), "t"), Options{})
	if out.err != nil || out.Failed != 1 || out.Files != 1 || !strings.Contains(out.warn[0], "a: index: bad page") {
		t.Errorf("%v, %+v, %q", out.err, *out.Report, out.warn)
	}
}

// failDir fails to list a directory.
type failDir struct {
	chain.Tree
	dir uint64
	err error
}

func (f failDir) ReadDir(ctx context.Context, dir uint64, after string, exact bool, fn func(chain.Node) error) error {
	if dir == f.dir {
		return f.err
	}
	return f.Tree.ReadDir(ctx, dir, after, exact, fn)
}

func TestStops(t *testing.T) {
	var items []chaintest.Item
	for i := range 2000 {
		items = append(items, chaintest.File(fmt.Sprintf("d/%04d", i), "x"))
	}
	for _, row := range []struct {
		name string
		err  error // of the content; nil: the context ends
		want error
	}{
		{"no space", &fs.PathError{Op: "write", Err: unix.ENOSPC}, unix.ENOSPC},
		{"quota", unix.EDQUOT, unix.EDQUOT},
		{"read-only", unix.EROFS, unix.EROFS},
		{"cancelled", nil, context.Canceled},
	} {
		for _, n := range []int{1, 4} {
			t.Run(fmt.Sprintf("%s/%d", row.name, n), func(t *testing.T) {
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				f := forest(items...)
				f.Wrap = func(nd chain.Node, c chain.Content) chain.Content {
					switch {
					case nd.Name != "0100":
						return c
					case row.err != nil:
						return chaintest.Faulty{Content: c, Err: row.err}
					}
					cancel()
					return c
				}
				dir := filepath.Join(t.TempDir(), "t")
				rep, err := Run(ctx, f, f.Newest(), "", dir, Options{Workers: n})
				if !errors.Is(err, row.want) || row.err != nil && !strings.Contains(err.Error(), "d/0100") {
					t.Errorf("error %v", err)
				}
				if rep.Files < 1 || rep.Files > 1000 {
					t.Errorf("%d files restored", rep.Files)
				}
				below(t, dir)
			})
		}
	}
}

// A real file system without room.
func TestFullFileSystem(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		need.Missing(t, "cannot mount a tmpfs: "+err.Error())
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	out := restoreTo(t, forest(
		chaintest.File("a", "fits"), chaintest.File("b", strings.Repeat("x", 3<<20)), chaintest.File("c", "after"),
	), "", filepath.Join(dir, "t"), Options{Workers: 1})
	if !errors.Is(out.err, unix.ENOSPC) || !strings.Contains(out.err.Error(), "b: write: no space left") {
		t.Errorf("error %v", out.err)
	}
	if _, err := os.Stat(dir + "/t/b"); err == nil {
		t.Error("half a file has its name")
	}
	below(t, dir+"/t")
}

// Whoever puts a link in the place of a directory while it is being filled
// leads nothing out of the target.
func TestSwappedDirectory(t *testing.T) {
	var items []chaintest.Item
	for i := range 500 {
		items = append(items, chaintest.File(fmt.Sprintf("d/%04d", i), "x"), chaintest.File(fmt.Sprintf("d/e/%04d", i), "x"))
	}
	f := forest(items...)
	dir, outside := filepath.Join(t.TempDir(), "t"), t.TempDir()
	var once sync.Once
	f.Wrap = func(n chain.Node, c chain.Content) chain.Content {
		if n.Name == "0100" {
			once.Do(func() {
				if err := errors.Join(os.Rename(dir+"/d", dir+"/moved"), os.Symlink(outside, dir+"/d")); err != nil {
					t.Error(err)
				}
			})
		}
		return c
	}
	out := restoreTo(t, f, "", dir, Options{})
	out.clean(t)
	if got := chaintest.Disk(t, outside); len(got) != 1 {
		t.Errorf("outside: %q", got)
	}
	if got := below(t, dir); len(got) != 1003 {
		t.Errorf("%d entries in the target", len(got))
	}
}

// TestMain is a restore that is to be killed, if it is told so.
func TestMain(m *testing.M) {
	if target := os.Getenv("RESTORE_TEST_TARGET"); target != "" {
		f := forest(killItems()...)
		f.Wrap = func(n chain.Node, c chain.Content) chain.Content {
			if n.Name == "2" {
				return stuck{c}
			}
			return c
		}
		rep, err := Run(context.Background(), f, f.Newest(), "", target, Options{Workers: 1})
		fmt.Println("ended:", rep, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// killItems are three large files.
func killItems() []chaintest.Item {
	data := strings.Repeat("0123456789abcdef", 3<<20/16)
	return []chaintest.Item{chaintest.File("1", data), chaintest.File("2", data), chaintest.File("3", data)}
}

// stuck is a content whose last MiB does not come.
type stuck struct{ chain.Content }

func (s stuck) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off >= 2<<20 {
		fmt.Println("stuck")
		select {}
	}
	return s.Content.ReadAt(ctx, p, off)
}

func TestKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "t")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "RESTORE_TEST_TARGET="+dir)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(pipe).ReadString('\n'); line != "stuck\n" {
		t.Errorf("the restore says %q, %v", line, err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	want := content(t, dir+"/1")
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	temps := 0
	for _, e := range names {
		switch {
		case strings.HasPrefix(e.Name(), ".dupfs-restore-"):
			temps++
		case e.Name() == "2" || content(t, dir+"/"+e.Name()) != want || len(want) != 3<<20:
			t.Errorf("%s has its name and not its content", e.Name())
		}
	}
	if temps == 0 {
		t.Error("nothing was being written: the test is wrong")
	}
	restoreTo(t, forest(killItems()...), "", dir, Options{Force: true}).clean(t)
	if content(t, dir+"/2") != want {
		t.Error("not restored by another run")
	}
}

func TestHardLinks(t *testing.T) {
	group := func(g uint64) func(*chain.Entry) { return func(e *chain.Entry) { e.LinkGroup = g } }
	var items []chaintest.Item
	for i := range 40 {
		g := uint64(i%7 + 1)
		items = append(items, chaintest.File(fmt.Sprintf("d%d/f%d", i%3, i), fmt.Sprint("group ", g)).With(group(g)))
	}
	items = append(items,
		chaintest.Fifo("fifo1").With(group(90)), chaintest.Fifo("fifo2").With(group(90)),
		chaintest.Link("link1", "x").With(group(91)), chaintest.Link("link2", "x").With(group(91)),
	)
	f := forest(items...)
	want := chaintest.Tree(t, f, f.Newest())
	for _, n := range []int{1, 8} {
		f.Opens.Store(0)
		dir := filepath.Join(t.TempDir(), "t")
		restoreTo(t, f, "", dir, Options{Workers: n}).clean(t)
		chaintest.Diff(t, chaintest.Disk(t, dir), want)
		if got := f.Opens.Load(); got != 7 {
			t.Errorf("%d contents opened for 7 files", got)
		}
		restoreTo(t, f, "", dir, Options{Workers: n, Force: true}).clean(t)
		chaintest.Diff(t, chaintest.Disk(t, dir), want)
	}
	dir := filepath.Join(t.TempDir(), "sub")
	restoreTo(t, f, "d1", dir, Options{}).clean(t)
	below(t, dir)
}

// The first name fails, the next one is restored from the content.
func TestHardLinkAfterFault(t *testing.T) {
	hard := func(e *chain.Entry) { e.LinkGroup = 1 }
	f := forest(chaintest.File("a", "x").With(hard), chaintest.File("b", "x").With(hard), chaintest.File("c", "x").With(hard))
	var calls atomic.Int32
	f.Wrap = func(_ chain.Node, c chain.Content) chain.Content {
		if calls.Add(1) == 1 {
			return chaintest.Faulty{Content: c, Err: chain.Corrupt("v", "bad")}
		}
		return c
	}
	dir := filepath.Join(t.TempDir(), "t")
	out := restoreTo(t, f, "", dir, Options{Workers: 1})
	if out.err != nil || out.Failed != 1 || out.Files != 2 {
		t.Errorf("%v, %+v", out.err, *out.Report)
	}
	if l := below(t, dir); len(l) != 2 || !strings.HasSuffix(l[1], ` = "b"`) {
		t.Errorf("restored %q", l)
	}
}

func TestSparse(t *testing.T) {
	const size = 64 << 20
	piece := chaintest.Piece{Off: 32 << 20, Data: strings.Repeat("data", 1<<10)}
	with := chaintest.Sparse("with-map", size, piece)
	without := chaintest.Sparse("without-map", 8<<20)
	without.Data = nil
	wrong := func(name string, x ...chain.Extent) chaintest.Item {
		it := chaintest.File(name, strings.Repeat("x", 100))
		it.Data = x
		return it
	}
	f := forest(with, without, chaintest.Sparse("hole", size),
		wrong("w1", chain.Extent{Off: 50, Len: 51}), wrong("w2", chain.Extent{Off: 50, Len: 10}, chain.Extent{Off: 40, Len: 10}),
		wrong("w3", chain.Extent{Off: -1, Len: 10}), wrong("w4", chain.Extent{Off: 0, Len: -10}),
		wrong("w5", chain.Extent{Off: 1, Len: 1<<63 - 1}))
	dir := filepath.Join(t.TempDir(), "t")
	out := restoreTo(t, f, "", dir, Options{})
	out.clean(t)
	chaintest.Diff(t, chaintest.Disk(t, dir), chaintest.Tree(t, f, f.Newest()))
	used := func(name string) int64 {
		var st unix.Stat_t
		if err := unix.Stat(dir+"/"+name, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	if n := used("with-map"); n > 1<<20 {
		t.Errorf("a file of 4 KiB data takes %d bytes", n)
	}
	if n := used("hole"); n > 1<<20 {
		t.Errorf("a hole takes %d bytes", n)
	}
	if n := used("without-map"); n < 8<<20 {
		t.Errorf("zeros that no map calls a hole take %d bytes", n)
	}
	// A map that leaves out data is seen by the hash.
	f = forest(wrong("w", chain.Extent{Off: 0, Len: 50}))
	if out := restoreTo(t, f, "", filepath.Join(t.TempDir(), "t"), Options{}); out.Failed != 1 {
		t.Errorf("%+v, %q", *out.Report, out.warn)
	}
}

func TestXattrs(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Setxattr(dir, "user.probe", []byte("x"), 0); err != nil {
		need.Missing(t, "no extended attributes here: "+err.Error())
	}
	with := func(x ...chain.Xattr) func(*chain.Entry) { return func(e *chain.Entry) { e.Xattrs = x } }
	acl := chain.Xattr{Name: "system.posix_acl_access", Value: []byte{
		2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 5, 0, 0, 0,
		4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
	}}
	mode := func(m uint32) func(*chain.Entry) { return func(e *chain.Entry) { e.Mode = m } }
	f := forest(
		chaintest.File("file", "x").With(with(chain.Xattr{Name: "user.a", Value: []byte("1\x00\xff")}, chain.Xattr{Name: "user.b"})),
		chaintest.File("readonly", "x").With(with(chain.Xattr{Name: "user.a", Value: []byte("2")})).With(mode(0o444)),
		chaintest.File("acl", "x").With(with(acl)).With(mode(0o640)),
		chaintest.Dir("dir").With(with(chain.Xattr{Name: "user.d", Value: []byte("3")})).With(mode(0o555)),
	)
	target := filepath.Join(dir, "t")
	removable(t, target)
	restoreTo(t, f, "", target, Options{}).clean(t)
	chaintest.Diff(t, chaintest.Disk(t, target), chaintest.Tree(t, f, f.Newest()))

	f = forest(chaintest.File("file", "x").With(with(chain.Xattr{Name: "nonsense.a", Value: []byte("1")})).With(mode(0o600)))
	out := restoreTo(t, f, "", filepath.Join(dir, "u"), Options{})
	if out.err != nil || out.Failed != 0 || out.Warnings != 1 || !strings.HasPrefix(out.warn[0], "file: cannot set attribute nonsense.a: ") {
		t.Errorf("%v, %+v, %q", out.err, *out.Report, out.warn)
	}
	if l := below(t, dir+"/u"); !strings.Contains(l[0], "file 0600") {
		t.Errorf("restored %q", l)
	}
}

func TestOwnersAsRoot(t *testing.T) {
	need.Root(t)
	owner := func(uid, gid uint32, user, group string) func(*chain.Entry) {
		return func(e *chain.Entry) { e.UID, e.GID, e.User, e.Group = uid, gid, user, group }
	}
	f := forest(append(chaintest.Devices(),
		chaintest.File("number", "").With(owner(12345, 54321, "", "")),
		chaintest.File("unknown", "").With(owner(12345, 54321, "nobody-has-this-name", "nor-this")),
		chaintest.File("known", "").With(owner(12345, 54321, "root", "root")),
		chaintest.File("setuid", "").With(owner(12345, 54321, "", "")).With(func(e *chain.Entry) { e.Mode = 0o6755 }),
		chaintest.Link("link", "x").With(owner(12345, 54321, "", "")),
		chaintest.Fifo("fifo").With(owner(12345, 54321, "", "")),
		chaintest.Dir("dir").With(owner(12345, 54321, "", "")).With(func(e *chain.Entry) { e.Mode = 0o2770 }),
	)...)
	want := chaintest.Tree(t, f, f.Newest())
	byName := slices.Clone(want)
	for i, l := range byName {
		if strings.HasPrefix(l, `"known"`) {
			byName[i] = strings.Replace(l, "12345:54321", "0:0", 1)
		}
	}
	dir := t.TempDir()
	restoreTo(t, f, "", dir+"/name", Options{}).clean(t)
	chaintest.Diff(t, chaintest.Disk(t, dir+"/name"), byName)
	restoreTo(t, f, "", dir+"/number", Options{NumericOwner: true}).clean(t)
	chaintest.Diff(t, chaintest.Disk(t, dir+"/number"), want)

	out := restoreTo(t, f, "", dir+"/none", Options{NoOwner: true})
	lines := strings.Join(chaintest.Disk(t, dir+"/none"), "\n")
	if out.err != nil || out.Warnings != 1 || !strings.Contains(lines, `"setuid" file 0755 0:0`) || strings.Contains(lines, ":54321") {
		t.Errorf("%v, %+v, %q\n%s", out.err, *out.Report, out.warn, lines)
	}

	f = forest(chaintest.File("x", "").With(owner(1<<32-1, 0, "", "")))
	if out := restoreTo(t, f, "", dir+"/bad", Options{}); out.Warnings != 1 || out.Files != 1 {
		t.Errorf("owner that means none: %+v, %q", *out.Report, out.warn)
	}
}

func TestOwnersAsUser(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root can set any owner")
	}
	f := forest(chaintest.File("x", "").With(func(e *chain.Entry) { e.UID, e.Mode = 0, 0o4711 }))
	dir := t.TempDir()
	out := restoreTo(t, f, "", dir+"/t", Options{NumericOwner: true})
	if out.err != nil || out.Failed != 0 || out.Warnings != 2 || !strings.Contains(below(t, dir+"/t")[0], "file 0711") {
		t.Errorf("%v, %+v, %q, %q", out.err, *out.Report, out.warn, below(t, dir+"/t"))
	}
	out = restoreTo(t, f, "", dir+"/u", Options{NoOwner: true})
	if out.Warnings != 1 {
		t.Errorf("%+v, %q", *out.Report, out.warn)
	}
}

// The target's parent, and what else is in it, stay as they are.
func TestParentUntouched(t *testing.T) {
	parent := t.TempDir()
	if err := errors.Join(os.Chmod(parent, 0o751), os.WriteFile(parent+"/other", nil, 0o640)); err != nil {
		t.Fatal(err)
	}
	f := forest(chaintest.Dir("").With(func(e *chain.Entry) { e.Mode = 0o700 }), chaintest.File("x", ""))
	restoreTo(t, f, "", parent+"/dir", Options{}).clean(t)
	restoreTo(t, f, "x", parent+"/file", Options{}).clean(t)
	st, err := os.Stat(parent)
	if err != nil || st.Mode().Perm() != 0o751 {
		t.Errorf("parent: %v, %v", st.Mode(), err)
	}
	if l := below(t, parent); len(l) != 4 {
		t.Errorf("parent holds %q", l)
	}
}

// A root of which the archive knows nothing leaves the target's attributes.
func TestUnknownRoot(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o710); err != nil {
		t.Fatal(err)
	}
	f := forest(chaintest.Dir("").With(func(e *chain.Entry) { *e = chain.Entry{Type: chain.Dir} }), chaintest.File("x", ""))
	restoreTo(t, f, "", dir, Options{}).clean(t)
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o710 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// hugeTree is a directory of n empty files, and notes how many were listed
// before they were restored.
type hugeTree struct {
	n    int
	p    *Progress
	mu   sync.Mutex
	sent int64
	most int64
}

func (h *hugeTree) Root(context.Context) (chain.Node, error) { return odd("", chain.Dir, 1), nil }
func (h *hugeTree) Dir(context.Context, uint64) (chain.Node, error) {
	return chain.Node{}, fs.ErrNotExist
}
func (h *hugeTree) Lookup(context.Context, uint64, string) (chain.Node, error) {
	return chain.Node{}, fs.ErrNotExist
}
func (h *hugeTree) ReadDir(_ context.Context, _ uint64, after string, exact bool, fn func(chain.Node) error) error {
	from := 0
	if after != "" {
		fmt.Sscanf(after, "%d", &from)
		from++
	}
	for i := from; i < h.n; i++ {
		h.mu.Lock()
		h.sent++
		h.most = max(h.most, h.sent-h.p.Entries.Load())
		h.mu.Unlock()
		n := odd(fmt.Sprintf("%08d", i), chain.File, 0)
		if err := fn(n); err != nil {
			return err
		}
	}
	return nil
}

func TestBoundedMemory(t *testing.T) {
	const workers = 3
	var p Progress
	tr := &hugeTree{n: 1500, p: &p}
	out := restoreTree(t, forest(chaintest.File("x", "")), tr, "", filepath.Join(t.TempDir(), "t"), Options{Workers: workers, Progress: &p})
	out.clean(t)
	if out.Files != int64(tr.n) {
		t.Errorf("%d files", out.Files)
	}
	if limit := int64(pageLen + 3*workers + 1); tr.most > limit {
		t.Errorf("%d entries were waiting, at most %d may", tr.most, limit)
	}
}

func TestBuffersComeBack(t *testing.T) {
	extra := newBuffers()
	s := newStreamer(extra)
	data := strings.Repeat("0123456789abcdef", 9<<20/16) + "tail"
	for _, stop := range []int64{-1, 0, 2 << 20} {
		var got strings.Builder
		bad := errors.New("stop")
		err := s.read(context.Background(), chaintest.Bytes(data), 5, int64(len(data)), func(off int64, p []byte) error {
			if off != 5+int64(got.Len()) {
				t.Fatalf("piece at %d after %d bytes", off, got.Len())
			}
			got.Write(p)
			if stop >= 0 && off >= stop {
				return bad
			}
			return nil
		})
		if stop < 0 && (err != nil || got.String() != data[5:]) || stop >= 0 && err != bad {
			t.Errorf("stop at %d: %v, %d bytes", stop, err, got.Len())
		}
		if len(extra.free) != extraPieces || s.own == nil {
			t.Errorf("stop at %d: %d of %d buffers are back", stop, len(extra.free), extraPieces)
		}
	}
	if err := s.read(context.Background(), chaintest.Bytes("ab"), 0, 3, func(int64, []byte) error { return nil }); err == nil {
		t.Error("an early end is no error")
	}
}
