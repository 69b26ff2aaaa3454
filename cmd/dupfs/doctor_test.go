package main

import (
	"fmt"
	"strings"
	"testing"
)

// A lost manifest and lost signatures are made anew, in sets of either program,
// so that stock restores and continues the chain as if nothing had been.
func TestDoctorRepairs(t *testing.T) {
	w := newWorld(t)
	url := w.url("archive")
	for n, turn := range []func(...string) string{w.dupfs, w.stock, w.dupfs} {
		w.grow(n)
		turn("--volsize", "1", "--current-time", at(n), "src", url)
	}
	if out := w.dupfs("doctor", "--deep", url); !strings.Contains(out, "Nothing is wrong") {
		t.Errorf("of an intact archive:\n%s", out)
	}
	w.sh("rm archive/*manifest* archive/*full-signatures* archive/*new-signatures*.to.20231116*")
	r := w.exec(nil, binary, "restore", url, w.path("none"))
	if r.code == exitOK {
		t.Error("restored without a manifest")
	}
	w.repaired(t, url)
	w.sh("rm archive/*new-signatures*.to.20231115*")
	w.repaired(t, url)
	w.grow(3)
	w.stock("incremental", "--current-time", at(3), "src", url)
	for n := range 4 {
		w.stock("verify", "--compare-data", "--time", at(n), url, w.path(fmt.Sprint("copy", n)))
		w.dupfs("verify", "--compare-data", "--time", at(n), url, w.path(fmt.Sprint("copy", n)))
	}
}

// repaired repairs the archive, which must then be as good as new.
func (w *world) repaired(t *testing.T, url string) {
	t.Helper()
	if r := w.exec(nil, binary, "doctor", url); strings.Contains(r.stdout, "Nothing is wrong") {
		t.Errorf("nothing was found: %s%s", r.stdout, r.stderr)
	}
	if out := w.dupfs("doctor", "--repair", url); !strings.Contains(out, "Nothing is wrong") || !strings.Contains(out, "repaired: ") {
		t.Error(out)
	}
	w.dupfs("verify", "--all-points", url)
	if out := w.stock("cleanup", url); !strings.Contains(out, "No extraneous files found") {
		t.Errorf("stock finds something to clean up:\n%s", out)
	}
}

// What is left of a backup that did not finish is not taken for a whole one.
func TestDoctorUnsure(t *testing.T) {
	w := newWorld(t)
	w.grow(0)
	url := w.url("archive")
	w.stock("--volsize", "1", "--current-time", at(0), "src", url)
	w.sh("rm archive/*manifest* archive/*.vol4.*") // the last one
	r := w.exec(nil, binary, "doctor", "--repair", url)
	if r.code != exitDamaged || !strings.Contains(r.stdout, "does not show that it is whole") {
		t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	w.sh("test ! -e archive/*manifest*; rm archive/*sigtar*")
	r = w.exec(nil, binary, "doctor", "--repair", url)
	if r.code != exitOK || !strings.Contains(r.stdout, "did not finish") {
		t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
}
