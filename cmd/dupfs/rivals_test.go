package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"dupfs/internal/need"
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

// What an interrupted backup left does not disturb another machine, which names
// it, makes a set of its own, and can remove it; nor does that disturb the
// first one.
func TestLeftovers(t *testing.T) {
	w := newWorld(t)
	url := w.url("archive")
	opts := []string{"--no-encryption"}
	with := func(args ...string) []string { return append(args, opts...) }
	w.write("src/file", "content\n")
	w.dupfs(with("--current-time", at(0), "src", url)...)
	w.sh("head -c 3500000 /dev/urandom > src/big")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if r := w.exec([]string{dyingVariable + "=after 3"}, self, with("--volsize", "1", "--current-time", at(1), "src", url)...); r.code != -1 {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	elsewhere := w.freshCache()
	on := func(args ...string) string {
		t.Helper()
		r := w.exec([]string{elsewhere}, binary, with(args...)...)
		if r.code != 0 {
			t.Fatalf("%s: exit %d\n%s", r.line, r.code, r.stderr)
		}
		return r.stdout + r.stderr
	}
	if out := on("status", url); !strings.Contains(out, "`dupfs cleanup URL` removes it") {
		t.Error(out)
	}
	on("--current-time", at(2), "src", url)
	on("verify", "--compare-data", url, "src")
	w.stock("verify", "--no-encryption", "--compare-data", url, w.path("src"))
	if out := on("cleanup", "--force", url); strings.Count(out, ".difftar") != 3 {
		t.Error(out)
	}
	w.write("src/file", "other content\n")
	r := w.exec(nil, binary, with("--current-time", at(3), "src", url)...)
	if r.code != 0 || !strings.Contains(r.stderr, "is not gone on with") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	w.dupfs(with("verify", "--compare-data", url, "src")...)
	if out := on("status", url); strings.Contains(out, "incomplete") || !strings.Contains(out, "1 chain") {
		t.Error(out)
	}
}

// What stock left of an interrupted backup does not disturb.
func TestStockLeftovers(t *testing.T) {
	w := newWorld(t)
	url := w.url("archive")
	w.sh("mkdir src; head -c 2500000 /dev/urandom > src/big")
	w.stock("full", "--no-encryption", "--volsize", "1", "--current-time", at(0), "src", url)
	w.sh("rm archive/*.manifest archive/*.sigtar.gz; rm -r home/.cache/duplicity")
	if out := w.dupfs("status", "--no-encryption", url); !strings.Contains(out, "incomplete") {
		t.Error(out)
	}
	w.dupfs("--no-encryption", "--current-time", at(1), "src", url)
	w.dupfs("verify", "--no-encryption", "--compare-data", url, "src")
	w.stock("verify", "--no-encryption", "--compare-data", url, w.path("src"))
	w.dupfs("cleanup", "--no-encryption", "--force", url)
	w.dupfs("verify", "--no-encryption", "--compare-data", url, "src")
}

// Stock is killed in a full backup and in an increment; dupfs takes over. Then
// dupfs is killed, and stock takes over. Each point is restored by both.
func TestTakeover(t *testing.T) {
	w := newWorld(t)
	url := w.url("archive")
	// GnuPG that kills who calls it for the third volume.
	w.write("bin/gpg-kills", `#!/bin/bash
case " $* " in *" --symmetric "*) echo x >> `+w.path("calls")+` ;; esac
[ "$(wc -l < `+w.path("calls")+`)" -lt 3 ] || { kill -KILL $PPID; exit 1; }
exec gpg "$@"
`)
	w.sh("chmod +x bin/gpg-kills; mkdir src")
	second := epoch
	big := func(size int) { // each in a second of its own: stock looks at nothing else
		second += 10
		w.sh(fmt.Sprintf("head -c %d /dev/urandom > src/big; touch -d @%d src/big", size, second))
	}
	dies := func(n int) {
		t.Helper()
		big(6000000)
		w.sh(": > calls")
		r := w.exec(nil, need.Program(t, "duplicity"), "--gpg-binary", w.path("bin", "gpg-kills"), "--volsize", "1", "--current-time", at(n), "src", url)
		if r.code != -1 {
			t.Fatalf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
		}
		w.sh("rm -rf tmp; mkdir -m 700 tmp")
		big(2500000)
	}
	finish := func(run func(...string) string, n int) {
		t.Helper()
		w.write("src/n", at(n))
		second += 10
		w.sh(fmt.Sprintf("touch -d @%d src/n; cp -a src copy%d", second, n))
		run("--volsize", "1", "--current-time", at(n), "src", url)
	}
	dies(0)
	finish(w.dupfs, 1)
	dies(2)
	finish(w.dupfs, 3)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	big(5000000)
	if r := w.exec([]string{dyingVariable + "=after 3"}, self, "--volsize", "1", "--current-time", at(4), "src", url); r.code != -1 {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	finish(w.stock, 5)
	finish(w.dupfs, 6)
	for _, n := range []int{1, 3, 5, 6} {
		for _, run := range []func(...string) string{w.dupfs, w.stock} {
			w.sh("rm -rf out")
			run("restore", "--time", at(n), url, w.path("out"))
			same(t, "point "+at(n), w.path("out"), w.path(fmt.Sprint("copy", n)))
		}
	}
	w.dupfs("cleanup", "--force", url)
	w.dupfs("verify", "--compare-data", url, "src")
	if out := w.dupfs("status", url); strings.Contains(out, "incomplete") {
		t.Error(out)
	}
}
