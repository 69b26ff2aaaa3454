package main

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dupfs/fusefs"
	"dupfs/internal/need"
)

func TestMountHelperArgs(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"URL DIR -o rw,allow_other,uid=5", "mount --allow-other --uid=5 -- URL DIR"},
		{"URL DIR -s -n -v -t fuse.dupfs -o ro,x-systemd.automount,_netdev,passphrase-file=/etc/p", "mount --passphrase-file=/etc/p -- URL DIR"},
		{`-o name=a\,b,layout=zfs URL DIR`, "mount --name=a,b --layout=zfs -- URL DIR"},
		{"URL DIR -orequest_timeout=5", "mount --request-timeout=5 -- URL DIR"},
	} {
		got, err := mountHelperArgs(strings.Fields(c.in))
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, %v; want %q", c.in, got, err, c.want)
		}
	}
	if _, err := mountHelperArgs([]string{"URL", "DIR", "-o"}); err == nil {
		t.Error("-o without a value is taken")
	}
}

// TestNoXattrs: attributes are shown unless the mount was told not to, and
// access lists cannot be hidden from others.
func TestNoXattrs(t *testing.T) {
	need.FUSE(t)
	w := newWorld(t)
	url := w.url("archive")
	w.write("src/file", "x")
	if err := unix.Setxattr(w.path("src/file"), "user.note", []byte("hello"), 0); err != nil {
		t.Fatal(err)
	}
	w.sh("mkdir mnt")
	w.dupfs("backup", "--current-time", at(0), "src", url)
	for _, option := range []string{"", "--no-xattrs"} {
		args := []string{"mount", url, "mnt"}
		if option != "" {
			args = append(args, option)
		}
		w.dupfs(args...)
		var value [10]byte
		n, err := unix.Getxattr(w.path("mnt/snapshots/latest/file"), "user.note", value[:])
		if option == "" && (err != nil || string(value[:n]) != "hello") {
			t.Errorf("attribute %q, %v", value[:max(n, 0)], err)
		}
		if option != "" && err != unix.ENOTSUP {
			t.Errorf("%s: %d bytes, %v", option, n, err)
		}
		w.dupfs("umount", "mnt")
	}
	if r := w.exec(nil, binary, "mount", "--no-xattrs", "--allow-other", url, "mnt"); r.code != exitUsage {
		t.Errorf("%s: status %d, %s", r.line, r.code, r.stderr)
	}
}

// TestMountHelper mounts as mount(8) would have it done, and looks at who owns
// what with the options that say so.
func TestMountHelper(t *testing.T) {
	need.FUSE(t)
	w := newWorld(t)
	url := w.url("archive")
	w.write("src/file", "x")
	w.sh("chmod 664 src/file; echo fixture > pass; chmod 600 pass; mkdir mnt; ln -s " + binary + " mount.fuse.dupfs; ln -s " + binary + " mount.dupfs")
	w.dupfs("backup", "--current-time", at(0), "src", url)
	w.env = slices.DeleteFunc(w.env, func(v string) bool { return strings.HasPrefix(v, "PASSPHRASE=") })
	for _, c := range []struct {
		helper, options string
		uid, gid, mode  uint32
	}{
		{"mount.fuse.dupfs", "rw,nofail,passphrase-file=pass", uint32(os.Geteuid()), uint32(os.Getegid()), 0o664},
		{"mount.dupfs", "passphrase_file=pass,owner_root,umask=027", 0, 0, 0o640},
		{"mount.dupfs", "passphrase_file=pass,uid=12,gid=34", 12, 34, 0o664},
	} {
		if r := w.exec(nil, w.path(c.helper), url, "mnt", "-o", c.options); r.code != 0 {
			t.Fatalf("%s: %s%s", r.line, r.stdout, r.stderr)
		}
		var st unix.Stat_t
		if err := unix.Stat(w.path("mnt/snapshots/latest/file"), &st); err != nil {
			t.Error(err)
		} else if st.Uid != c.uid || st.Gid != c.gid || uint32(st.Mode)&0o7777 != c.mode {
			t.Errorf("%s: %d:%d %o", c.options, st.Uid, st.Gid, st.Mode&0o7777)
		}
		table, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(table)) {
			if f := strings.Fields(line); f[1] == w.path("mnt") && !strings.HasPrefix(f[3], "ro,nosuid,nodev") {
				t.Errorf("mounted with %s", f[3])
			}
		}
		w.dupfs("umount", "mnt")
	}
}

