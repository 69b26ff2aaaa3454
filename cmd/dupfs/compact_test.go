package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A chain written in turn by stock and by dupfs becomes one full set, which both
// programs restore and continue, and which needs nothing of the old chain.
func TestCompact(t *testing.T) {
	w := newWorld(t)
	url := w.url("archive")
	for n, turn := range []func(...string) string{w.stock, w.dupfs, w.stock} {
		w.grow(n)
		turn("--volsize", "1", "--current-time", at(n), "src", url)
	}
	w.dupfs("compact", "--volsize", "1", url)
	w.dupfs("remove-all-but-n-full", "1", "--force", url)
	same(t, "restore", w.restored(url), w.path("copy2"))
	w.stock("restore", url, w.path("stock"))
	same(t, "stock restore", w.path("stock"), w.path("copy2"))
	if out := w.stock("cleanup", url); !strings.Contains(out, "No extraneous files found") {
		t.Errorf("stock finds something to clean up:\n%s", out)
	}
	if out := w.dupfs("compact", url); !strings.Contains(out, "full set already") {
		t.Errorf("compact of a full set: %s", out)
	}
	w.grow(3)
	w.stock("incremental", "--current-time", at(3), "src", url)
	w.dupfs("verify", "--compare-data", url, w.path("copy3"))
}

// restored restores the newest point into a new directory.
func (w *world) restored(url string) string {
	w.t.Helper()
	dir, err := os.MkdirTemp(w.dir, "out")
	if err != nil {
		w.t.Fatal(err)
	}
	w.dupfs("restore", "--force", url, dir)
	return dir
}

// What dupfs knows beyond stock's facts is in the new set, too: also what this
// machine knows of the source, so that a change that hides its mtime is seen.
func TestCompactKeepsAll(t *testing.T) {
	w := newWorld(t)
	url := w.url("archive")
	w.sh(`mkdir src; echo one > src/one; ln src/one src/two; truncate -s 3M src/hole; echo end >> src/hole
		touch -d '2001-02-03 04:05:06.123456789' src/one; echo tag > src/x; setfattr -n user.note -v kept src/x; sleep 0.1`)
	w.dupfs("backup", "--current-time", at(0), "src", url)
	w.write("src/three", "3\n")
	w.dupfs("backup", "--current-time", at(1), "src", url)
	w.dupfs("compact", "--current-time", at(2), url)
	w.dupfs("remove-all-but-n-full", "1", "--force", url)
	out := w.restored(url)
	w.sh(fmt.Sprintf(`rsync -aHAXn --checksum --itemize-changes src/ %s/ > diff; cat diff; test ! -s diff
		test $(stat -c %%b %s/hole) -lt 100`, out, out))
	w.sh(`touch -r src/three t; echo 4 > src/three; touch -r t src/three; rm t`)
	if out := w.dupfs("backup", "--current-time", at(3), "src", url); !strings.Contains(out, "ChangedFiles 1\n") {
		t.Errorf("a change behind an unchanged mtime was not seen:\n%s", out)
	}
}

// A damaged chain is not compacted, and the archive stays as it was.
func TestCompactDamaged(t *testing.T) {
	w := newWorld(t)
	url := w.url("archive")
	for n := range 2 {
		w.grow(n)
		w.dupfs("--volsize", "1", "--current-time", at(n), "src", url)
	}
	vols, err := filepath.Glob(w.path("archive", "duplicity-full.*.vol2.*"))
	if err != nil || len(vols) != 1 {
		t.Fatal(vols, err)
	}
	text, err := os.ReadFile(vols[0])
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(vols[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	before := w.sh("cd archive; sha256sum *")
	r := w.exec(nil, binary, "compact", url)
	if r.code != exitDamaged || !strings.Contains(r.stderr, "what was in the archive before is untouched") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	if after := w.sh("cd archive; sha256sum *"); after != before {
		t.Errorf("the archive changed:\n%s\n%s", before, after)
	}
}

// A compaction that was interrupted is gone on with, also after the volumes of
// another one; once there is a newer backup it is given up. Until its set has
// been read back and compared it does not exist, wherever the process dies.
func TestCompactInterrupted(t *testing.T) {
	w := newWorld(t)
	url := w.url("archive")
	w.sh("mkdir src; head -c 5000000 /dev/urandom > src/big")
	for n := range 2 {
		w.write("src/n", at(n))
		w.dupfs("--volsize", "1", "--current-time", at(n), "src", url)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	die := func(when string) {
		t.Helper()
		if r := w.exec([]string{dyingVariable + "=" + when}, self, "compact", "--volsize", "1", url); r.code != -1 {
			t.Fatalf("%s: exit %d\n%s", when, r.code, r.stderr)
		}
	}
	die("after 3")
	volumes := w.sh("cd archive; sha256sum duplicity-full.*vol[12].* | tail -n 2")
	if out := w.dupfs("status", url); !strings.Contains(out, "the next dupfs compact from this machine goes on with it") {
		t.Error(out)
	}
	die("before 7") // the manifest of what it goes on with
	if out := w.dupfs("compact", url); !strings.Contains(out, "Going on with the compaction that was interrupted: 5 volumes there.") {
		t.Error(out)
	}
	if again := w.sh("cd archive; sha256sum duplicity-full.*vol[12].* | tail -n 2"); again != volumes {
		t.Errorf("other volumes:\n%s\n%s", volumes, again)
	}
	w.dupfs("remove-all-but-n-full", "1", "--force", url)
	w.dupfs("verify", "--compare-data", url, "src")

	w.write("src/n", "2")
	w.dupfs("--current-time", at(2), "src", url)
	die("after 3")
	w.write("src/n", "3")
	w.dupfs("--current-time", at(3), "src", url)
	r := w.exec(nil, binary, "compact", url)
	if r.code != 0 || !strings.Contains(r.stderr, "is not gone on with: it was of another backup") {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if out := w.dupfs("cleanup", url); !strings.Contains(out, "No extraneous files") {
		t.Error(out)
	}
	w.dupfs("verify", "--compare-data", url, "src")

	// What another machine left unfinished is in nobody's way.
	w.write("src/n", "4")
	w.dupfs("--current-time", at(4), "src", url)
	die("after 3")
	w.env = append(w.env, w.freshCache())
	w.dupfs("compact", url)
	w.dupfs("cleanup", "--force", url)
	w.dupfs("remove-all-but-n-full", "1", "--force", url)
	w.dupfs("verify", "--compare-data", url, "src")
}
