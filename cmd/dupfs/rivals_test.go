package main

import (
	"bytes"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// stopped begins a backup that is stopped by SIGSTOP once volumes have arrived.
// There is a full set of a small source, and the source has grown.
func stopped(t *testing.T) (w *world, url string, cmd *exec.Cmd, out *bytes.Buffer) {
	w = newWorld(t)
	url = w.url("archive")
	w.write("src/file", "content\n")
	w.dupfs("--current-time", at(0), "--no-encryption", "src", url)
	w.sh("head -c 30000000 /dev/urandom > src/big")
	cmd, out = w.start("--volsize", "1", "--no-encryption", "--current-time", at(1), "src", url)
	w.await("a second volume", func() bool { return len(w.archiveNames("archive", "-inc.*.vol2.")) > 0 })
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if len(w.archiveNames("archive", "-inc.*.manifest")) > 0 {
		t.Fatal("it was stopped too late")
	}
	return w, url, cmd, out
}

// Two processes of one machine do not write to an archive at once; what only
// reads goes on.
func TestLock(t *testing.T) {
	w, url, cmd, out := stopped(t)
	for _, args := range [][]string{{"full", "src", url}, {"cleanup", "--force", url}, {"remove-older-than", "1D", "--force", url}} {
		r := w.exec(nil, binary, append(args, "--no-encryption")...)
		if r.code != exitUser || !strings.Contains(r.stderr, "is writing to this archive") {
			t.Errorf("%s: exit %d\n%s", r.line, r.code, r.stderr)
		}
	}
	w.dupfs("verify", url, "--no-encryption")
	w.dupfs("cleanup", url, "--no-encryption")
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if code := w.ended(cmd); code != 0 {
		t.Errorf("exit %d\n%s", code, out)
	}
	w.dupfs("verify", "--compare-data", "--no-encryption", url, "src")
}

// Of two machines that back up at once one wins; the other says so and leaves
// nothing.
func TestTwoMachines(t *testing.T) {
	w, url, cmd, out := stopped(t)
	r := w.exec([]string{w.freshCache()}, binary, "--no-encryption", "--current-time", at(2), "src", url)
	if r.code != 0 {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	if err := cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if code := w.ended(cmd); code != exitUser || !strings.Contains(out.String(), "another backup was made at the same time") {
		t.Errorf("exit %d\n%s", code, out)
	}
	if out := w.dupfs("status", url, "--no-encryption"); !strings.Contains(out, "1 chain") || strings.Contains(out, "incomplete") || strings.Contains(out, "in no chain") {
		t.Error(out)
	}
	w.dupfs("verify", "--compare-data", "--no-encryption", url, "src")
	w.dupfs("--no-encryption", "src", url)
}
