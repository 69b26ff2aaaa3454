package sftp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"dupfs/backends"
	"dupfs/backends/web"
)

// session is one connection with an SFTP channel. When it breaks, another is
// made; files opened over it fail then.
type session struct {
	*sftp.Client
	close []func() // in reverse order
	dead  chan struct{}
	once  sync.Once // closes dead
}

// lost notes that the connection broke.
func (s *session) lost() { s.once.Do(func() { close(s.dead) }) }

func (s *session) broken() bool {
	select {
	case <-s.dead:
		return true
	default:
		return false
	}
}

func (s *session) end() {
	for i := len(s.close) - 1; i >= 0; i-- {
		s.close[i]()
	}
}

// session returns a connection that works as far as is known.
func (b *Backend) session(ctx context.Context) (*session, error) {
	select {
	case b.lock <- struct{}{}:
		defer func() { <-b.lock }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if b.closed {
		return nil, errors.New("the connection was closed")
	}
	if b.cur != nil && !b.cur.broken() {
		return b.cur, nil
	}
	if b.cur != nil {
		b.cur.end()
		b.cur = nil
	}
	s, err := b.connect(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	b.cur = s
	return s, nil
}

const maxJumps = 8

func (b *Backend) connect(ctx context.Context) (_ *session, err error) {
	s := &session{dead: make(chan struct{})}
	defer func() {
		if err != nil {
			s.end()
		}
	}()
	client, err := dialer{b.o}.ssh(ctx, s, hop{b.host, b.user, b.port, ""}, maxJumps)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { client.Close() })
	defer stop()
	if s.Client, err = sftp.NewClient(client, sftp.UseConcurrentWrites(true)); err != nil {
		return nil, fmt.Errorf("%w: sftp: %w", backends.ErrTransient, err)
	}
	// Last of all, when the transport is gone: it waits for its reader.
	s.close = append([]func(){func() { s.Client.Close() }}, s.close...)
	b.watch(s, client)
	return s, nil
}

// watch notes the end of a connection, and keeps an idle one alive: its
// deadline is for servers that do not answer.
func (b *Backend) watch(s *session, client *ssh.Client) {
	b.wg.Go(func() {
		client.Wait()
		s.lost()
	})
	b.wg.Go(func() {
		t := time.NewTicker(b.o.Timeout / 3)
		defer t.Stop()
		for {
			select {
			case <-s.dead:
				return
			case <-t.C:
				client.SendRequest("keepalive@openssh.com", true, nil)
			}
		}
	})
}

// dialer makes SSH connections.
type dialer struct{ o Options }

// hop is a host as it was given. For one that is only jumped over, via are the
// hosts before it; "" means those of its configuration.
type hop struct{ host, user, port, via string }

// ssh connects to a host as it was given, through others if the configuration
// says so, and logs in. What is to be closed is added to s.
func (d dialer) ssh(ctx context.Context, s *session, h hop, jumps int) (*ssh.Client, error) {
	cfg, err := newSettings(h.host, d.o)
	if err != nil {
		return nil, err
	}
	if jumps < maxJumps {
		cfg.jumpedOver()
	}
	if h.via != "" {
		cfg.given["proxyjump"] = []string{h.via}
	}
	l := &login{s: cfg, t: cfg.target(h.user, h.port, d.o.Getenv), o: d.o}
	conn, err := d.dial(ctx, s, cfg, l.t, jumps)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	check, algos, err := l.hostKeys()
	if err != nil {
		conn.Close()
		return nil, err
	}
	methods, release := l.methods(ctx)
	defer release()
	c, chans, reqs, err := ssh.NewClientConn(conn, l.t.addr(), &ssh.ClientConfig{
		User: l.t.user, Auth: methods, HostKeyCallback: check, HostKeyAlgorithms: algos, Timeout: d.o.Timeout,
	})
	if err != nil {
		conn.Close()
		return nil, classify(l.refused(err))
	}
	client := ssh.NewClient(c, chans, reqs)
	s.close = append(s.close, func() { client.Close() })
	return client, nil
}

// classify makes what broke a connection transient, but for wrong keys.
func classify(err error) error {
	var hk *hostKeyError
	if err == nil || errors.As(err, &hk) || errors.Is(err, backends.ErrAuth) || strings.Contains(err.Error(), "no common algorithm") {
		return err
	}
	return fmt.Errorf("%w: %w", backends.ErrTransient, err)
}

// dial reaches the port of a host: directly, through other hosts (ProxyJump),
// or by a program (ProxyCommand).
func (d dialer) dial(ctx context.Context, s *session, cfg *settings, t target, jumps int) (net.Conn, error) {
	if j := cfg.get("ProxyJump"); j != "" && !strings.EqualFold(j, "none") {
		if jumps == 0 {
			return nil, errors.New("too many hosts to jump over")
		}
		return d.jump(ctx, s, j, t, jumps-1)
	}
	if c := cfg.get("ProxyCommand"); c != "" && !strings.EqualFold(c, "none") {
		if strings.ContainsAny(t.host+t.user, " \t\n'\"`$\\;&|<>(){}*?[]!#~") {
			return nil, fmt.Errorf("%q at %q cannot be put into a proxy command", t.user, t.host)
		}
		return d.command(s, t.tokens(c))
	}
	conn, err := d.o.Dial(ctx, "tcp", t.addr())
	return conn, web.Net(ctx, err)
}

// jump connects through hosts, of which the last reaches the target.
func (d dialer) jump(ctx context.Context, s *session, list string, t target, jumps int) (net.Conn, error) {
	hops := strings.Split(list, ",")
	last := strings.TrimPrefix(strings.TrimSpace(hops[len(hops)-1]), "ssh://")
	h := hop{host: last, via: strings.Join(hops[:len(hops)-1], ",")}
	if i := strings.LastIndexByte(h.host, '@'); i >= 0 {
		h.user, h.host = h.host[:i], h.host[i+1:]
	}
	if host, port, err := net.SplitHostPort(h.host); err == nil {
		h.host, h.port = host, port
	}
	client, err := d.ssh(ctx, s, h, jumps)
	if err != nil {
		return nil, fmt.Errorf("jumping over %s: %w", h.host, err)
	}
	conn, err := client.DialContext(ctx, "tcp", t.addr())
	if err != nil {
		return nil, fmt.Errorf("%w: from %s to %s: %w", backends.ErrTransient, h.host, t.addr(), err)
	}
	return conn, nil
}

// command runs a program that is the connection. It speaks over a socket, as
// those have deadlines.
func (d dialer) command(s *session, line string) (net.Conn, error) {
	syscall.ForkLock.RLock() // not every system makes sockets that close on exec
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "proxy"), os.NewFile(uintptr(fds[1]), "proxy")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/bin/sh", "-c", "exec "+line)
	cmd.Stdin, cmd.Stdout = theirs, theirs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // to end its children, too
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("proxy command: %w", err)
	}
	s.close = append(s.close, func() {
		conn.Close()
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	})
	return web.Watch(conn, web.Options{Timeout: d.o.Timeout}), nil
}
