package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"dupfs/internal/need"
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

// stockStatuses returns the exit statuses of duplicity for command lines. It
// is loaded once and forks for each line.
func (w *world) stockStatuses(lines [][]string) (codes []int) {
	w.t.Helper()
	const script = `
import json, os, runpy, sys
program = sys.argv[1]
sys.argv = [program]
import duplicity.dup_main, duplicity.backend, duplicity.log
duplicity.log.setup()
duplicity.backend.import_backends()
for args in json.load(sys.stdin):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        sys.stdin = os.fdopen(0)
        sys.argv = [program] + args
        code = 0
        try:
            runpy.run_path(program, run_name="__main__")
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else (0 if e.code is None else 1)
        except BaseException:
            code = 99
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
`
	input, err := json.Marshal(lines)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), commandTime)
	defer cancel()
	program := need.Program(w.t, "duplicity")
	text, err := os.ReadFile(program)
	if err != nil {
		w.t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	python := strings.Fields(strings.TrimPrefix(first, "#!"))
	cmd := exec.CommandContext(ctx, python[0], append(python[1:], "-c", script, program)...)
	cmd.Dir, cmd.Env, cmd.Stdin = w.dir, w.env, bytes.NewReader(input)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("stock: %v\n%s", err, errs.String())
	}
	for _, word := range strings.Fields(string(out)) {
		var n int
		fmt.Sscan(word, &n)
		codes = append(codes, n)
	}
	if len(codes) != len(lines) {
		w.t.Fatalf("stock: %d of %d statuses", len(codes), len(lines))
	}
	return codes
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
	stock := w.stockStatuses(lines)
	t.Chdir(w.dir)
	vars := map[string]string{}
	for _, v := range w.env {
		k, val, _ := strings.Cut(v, "=")
		vars[k] = val
	}
	failed := 0
	for i, args := range lines {
		var out, errs bytes.Buffer
		e := &environ{
			stdin: bufio.NewReader(strings.NewReader("")), stdout: &out, stderr: &errs,
			lookup: func(k string) (string, bool) { v, ok := vars[k]; return v, ok }, now: time.Now,
		}
		code := run(t.Context(), e, args)
		line := strings.Join(args, " ")
		if stock[i] != 0 {
			failed++
		}
		switch reason := otherStatus[line]; {
		case code == 0 && reason == "":
			t.Errorf("%q: exit 0, stock %d\n%s", line, stock[i], out.String())
		case stock[i] != 0 && code != stock[i] && reason == "":
			t.Errorf("%q: exit %d, stock %d: %s", line, code, stock[i], errs.String())
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
