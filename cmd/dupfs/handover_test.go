package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dupfs/internal/need"
)

func TestBetween(t *testing.T) {
	for _, tt := range []struct{ a, b, want string }{
		{"webdav://me:secret@host/x", "webdav://me:*****@host/x", "secret"},
		{"webdav://me:x@host/x", "webdav://me:*****@host/x", "x"},
		{"webdav://me:**secret**@host", "webdav://me:*****@host", "secret"},
		{"webdav://me:a/b@c@host", "webdav://me:*****@host", "a/b@c"},
		{"same", "same", ""},
	} {
		first, behind := between(tt.a, tt.b)
		if got := tt.a[first:behind]; got != tt.want {
			t.Errorf("%s: %q, want %q", tt.a, got, tt.want)
		}
	}
}

// processes returns the ids of those that have word in their command line.
func processes(t testing.TB, word string) (pids []string) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range lines {
		if text, _ := os.ReadFile(name); strings.Contains(string(text), word) {
			pids = append(pids, filepath.Base(filepath.Dir(name)))
		}
	}
	return pids
}

// A mount, in the background or in front, shows neither the password of its
// URL nor what is in its variables to those who look at processes.
func TestMountHidesSecrets(t *testing.T) {
	w := newWorld(t)
	line := newWire(t, "webdav", upstream(t, strings.Replace(server(t, "WEBDAV"), "tester:testing@", "", 1)))
	w.write("src/file", strings.Repeat("content\n", 1000))
	w.env = append(w.env, "PASSPHRASE=the-pass-phrase", "FTP_PASSWORD=the-ftp-password")
	target := fmt.Sprintf("webdav://tester:testing@%s/hidden-%d", line.address, os.Getpid())
	w.dupfs("full", "--current-time", at(0), "src", target)
	mnt, unmount := w.mount(target, append([]string{"--cache-size", "0"}, impatient...)...)
	w.hides(mnt, "tester:testing", "the-pass-phrase", "the-ftp-password")
	testMountLog(t, w, line, mnt)
	unmount()

	w.sh("mkdir front")
	front := w.path("front")
	cmd, out := w.start("mount", "-f", target, front)
	w.await("the mount in front", func() bool { _, err := os.Stat(filepath.Join(front, "snapshots")); return err == nil })
	for _, pid := range processes(t, front) {
		if text, _ := os.ReadFile("/proc/" + pid + "/cmdline"); strings.Contains(string(text), "testing") {
			t.Errorf("in front: %q", text)
		}
	}
	w.dupfs("umount", front)
	if code := w.ended(cmd); code != 0 {
		t.Errorf("in front: exit %d\n%s", code, out)
	}
}

// A mount in the background asks for the passphrase and for the store's
// password, although it has no terminal.
func TestMountAsks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	need.FUSE(t)
	host := upstream(t, strings.Replace(server(t, "WEBDAV"), "tester:testing@", "", 1)).Host
	w.write("src/file", "content\n")
	target := fmt.Sprintf("webdav://tester@%s/asks-%d", host, os.Getpid())
	if r := w.exec([]string{"FTP_PASSWORD=testing"}, binary, "full", "src", target); r.code != 0 {
		t.Fatalf("%s", r.stderr)
	}
	w.sh("mkdir mnt")
	for _, tt := range []struct {
		typed, env string
		code       int
	}{
		{`testing`, "PASSPHRASE=fixture", 0},
		{`testing\nfixture`, "", 0}, // each only once
		{`wrong`, "PASSPHRASE=fixture", exitConnection},
		{"", "PASSPHRASE=fixture", exitException},
	} {
		// setsid: without a terminal what is typed is read from standard input
		script := "unset PASSPHRASE FTP_PASSWORD; export FOO=x " + tt.env + "; printf '" + tt.typed + "' | setsid -w " + binary + " mount " + target + " " + w.path("mnt")
		r := w.exec(nil, "/bin/bash", "-c", script)
		if r.code != tt.code {
			t.Errorf("typed %q: exit %d\n%s", tt.typed, r.code, r.stderr)
		}
		if r.code == 0 {
			w.hides(w.path("mnt"), "testing", "fixture")
			w.sh("cmp src/file mnt/snapshots/latest/file")
			w.dupfs("umount", "mnt")
		}
	}
}

// hides looks for secrets where a mount in the background could show them.
func (w *world) hides(mnt string, secrets ...string) {
	w.t.Helper()
	pids := processes(w.t, mnt)
	if len(pids) != 1 {
		w.t.Fatalf("processes of the mount: %v", pids)
	}
	for _, name := range []string{"/proc/" + pids[0] + "/cmdline", "/proc/" + pids[0] + "/environ", "/proc/self/mounts"} {
		text, err := os.ReadFile(name)
		if err != nil || len(text) == 0 {
			w.t.Fatalf("%s: %v", name, err)
		}
		for _, secret := range secrets {
			if strings.Contains(string(text), secret) {
				w.t.Errorf("%s shows %s:\n%q", name, secret, text)
			}
		}
	}
}

// testMountLog breaks a mount's wire: its log tells of the tries, then why the
// read failed, without the password; what can be read later is right.
func testMountLog(t *testing.T, w *world, line *wire, mnt string) {
	t.Helper()
	file := filepath.Join(mnt, "snapshots/latest/file")
	mend := line.fault(nil)
	if _, err := os.ReadFile(file); err == nil {
		t.Error("read from a store that is not there")
	}
	mend()
	log := w.sh("cat home/.cache/dupfs/*/mount.log")
	for _, want := range []string{"note: get ", "try 1 failed, next in ", "try 3 failed", "connection refused (tried 4 times)", `read "file": get duplicity-full.`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
	if strings.Contains(log, "testing") {
		t.Errorf("the log tells the password:\n%s", log)
	}
	w.sh("cmp src/file " + file)
}
