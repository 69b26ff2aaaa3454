//go:build linux

package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dupfs/chain"
	"dupfs/chain/chaintest"
	"dupfs/internal/need"
)

// found is a verification and what it said, in order.
type found struct {
	*VerifyReport
	err    error
	differ []string
	warn   []string
}

// verifyTree verifies a tree.
func verifyTree(t *testing.T, f chain.Forest, tr chain.Tree, path chain.Path, dir string, o VerifyOptions) found {
	t.Helper()
	var out found
	o.Differ = func(_ chain.Path, text string) { out.differ = append(out.differ, text) }
	o.Warn = func(p chain.Path, err error) { out.warn = append(out.warn, fmt.Sprintf("%s: %v", p, err)) }
	o.Location = time.UTC
	out.VerifyReport, out.err = Verify(context.Background(), f, tr, path, dir, o)
	if int64(len(out.differ)) != out.Differences || int64(len(out.warn)) != out.Failed {
		t.Errorf("%d differences told, %d counted; %d failures told, %d counted", len(out.differ), out.Differences, len(out.warn), out.Failed)
	}
	return out
}

func TestVerifyZoo(t *testing.T) {
	f := chaintest.Zoo()
	tr := f.Newest()
	entries := int64(len(chaintest.Tree(t, f, tr)))
	dir := filepath.Join(t.TempDir(), "t")
	removable(t, dir)
	restoreTo(t, f, "", dir, Options{}).clean(t)
	for _, n := range []int{1, 4} {
		for _, row := range []struct {
			dir     string
			compare bool
		}{{dir, true}, {dir, false}, {"", true}, {"/nowhere", false}} {
			var p Progress
			out := verifyTree(t, f, tr, "", row.dir, VerifyOptions{CompareData: row.compare, Workers: n, Progress: &p})
			if os.Geteuid() != 0 && row.dir == dir && row.compare {
				if out.Failed != 1 || !strings.HasPrefix(out.warn[0], "modes/none: open") {
					t.Errorf("%+v, %q", *out.VerifyReport, out.warn)
				}
				continue
			}
			if out.err != nil || out.Differences != 0 || out.Failed != 0 || out.Compared != entries {
				t.Errorf("%q: %v, %+v of %d, %q, %q", row.dir, out.err, *out.VerifyReport, entries, out.differ, out.warn)
			}
			if p.Entries.Load() != entries || p.Bytes.Load() != out.Bytes || out.Bytes < 1<<20 || p.Files.Load() != out.Files {
				t.Errorf("progress %d entries, %d bytes; report %+v", p.Entries.Load(), p.Bytes.Load(), *out.VerifyReport)
			}
		}
	}
	if out := verifyTree(t, f, tr, "docs", dir+"/docs", VerifyOptions{CompareData: true}); out.Differences != 0 || out.Compared < 5 {
		t.Errorf("below a directory: %+v, %q", *out.VerifyReport, out.differ)
	}
	if out := verifyTree(t, f, tr, "docs/new.txt", dir+"/docs/new.txt", VerifyOptions{CompareData: true}); out.Differences != 0 || out.Compared != 1 || out.Files != 1 {
		t.Errorf("one file: %+v, %q", *out.VerifyReport, out.differ)
	}
	if out := verifyTree(t, f, tr, "links/rel", dir+"/links/rel", VerifyOptions{CompareData: true}); out.Differences != 0 || out.Compared != 1 {
		t.Errorf("one link: %+v, %q", *out.VerifyReport, out.differ)
	}
	if out := verifyTree(t, f, tr, "docs/none", dir, VerifyOptions{}); !errors.Is(out.err, fs.ErrNotExist) {
		t.Errorf("missing path: %v", out.err)
	}
}

