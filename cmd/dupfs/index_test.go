package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// archiveNames returns the names in a directory of the world that have a word.
func (w *world) archiveNames(dir, word string) []string {
	w.t.Helper()
	names, err := filepath.Glob(w.path(dir, "*"+word+"*"))
	if err != nil {
		w.t.Fatal(err)
	}
	return names
}

// freshCache is an environment without anything cached.
func (w *world) freshCache() string {
	w.t.Helper()
	dir, err := os.MkdirTemp(w.dir, "cache")
	if err != nil {
		w.t.Fatal(err)
	}
	return "XDG_CACHE_HOME=" + dir
}

// listAll lists every point from a fresh cache.
func (w *world) listAll(url string, points int) string {
	w.t.Helper()
	env := w.freshCache()
	var out strings.Builder
	for n := range points {
		r := w.exec([]string{env}, binary, "ls", "-R", "--json", "--time", at(n), url)
		if r.code != 0 || r.stderr != "" {
			w.t.Fatalf("%s: exit %d\n%s", r.line, r.code, r.stderr)
		}
		out.WriteString(r.stdout)
	}
	return out.String()
}

// An archive of stock, indexed: stock does not mind, and another machine needs
// neither sigtars nor volumes to list it.
func TestIndexUpload(t *testing.T) {
	for _, layer := range []string{"encrypted", "gzip"} {
		t.Run(layer, func(t *testing.T) { testIndexUpload(t, layers[layer]) })
	}
}

func testIndexUpload(t *testing.T, opts []string) {
	w := newWorld(t)
	url := w.url("archive")
	with := func(args ...string) []string { return append(args, opts...) }
	backup := func(n int, verb ...string) {
		w.grow(n)
		w.stock(with(append(verb, "--volsize", "1", "--current-time", at(n), "src", url)...)...)
	}
	backup(0)
	backup(1)
	if out := w.dupfs("index", "--upload", url); !strings.Contains(out, "2 index files stored") || !strings.Contains(out, "2 points") {
		t.Errorf("index: %s", out)
	}
	if out := w.dupfs("index", "--upload", url); !strings.Contains(out, "0 index files stored") {
		t.Errorf("index again: %s", out)
	}
	listed := w.listAll(url, 2)
	if strings.Count(listed, `"sha256"`) == 0 {
		t.Error("no hashes are known")
	}
	w.sh("mkdir bare; cp archive/*manifest* archive/dupfs-index* bare/")
	w.sh("for f in archive/*.vol*; do cp $f bare/; truncate -s $(stat -c %s $f) bare/${f#archive/}; done")
	for _, v := range w.archiveNames("bare", ".vol") { // of the same size, but nothing is in them
		info, err := os.Stat(v)
		if err == nil {
			err = os.WriteFile(v, make([]byte, info.Size()), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := w.listAll(w.url("bare"), 2); got != listed {
		t.Error("without sigtars and volumes the listing is another one")
	}
	env := w.freshCache()
	out := w.path("restored")
	if r := w.exec([]string{env}, binary, "restore", url, out); r.code != 0 {
		t.Fatal(r.stderr)
	}
	same(t, "restore by the indexes", out, w.path("copy1"))

	indexes := w.archiveNames("archive", "dupfs-index")
	w.stock(with("collection-status", url)...)
	if out := w.stock(with("cleanup", "--force", url)...); !strings.Contains(out, "No extraneous files found") {
		t.Errorf("stock finds something to clean up:\n%s", out)
	}
	w.stock(with("verify", "--compare-data", url, w.path("copy1"))...)
	backup(2)
	w.stock(with("verify", "--compare-data", url, w.path("copy2"))...)
	// An increment of ours on what only indexes tell of.
	w.grow(3)
	if r := w.exec([]string{w.freshCache()}, binary, with("--current-time", at(3), "src", url)...); r.code != 0 {
		t.Fatal(r.stderr)
	}
	w.stock(with("verify", "--compare-data", url, w.path("copy3"))...)
	w.stock(with("full", "--current-time", at(4), "src", url)...)
	if got := w.archiveNames("archive", "dupfs-index"); len(got) != 3 || !slices.Equal(got[:1], indexes[:1]) {
		t.Errorf("indexes: %q", got)
	}
	w.sh("cp -a archive archive2")
	w.stock(with("remove-all-but-n-full", "1", "--force", url)...)
	if got := w.archiveNames("archive", ".vol"); len(got) == 0 {
		t.Error("stock removed everything")
	}
	// What stock leaves behind of ours is loose then, and cleaned up by us.
	w.dupfs("cleanup", "--force", url)
	w.dupfs("remove-all-but-n-full", "1", "--force", w.url("archive2"))
	for _, dir := range []string{"archive", "archive2"} {
		if got := w.archiveNames(dir, "dupfs-index"); len(got) > 0 {
			t.Errorf("%s: left behind: %q", dir, got)
		}
		out := w.path("last-" + dir)
		w.stock(with("restore", w.url(dir), out)...)
		same(t, dir, out, w.path("copy3"))
	}
}

// Volumes that gpg compressed with bzip2 cannot be made seekable, and are read
// nevertheless: mounted, restored, indexed, continued.
func TestBzip2(t *testing.T) {
	w := newWorld(t)
	url := w.url("archive")
	for n := range 2 {
		w.grow(n)
		w.stock("--gpg-options=--compress-algo=bzip2 --bzip2-compress-level=1", "--volsize", "1", "--current-time", at(n), "src", url)
	}
	w.sh("for f in archive/*.vol1.*; do gpg --batch --pinentry-mode loopback --passphrase fixture --list-packets $f | grep -q 'algo=3'; done")
	mnt, unmount := w.mount(url)
	for n := range 2 {
		stamp := strings.TrimSpace(w.sh("date -u -d @" + at(n) + " +%Y-%m-%dT%H:%M:%SZ"))
		same(t, fmt.Sprint("mount of ", n), filepath.Join(mnt, "snapshots", stamp), w.path(fmt.Sprint("copy", n)))
	}
	unmount()
	w.dupfs("index", "--upload", url)
	for n := range 2 {
		out := w.path(fmt.Sprint("out", n))
		if r := w.exec([]string{w.freshCache()}, binary, "restore", "--time", at(n), url, out); r.code != 0 {
			t.Fatal(r.stderr)
		}
		same(t, fmt.Sprint("restore of ", n), out, w.path(fmt.Sprint("copy", n)))
	}
	w.grow(2)
	w.dupfs("--current-time", at(2), "src", url)
	w.stock("verify", "--compare-data", url, w.path("copy2"))
}