// TestMountHelperGroup: until it is mounted, what mount(8) began stays in its
// process group, since an automount makes all others wait. Then it leaves.
func TestMountHelperGroup(t *testing.T) {
	need.FUSE(t)
	w := newWorld(t)
	url := w.url("archive")
	w.write("src/file", "x")
	w.dupfs("backup", "--current-time", at(0), "src", url)
	w.env = slices.DeleteFunc(w.env, func(v string) bool { return strings.HasPrefix(v, "PASSPHRASE=") })
	w.sh("mkdir mnt; ln -s " + binary + " mount.fuse.dupfs; printf '#!/bin/sh\\ncut -d\" \" -f5 /proc/$$/stat >>groups; echo fixture\\n' >password; chmod +x password")
	w.sh("setsid -w ./mount.fuse.dupfs " + url + " mnt -o password_command=./password")
	if groups := strings.Fields(w.sh("cat groups")); len(groups) != 2 || groups[0] != groups[1] {
		t.Errorf("the helper and the mount are in the groups %q", groups)
	}
	var state struct{ PID int }
	if err := json.Unmarshal([]byte(w.sh("cat mnt/.dupfs/status.json")), &state); err != nil {
		t.Fatal(err)
	}
	if sid, err := unix.Getsid(state.PID); err != nil || sid != state.PID {
		t.Errorf("the mount, process %d, is in session %d, %v", state.PID, sid, err)
	}
	w.dupfs("umount", "mnt")
}

// TestOpenStays has xdg-open be a file manager that stays: mount --open returns all
// the same, and leaves it alone.
func TestOpenStays(t *testing.T) {
	need.FUSE(t)
	w := newWorld(t)
	url := w.url("archive")
	w.write("src/file", "x")
	w.dupfs("backup", "--no-encryption", "--current-time", at(0), "src", url)
	w.sh("mkdir mnt bin; printf '#!/bin/sh\necho $$ > pid; exec sleep 1000\n' > bin/xdg-open; chmod +x bin/xdg-open")
	path := []string{"PATH=" + w.path("bin") + ":" + os.Getenv("PATH")}
	if res := w.exec(path, binary, "mount", "--open", "--no-encryption", url, "mnt"); res.code != 0 || res.stderr != "" {
		t.Errorf("exit %d: %s", res.code, res.stderr)
	}
	w.sh("cat mnt/snapshots/latest/file; until [ -s pid ]; do sleep 0.1; done; kill $(cat pid)") // which fails if it is gone
	w.dupfs("umount", "mnt")
}

// TestService runs a mount as systemd does, and leaves it alone until it goes.
func TestService(t *testing.T) {
	need.FUSE(t)
	w := newWorld(t)
	url := w.url("archive")
	w.write("src/file", "x")
	w.dupfs("backup", "--no-encryption", "--current-time", at(0), "src", url)
	w.sh("mkdir mnt bin; printf '#!/bin/sh\\necho \"$@\" > shown\\n' > bin/xdg-open; chmod +x bin/xdg-open")
	socket := w.path("notify")
	listener, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	cmd := exec.Command(binary, "mount", "-f", "--open", "--no-encryption", "--idle-timeout", "300ms", url, "mnt")
	cmd.Dir = w.dir
	cmd.Env = append(slices.Clone(w.env), "NOTIFY_SOCKET="+socket, "PATH="+w.path("bin")+":"+os.Getenv("PATH"))
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make([]byte, 1000)
	_ = listener.SetReadDeadline(time.Now().Add(time.Minute))
	n, err := listener.Read(said)
	if err != nil || !strings.HasPrefix(string(said[:n]), "READY=1\n") {
		t.Errorf("systemd was told %q, %v", said[:n], err)
	}
	f, err := os.Open(w.path("mnt/snapshots/latest/file"))
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(700 * time.Millisecond) // it must not go while something is open
	if _, err := os.Stat(w.path("mnt/snapshots")); err != nil {
		t.Errorf("while a file is open: %v", err)
	}
	f.Close()
	if err := cmd.Wait(); err != nil { // idle, it ends by itself
		t.Error(err)
	}
	if n, err := listener.Read(said); err != nil || string(said[:n]) != "STOPPING=1" {
		t.Errorf("systemd was told %q, %v", said[:n], err)
	}
	if shown, err := os.ReadFile(w.path("shown")); err != nil || strings.TrimSpace(string(shown)) != w.path("mnt") {
		t.Errorf("the file manager was shown %q, %v", shown, err)
	}
}