// verifyItems are what TestVerifyDiffers and duplicity verify.
func verifyItems() []chaintest.Item {
	whole := func(e *chain.Entry) { e.Mtime.Nsec = 0 }
	items := []chaintest.Item{chaintest.Dir("").With(whole)}
	for _, name := range []string{"both", "data", "gone", "mode", "mtime", "same", "size", "type"} {
		items = append(items, chaintest.File(name, "file "+name+"\n").With(whole))
	}
	for _, name := range []string{"dirfile", "dmode", "dmtime", "e"} {
		items = append(items, chaintest.Dir(name).With(whole))
	}
	return append(items, chaintest.File("dgone/in", "x").With(whole), chaintest.Dir("dgone").With(whole),
		chaintest.File("dfile/in", "x").With(whole), chaintest.Dir("dfile").With(whole),
		chaintest.Fifo("fifo").With(whole), chaintest.Link("link", "a").With(whole), chaintest.Link("link2", "a").With(whole))
}

// damage changes a directory with verifyItems in every way that is noticed.
func damage(dir string) error {
	old, other := time.Unix(chaintest.Mtime.Sec, 0), time.Unix(978307200, 0)
	in := func(name string) string { return dir + "/" + name }
	return errors.Join(
		os.WriteFile(in("both"), []byte("FILE both\n"), 0o644), os.Chmod(in("both"), 0o600),
		os.WriteFile(in("data"), []byte("FILE data\n"), 0o644), os.Chtimes(in("data"), old, old),
		os.Remove(in("gone")), os.Chmod(in("mode"), 0o711|os.ModeSetuid), os.Chtimes(in("mtime"), other, other),
		os.WriteFile(in("size"), []byte("longer than before"), 0o644), os.Chtimes(in("size"), old, old),
		os.Remove(in("type")), os.Mkdir(in("type"), 0o755), os.WriteFile(in("type/new"), nil, 0o644),
		os.Remove(in("dirfile")), os.WriteFile(in("dirfile"), nil, 0o644),
		os.Chmod(in("dmode"), 0o700), os.Chtimes(in("dmtime"), other, other), os.RemoveAll(in("dgone")),
		os.RemoveAll(in("dfile")), os.WriteFile(in("dfile"), nil, 0o644),
		os.Chmod(in("fifo"), 0o660), os.Remove(in("link")), os.Symlink("b", in("link")),
		os.MkdirAll(in("new/deep"), 0o755), os.WriteFile(in("new/deep/file"), nil, 0o644), os.Symlink("x", in("z")),
		os.Chtimes(dir, old, old),
	)
}

// differences are what verifies say after damage.
func differences() []string {
	id := fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
	return []string{
		"File both has permissions " + id + " 600, expected " + id + " 644",
		"Data for file data is different",
		"File dfile has type reg, expected dir",
		"File dfile/in is missing",
		"File dgone is missing",
		"File dgone/in is missing",
		"File dirfile has type reg, expected dir",
		"File dmode has permissions " + id + " 700, expected " + id + " 755",
		"File dmtime has mtime Mon Jan  1 00:00:00 2001, expected Tue Nov 14 22:13:20 2023",
		"File fifo has permissions " + id + " 660, expected " + id + " 600",
		"File gone is missing",
		"Symlink link points to b, expected a",
		"File mode has permissions " + id + " 4711, expected " + id + " 644",
		"File mtime has mtime Mon Jan  1 00:00:00 2001, expected Tue Nov 14 22:13:20 2023",
		"New file new",
		"New file new/deep",
		"New file new/deep/file",
		"Data for file size is different",
		"File type has type dir, expected reg",
		"New file type/new",
		"New file z",
	}
}

