package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dupfs/internal/need"
)

// binary is dupfs as it is shipped, built once for all tests of this package.
var binary string

// coverVariable names a directory for what dupfs itself covers, as
// GOCOVERDIR has it: the program is then built to count that.
const coverVariable = "DUPFS_TEST_COVER"

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Getenv(dyingVariable) != "" {
		return dying()
	}
	dir, err := os.MkdirTemp("", "dupfs-bin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "dupfs")
	build := exec.Command("go", "build", "-o", binary)
	if os.Getenv(coverVariable) != "" {
		build.Args = append(build.Args, "-cover", "-coverpkg=dupfs/...")
	}
	build.Args = append(build.Args, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// commandTime bounds each program that a test runs.
const commandTime = 5 * time.Minute

// world is a home directory of its own, in which programs run.
type world struct {
	t   testing.TB
	dir string   // scratch
	env []string // variables besides PATH

	limit time.Duration // of each program, instead of commandTime
}

// newWorld returns a world whose programs know a passphrase.
func newWorld(t testing.TB) *world {
	t.Helper()
	// Not t.TempDir: gpg-agent's sockets need a short path, and a mount that
	// is left must fail the test, not hang its clean-up.
	dir, err := os.MkdirTemp("", "dw")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, dir: dir}
	for _, d := range []string{"home", "gnupg", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	w.env = []string{
		"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC", "HOME=" + w.path("home"),
		"GNUPGHOME=" + w.path("gnupg"), "TMPDIR=" + w.path("tmp"), "PASSPHRASE=fixture",
	}
	if dir := os.Getenv(coverVariable); dir != "" {
		w.env = append(w.env, "GOCOVERDIR="+dir)
	}
	t.Cleanup(w.end)
	return w
}

// end checks that nothing is left mounted and removes the world.
func (w *world) end() {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for _, line := range strings.Split(string(mounts), "\n") {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], w.dir) {
			w.t.Errorf("left mounted: %s", f[1])
			_ = exec.Command("fusermount3", "-uz", f[1]).Run()
		}
	}
	kill := exec.Command("gpgconf", "--kill", "all")
	kill.Env = w.env
	_ = kill.Run()
	if left, _ := os.ReadDir(w.path("tmp")); len(left) > 0 {
		w.t.Errorf("left in TMPDIR: %v", left)
	}
	if err := os.RemoveAll(w.dir); err != nil {
		w.t.Error(err)
	}
}

// path returns a path in the world.
func (w *world) path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}

// url returns the URL of a directory in the world.
func (w *world) url(elem ...string) string { return "file://" + w.path(elem...) }

// result is how a program ended.
type result struct {
	stdout, stderr string
	code           int
	line           string
}

// exec runs a program in the world's directory.
func (w *world) exec(env []string, name string, args ...string) result {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), cmp.Or(w.limit, commandTime))
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = w.dir
	cmd.Env = append(append([]string{}, w.env...), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	r := result{out.String(), errs.String(), 0, filepath.Base(name) + " " + strings.Join(args, " ")}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		w.t.Fatalf("%s: %v", r.line, err)
	}
	return r
}

// dupfs runs dupfs, which must succeed, and returns what it printed.
func (w *world) dupfs(args ...string) string {
	w.t.Helper()
	r := w.exec(nil, binary, args...)
	if r.code != 0 {
		w.t.Fatalf("%s: exit %d\n%s%s", r.line, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// stock runs duplicity, which must succeed, and returns what it printed.
func (w *world) stock(args ...string) string {
	w.t.Helper()
	r := w.exec(nil, need.Program(w.t, "duplicity"), args...)
	if r.code != 0 {
		w.t.Fatalf("%s: exit %d\n%s%s", r.line, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// sh runs a shell script in the world's directory, which must succeed.
func (w *world) sh(script string) string {
	w.t.Helper()
	r := w.exec(nil, "/bin/bash", "-euc", script)
	if r.code != 0 {
		w.t.Fatalf("%s: exit %d\n%s%s", script, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// mount mounts a URL and returns the directory; it is unmounted at the end of
// the test, or by the returned function.
func (w *world) mount(url string, args ...string) (dir string, unmount func()) {
	w.t.Helper()
	need.FUSE(w.t)
	dir, err := os.MkdirTemp(w.dir, "mnt")
	if err != nil {
		w.t.Fatal(err)
	}
	w.dupfs(append([]string{"mount", url, dir}, args...)...)
	done := false
	unmount = func() {
		w.t.Helper()
		if !done {
			done = true
			w.dupfs("umount", dir)
		}
	}
	w.t.Cleanup(unmount)
	return dir, unmount
}

// write makes a file, and its directory.
func (w *world) write(name, content string) {
	w.t.Helper()
	if err := os.MkdirAll(filepath.Dir(w.path(name)), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(w.path(name), []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
}
