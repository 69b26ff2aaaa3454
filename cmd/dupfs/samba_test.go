package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"dupfs/internal/need"
)

// sambaShare shares live/, with the points of mnt/ as its previous versions.
const sambaShare = `[global]
server role = standalone server
interfaces = 127.0.0.1
bind interfaces only = yes
smb ports = PORT
lock directory = DIR/smb/lock
private dir = DIR/smb/private
state directory = DIR/smb/state
cache directory = DIR/smb/cache
pid directory = DIR/smb/pid
ncalrpc dir = DIR/smb/ncalrpc
map to guest = Bad User
guest account = root
disable spoolss = yes
load printers = no
[live]
path = DIR/live
guest ok = yes
force user = root
vfs objects = shadow_copy2
shadow:snapdir = MOUNT/snapshots
shadow:basedir = DIR/live
shadow:format = @GMT-%Y.%m.%d-%H.%M.%S
shadow:localtime = no
shadow:sort = desc
`

// TestPreviousVersions has Samba show the points of a mount as the previous
// versions of a share, as Windows lists them, and fetches one.
func TestPreviousVersions(t *testing.T) {
	need.FUSE(t)
	need.Root(t)
	smbd, client := need.Program(t, "smbd"), need.Program(t, "smbclient")
	w := newWorld(t)
	url := w.url("archive")
	w.write("live/docs/letter", "as it was")
	w.dupfs("backup", "--no-encryption", "--current-time", at(0), "live", url)
	w.write("live/docs/letter", "as it was the next day")
	w.dupfs("backup", "--no-encryption", "--current-time", at(1), "live", url)
	w.write("live/docs/letter", "as it is")
	mnt, _ := w.mount(url, "--no-encryption", "--layout", "samba")
	w.sh("mkdir -p smb/{lock,private,state,cache,pid,ncalrpc}")
	port := freePort(t)
	w.write("smb.conf", strings.NewReplacer("DIR", w.dir, "MOUNT", mnt, "PORT", port).Replace(sambaShare))
	cmd := exec.Command(smbd, "-F", "--no-process-group", "-s", w.path("smb.conf"), "--debug-stdout")
	said, err := os.Create(w.path("smbd.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // it ends its whole group
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // before the mount goes
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	w.await("smbd", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	ask := func(command string) result {
		return w.exec(nil, client, "-N", "-p", port, "//127.0.0.1/live", "-c", command)
	}
	r := ask(`allinfo docs\letter`)
	for n, size := range map[int]int{0: 9, 1: 22} {
		name := []string{"@GMT-2023.11.14-22.13.20", "@GMT-2023.11.15-22.13.20"}[n]
		if _, rest, ok := strings.Cut(r.stdout, name); !ok || !strings.Contains(rest, fmt.Sprintf("size:\t%d", size)) && !strings.Contains(rest, fmt.Sprintf("size: %d", size)) {
			log, _ := os.ReadFile(w.path("smbd.log"))
			t.Errorf("%s is not listed with %d bytes: %d\n%s%s\n%s", name, size, r.code, r.stdout, r.stderr, log)
		}
	}
	if r := ask(`get @GMT-2023.11.14-22.13.20\docs\letter fetched`); r.code != 0 {
		t.Errorf("%s%s", r.stdout, r.stderr)
	}
	if b, err := os.ReadFile(filepath.Join(w.dir, "fetched")); string(b) != "as it was" {
		t.Errorf("fetched %q, %v", b, err)
	}
}

// freePort returns a TCP port that nothing listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}
