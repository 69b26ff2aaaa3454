package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// grown makes an archive of three sets, by stock and dupfs in turn.
func (w *world) grown() string {
	url := w.url("archive")
	for n, turn := range []func(...string) string{w.dupfs, w.stock, w.dupfs} {
		w.grow(n)
		turn("--volsize", "1", "--current-time", at(n), "src", url)
	}
	return url
}

// flip changes one bit in the middle of a file.
func (w *world) flip(pattern string) string {
	w.t.Helper()
	names, err := filepath.Glob(w.path("archive", pattern))
	if err != nil || len(names) == 0 {
		w.t.Fatal(pattern, names, err)
	}
	text, err := os.ReadFile(names[0])
	if err != nil {
		w.t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(names[0], text, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return filepath.Base(names[0])
}

// Each level of verify passes an intact archive, and finds what it is there to
// find.
func TestVerifyLevels(t *testing.T) {
	w := newWorld(t)
	url := w.grown()
	for _, args := range [][]string{{"--level", "list"}, {"--level", "volumes"}, {"--all-points"}, {"--level", "files"}} {
		w.dupfs(append([]string{"verify", url}, args...)...)
	}
	if out := w.dupfs("status", url); !strings.Contains(out, "(100%)") {
		t.Errorf("status does not tell that all was verified:\n%s", out)
	}
	damaged := func(name string, level ...string) {
		t.Helper()
		r := w.exec(nil, binary, append([]string{"verify", url}, level...)...)
		if r.code != exitDamaged || !strings.Contains(r.stderr, name) {
			t.Errorf("%v: exit %d, not naming %s: %s", level, r.code, name, r.stderr)
		}
	}
	// A volume of which only an old version needs anything.
	name := w.flip("duplicity-inc.*.vol1.*")
	w.dupfs("verify", "--level", "list", url)
	damaged(name, "--level", "volumes")
	damaged("damaged", "--all-points")
	w.sh("truncate -s -1 archive/" + name)
	w.sh("rm archive/duplicity-full.*.vol2.*; truncate -s -1 archive/duplicity-full.*.vol1.*")
	damaged("volume 2 is missing", "--level", "list")
	damaged("vol1", "--level", "list")
}

// Samples cover everything in the end, no file twice before each was read once,
// and what was damaged comes first the next time.
func TestVerifySamples(t *testing.T) {
	w := newWorld(t)
	url := w.grown()
	bytes := regexp.MustCompile(`Verified: .* \((\d+)%\)`)
	last := -1
	for run := 0; ; run++ {
		out := w.dupfs("verify", "--level", "volumes", "--sample", "20%", url)
		var percent int
		if _, err := fmt.Sscan(bytes.FindStringSubmatch(out)[1], &percent); err != nil || percent <= last || run > 8 {
			t.Fatalf("run %d covers %d%% after %d%%: %v\n%s", run, percent, last, err, out)
		}
		if last = percent; percent == 100 {
			break
		}
	}
	name := w.flip("duplicity-full.*.vol3.*")
	w.sh("touch archive/*") // says nothing
	found := 0
	for range 8 {
		r := w.exec(nil, binary, "verify", "--level", "volumes", "--sample", "20%", url)
		if r.code == exitDamaged && strings.Contains(r.stderr, name) {
			found++
		} else if found > 0 {
			t.Errorf("after it was found, exit %d: %s", r.code, r.stderr)
		}
	}
	if found == 0 {
		t.Error("the damage was not found in eight samples of a fifth")
	}
}
