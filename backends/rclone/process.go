package rclone

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a running `rclone rcd`. It listens on a port of this machine
// that only who knows the password can use.
type process struct {
	url, user, password string // http://127.0.0.1:port
	cmd                 *exec.Cmd
	log                 *tail
	ended               chan struct{} // closed once it has ended
}

// startTimeout is how long rclone may take to say where it listens.
const startTimeout = 30 * time.Second

// start runs rclone. Login and settings go by its environment, as the
// arguments of a process can be read by everybody.
func start(ctx context.Context, program string, env []string, timeout time.Duration) (*process, error) {
	p := &process{user: "dupfs", password: rand.Text(), log: &tail{}, ended: make(chan struct{})}
	p.cmd = exec.Command(program, "rcd", "--rc-serve", "--rc-addr", "127.0.0.1:0", "--ask-password=false",
		"--timeout", timeout.String(), "--contimeout", timeout.String(), "--use-json-log=false", "--log-file", "", "--log-level", "NOTICE")
	p.cmd.Env = append(without(env, "RCLONE_RC_", "RCLONE_LOG_", "RCLONE_USE_JSON_LOG"), "RCLONE_RC_USER="+p.user, "RCLONE_RC_PASS="+p.password)
	p.cmd.Dir = "/"
	p.cmd.SysProcAttr = childAttr()
	said, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	address := make(chan string, 1)
	go p.listen(said, address)
	if err := p.run(); err != nil {
		out.Close()
		return nil, fmt.Errorf("rclone: %w", err)
	}
	out.Close()
	return p, p.await(ctx, address)
}

// run starts the program and waits for it on a thread of its own: the signal
// at our death is tied to the thread that started it.
func (p *process) run() error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.cmd.Wait()
		}
		close(p.ended)
	}()
	return <-started
}

// listen keeps what the program says, and finds the address in it. It ends
// with the program.
func (p *process) listen(r io.ReadCloser, address chan<- string) {
	defer r.Close()
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		_, url, ok := strings.Cut(s.Text(), "Serving remote control on ")
		if ok {
			select {
			case address <- strings.TrimRight(strings.TrimSpace(url), "/"):
			default:
			}
			continue
		}
		p.log.add(strings.ReplaceAll(s.Text(), p.password, "*****"))
	}
	io.Copy(io.Discard, r) // after a line that is too long
}

func (p *process) await(ctx context.Context, address <-chan string) (err error) {
	t := time.NewTimer(startTimeout)
	defer t.Stop()
	select {
	case p.url = <-address:
		return nil
	case <-p.ended:
		err = errors.New("it ended at once")
	case <-t.C:
		err = errors.New("it does not say where it listens")
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	p.stop()
	return fmt.Errorf("rclone: %w%s", err, p.log.suffix())
}

// stop ends the program, kindly first.
func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
		p.cmd.Process.Kill()
		<-p.ended
	}
}

// without leaves out variables by their beginnings.
func without(env []string, prefixes ...string) []string {
	var out []string
next:
	for _, e := range env {
		for _, p := range prefixes {
			if strings.HasPrefix(e, p) {
				continue next
			}
		}
		out = append(out, e)
	}
	return out
}

// tail keeps the last lines that a program said. Safe for concurrent use.
type tail struct {
	mu    sync.Mutex
	lines []string
}

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(line) > 500 {
		line = line[:500]
	}
	t.lines = append(t.lines, line)
	if len(t.lines) > 5 {
		t.lines = t.lines[1:]
	}
}

// suffix returns the lines for the end of an error.
func (t *tail) suffix() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == 0 {
		return ""
	}
	return " (rclone said: " + strings.Join(t.lines, "; ") + ")"
}
