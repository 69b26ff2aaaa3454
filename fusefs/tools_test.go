//go:build linux

package fusefs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"dupfs/chain"
	"dupfs/chain/chaintest"
)

// TestPrograms has programs that copy trees copy one with one of each kind out
// of the mount, and compares what they made.
func TestPrograms(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can look at the copies of files of mode 0")
	}
	f := chaintest.Zoo()
	dir := mount(t, f, Options{})
	point := dir + "/snapshots/2023-11-14T22:13:20Z"
	tree, err := f.Tree(context.Background(), 1)
	if err != nil {
		t.Fatal(err)
	}
	want := chaintest.Tree(t, f, tree)
	for name, script := range map[string]string{
		"cp":  `cp -a . "$1"`,
		"tar": `tar -c --format=posix --sparse --xattrs . | tar -x --xattrs --xattrs-include='*' --warning=no-timestamp -p -C "$1"`,
	} {
		t.Run(name, func(t *testing.T) {
			out := tempDir(t)
			sh(t, point, script, out)
			chaintest.Diff(t, chaintest.Disk(t, out), want)
			if said := sh(t, point, `diff -r --no-dereference . "$1" || true`, out); strings.Count(said, "\n") != 1 ||
				!strings.Contains(said, "is a fifo while") {
				t.Errorf("diff: %s", said)
			}
		})
	}
}

// TestWalkers counts with programs that walk.
func TestWalkers(t *testing.T) {
	f := chaintest.Zoo()
	point := mount(t, f, Options{}) + "/snapshots/2023-11-14T22:13:20Z"
	tree, err := f.Tree(context.Background(), 1)
	if err != nil {
		t.Fatal(err)
	}
	entries, bytes := count(t, tree)
	for script, want := range map[string]int64{
		`find . -printf x | wc -c`:                         entries,
		`find . -type d -links +1 -printf x | wc -c`:       countIf(t, tree, func(n chain.Node) bool { return n.Type == chain.Dir }),
		`ls -lAR | grep -c '^-'`:                           countIf(t, tree, func(n chain.Node) bool { return n.Type == chain.File && !strings.Contains(n.Name, "\n-") }),
		`du -s --apparent-size --block-size=1 . | cut -f1`: bytes,
		`find . -samefile hard/one | wc -l`:                3,
	} {
		out := strings.TrimSpace(sh(t, point, script))
		if got, err := strconv.ParseInt(out, 10, 64); err != nil || got != want {
			t.Errorf("%s: %q, want %d", script, out, want)
		}
	}
	if out := sh(t, point, `grep -r shared . | sort | head -1`); !strings.Contains(out, "hard/one") {
		t.Errorf("grep said %q", out)
	}
}

// count returns the entries of a tree, and the bytes of what is no directory,
// hard links once.
func count(t testing.TB, tree chain.Tree) (entries, bytes int64) {
	seen := map[uint64]bool{}
	entries = countIf(t, tree, func(n chain.Node) bool {
		switch {
		case n.Type == chain.Dir || seen[n.Version]:
		case n.Type == chain.Symlink:
			bytes += int64(len(n.Link))
		default:
			bytes += n.Size
		}
		seen[n.Version] = true
		return true
	})
	return entries, bytes
}

// countIf counts the entries that fit.
func countIf(t testing.TB, tree chain.Tree, fits func(chain.Node) bool) (total int64) {
	t.Helper()
	ctx := context.Background()
	root, err := tree.Root(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var walk func(chain.Node)
	walk = func(n chain.Node) {
		if fits(n) {
			total++
		}
		if n.Type == chain.Dir {
			if err := tree.ReadDir(ctx, n.Dir, "", true, func(k chain.Node) error { walk(k); return nil }); err != nil {
				t.Fatal(err)
			}
		}
	}
	walk(root)
	return total
}

// TestManyReaders has programs and this process read all points at once while
// points come and go.
func TestManyReaders(t *testing.T) {
	f := chaintest.Zoo()
	dir := mount(t, f, Options{Refresh: time.Millisecond, ParseTime: parseSeconds})
	done := make(chan error)
	const readers = 8
	for i := range readers {
		go func() {
			script := []string{`tar -c snapshots/2* | wc -c`, `find . -ls`, `ls -lR snapshots/latest/`, `cat at/1700050000/docs/*.bin`}[i%4]
			cmd := exec.Command("sh", "-ec", `cd "$0"; `+script, dir)
			out, err := cmd.CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%s: %v: %s", script, err, tail(string(out)))
			}
			done <- err
		}()
	}
	for left := readers; left > 0; {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			left--
		default:
			f.Add(chaintest.Point{Time: time.Unix(1800000000, 0), Items: []chaintest.Item{chaintest.File("x", "x")}})
			if _, err := os.ReadDir(dir + "/snapshots"); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Millisecond)
		}
	}
}
