package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dupfs/internal/need"
)

// stopVariable is how long a mount is stopped in the long form; the short one
// stops it until all is done that others do meanwhile.
const stopVariable = "DUPFS_STOPPED"

// A mount that was stopped while others compacted the archive and removed what
// it shows reads right bytes afterwards, or says that it cannot.
func TestStoppedMount(t *testing.T) {
	need.FUSE(t)
	for _, elsewhere := range []bool{false, true} {
		t.Run(fmt.Sprintf("another machine %v", elsewhere), func(t *testing.T) { testStoppedMount(t, elsewhere) })
	}
}

func testStoppedMount(t *testing.T, elsewhere bool) {
	w := newWorld(t)
	url := w.url("archive")
	w.sh("mkdir src mnt; for i in 1 2 3 4 5 6; do head -c 700000 /dev/urandom > src/file$i; done; cp -a src copy0")
	w.dupfs("full", "--volsize", "1", "--current-time", at(0), "src", url)
	w.sh("head -c 700000 /dev/urandom > src/file1; echo more >> src/file2; cp -a src copy1")
	w.dupfs("--volsize", "1", "--current-time", at(1), "src", url)
	cmd, out := w.start("mount", "-f", "--cache-size", "0", "--memory", "1M", url, "mnt")
	dir := w.path("mnt/snapshots/2023-11-14T22:13:20Z")
	open := func(n int) *os.File {
		t.Helper()
		f, err := os.Open(filepath.Join(dir, fmt.Sprint("file", n)))
		must(t, err)
		t.Cleanup(func() { f.Close() })
		return f
	}
	w.await("the mount", func() bool { _, err := os.Stat(filepath.Join(dir, "file1")); return err == nil })
	opened := open(1)
	begun := make([]byte, 1000)
	_, err := opened.Read(begun)
	must(t, err)
	must(t, cmd.Process.Signal(syscall.SIGSTOP))
	// A read that waits for the mount all the time.
	waiting := exec.Command("cat", filepath.Join(dir, "file3"))
	var got, errs bytes.Buffer
	waiting.Stdout, waiting.Stderr = &got, &errs
	must(t, waiting.Start())

	var env []string
	if elsewhere {
		env = []string{w.freshCache()}
	}
	run := func(args ...string) {
		t.Helper()
		if r := w.exec(env, binary, args...); r.code != 0 {
			t.Errorf("%s: exit %d\n%s", r.line, r.code, r.stderr)
		}
	}
	if !elsewhere {
		// It lives, if stopped: its lease holds.
		if r := w.exec(nil, binary, "remove-all-but-n-full", "1", "--force", url); r.code != 0 {
			t.Errorf("exit %d\n%s", r.code, r.stderr)
		}
		run("compact", "--volsize", "1", url)
		r := w.exec(nil, binary, "remove-all-but-n-full", "1", "--force", url)
		if r.code != exitUser || !strings.Contains(r.stderr, "is in use: it is mounted on") {
			t.Errorf("exit %d\n%s", r.code, r.stderr)
		}
		run("remove-all-but-n-full", "1", "--force", "--ignore-mounts", url)
	} else {
		run("compact", "--volsize", "1", url)
		run("remove-all-but-n-full", "1", "--force", url)
	}
	run("cleanup", "--force", url)
	w.sh("! ls archive/duplicity-full.20231114*")
	if v := os.Getenv(stopVariable); v != "" {
		d, err := time.ParseDuration(v)
		must(t, err)
		time.Sleep(d)
	}
	must(t, cmd.Process.Signal(syscall.SIGCONT))

	lost := 0
	check := func(name string, text []byte, err error) {
		t.Helper()
		want := readFile(t, w.path("copy0", name))
		switch {
		case err == nil && !bytes.Equal(text, want):
			t.Errorf("%s has wrong bytes", name)
		case err != nil:
			lost++
			if s := err.Error(); !strings.Contains(s, "input/output error") && !strings.Contains(s, "no such file") && !strings.Contains(s, "stale") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if err := waiting.Wait(); err != nil {
		err = fmt.Errorf("%w: %s", err, strings.ToLower(errs.String()))
		check("file3", nil, err)
	} else {
		check("file3", got.Bytes(), nil)
	}
	text := make([]byte, 700000)
	_, err = opened.ReadAt(text, 0)
	check("file1", text, err)
	for n := 1; n <= 6; n++ {
		text, err := os.ReadFile(filepath.Join(dir, fmt.Sprint("file", n)))
		check(fmt.Sprint("file", n), text, err)
	}
	if lost == 0 {
		t.Error("everything can still be read, of an archive that is gone")
	}
	// The newest point is there, out of other files, once the archive is listed
	// again.
	if os.Getenv(stopVariable) != "" {
		w.await("the new point", func() bool {
			_, err := os.ReadFile(w.path("mnt/snapshots/latest/file6"))
			return err == nil
		})
	}
	for n := 1; n <= 6 && os.Getenv(stopVariable) != ""; n++ {
		name := fmt.Sprint("file", n)
		text, err := os.ReadFile(w.path("mnt/snapshots/latest", name))
		if err != nil || !bytes.Equal(text, readFile(t, w.path("copy1", name))) {
			t.Errorf("latest/%s: %v", name, err)
		}
	}
	opened.Close()
	w.dupfs("umount", "mnt")
	if code := w.ended(cmd); code != 0 {
		t.Errorf("exit %d\n%s", code, out)
	}
}
