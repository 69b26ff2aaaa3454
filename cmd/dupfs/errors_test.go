package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dupfs/internal/need"
)

// wrong is a command that must fail: with a status, one line that says what
// is wrong, and a hint on the next.
type wrong struct {
	name string
	env  []string
	args []string
	code int
	text string // part of the first line
	hint string // part of the second
}

func (tt wrong) run(t *testing.T, w *world) {
	t.Helper()
	r := w.exec(tt.env, binary, tt.args...)
	lines := strings.Split(strings.TrimRight(r.stderr, "\n"), "\n")
	if r.code != tt.code || len(lines) < 2 {
		t.Fatalf("%s: exit %d, want %d\n%s", r.line, r.code, tt.code, r.stderr)
	}
	message, hint := lines[len(lines)-2], lines[len(lines)-1]
	if !strings.HasPrefix(message, "dupfs: ") || !strings.Contains(message, tt.text) {
		t.Errorf("%s: %q does not say %q", r.line, message, tt.text)
	}
	if !strings.HasPrefix(hint, "hint: ") || !strings.Contains(hint, tt.hint) {
		t.Errorf("%s: hint %q, want %q", r.line, hint, tt.hint)
	}
	if strings.Contains(r.stderr, "goroutine ") {
		t.Errorf("%s: a crash:\n%s", r.line, r.stderr)
	}
}

