package main

import (
	"strings"
	"testing"
)

// A drill of an intact archive passes, tells its seed, and leaves nothing; one
// that meets a damaged file fails and names it.
func TestDrill(t *testing.T) {
	w := newWorld(t)
	url := w.grown()
	out := w.dupfs("drill", "--files", "100", "--points", "9", url)
	if !strings.Contains(out, "of 3 points; 0 files failed") || !strings.Contains(out, "--seed ") {
		t.Error(out)
	}
	if a, b := w.dupfs("drill", "--seed", "7", url), w.dupfs("drill", "--seed", "7", url); a != b {
		t.Errorf("the same seed chooses otherwise:\n%s%s", a, b)
	}
	if out := w.dupfs("drill", "--max-bytes", "1000", url); !strings.Contains(out, "bytes, restored") {
		t.Errorf("more than 1000 bytes: %s", out)
	}
	w.flip("duplicity-full.*.vol2.*") // of big.bin
	r := w.exec(nil, binary, "drill", "--files", "100", url)
	if r.code != exitDamaged || !strings.Contains(r.stderr, "warning: big.bin at ") {
		t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
}
