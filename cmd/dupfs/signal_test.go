package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dupfs/internal/need"
)

// start runs dupfs in the world without waiting for it.
func (w *world) start(args ...string) (*exec.Cmd, *bytes.Buffer) {
	w.t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Dir, cmd.Env = w.dir, w.env
	var out bytes.Buffer
	cmd.Stderr = &out
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, &out
}

// await waits until something is so.
func (w *world) await(what string, so func() bool) {
	w.t.Helper()
	for end := time.Now().Add(commandTime); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s: not in %s", what, commandTime)
		}
	}
}

// ended waits for a program and returns its exit status, -1 after a signal
// that killed it.
func (w *world) ended(cmd *exec.Cmd) int {
	w.t.Helper()
	timer := time.AfterFunc(commandTime, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode()
}

// A backup that is interrupted says so, leaves what was in the archive before as
// it was, and is gone on with.
func TestInterruptedBackup(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"SIGINT": syscall.SIGINT, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			url := w.url("archive")
			w.write("src/file", "content\n")
			w.dupfs("--current-time", at(0), "src", url)
			before := w.sh("cd archive; sha256sum *")
			w.sh("head -c 60000000 /dev/urandom > src/big")
			cmd, out := w.start("--volsize", "1", "src", url)
			w.await("a second volume", func() bool {
				n, _ := filepath.Glob(w.path("archive/duplicity-inc.*.vol2.*"))
				return len(n) > 0
			})
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			if code := w.ended(cmd); code != exitInterrupted || !strings.Contains(out.String(), "the next run goes on from there") {
				t.Errorf("exit %d\n%s", code, out)
			}
			w.write("before", before)
			w.sh("cd archive; sha256sum -c --quiet ../before; ! ls | grep -e '-inc.*manifest'")
			if out := w.dupfs("status", url); !strings.Contains(out, "the next backup from this machine goes on with it") {
				t.Error(out)
			}
			if out := w.dupfs("src", url); !strings.Contains(out, "Going on with the backup of ") {
				t.Error(out)
			}
			w.dupfs("verify", "--compare-data", url, "src")
			w.sh("rm -r home/.cache; ls archive | grep -c manifest | grep -x 2")
			w.dupfs("verify", "--compare-data", url, "src")
		})
	}
}

// A mount in front ends with SIGINT and SIGTERM; one that was killed is
// replaced by the next.
func TestMountSignals(t *testing.T) {
	need.FUSE(t)
	w := newWorld(t)
	url := w.url("archive")
	w.write("src/file", "content\n")
	w.dupfs("--current-time", at(0), "src", url)
	w.sh("mkdir mnt")
	file := w.path("mnt/snapshots/latest/file")
	mounted := func() bool {
		text, _ := os.ReadFile(file)
		return string(text) == "content\n"
	}
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		cmd, out := w.start("mount", "-f", url, "mnt")
		w.await("the mount", mounted)
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if code := w.ended(cmd); code != 0 {
			t.Errorf("%s: exit %d\n%s", sig, code, out)
		}
		if mounted() {
			t.Fatalf("%s: still mounted", sig)
		}
	}
	cmd, _ := w.start("mount", "-f", url, "mnt")
	w.await("the mount", mounted)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	w.ended(cmd)
	if _, err := os.ReadFile(file); err == nil {
		t.Fatal("a dead mount was read")
	}
	w.dupfs("mount", url, "mnt")
	if !mounted() {
		t.Error("the dead mount was not replaced")
	}
	w.dupfs("umount", "mnt")
}

// A restore says that it is done when everything is on the disk, and not when
// the disk could not take it.
func TestRestoreIsDurable(t *testing.T) {
	strace := need.Program(t, "strace")
	w := newWorld(t)
	url := w.url("archive")
	w.write("src/d/file", "content\n")
	w.dupfs("--no-encryption", "src", url)
	for _, path := range []string{"", "d/file"} {
		args := []string{"-f", "-o", "calls", "-e", "trace=syncfs,exit_group", binary, "restore", "--no-encryption", "--path-to-restore", path, url, "out" + path}
		if r := w.exec(nil, strace, args...); r.code != 0 {
			t.Fatalf("exit %d\n%s", r.code, r.stderr)
		}
		// The call can be in two lines, its end in one that begins with "<... syncfs resumed>".
		w.sh("awk '/syncfs.*= 0$/ { done = 1 } /exit_group/ { exit !done }' calls; grep -q exit_group calls")
		args[len(args)-1] = "again" + path
		r := w.exec(nil, strace, append([]string{"-e", "inject=syncfs:error=EIO"}, args...)...)
		if r.code == 0 || !strings.Contains(r.stderr, "may not all be on the disk") {
			t.Errorf("exit %d\n%s", r.code, r.stderr)
		}
	}
}
