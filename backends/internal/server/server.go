// Package server starts real servers for the tests of drivers, each one
// process on a free port of 127.0.0.1 that ends with the test.
package server

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"dupfs/internal/need"
)

// Start runs a program until the test ends and waits until its port answers.
// args is called with the port. A port that was taken meanwhile is tried again
// with another.
func Start(t testing.TB, env []string, program string, args func(port string) []string) (addr string) {
	t.Helper()
	for try := 0; ; try++ {
		port := freePort(t)
		addr = net.JoinHostPort("127.0.0.1", port)
		var log output
		cmd := exec.Command(program, args(port)...)
		cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), &log, &log
		cmd.WaitDelay = time.Second // for children that keep its output open
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		ended := make(chan struct{})
		go func() {
			cmd.Wait()
			close(ended)
		}()
		t.Cleanup(func() {
			kill()
			<-ended
		})
		if answers(addr, ended) {
			return addr
		}
		if try == 3 {
			t.Fatalf("%s does not answer:\n%s", program, log.String())
		}
		kill()
	}
}

func answers(addr string, ended <-chan struct{}) bool {
	for range 600 {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return true
		}
		select {
		case <-ended:
			return false
		case <-time.After(50 * time.Millisecond):
		}
	}
	return false
}

func freePort(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// output keeps what a program says; it is safe for concurrent use.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// SSH is a running sshd.
type SSH struct {
	Host, Port, User string
	Home             string // holds .ssh/config, .ssh/known_hosts and .ssh/id_ed25519
	Data             string // an empty directory
}

// SSHD starts OpenSSH's server, for the user that runs the test.
func SSHD(t testing.TB) SSH {
	t.Helper()
	sshd := need.Program(t, "sshd")
	keygen := need.Program(t, "ssh-keygen")
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := SSH{User: u.Username, Home: filepath.Join(dir, "home"), Data: filepath.Join(dir, "data")}
	key := filepath.Join(s.Home, ".ssh", "id_ed25519")
	for _, d := range []string{filepath.Dir(key), s.Data} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, k := range []string{key, filepath.Join(dir, "host")} {
		if out, err := exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-f", k).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	copyFile(t, key+".pub", filepath.Join(dir, "authorized_keys"))
	if u.Uid == "0" { // its directory for privilege separation
		os.Mkdir("/run/sshd", 0o755)
	}
	config := filepath.Join(dir, "sshd_config")
	addr := Start(t, nil, sshd, func(port string) []string {
		text := fmt.Sprintf("ListenAddress 127.0.0.1\nPort %s\nHostKey %s\nPidFile none\nAuthorizedKeysFile %s\nStrictModes no\n"+
			"PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nUsePAM no\nUseDNS no\n"+
			"MaxStartups 100:30:200\nMaxSessions 100\nSubsystem sftp internal-sftp\n",
			port, filepath.Join(dir, "host"), filepath.Join(dir, "authorized_keys"))
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return []string{"-D", "-e", "-f", config}
	})
	s.Host, s.Port, _ = net.SplitHostPort(addr)
	pub, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("[%s]:%s %s\n", s.Host, s.Port, strings.Join(strings.Fields(string(pub))[:2], " "))
	if err := os.WriteFile(filepath.Join(s.Home, ".ssh", "known_hosts"), []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	if u.Uid != "0" {
		s.tryLogin(t, key)
	}
	return s
}

// tryLogin skips the test where the server takes nobody in: it refuses
// accounts that are locked, which system accounts are.
func (s SSH) tryLogin(t testing.TB, key string) {
	cmd := exec.Command(need.Program(t, "ssh"), "-F", "none", "-i", key, "-p", s.Port, "-oBatchMode=yes", "-oUserKnownHostsFile="+filepath.Join(s.Home, ".ssh", "known_hosts"),
		"-s", s.User+"@"+s.Host, "sftp")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("sshd does not let %s in (it needs root, or an account that is not locked): %s", s.User, out)
	}
}

func copyFile(t testing.TB, from, to string) {
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Fill writes n small files into a directory and returns their sizes.
func Fill(t testing.TB, dir string, n int) map[string]int64 {
	t.Helper()
	names := map[string]int64{}
	for i := range n {
		name := fmt.Sprintf("duplicity-full.20231114T221320Z.vol%d.difftar.gpg", i)
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, i%5), 0o600); err != nil {
			t.Fatal(err)
		}
		names[name] = int64(i % 5)
	}
	return names
}

// Rclone returns the program rclone.
func Rclone(t testing.TB) string {
	t.Helper()
	if p := os.Getenv("DUPFS_TEST_RCLONE"); p != "" {
		return p
	}
	return need.Program(t, "rclone")
}

// The login at the WebDAV server.
const User, Password = "tester", "t&st:pa/ss"

// WebDAV starts rclone's WebDAV server over a directory and returns host:port.
func WebDAV(t testing.TB, dir string) string {
	t.Helper()
	cache := t.TempDir()
	return Start(t, []string{"RCLONE_USER=" + User, "RCLONE_PASS=" + Password}, Rclone(t), func(port string) []string {
		return []string{"serve", "webdav", dir, "--addr", "127.0.0.1:" + port, "--config", os.DevNull, "--cache-dir", cache}
	})
}

// Cutter is a TCP proxy whose connections can be broken.
type Cutter struct {
	Addr string
	mu   sync.Mutex
	open map[net.Conn]bool
	l    net.Listener
	to   string
	stop bool // take bytes, pass none on
	wg   sync.WaitGroup
}

// NewCutter returns a proxy to an address.
func NewCutter(t testing.TB, to string) *Cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cutter{Addr: l.Addr().String(), open: map[net.Conn]bool{}, l: l, to: to}
	c.wg.Go(c.run)
	t.Cleanup(func() {
		l.Close()
		c.Cut()
		c.wg.Wait()
	})
	return c
}

// Cut breaks all connections there are.
func (c *Cutter) Cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		conn.Close()
	}
	clear(c.open)
}

// Hang makes the proxy pass nothing on any more, or again.
func (c *Cutter) Hang(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop = on
}

func (c *Cutter) hangs() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stop
}

func (c *Cutter) run() {
	for {
		a, err := c.l.Accept()
		if err != nil {
			return
		}
		b, err := net.Dial("tcp", c.to)
		if err != nil {
			a.Close()
			continue
		}
		c.mu.Lock()
		c.open[a], c.open[b] = true, true
		c.mu.Unlock()
		c.wg.Go(func() { c.copy(a, b) })
		c.wg.Go(func() { c.copy(b, a) })
	}
}

func (c *Cutter) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	p := make([]byte, 32<<10)
	for {
		n, err := from.Read(p)
		for c.hangs() && err == nil {
			time.Sleep(10 * time.Millisecond)
			if c.closed(from) {
				return
			}
		}
		if _, werr := to.Write(p[:n]); err != nil || werr != nil {
			return
		}
	}
}

func (c *Cutter) closed(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.open[conn]
}
