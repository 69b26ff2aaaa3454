package main

import (
	"os"
	"strings"
	"testing"
)

// A passphrase that is given must be right, though the catalog has everything.
func TestConfirm(t *testing.T) {
	w := newWorld(t)
	w.write("src/letter", "dear\n")
	w.write("other", "fixture\n")
	url, wrong := w.url("archive"), []string{"PASSPHRASE=wrong"}
	w.dupfs("full", "--current-time", at(0), "src", url)
	w.dupfs("incremental", "--current-time", at(1), "src", url)
	for range 2 { // the second time the right one was confirmed
		for _, args := range []string{"restore URL none", "restore --time " + at(0) + " URL none", "verify URL", "cat URL letter", "tar URL", "diff -u URL " + at(0) + " now"} {
			args := strings.Fields(strings.ReplaceAll(args, "URL", url))
			w.want(31, "wrong passphrase", wrong, args...)
			w.want(31, "wrong passphrase", []string{"PASSPHRASE="}, args...)
		}
		w.want(0, "", wrong, "ls", url)
		w.want(0, "", wrong, "cat", "--passphrase-file", w.path("other"), url, "letter")
		w.dupfs("cat", url, "letter")
	}
	noPassphrase := w.env
	w.env = nil
	for _, v := range noPassphrase {
		if !strings.HasPrefix(v, "PASSPHRASE=") {
			w.env = append(w.env, v)
		}
	}
	w.want(0, "", nil, "cat", url, "letter") // nothing was claimed
	w.asDuplicity()
	for _, c := range []struct{ typed, want string }{{"", "30"}, {"wrong\n", "31"}, {"fixture\n", "0"}} {
		got := w.sh("rm -rf out; rc=0; echo -n '" + c.typed + "' | setsid -w duplicity restore " + url + " out >said 2>err || rc=$?; echo $rc; grep -o 'GnuPG passphrase for decryption: ' err")
		if want := c.want + "\nGnuPG passphrase for decryption: \n"; got != want {
			t.Errorf("typed %q: %q", c.typed, got)
		}
	}
	w.sh("setsid -w duplicity list-current-files " + url + " </dev/null")
	file := strings.TrimSpace(w.sh("echo home/.cache/dupfs/*/confirmed"))
	text, err := os.ReadFile(w.path(file))
	if info, _ := os.Stat(w.path(file)); err != nil || info.Mode() != 0o600 || strings.Count(string(text), "\n") != 1 || strings.Contains(string(text), "fixture") {
		t.Errorf("%v, %v, %q", err, info, text)
	}
	w.sh("echo garbage > " + file)
	w.want(31, "wrong passphrase", wrong, "cat", url, "letter")
	w.want(0, "", []string{"PASSPHRASE=fixture"}, "cat", url, "letter")
	w.dupfs("full", "--current-time", at(2), "--no-encryption", "src", url)
	w.want(0, "", wrong, "cat", url, "letter") // nothing to open
}
