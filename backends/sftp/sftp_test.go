package sftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dupfs/backends"
	"dupfs/backends/backendtest"
	"dupfs/backends/internal/server"
	"dupfs/internal/need"
)

func env(vars map[string]string) func(string) string { return func(k string) string { return vars[k] } }

func open(t testing.TB, s server.SSH, dir string, o Options) *Backend {
	t.Helper()
	if o.Getenv == nil {
		o.Getenv = env(map[string]string{"HOME": s.Home})
	}
	b, err := Open(s.Host, s.User, s.Port, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestContract(t *testing.T) {
	s := server.SSHD(t)
	n := 0
	backendtest.Run(t, func(t testing.TB) backends.Backend {
		n++
		return open(t, s, fmt.Sprintf("%s/%d/sub", s.Data, n), Options{})
	}, backendtest.Options{Objects: 500})
}

// A relative directory is one below that of the login.
func TestRelative(t *testing.T) {
	s := server.SSHD(t)
	home, err := os.UserHomeDir()
	if err != nil {
		t.Skip(err)
	}
	dir := fmt.Sprintf(".dupfs-test-%d", os.Getpid())
	t.Cleanup(func() { os.RemoveAll(filepath.Join(home, dir)) })
	b := open(t, s, dir, Options{})
	if err := b.Put(t.Context(), "x", strings.NewReader("abc")); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(home, dir, "x"))
	if err != nil || fi.Size() != 3 || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
}

func TestListing(t *testing.T) {
	s := server.SSHD(t)
	at := func(n string) string { return filepath.Join(s.Data, n) }
	os.Mkdir(at("dir"), 0o777)
	os.WriteFile(at(tempPrefix+"young"), nil, 0o600)
	os.WriteFile(at(tempPrefix+"old"), nil, 0o600)
	past := time.Now().Add(-50 * time.Hour)
	os.Chtimes(at(tempPrefix+"old"), past, past)
	os.WriteFile(at("file"), []byte("abc"), 0o600)
	os.Symlink("file", at("link"))
	os.Symlink("nowhere", at("dangling"))
	b := open(t, s, s.Data, Options{})
	files, err := b.List(t.Context())
	if err != nil || len(files) != 2 || files[0].Size != 3 || files[1].Size != 3 {
		t.Errorf("%+v, %v", files, err)
	}
	if err := b.Delete(t.Context(), "dir"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("deleting a directory: %v", err)
	}
	if err := b.Put(t.Context(), "new", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{tempPrefix + "young": true, tempPrefix + "old": false, "dir": true, "new": true} {
		if _, err := os.Stat(at(name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHostKeys(t *testing.T) {
	s := server.SSHD(t)
	known := filepath.Join(s.Home, ".ssh", "known_hosts")
	good, err := os.ReadFile(known)
	if err != nil {
		t.Fatal(err)
	}
	other := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"
	changed := strings.Fields(string(good))[0] + " " + other + "\n"
	for _, c := range []struct {
		name, file, options, want string
	}{
		{"known", string(good), "", ""},
		{"unknown", "", "", "is not known (ssh-ed25519 SHA256:"},
		{"changed", changed, "", "was changed, or somebody is in between"},
		{"changed, not strict", changed, "-oStrictHostKeyChecking=no", "was changed"},
		{"accepted", "", "-oStrictHostKeyChecking=accept-new", ""},
		{"not strict", "", "-o 'StrictHostKeyChecking no'", ""},
		{"alias", "alias " + strings.SplitN(string(good), " ", 2)[1], "-oHostKeyAlias=alias", ""},
		{"other kind known, too", strings.Fields(string(good))[0] + " ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT+NC4v4af5uO5+tKfA+eFivOM1drMV7Oy7ZAaDe/UfU=\n" + string(good), "", ""},
	} {
		if err := os.WriteFile(known, []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := open(t, s, s.Data, Options{SSHOptions: c.options}).List(t.Context())
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || errors.Is(err, backends.ErrTransient)) {
			t.Errorf("%s: %v", c.name, err)
		}
		now, _ := os.ReadFile(known)
		if remembered := string(now) != c.file; remembered != (c.name == "accepted" || c.name == "not strict") {
			t.Errorf("%s: known_hosts is now %q", c.name, now)
		}
	}
}

func TestKeys(t *testing.T) {
	s := server.SSHD(t)
	ssh := filepath.Join(s.Home, ".ssh")
	id := filepath.Join(ssh, "id_ed25519")
	bare := server.SSH{Host: s.Host, Port: s.Port, User: s.User, Home: t.TempDir(), Data: s.Data}
	hosts := " -oUserKnownHostsFile=" + filepath.Join(ssh, "known_hosts")
	list := func(o Options) error {
		o.Getenv = env(map[string]string{"HOME": bare.Home})
		_, err := open(t, bare, s.Data, o).List(t.Context())
		return err
	}
	if err := list(Options{SSHOptions: hosts}); !errors.Is(err, backends.ErrAuth) {
		t.Errorf("without a key: %v", err)
	}
	if err := list(Options{SSHOptions: "-oIdentityFile=" + id + hosts}); err != nil {
		t.Errorf("with -oIdentityFile: %v", err)
	}
	if err := list(Options{SSHOptions: "-i " + id + hosts, Password: "wrong-secret", HasPassword: true}); err != nil {
		t.Errorf("with -i: %v", err)
	}
	err := list(Options{SSHOptions: "-oIdentityFile=/nowhere/key" + hosts, Password: "wrong-secret", HasPassword: true})
	if !errors.Is(err, backends.ErrAuth) || !strings.Contains(err.Error(), "/nowhere/key") || strings.Contains(err.Error(), "wrong-secret") {
		t.Errorf("with a missing key: %v", err)
	}
	locked := filepath.Join(t.TempDir(), "locked")
	data, _ := os.ReadFile(id)
	os.WriteFile(locked, data, 0o600)
	if out, err := exec.Command(need.Program(t, "ssh-keygen"), "-p", "-q", "-N", "pass phrase", "-f", locked).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := list(Options{SSHOptions: "-i " + locked + hosts}); !errors.Is(err, backends.ErrAuth) || !strings.Contains(err.Error(), "passphrase") {
		t.Errorf("with a locked key: %v", err)
	}
	if err := list(Options{SSHOptions: "-i " + locked + hosts, Password: "pass phrase", HasPassword: true}); err != nil {
		t.Errorf("with a passphrase: %v", err)
	}
	asked := ""
	ask := func(_ context.Context, prompt string) (string, error) { asked = prompt; return "pass phrase", nil }
	if err := list(Options{SSHOptions: "-i " + locked + hosts, AskPassword: ask}); err != nil || !strings.Contains(asked, locked) {
		t.Errorf("asking %q: %v", asked, err)
	}
}

// The agent is used, and IdentitiesOnly picks from it.
func TestAgent(t *testing.T) {
	s := server.SSHD(t)
	agent := need.Program(t, "ssh-agent")
	sock := filepath.Join(t.TempDir(), "a")
	cmd := exec.Command(agent, "-D", "-a", sock)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for range 200 {
		if _, err := os.Stat(sock); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	id := filepath.Join(s.Home, ".ssh", "id_ed25519")
	add := exec.Command(need.Program(t, "ssh-add"), id)
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+sock)
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	hosts := "-oUserKnownHostsFile=" + filepath.Join(s.Home, ".ssh", "known_hosts")
	vars := env(map[string]string{"HOME": t.TempDir(), "SSH_AUTH_SOCK": sock})
	for options, want := range map[string]bool{
		"": true,
		" -oIdentitiesOnly=yes -oIdentityFile=" + id + ".pub": true,
		" -oIdentitiesOnly=yes -oIdentityFile=/nowhere":       false,
		" -oIdentityAgent=none":                               false,
		" -oIdentityAgent=" + sock:                            true,
	} {
		_, err := open(t, s, s.Data, Options{Getenv: vars, SSHOptions: hosts + options}).List(t.Context())
		if (err == nil) != want {
			t.Errorf("%q: %v", options, err)
		}
	}
}

// Host names, ports and jumps come from ~/.ssh/config.
func TestConfig(t *testing.T) {
	s := server.SSHD(t)
	nc := "exec 3<>/dev/tcp/%h/%p; cat <&3 & cat >&3"
	config := fmt.Sprintf(`
Host store
  HostName %s
  Port %s
  User %s
Host jumped
  HostName 127.0.0.1
  Port %[2]s
  ProxyJump %[3]s@127.0.0.1:%[2]s
Host twice
  HostName 127.0.0.1
  Port %[2]s
  ProxyJump store,jumped
Host piped
  HostName %[1]s
  Port %[2]s
  ProxyCommand bash -c '%[4]s'
Host loop
  HostName 127.0.0.1
  ProxyJump loop
Match exec "true"
  Port 1
`, s.Host, s.Port, s.User, nc)
	if err := os.WriteFile(filepath.Join(s.Home, ".ssh", "config"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	data := backendtest.Data(1, 300_000)
	for _, host := range []string{"store", "jumped", "twice", "piped"} {
		user := ""
		if host != "store" {
			user = s.User
		}
		b := open(t, server.SSH{Host: host, User: user, Home: s.Home}, s.Data, Options{})
		if err := b.Put(t.Context(), "x", bytes.NewReader(data)); err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		if got, err := get(t.Context(), b, "x"); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", host, len(got), err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := open(t, server.SSH{Host: "loop", Home: s.Home}, "", Options{}).List(t.Context()); err == nil || errors.Is(err, backends.ErrTransient) {
		t.Errorf("a loop of jumps: %v", err)
	}
}

func get(ctx context.Context, b backends.Backend, name string) ([]byte, error) {
	r, err := b.Open(ctx, name, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// After a connection broke, the next call makes another; with retries nothing
// of it is seen.
func TestReconnect(t *testing.T) {
	s := server.SSHD(t)
	c := server.NewCutter(t, net.JoinHostPort(s.Host, s.Port))
	known, _ := os.ReadFile(filepath.Join(s.Home, ".ssh", "known_hosts"))
	alias := "same " + strings.SplitN(string(known), " ", 2)[1]
	os.WriteFile(filepath.Join(s.Home, ".ssh", "known_hosts"), []byte(alias), 0o600)
	hosts := "-oHostKeyAlias=same"
	via := s
	via.Host, via.Port, _ = net.SplitHostPort(c.Addr)
	raw := open(t, via, s.Data, Options{SSHOptions: hosts, Timeout: 5 * time.Second})
	b := backends.Retry(raw, backends.RetryOptions{Delay: time.Millisecond, MaxDelay: 10 * time.Millisecond})
	data := backendtest.Data(1, 20<<20)
	if err := b.Put(t.Context(), "x", bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	c.Cut()
	if _, err := b.List(t.Context()); err != nil {
		t.Errorf("after a cut: %v", err)
	}
	r, err := b.Open(t.Context(), "x", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make([]byte, len(data))
	if _, err := io.ReadFull(r, got[:100_000]); err != nil {
		t.Fatal(err)
	}
	c.Cut()
	if _, err := io.ReadFull(r, got[100_000:]); err != nil || !bytes.Equal(got, data) {
		t.Errorf("a body that was cut: %v", err)
	}
	src := &cutting{Reader: bytes.NewReader(data), cut: c.Cut}
	if err := b.Put(t.Context(), "y", src); err != nil || src.cut != nil {
		t.Errorf("a put that was cut: %v", err)
	}
	if got, err := get(t.Context(), b, "y"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// cutting calls cut once, in the middle.
type cutting struct {
	*bytes.Reader
	cut func()
}

func (c *cutting) Read(p []byte) (int, error) {
	if c.cut != nil && c.Len() < int(c.Size()/2) {
		c.cut()
		c.cut = nil
	}
	return c.Reader.Read(p)
}

// A server that stops answering is given up; a cancelled call returns at once.
func TestHang(t *testing.T) {
	s := server.SSHD(t)
	c := server.NewCutter(t, net.JoinHostPort(s.Host, s.Port))
	via := s
	via.Host, via.Port, _ = net.SplitHostPort(c.Addr)
	b := open(t, via, s.Data, Options{SSHOptions: "-oStrictHostKeyChecking=accept-new", Timeout: 2 * time.Second})
	if _, err := b.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Hang(true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.List(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call whose context ends: %v", err)
	}
	if _, err := b.List(t.Context()); !errors.Is(err, backends.ErrTransient) {
		t.Errorf("a server that hangs: %v", err)
	}
	if _, err := b.List(t.Context()); !errors.Is(err, backends.ErrTransient) {
		t.Errorf("a login at a server that hangs: %v", err)
	}
	c.Hang(false)
	c.Cut()
	if _, err := b.List(t.Context()); err != nil {
		t.Errorf("a server that came back: %v", err)
	}
}

// More files than a page of any store, in one listing.
func TestManyFiles(t *testing.T) {
	s := server.SSHD(t)
	names := server.Fill(t, s.Data, 10_500)
	files, err := open(t, s, s.Data, Options{}).List(t.Context())
	if err != nil || len(files) != len(names) {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		if size, ok := names[f.Name]; !ok || f.Size != size {
			t.Fatalf("%+v", f)
		}
	}
}

// An idle connection stays.
func TestIdle(t *testing.T) {
	s := server.SSHD(t)
	b := open(t, s, s.Data, Options{Timeout: 1500 * time.Millisecond})
	if _, err := b.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := b.cur
	time.Sleep(3 * time.Second)
	if _, err := b.List(t.Context()); err != nil || b.cur != first {
		t.Errorf("%v; another connection: %v", err, b.cur != first)
	}
}

func TestNobodyThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	b, err := Open(host, "u", port, "", Options{Getenv: env(map[string]string{"HOME": t.TempDir()})})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.List(t.Context()); !errors.Is(err, backends.ErrTransient) {
		t.Errorf("%v", err)
	}
}

func TestParseOptions(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"-oPort=1 -o Port=2 -P 3 -p4", "port=[1 2 3 4]"},
		{`-oIdentityFile="/a b" -i '/c d'`, "identityfile=[/a b /c d]"},
		{"-C -v -oUserKnownHostsFile=/x -oCiphers=y", "ciphers=[y] userknownhostsfile=[/x]"},
		{"-o 'ProxyCommand ssh -W %h:%p gate'", "proxycommand=[ssh -W %h:%p gate]"},
		{"-oPort", "error"}, {"-o", "error"}, {"-i", "error"}, {"word", "error"}, {"-o 'x", "error"},
	} {
		s := &settings{given: map[string][]string{}}
		_, err := s.parseOptions(c.text)
		got := strings.TrimSuffix(strings.TrimPrefix(strings.ReplaceAll(fmt.Sprint(s.given), ":[", "=["), "map["), "]")
		if c.want == "error" && err == nil || c.want != "error" && (err != nil || got != c.want) {
			t.Errorf("%q: %s, %v", c.text, got, err)
		}
	}
}

func FuzzParseOptions(f *testing.F) {
	f.Add("-oPort=1 -i 'a b' \\")
	f.Fuzz(func(t *testing.T, text string) {
		s := &settings{given: map[string][]string{}}
		s.parseOptions(text)
		withoutMatch(text)
	})
}
