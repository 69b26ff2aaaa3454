//go:build linux

package fusefs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"dupfs/chain"
	"dupfs/chain/chaintest"
	"dupfs/internal/need"
)

// logBook collects what a mount logs.
type logBook struct {
	mu    sync.Mutex
	lines []string
}

func (l *logBook) log(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// tempDir is t.TempDir, but a mount that the test leaves there by mistake is
// taken away, and is an error.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for range 5 {
			if _, ok, _ := mountAt(dir); !ok {
				return
			}
			t.Errorf("a mount is left at %s", dir)
			detach(dir)
		}
	})
	return dir
}

// mount mounts f for the length of the test. The log must stay empty, unless
// the test brings its own.
func mount(t testing.TB, f chain.Forest, o Options) string {
	t.Helper()
	need.FUSE(t)
	dir := tempDir(t)
	book := new(logBook)
	if o.Log == nil {
		o.Log = book.log
	}
	s, err := Mount(f, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Unmount(); err != nil {
			t.Errorf("unmount: %v", err)
		}
		if said := book.String(); said != "" {
			t.Errorf("logged:\n%s", said)
		}
	})
	return dir
}

// only returns the directory of the only point that a mount shows.
func only(t testing.TB, dir string) string {
	t.Helper()
	names, err := filepath.Glob(dir + "/snapshots/2*")
	if err != nil || len(names) != 1 {
		t.Fatalf("points %q, %v", names, err)
	}
	return names[0]
}

// sh runs a shell script whose working directory is changed to dir by the shell:
// a process that serves the directory must not fork into it.
func sh(t testing.TB, dir, script string, args ...string) string {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-ec", `cd "$0"; ` + script, dir}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", script, err, tail(out.String()), tail(errs.String()))
	}
	if errs.Len() > 0 {
		t.Errorf("%s: said %s", script, tail(errs.String()))
	}
	return out.String()
}

func tail(s string) string { return s[max(0, len(s)-2000):] }

// TestZoo compares every point of a forest with one of each kind with what a
// walk of the mount sees.
func TestZoo(t *testing.T) {
	for _, lazy := range []bool{false, true} {
		t.Run(fmt.Sprintf("lazy=%v", lazy), func(t *testing.T) {
			f := chaintest.Zoo()
			f.Lazy = lazy
			items := append(chaintest.Devices(), chaintest.Dir(""))
			f.Add(chaintest.Point{Items: items})
			dir := mount(t, f, Options{})
			points, err := f.Points(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range points {
				tree, err := f.Tree(context.Background(), p.Number)
				if err != nil {
					t.Fatal(err)
				}
				got := chaintest.Disk(t, dir+"/snapshots/"+p.Time.Format(timeName))
				chaintest.Diff(t, got, chaintest.Tree(t, f, tree))
			}
		})
	}
}

// TestHostileNames has names that would break a listing: the others are shown.
func TestHostileNames(t *testing.T) {
	items := []chaintest.Item{chaintest.File("d/good", "1"), chaintest.File("d/zgood", "1")}
	for i, name := range []string{".", "..", "a/b", "../x", "nul\x00", strings.Repeat("x", 300), strings.Repeat("x", 2000)} {
		items = append(items, chaintest.File(fmt.Sprintf("d/%d", i), "1").As(name))
	}
	book := new(logBook)
	dir := mount(t, chaintest.New(chaintest.Point{Items: items}), Options{Log: book.log})
	for range 2 {
		entries, err := os.ReadDir(only(t, dir) + "/d")
		if err != nil || len(entries) != 2 || entries[0].Name() != "good" || entries[1].Name() != "zgood" {
			t.Errorf("listed %v, %v", entries, err)
		}
	}
	if n := strings.Count(book.String(), "cannot be shown"); n != 7 {
		t.Errorf("%d names logged:\n%s", n, book)
	}
}

// TestNothingLeft mounts, uses and unmounts, and counts what stays.
func TestNothingLeft(t *testing.T) {
	need.FUSE(t)
	f := chaintest.Zoo()
	dir := tempDir(t)
	goroutines, files := settle(runtime.NumGoroutine), settle(openFiles)
	for range 3 {
		s, err := Mount(f, dir, Options{ParseTime: parseSeconds})
		if err != nil {
			t.Fatal(err)
		}
		chaintest.Disk(t, dir+"/snapshots/latest/")
		if _, err := os.Stat(dir + "/at/9999999999"); err != nil {
			t.Error(err)
		}
		if err := s.Unmount(); err != nil {
			t.Fatal(err)
		}
		if err := s.Unmount(); err != nil {
			t.Errorf("again: %v", err)
		}
		s.Wait()
	}
	for range 100 {
		if runtime.NumGoroutine() <= goroutines && openFiles() <= files {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines where there were %d, %d open files where there were %d\n%s",
		runtime.NumGoroutine(), goroutines, openFiles(), files, buf[:runtime.Stack(buf, true)])
}

// settle returns a count once it stops falling.
func settle(count func() int) int {
	n := count()
	for range 10 {
		time.Sleep(5 * time.Millisecond)
		n = min(n, count())
	}
	return n
}

func openFiles() int {
	names, _ := os.ReadDir("/proc/self/fd")
	return len(names)
}
