package main

import (
	"bufio"
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"dupfs/internal/stock"
)

// badLines are command lines that must fail; ” stands for an empty argument.
// In the directory are src, with a file, an archive a of it, and a file plain.
const badLines = `
nosuchcommand
nosuch a b c
c file://a
re file://a
remove file://a
full
full src
full src file://a more
full file://a src
full file://a file://b
full src other
incremental src
incremental file://a src
src
src other
src file://a more
file://a
file://a file://b
file://a out more
restore
restore file://a
restore file://a out more
restore out1 out2
restore src
verify
verify src plain
verify file://a nosuch
verify file://a src more
collection-status
collection-status a
collection-status file://a more
collection-status file://a file://b
list-current-files
list-current-files src
list-current-files file://a more
cleanup
cleanup src
cleanup file://a more
remove-older-than
remove-older-than 1D
remove-older-than file://a
remove-older-than 1D src
remove-older-than 1D file://a more
remove-all-but-n-full
remove-all-but-n-full file://a
remove-all-but-n-full 1 src
remove-all-but-n-full x file://a
remove-all-but-n-full 0 file://a
remove-all-but-n-full -1 file://a
remove-all-but-n-full 1.5 file://a
remove-all-inc-of-but-n-full
remove-all-inc-of-but-n-full x file://a
remove-all-inc-of-but-n-full 0 file://a
--nosuchoption src file://a
--nosuchoption=1 src file://a
-x src file://a
--volsize
full src file://a --volsize
full src file://a --volsize x
full src file://a --volsize 1.5
full src file://a --volsize ''
full --no-encryption=yes src file://a
full --force=1 src file://a
--f src file://a
--exclude
--include src/f
--s3 src file://a
--verbosity src file://a
-v x collection-status file://a
-v 10 collection-status file://a
-v -1 collection-status file://a
--verbosity=loud collection-status file://a
--num-retries x collection-status file://a
--num-retries=1.5 collection-status file://a
--timeout x collection-status file://a
--max-blocksize x full src file://a
--current-time x full src file://a
--time foo restore file://a out
-t 1x restore file://a out
-t '' restore file://a out
--restore-time 2026-13-01 restore file://a out
-t 5/5 list-current-files file://a
--full-if-older-than foo src file://a
--full-if-older-than -1D src file://a
--exclude-older-than foo full src file://a
--sign-key zz full src file://a
--sign-key 123 full src file://a
--encrypt-sign-key zz full src file://a
full nosuch file://a
nosuch file://a
full --exclude other src file://b
full --exclude src//f src file://b
full --include src/f src file://b
full --exclude src/x --include src/f src file://b
full --include-regexp f src file://b
full --include-filelist nosuch src file://b
full --exclude-filelist nosuch src file://b
full --exclude '' src file://b
full src nosuch://b
restore nosuch://b out
collection-status nosuch://b
full src ''
incremental src file://none
restore file://none out
verify file://none src
list-current-files file://none
restore -r no/such file://a out
restore --file-to-restore nosuch file://a out
restore file://a src
restore file://a plain
--log-fd 0 collection-status file://a
--log-fd x collection-status file://a
--log-fd collection-status file://a
--rename x file://a out
replicate file://a file://a
replicate file://a
full --exclude-other-filesystems --include src/f src file://b
full --include src/f --exclude-device-files src file://b
full --include src/f --exclude-if-present x src file://b
full --exclude-regexp [ src file://b
verify --exclude-filelist nosuch file://a src
verify --exclude other file://a src
verify --include src/f file://a src
--progress-rate x full src file://a
--metadata-sync-mode none full src file://a
--par2-redundancy x full src file://a
--s3-multipart-chunk-size x full src file://a
--show-changes-in-set x collection-status file://a
--file-changed
--encrypt-key
`

// words splits a line of badLines.
func lineWords(line string) []string {
	args := strings.Fields(line)
	for i, a := range args {
		if a == "''" {
			args[i] = ""
		}
	}
	return args
}

// otherStatus are the lines whose exit status is not duplicity's, with what it
// is there.
var otherStatus = map[string]string{
	"full file://a src":                       "the source exists, as if it were the target of a restore",
	"incremental file://a src":                "the same",
	"remove-older-than file://a":              "a traceback",
	"remove-all-but-n-full file://a":          "a traceback",
	"remove-all-but-n-full x file://a":        "a traceback",
	"remove-all-but-n-full 1.5 file://a":      "a traceback",
	"remove-all-inc-of-but-n-full x file://a": "a traceback",
	"replicate file://a file://a":             "it copies it onto itself",
	"full --exclude  src file://b":            "a traceback",
	"full --exclude-regexp [ src file://b":    "a traceback",
}

// A hundred bad command lines: each fails with one line, a hint, and, where
// duplicity fails, with its exit status.
func TestBadLines(t *testing.T) {
	w := newWorld(t)
	w.write("src/f", "x")
	w.write("plain", "x")
	w.dupfs("full", "src", "file://a", "--no-encryption")
	var lines [][]string
	for _, l := range strings.Split(strings.TrimSpace(badLines), "\n") {
		lines = append(lines, lineWords(l))
	}
	server := stock.Start(t, w.env)
	t.Chdir(w.dir)
	vars := map[string]string{}
	for _, v := range w.env {
		k, val, _ := strings.Cut(v, "=")
		vars[k] = val
	}
	failed := 0
	for _, args := range lines {
		var out, errs bytes.Buffer
		e := &environ{
			stdin: bufio.NewReader(strings.NewReader("")), stdout: &out, stderr: &errs,
			lookup: func(k string) (string, bool) { v, ok := vars[k]; return v, ok }, now: time.Now,
		}
		code := run(t.Context(), e, args)
		line := strings.Join(args, " ")
		theirs := server.Run(t, w.dir, w.env, args...).Code
		if theirs != 0 {
			failed++
		}
		switch reason := otherStatus[line]; {
		case code == 0 && reason == "":
			t.Errorf("%q: exit 0, stock %d\n%s", line, theirs, out.String())
		case theirs != 0 && code != theirs && reason == "":
			t.Errorf("%q: exit %d, stock %d: %s", line, code, theirs, errs.String())
		case code == 0:
		case strings.Count(errs.String(), "\n") != 2 || !strings.HasPrefix(errs.String(), "dupfs: ") || !strings.Contains(errs.String(), "\nhint: "):
			t.Errorf("%q: not one line and a hint:\n%s", line, errs.String())
		}
	}
	if len(lines) < 100 || failed < 90 {
		t.Errorf("only %d lines, of which stock refuses %d", len(lines), failed)
	}
	if _, err := os.Stat("out"); err == nil {
		t.Error("something was restored")
	}
}