// TestInUse: a removal refuses what a living mount shows somebody, and nothing
// else; a dead mount does not count.
func TestInUse(t *testing.T) {
	need.FUSE(t)
	w := newWorld(t)
	url := w.url("archive")
	w.write("src/file", "x")
	for n := range 3 {
		w.dupfs("full", "--no-encryption", "--current-time", at(n), "src", url)
	}
	remove := func(n string, more ...string) result {
		return w.exec(nil, binary, append([]string{"remove-all-but-n-full", n, "--force", "--no-encryption", url}, more...)...)
	}
	mnt, unmount := w.mount(url, "--no-encryption")
	old := filepath.Join(mnt, "at", at(1))
	f, err := os.Open(filepath.Join(old, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if r := remove("2"); r.code != 0 { // the oldest one is in nobody's way
		t.Errorf("%s: %d %s", r.line, r.code, r.stderr)
	}
	r := remove("1")
	if r.code != exitUser || !strings.Contains(r.stderr, "mounted on "+mnt) || !strings.Contains(r.stderr, "nothing was deleted") {
		t.Errorf("%s: %d %s", r.line, r.code, r.stderr)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.ReadFile(filepath.Join(old, "file")); err != nil {
		t.Error(err)
	}
	if err := unix.Kill(status(t, mnt).PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// Its file is left, but not its lock, once it is gone.
	w.await("the end of the mount", func() bool { return fusefs.IsDead(mnt) })
	if r := remove("1"); r.code != 0 {
		t.Errorf("%s: %d %s", r.line, r.code, r.stderr)
	}
	if left, _ := filepath.Glob(w.path("home/.cache/dupfs/*/mounts/*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	w.dupfs("mount", "--no-encryption", url, mnt) // repairs what is dead
	unmount()
	for _, where := range []string{"archive", "archive/sub", "home/.cache/dupfs", "."} {
		w.sh("mkdir -p " + where)
		r := w.exec(nil, binary, "mount", "--nonempty", "--no-encryption", url, where)
		if r.code != exitUser || !strings.Contains(r.stderr, "mount on another, empty directory") {
			t.Errorf("mount on %s: %d %s", where, r.code, r.stderr)
		}
	}
}

// TestLayouts looks at what the presets show.
func TestLayouts(t *testing.T) {
	need.FUSE(t)
	w := newWorld(t)
	url := w.url("archive")
	w.write("src/file", "old")
	w.dupfs("backup", "--no-encryption", "--current-time", at(0), "src", url)
	w.write("src/file", "newer")
	w.dupfs("backup", "--no-encryption", "--current-time", at(1), "src", url)
	host := strings.TrimSpace(w.sh("hostname"))
	for _, c := range []struct{ options, root, path, text string }{
		{"--layout samba", "at changes deleted snapshots versions", "snapshots/@GMT-2023.11.14-22.13.20/file", "old"},
		{"--layout restic", "at changes deleted hosts ids snapshots tags versions", "tags/full/latest/file", "old"},
		{"--layout restic", "at changes deleted hosts ids snapshots tags versions", "hosts/" + host + "/latest/file", "newer"},
		{"--layout zfs", "file", ".zfs/snapshot/2023-11-14T22:13:20Z/file", "old"},
		{"--layout zfs", "file", "file", "newer"},
		{"--layout zfs", "file", ".dupfs/at/" + at(0) + "/file", "old"},
		{"--snapshot-template %Y", "at changes deleted snapshots versions", "snapshots/2023~2/file", "newer"},
	} {
		mnt, unmount := w.mount(url, append(strings.Fields(c.options), "--no-encryption")...)
		if got := strings.Join(strings.Fields(w.sh("ls "+mnt)), " "); got != c.root {
			t.Errorf("%s: the top has %q", c.options, got)
		}
		if b, err := os.ReadFile(filepath.Join(mnt, c.path)); err != nil || string(b) != c.text {
			t.Errorf("%s: %s is %q, %v", c.options, c.path, b, err)
		}
		if strings.Contains(c.options, "zfs") {
			w.sh("diff -r " + mnt + " src")
		}
		unmount()
	}
	for _, bad := range []string{"--layout=hpfs", "--snapshot-template=%Q", "--snapshot-template=a/b", "--umask=9", "--uid=nobody-of-that-name", "--idle-timeout=soon"} {
		w.sh("mkdir -p mnt")
		if r := w.exec(nil, binary, "mount", bad, "--no-encryption", url, "mnt"); r.code != exitUsage {
			t.Errorf("%s: %d %s", bad, r.code, r.stderr)
		}
	}
}
