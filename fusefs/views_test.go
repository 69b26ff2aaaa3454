//go:build linux

package fusefs

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"dupfs/chain"
	"dupfs/chain/chaintest"
)

// parseSeconds reads a time as seconds since 1970.
func parseSeconds(s string) (time.Time, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	return time.Unix(n, 0), err
}

// names lists a directory.
func names(t testing.TB, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func at(sec int64, items ...chaintest.Item) chaintest.Point {
	return chaintest.Point{Time: time.Unix(sec, 0).UTC(), Items: items}
}

func TestLayout(t *testing.T) {
	f := chaintest.New(at(1000, chaintest.File("a", "1")), at(2000, chaintest.File("a", "2")),
		at(2000, chaintest.File("a", "fork")), at(3000, chaintest.File("", "a single file")))
	dir := mount(t, f, Options{ParseTime: parseSeconds})
	for _, c := range []struct{ path, names string }{
		{"", "at snapshots"},
		{"at", ""},
		{"snapshots", "1970-01-01T00:16:40Z 1970-01-01T00:33:20Z 1970-01-01T00:33:20Z~2 1970-01-01T00:50:00Z latest"},
		{"snapshots/1970-01-01T00:16:40Z", "a"},
	} {
		if got := names(t, dir+"/"+c.path); got != c.names {
			t.Errorf("%q holds %q, want %q", c.path, got, c.names)
		}
	}
	for path, want := range map[string]string{
		"snapshots/1970-01-01T00:16:40Z/a":   "1",
		"snapshots/1970-01-01T00:33:20Z/a":   "2",
		"snapshots/1970-01-01T00:33:20Z~2/a": "fork",
		"snapshots/1970-01-01T00:50:00Z":     "a single file",
		"snapshots/latest":                   "a single file",
		"at/1000/a":                          "1",
		"at/1999/a":                          "1",
		"at/99999":                           "a single file",
	} {
		if got, err := os.ReadFile(dir + "/" + path); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want %q", path, got, err, want)
		}
	}
	for path, want := range map[string]string{
		"snapshots/latest": "1970-01-01T00:50:00Z",
		"at/1500":          "../snapshots/1970-01-01T00:16:40Z",
	} {
		got, err := os.Readlink(dir + "/" + path)
		info, err2 := os.Lstat(dir + "/" + path)
		if err != nil || err2 != nil || got != want || info.Size() != int64(len(want)) {
			t.Errorf("%s leads to %q, %v, %v", path, got, err, err2)
		}
	}
	for _, path := range []string{"x", "at/999", "at/never", "snapshots/1970", "snapshots/latest/b", "at/1000/b", ".dupfs"} {
		if _, err := os.Stat(dir + "/" + path); !errors.Is(err, fs.ErrNotExist) && !strings.Contains(err.Error(), "not a directory") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestNoTimesNoPoints(t *testing.T) {
	dir := mount(t, chaintest.New(), Options{})
	if got := names(t, dir); got != "snapshots" {
		t.Errorf("root holds %q", got)
	}
	if got := names(t, dir+"/snapshots"); got != "" {
		t.Errorf("snapshots holds %q", got)
	}
	for _, path := range []string{"/snapshots/latest", "/at", "/at/1000"} {
		if _, err := os.Lstat(dir + path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestPointsComeAndGo adds and removes points under a mount.
func TestPointsComeAndGo(t *testing.T) {
	f := chaintest.New(at(1000, chaintest.File("a", "1")), at(2000, chaintest.File("a", "2")))
	dir := mount(t, f, Options{Refresh: time.Millisecond, ParseTime: parseSeconds})
	first := dir + "/snapshots/1970-01-01T00:16:40Z"
	if _, err := os.Stat(first + "/a"); err != nil {
		t.Fatal(err)
	}
	f.Add(at(3000, chaintest.File("a", "3")))
	eventually(t, "the new point", func() bool {
		got, _ := os.ReadFile(dir + "/snapshots/latest/a")
		return string(got) == "3" && strings.Count(names(t, dir+"/snapshots"), " ") == 3
	})
	f.Remove(1)
	eventually(t, "the removed point to go", func() bool {
		_, err := os.Stat(first + "/a")
		_, err2 := os.Stat(dir + "/at/1500")
		return errors.Is(err, fs.ErrNotExist) && errors.Is(err2, fs.ErrNotExist)
	})
	if got, err := os.ReadFile(dir + "/at/2000/a"); err != nil || string(got) != "2" {
		t.Errorf("another point: %q, %v", got, err)
	}
}

// eventually waits for what takes as long as the kernel keeps a name.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for range 1000 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}

func TestPointNames(t *testing.T) {
	point := func(sec int64, n uint32) chain.Point { return chain.Point{Time: time.Unix(sec, 0), Number: n} }
	l := newPointList([]chain.Point{point(50, 9), point(50, 3), point(10, 7), point(50, 5)}, nil, func(time.Time) string { return "" })
	var got []string
	for _, p := range l.all {
		got = append(got, p.name+"="+strconv.Itoa(int(p.Number)))
	}
	want := "1970-01-01T00:00:10Z=7 1970-01-01T00:00:50Z=3 1970-01-01T00:00:50Z~2=5 1970-01-01T00:00:50Z~3=9"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("named %s", s)
	}
	for _, c := range []struct {
		sec    int64
		number uint32
	}{{9, 0}, {10, 7}, {49, 7}, {50, 9}, {51, 9}} {
		p := l.at(time.Unix(c.sec, 0))
		if p == nil && c.number != 0 || p != nil && p.Number != c.number {
			t.Errorf("at %d is %v", c.sec, p)
		}
	}
}
