package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// A live file leads to its archive, and to its past.
func TestYesterday(t *testing.T) {
	w := newWorld(t)
	ago := func(days int) string { return fmt.Sprint(time.Now().Add(-time.Duration(days*24+1) * time.Hour).Unix()) }
	w.sh("mkdir -p home/docs/sub home/other; ln -s docs home/linked; echo old > home/docs/letter; echo gone > home/docs/sub/gone")
	w.configure("[docs]\nurl = file://DIR/archive\nsource = DIR/home/docs\n\n[home]\nurl = file://DIR/wide\nsource = DIR/home\n")
	w.dupfs("backup", "--current-time", ago(3), "docs")
	w.sh("echo yesterday > home/docs/letter; rm home/docs/sub/gone")
	w.dupfs("backup", "--current-time", ago(1), "docs")
	w.sh("echo today > home/docs/letter")
	w.dupfs("backup", "docs")
	w.sh("echo 'not yet' > home/docs/letter")

	live := w.path("home/docs/letter")
	for args, want := range map[string]string{
		"yesterday " + live:                          "yesterday\n",
		"yesterday -t 2D " + live:                    "old\n",
		"yesterday --time now " + live:               "today\n",
		"yesterday home/linked/letter":               "yesterday\n",
		"yesterday -t 2D home/docs/sub/gone":         "gone\n",
		"yesterday " + w.url("archive") + " " + live: "yesterday\n",
	} {
		if got := w.dupfs(strings.Fields(args)...); got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
	r := w.exec(nil, binary, "yesterday", "-d", live)
	if r.code != 1 || !strings.HasSuffix(r.stdout, "@@ -1 +1 @@\n-yesterday\n+not yet\n") {
		t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	w.dupfs("yesterday", "-o", "old", "-t", "2D", "home/docs")
	w.sh("echo old | cmp - old/letter; echo gone | cmp - old/sub/gone")
	w.dupfs("yesterday", "-o", "file", live)
	w.sh("echo yesterday | cmp - file")
	if r := w.exec(nil, binary, "yesterday", "-o", "file", live); r.code != exitTarget {
		t.Errorf("over a file: exit %d", r.code)
	}
	if r := w.exec(nil, binary, "yesterday", "home/docs/sub/gone"); r.code != exitNoPath || !strings.Contains(r.stderr, "was not there in the backup of") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	w.sh("touch home/docs/letter; echo yesterday > home/docs/letter")
	if r := w.exec(nil, binary, "yesterday", "-d", live); r.code != 0 || r.stdout != "" {
		t.Errorf("nothing changed: exit %d: %s", r.code, r.stdout)
	}
	testLiveHistory(t, w, live)
}

func testLiveHistory(t *testing.T, w *world, live string) {
	for _, name := range []string{live, "home/docs/letter", "./home/linked/letter", "home/docs/sub/gone"} {
		if out := w.dupfs("history", name); strings.Count(out, "\n") < 2 || !strings.Contains(out, "new") {
			t.Errorf("%s:\n%s", name, out)
		}
	}
	// Without a configuration the archive says what it is of.
	if err := os.Remove(w.path("home/.config/dupfs/config")); err != nil {
		t.Fatal(err)
	}
	env := []string{"DUPFS_URL=" + w.url("archive")}
	if r := w.exec(env, binary, "yesterday", live); r.stdout != "yesterday\n" {
		t.Errorf("DUPFS_URL: exit %d: %q %s", r.code, r.stdout, r.stderr)
	}
	if r := w.exec(env, binary, "history", live); strings.Count(r.stdout, "\n") != 3 {
		t.Errorf("DUPFS_URL: exit %d: %q %s", r.code, r.stdout, r.stderr)
	}
	if r := w.exec(env, binary, "history", "letter"); strings.Count(r.stdout, "\n") != 3 {
		t.Errorf("a path in the archive: exit %d: %q %s", r.code, r.stdout, r.stderr)
	}
	if r := w.exec(env, binary, "yesterday", "home/other/x"); r.code != exitUsage || !strings.Contains(r.stderr, "is not in "+w.path("home/docs")) {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	if r := w.exec(nil, binary, "yesterday", live); r.code != exitUsage || !strings.Contains(r.stderr, "no archive is known that backs up") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
}
