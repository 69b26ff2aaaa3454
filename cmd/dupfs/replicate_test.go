package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A copy is as good as the archive, for both programs; run again, only what is
// new is copied.
func TestReplicate(t *testing.T) {
	w := newWorld(t)
	url, other := w.grown(), w.url("copy")
	if out := w.dupfs("replicate", "--dry-run", url, other); !strings.Contains(out, "would be copied") {
		t.Error(out)
	}
	w.dupfs("replicate", "--time", at(1), url, other)
	w.dupfs("verify", "--compare-data", other, w.path("copy1"))
	if out := w.dupfs("replicate", url, other); !strings.Contains(out, "of 1 set,") {
		t.Errorf("the second time: %s", out)
	}
	if out := w.dupfs("replicate", url, other); !strings.HasPrefix(out, "0 files ") {
		t.Errorf("the third time: %s", out)
	}
	w.sh("diff -r archive copy")
	w.dupfs("restore", "--time", at(0), other, w.path("out"))
	same(t, "restore of the copy", w.path("out"), w.path("copy0"))
}

// What is not whole is left out, and nothing in the target is replaced.
func TestReplicateDamaged(t *testing.T) {
	w := newWorld(t)
	url, other := w.grown(), w.url("copy")
	name := w.flip("duplicity-inc.*.to.20231115*.vol1.*")
	r := w.exec(nil, binary, "replicate", url, other)
	if r.code != exitDamaged || !strings.Contains(r.stderr, name) {
		t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	if _, err := os.Stat(w.path("copy", name)); err == nil {
		t.Error("the damaged volume was copied")
	}
	again := w.exec(nil, binary, "replicate", url, other)
	if again.code != exitDamaged || !strings.Contains(again.stderr, name) || !strings.HasPrefix(again.stdout, "0 files ") {
		t.Errorf("the second time: exit %d: %s%s", again.code, again.stdout, again.stderr)
	}
	w.sh("cd copy; test ! -e *.to.20231115*manifest*; truncate -s 7 duplicity-full.*.vol1.*")
	before := w.sh("cd copy; sha256sum *")
	r = w.exec(nil, binary, "replicate", url, other)
	if r.code == exitOK || !strings.Contains(r.stderr, "is there with 7 bytes") || w.sh("cd copy; sha256sum *") != before {
		t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
}

// A file that was cut after it had been copied, or before, costs its set; all
// others are copied, the first time and every other time.
func TestReplicateCut(t *testing.T) {
	for _, cut := range []string{"duplicity-inc.*.to.20231115*.vol1.*", "duplicity-new-sig*.to.20231115*", "duplicity-inc.*.to.20231115*.manifest*"} {
		for _, copied := range []bool{false, true} {
			t.Run(fmt.Sprintf("%.20s %v", cut, copied), func(t *testing.T) {
				w := newWorld(t)
				url, other := w.grown(), w.url("copy")
				if copied {
					w.dupfs("replicate", "--time", at(1), url, other)
				}
				w.sh("F=$(ls archive/" + cut + "); truncate -s -100 $F; echo $F > cut")
				name := filepath.Base(strings.TrimSpace(string(readFile(t, w.path("cut")))))
				for range 2 {
					r := w.exec([]string{w.freshCache()}, binary, "replicate", url, other)
					if r.code != exitDamaged || !strings.Contains(r.stderr, name) {
						t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
					}
					// What is sound is there: the newest set in any case.
					w.sh("ls copy/*.to.20231116*.manifest*; cd archive; for f in ../copy/*; do cmp -s $f ${f##*/} || test ${f##*/} = " + name + "; done")
				}
				if copied {
					w.dupfs("verify", "--time", at(1), other)
				}
			})
		}
	}
}