func TestErrors(t *testing.T) {
	w := newWorld(t)
	w.write("src/file", "content\n")
	w.write("full-dir/file", "x")
	w.write("plain-file", "x")
	w.sh("mkdir empty mnt")
	url := w.url("archive")
	w.dupfs("full", "--current-time", at(0), "src", url)
	tests := []wrong{
		{"wrong passphrase, ls", []string{"PASSPHRASE=wrong", "XDG_CACHE_HOME=" + w.path("c1")}, []string{"ls", url}, 31, "passphrase", "PASSPHRASE"},
		{"wrong passphrase, mount", []string{"PASSPHRASE=wrong", "XDG_CACHE_HOME=" + w.path("c2")}, []string{"mount", url, "mnt"}, 31, "passphrase", "PASSPHRASE"},
		{"wrong passphrase, backup", []string{"PASSPHRASE=wrong"}, []string{"src", url}, 31, "passphrase", "PASSPHRASE"},
		{"wrong passphrase, full", []string{"PASSPHRASE=wrong"}, []string{"full", "src", url}, 31, "passphrase", "PASSPHRASE"},
		{"no chain", nil, []string{"ls", w.url("empty")}, 30, "no backup", "first backup"},
		{"nothing there", nil, []string{"restore", w.url("nowhere"), "out"}, 30, "no backup", "first backup"},
		{"unknown scheme", nil, []string{"ls", "xyz://foo/bar"}, 23, "scheme not supported in url: xyz://foo/bar", "swift"},
		{"no source", nil, []string{"backup", "nosrc", url}, 13, "nosrc", "directory"},
		{"no mount point", nil, []string{"mount", url, "nodir"}, 23, "nodir", "mkdir"},
		{"mount point not empty", nil, []string{"mount", url, "full-dir"}, 23, "not empty", "empty directory"},
		{"mount point a file", nil, []string{"mount", url, "plain-file"}, 23, "not a directory", "directory"},
		{"mount on the archive", nil, []string{"mount", url, w.path("archive")}, 23, "is the archive", "empty directory"},
		{"not mounted", nil, []string{"umount", "empty"}, 23, "not mounted", "mount"},
		{"target exists", nil, []string{"restore", url, "full-dir"}, 11, "full-dir", "--force"},
		{"path missing", nil, []string{"restore", "--path-to-restore", "no/where", url, "out"}, 19, "no/where", "history"},
		{"path missing, ls", nil, []string{"ls", url, "no/where"}, 19, "no/where", "history"},
		{"path outside", nil, []string{"ls", url, "../etc"}, 2, "..", "dupfs"},
		{"before the first", nil, []string{"restore", "--time", at(-1), url, "out"}, 20, "no backup", "status"},
		{"bad time", nil, []string{"ls", "--time", "yesteryear", url}, 2, "yesteryear", "3D"},
		{"incremental on nothing", nil, []string{"incremental", "src", w.url("empty")}, 17, "build an increment", "full"},
		{"other source", nil, []string{"full-dir", url}, 42, "source directory has changed", "--allow-source-mismatch"},
		{"no such option", nil, []string{"ls", "--frobnicate", url}, 2, "--frobnicate", "--help"},
		{"no such command", nil, []string{"frobnicate"}, 2, "frobnicate", "--help"},
		{"arguments missing", nil, []string{"restore", url}, 2, "expected 2", "URL DIR"},
		{"two sources", nil, []string{"ls", "a", "b", "c"}, 2, "expected", "URL"},
		{"no URL", nil, []string{"ls", "archive"}, 2, "neither a URL", "a URL is like"},
		{"pattern outside", nil, []string{"full", "--include", "/elsewhere/x", "--exclude", "**", "src", url}, 14, "/elsewhere/x", "pattern"},
		{"bad size", nil, []string{"ls", "--memory", "much", url}, 2, "much", "--help"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, w) })
	}
	if exists(w.path("out")) {
		t.Error("a failed restore left something")
	}
	if got := w.dupfs("cat", url, "file"); got != "content\n" {
		t.Errorf("the archive holds %q", got)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Nobody is there to type a passphrase.
func TestNoPassphrase(t *testing.T) {
	w := newWorld(t)
	w.write("src/file", "content\n")
	w.dupfs("full", "--current-time", at(0), "src", w.url("archive"))
	w.env = slices.DeleteFunc(w.env, func(v string) bool { return strings.HasPrefix(v, "PASSPHRASE=") })
	w.env = append(w.env, "XDG_CACHE_HOME="+w.path("cache2"))
	// setsid takes the terminal away, where there is one.
	for _, line := range []string{"ls URL", "mount URL mnt", "restore URL out", "src URL", "full src URL", "verify URL"} {
		r := w.exec(nil, "/bin/sh", "-c", "mkdir -p mnt; exec setsid -w "+binary+" "+strings.ReplaceAll(line, "URL", w.url("archive"))+" </dev/null")
		if r.code != 30 || !strings.Contains(r.stderr, "a passphrase is needed") || !strings.Contains(r.stderr, "hint: export PASSPHRASE") {
			t.Errorf("%s: exit %d\n%s", line, r.code, r.stderr)
		}
	}
}

// An archive that cannot be written, or has no room, fails the backup with
// nothing lost; once there is room it is gone on with.
func TestUnwritable(t *testing.T) {
	w := newWorld(t)
	need.Root(t)
	w.sh(`mkdir src small ro; head -c 6000000 /dev/urandom > src/big; echo first > src/file`)
	w.sh(`mount -t tmpfs -o size=4m tmpfs small`)
	t.Cleanup(func() { w.sh("umount small") })
	r := w.exec(nil, binary, "src", w.url("small/archive"), "--volsize", "1")
	if r.code != 53 || !strings.Contains(r.stderr, "untouched") || !strings.Contains(r.stderr, "hint: free space") {
		t.Errorf("full disk: exit %d\n%s", r.code, r.stderr)
	}
	if left := w.archiveNames("small/archive", ""); !strings.Contains(r.stderr, "3 volumes stored so far") || len(left) != 3 {
		t.Errorf("%s\nleft behind: %v", r.stderr, left)
	}
	w.sh(`mount -o remount,size=40m small`)
	if out := w.dupfs("src", w.url("small/archive")); !strings.Contains(out, "3 volumes there") {
		t.Error(out)
	}
	w.dupfs("verify", "--compare-data", w.url("small/archive"), "src")
	w.sh(`mount -t tmpfs -o ro tmpfs ro`)
	t.Cleanup(func() { w.sh("umount ro") })
	r = w.exec(nil, binary, "src", w.url("ro/archive"))
	if r.code == 0 || !strings.Contains(r.stderr, "read-only") {
		t.Errorf("read-only: exit %d\n%s", r.code, r.stderr)
	}
}

// A damaged or missing volume costs the files in it and nothing else.
func TestDamage(t *testing.T) {
	for _, damage := range []struct{ name, script string }{
		{"missing", "rm $V"},
		{"truncated", "truncate -s 5000 $V"},
		{"a few bytes", `printf '\377\377\377\377' | dd of=$V bs=1 seek=700000 conv=notrunc status=none`},
		{"empty", ": > $V"},
		{"another's", "cp archive/*vol1.difftar* $V"},
	} {
		for layer, opts := range layers {
			t.Run(layer+" "+damage.name, func(t *testing.T) { testDamage(t, damage.script, opts) })
		}
	}
}

func testDamage(t *testing.T, script string, opts []string) {
	w := newWorld(t)
	url := w.url("archive")
	w.sh(`mkdir src; for i in 1 2 3 4 5 6; do head -c 700000 /dev/urandom > src/file$i; done`)
	w.dupfs(append([]string{"full", "--volsize", "1", "--current-time", at(0), "src", url}, opts...)...)
	if n, _ := filepath.Glob(w.path("archive/*.vol2.*")); len(n) != 1 {
		t.Fatalf("volume 2: %v", n)
	}
	w.sh(`V=$(echo archive/*.vol2.difftar*); ` + script)
	w.env = append(w.env, "XDG_CACHE_HOME="+w.path("cache2"))

	r := w.exec(nil, binary, "restore", url, "out")
	if r.code != 21 || !strings.Contains(r.stderr, "warning: file") {
		t.Errorf("restore: exit %d\n%s", r.code, r.stderr)
	}
	if r := w.exec(nil, binary, "verify", url); r.code != 21 {
		t.Errorf("verify: exit %d\n%s", r.code, r.stderr)
	}
	mnt, _ := w.mount(url)
	intact, lost := 0, 0
	for i := 1; i <= 6; i++ {
		name := "file" + string(rune('0'+i))
		want, err := os.ReadFile(w.path("src", name))
		if err != nil {
			t.Fatal(err)
		}
		restored, rerr := os.ReadFile(w.path("out", name))
		got, err := os.ReadFile(filepath.Join(mnt, "snapshots/latest", name))
		switch {
		case err == nil && string(got) == string(want):
			intact++
			if rerr != nil || string(restored) != string(want) {
				t.Errorf("%s is in the mount, but was not restored: %v", name, rerr)
			}
		case err == nil:
			t.Errorf("%s: wrong bytes", name)
		case !strings.Contains(err.Error(), "input/output error"):
			t.Errorf("%s: %v", name, err)
		default:
			lost++
			if rerr == nil {
				t.Errorf("%s cannot be read, but was restored", name)
			}
		}
	}
	if lost == 0 || intact < 2 {
		t.Errorf("%d intact, %d lost", intact, lost)
	}
}

// Who is not root gets all that is not for root alone: no device is made, nobody
// else's file gets setuid, and each that is left out is named.
func TestRestoreAsUser(t *testing.T) {
	need.Root(t) // to make devices, and to become somebody who may not
	w := newWorld(t)
	w.sh(`mkdir -p src archive out tmp2; cd src; mknod null c 1 3; mknod disk b 259 1; mkfifo pipe; echo x > su; chmod 6755 su; echo y > file; chmod 644 file`)
	url := w.url("archive")
	w.dupfs("full", "src", url)
	w.env = append(w.env, "HOME=/nonexistent", "XDG_CACHE_HOME="+w.path("tmp2"))
	w.sh(`chmod 777 tmp2 out tmp .; chmod -R a+rX archive; chmod 755 ` + filepath.Dir(binary))
	r := w.exec(nil, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", binary, "restore", url, "out/new")
	if r.code == 0 || !strings.Contains(r.stderr, "null") || !strings.Contains(r.stderr, "disk") {
		t.Errorf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	w.sh(`cd out/new; test ! -e null; test ! -e disk; test -p pipe; cmp file ../../src/file; cmp su ../../src/su; test "$(find . -perm /6000)" = ""`)
}

// A file that cannot be read is named, keeps its last version, and makes the
// exit status 60.
func TestUnreadable(t *testing.T) {
	need.Root(t) // to become somebody who may not read it
	w := newWorld(t)
	w.sh(`mkdir -p src/locked; echo one > src/file; echo two > src/secret; echo three > src/locked/inside; chmod -R a+rwX . `)
	w.env = append(w.env, "HOME=/nonexistent", "XDG_CACHE_HOME="+w.path("tmp2"))
	w.sh(`mkdir tmp2 archive; chmod 777 tmp2 archive tmp .; chmod 755 ` + filepath.Dir(binary))
	as := func(args ...string) result {
		return w.exec(nil, "setpriv", append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", binary}, args...)...)
	}
	url := w.url("archive")
	if r := as("backup", "--current-time", at(0), "src", url); r.code != 0 {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	w.sh(`echo new > src/file; chown root src/secret src/locked; chmod 600 src/secret; chmod 700 src/locked`)
	r := as("backup", "--current-time", at(1), "src", url)
	if r.code != 60 || !strings.Contains(r.stderr, "secret") || !strings.Contains(r.stderr, "locked") {
		t.Fatalf("exit %d\n%s", r.code, r.stderr)
	}
	for name, want := range map[string]string{"file": "new\n", "secret": "two\n", "locked/inside": "three\n"} {
		if got := as("cat", url, name); got.stdout != want {
			t.Errorf("%s is %q: %s", name, got.stdout, got.stderr)
		}
	}
}
