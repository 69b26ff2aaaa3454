package main

import (
	"fmt"
	"strings"
	"testing"
)

// prune deletes whole chains that its policy does not keep, only with --force,
// and never the last one that nothing is missing of.
func TestPrune(t *testing.T) {
	w := newWorld(t)
	w.write("src/f", "x")
	url := w.url("a")
	w.dupfs("full", "src", url, "--no-encryption", "--current-time", at(0))
	w.write("src/f", "y")
	w.dupfs("src", url, "--no-encryption", "--current-time", at(1))
	for n := 2; n < 5; n++ {
		w.dupfs("full", "src", url, "--no-encryption", "--current-time", at(n))
	}
	points := func() int {
		return strings.Count(w.dupfs("collection-status", url), "Full") + strings.Count(w.dupfs("collection-status", url), "Incremental")
	}
	for _, args := range [][]string{nil, {"--dry-run", "--force"}} {
		out := w.dupfs(append(args, "prune", "--keep-last", "2", url)...)
		if !strings.Contains(out, "old backup chain") && !strings.Contains(out, "Deleting backup chains") || points() != 5 {
			t.Errorf("%v: %d sets are left\n%s", args, points(), out)
		}
	}
	w.sh("rm a/duplicity-full.*" + strings.TrimSpace(w.sh("date -u -d @"+at(4)+" +%Y%m%dT%H%M%SZ")) + ".vol1.*")
	w.sh("rm a/duplicity-full.*" + strings.TrimSpace(w.sh("date -u -d @"+at(3)+" +%Y%m%dT%H%M%SZ")) + ".vol1.*")
	w.dupfs("prune", "--keep-last", "1", "--force", url)
	if points() != 2 {
		t.Errorf("%d sets are left, want the newest and the newest whole one", points())
	}
	if got := w.dupfs("cat", "--time", at(2), url, "f"); got != "y\n" && got != "y" {
		t.Errorf("what stayed is not whole: %q", got)
	}
	for _, args := range [][]string{{"prune", url}, {"prune", "--keep-daily", "-1", url}, {"prune", "--keep-last", "x", url}, {"prune", "--keep-last", "1"}} {
		if r := w.exec(nil, binary, args...); r.code != exitUsage || !strings.Contains(r.stderr, "hint: ") {
			t.Errorf("%s: exit %d, %s", fmt.Sprint(args), r.code, r.stderr)
		}
	}
}