func TestVerifyDiffers(t *testing.T) {
	f := forest(verifyItems()...)
	dir := filepath.Join(t.TempDir(), "t")
	restoreTo(t, f, "", dir, Options{}).clean(t)
	if err := damage(dir); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{1, 8} {
		out := verifyTree(t, f, f.Newest(), "", dir, VerifyOptions{CompareData: true, Workers: n})
		if !slices.Equal(out.differ, differences()) || out.Failed != 0 || out.err != nil {
			t.Errorf("%v, %q, differences:\n%s\nwant\n%s", out.err, out.warn, strings.Join(out.differ, "\n"), strings.Join(differences(), "\n"))
		}
		if want := int64(len(verifyItems()) + 5); out.Compared != want {
			t.Errorf("%d compared, want %d", out.Compared, want)
		}
		if out.Files != 10 {
			t.Errorf("%d files of the archive read, want 10", out.Files)
		}
	}
	skip := func(p chain.Path, _ chain.Type) bool { return p == "new" || p == "same" }
	out := verifyTree(t, f, f.Newest(), "", dir, VerifyOptions{CompareData: true, Skip: skip})
	if l := strings.Join(out.differ, "\n"); strings.Contains(l, "new/deep") || !strings.Contains(l, "File same is missing") {
		t.Errorf("with a selection:\n%s", l)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	out = verifyTree(t, f, f.Newest(), "", dir, VerifyOptions{CompareData: true})
	if out.err != nil || out.Differences != int64(len(verifyItems())) || out.differ[0] != "File . is missing" {
		t.Errorf("without the directory: %v, %+v, %q", out.err, *out.VerifyReport, out.differ)
	}
}

// duplicity says the same of the same.
func TestVerifyWordsAreDuplicitys(t *testing.T) {
	program := need.Program(t, "duplicity")
	f := forest(verifyItems()...)
	dir := t.TempDir()
	src := dir + "/src"
	restoreTo(t, f, "", src, Options{}).clean(t)
	duplicity := func(args ...string) string {
		cmd := exec.Command(program, append(args, "--no-encryption", "--archive-dir", dir+"/cache", "--no-print-statistics")...)
		cmd.Env = append(os.Environ(), "TZ=UTC", "HOME="+dir)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
			t.Fatalf("duplicity %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	duplicity("full", src, "file://"+dir+"/archive")
	if err := damage(src); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range strings.Split(duplicity("verify", "--compare-data", "file://"+dir+"/archive", src), "\n") {
		if text, ok := strings.CutPrefix(l, "Difference found: "); ok {
			// It prints Python's bytes for the targets of links.
			got = append(got, strings.NewReplacer("b'a'", "a", "b'b'", "b").Replace(text))
		}
	}
	if !slices.Equal(got, differences()) {
		t.Errorf("duplicity says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(differences(), "\n"))
	}
}

func TestVerifyAsRoot(t *testing.T) {
	need.Root(t)
	owner := func(e *chain.Entry) { e.UID, e.GID, e.User = 12345, 0, "root" }
	f := forest(append(chaintest.Devices(),
		chaintest.File("owner", "").With(owner), chaintest.Link("lowner", "x").With(owner),
		chaintest.File("times", "").With(func(e *chain.Entry) { e.Mtime = chain.Time{} }),
	)...)
	dir := t.TempDir() + "/t"
	restoreTo(t, f, "", dir, Options{}).clean(t)
	for _, numeric := range []bool{false, true} {
		out := verifyTree(t, f, f.Newest(), "", dir, VerifyOptions{CompareData: true, NumericOwner: numeric})
		var want []string
		if numeric {
			want = []string{"File owner has permissions 0:0 644, expected 12345:0 644"}
		}
		if !slices.Equal(out.differ, want) {
			t.Errorf("numeric %v: %q", numeric, out.differ)
		}
	}
	before := time.Unix(-1000, 0)
	if err := errors.Join(
		os.Remove(dir+"/dev/null"), unix.Mknod(dir+"/dev/null", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))),
		os.Chtimes(dir+"/times", before, before),
		os.Chtimes(dir+"/dev", chaintest.Mtime.Time(), chaintest.Mtime.Time()),
	); err != nil {
		t.Fatal(err)
	}
	out := verifyTree(t, f, f.Newest(), "", dir, VerifyOptions{CompareData: true})
	if want := []string{"Device file dev/null has numbers (1, 5), expected (1, 3)"}; !slices.Equal(out.differ, want) {
		t.Errorf("%q", out.differ)
	}
}

func TestVerifyXattrs(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Setxattr(dir, "user.probe", []byte("x"), 0); err != nil {
		need.Missing(t, "no extended attributes here: "+err.Error())
	}
	x := func(e *chain.Entry) { e.Xattrs = []chain.Xattr{{Name: "user.a", Value: []byte("1")}} }
	f := forest(chaintest.File("a", "").With(x), chaintest.File("b", "").With(x), chaintest.File("c", ""))
	target := dir + "/t"
	restoreTo(t, f, "", target, Options{}).clean(t)
	for _, err := range []error{
		unix.Removexattr(target+"/a", "user.a"), unix.Setxattr(target+"/b", "user.a", []byte("2"), 0),
		unix.Setxattr(target+"/c", "user.a", []byte("2"), 0), // nothing is known of c's
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	out := verifyTree(t, f, f.Newest(), "", target, VerifyOptions{CompareData: true})
	want := []string{"File a has no attribute user.a: no data available", "File b has another attribute user.a"}
	if !slices.Equal(out.differ, want) {
		t.Errorf("%q", out.differ)
	}
}

func TestVerifyFaults(t *testing.T) {
	f := forest(chaintest.File("a", "good"), chaintest.File("bad", "content"), chaintest.File("c", "good"))
	dir := t.TempDir() + "/t"
	restoreTo(t, f, "", dir, Options{}).clean(t)
	wrong := chaintest.Bytes("CONTENT")
	for _, row := range []struct {
		name string
		c    chain.Content
		want string
	}{
		{"corrupt", chaintest.Faulty{Content: wrong, Off: 3, Err: chain.Corrupt("volume 1", "hash differs")}, "bad: volume 1: hash differs"},
		{"other content", wrong, "bad: bad: content does not have its SHA-256"},
		{"other size", chaintest.Bytes("x"), "bad: bad: size"},
	} {
		f.Wrap = func(n chain.Node, c chain.Content) chain.Content {
			if n.Name == "bad" {
				return row.c
			}
			return c
		}
		for _, compare := range []bool{false, true} {
			out := verifyTree(t, f, f.Newest(), "", dir, VerifyOptions{CompareData: compare})
			if out.err != nil || out.Failed != 1 || out.Differences != 0 || !strings.HasPrefix(out.warn[0], row.want) || out.Compared != 4 {
				t.Errorf("%s: %v, %+v, %q, %q", row.name, out.err, *out.VerifyReport, out.warn, out.differ)
			}
		}
	}
	tr := failDir{f.Newest(), 1, chain.Corrupt("index", "bad page")}
	f.Wrap = nil
	out := verifyTree(t, f, tr, "", dir, VerifyOptions{CompareData: true})
	if out.err != nil || out.Failed != 1 || out.warn[0] != ".: index: bad page" {
		t.Errorf("%v, %+v, %q, %q", out.err, *out.VerifyReport, out.warn, out.differ)
	}
}

func TestVerifyOddTrees(t *testing.T) {
	for _, row := range []struct {
		name string
		tree chain.Tree
		want string
	}{
		{"within itself", oddTree{1: {odd("a", chain.Dir, 1)}}, "a: directory lies within itself"},
		{"bad name", oddTree{1: {odd("..", chain.Symlink, 0)}}, `../..: bad name ".." in the archive`},
	} {
		for _, dir := range []string{"", t.TempDir()} {
			out := verifyTree(t, forest(), row.tree, "", dir, VerifyOptions{CompareData: true})
			if out.err != nil || out.Failed != 1 || !strings.Contains(out.warn[0], strings.TrimPrefix(row.want, "../")) {
				t.Errorf("%s: %v, %+v, %q", row.name, out.err, *out.VerifyReport, out.warn)
			}
		}
	}
}

func TestVerifyCancelled(t *testing.T) {
	var items []chaintest.Item
	for i := range 1000 {
		items = append(items, chaintest.File(fmt.Sprintf("%04d", i), "x"))
	}
	for _, n := range []int{1, 4} {
		ctx, cancel := context.WithCancel(context.Background())
		f := forest(items...)
		f.Wrap = func(nd chain.Node, c chain.Content) chain.Content {
			if nd.Name == "0100" {
				cancel()
			}
			return c
		}
		rep, err := Verify(ctx, f, f.Newest(), "", "", VerifyOptions{Workers: n})
		if !errors.Is(err, context.Canceled) || rep.Compared > 900 {
			t.Errorf("%v, %+v", err, *rep)
		}
		cancel()
	}
}
