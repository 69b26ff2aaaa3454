package gnupg

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// agent is a connection to gpg-agent: a line is a command, the answers are
// data (D), questions (INQUIRE) and a verdict (OK or ERR).
type agent struct {
	conn net.Conn
	r    *bufio.Reader
	stop func() bool
	// inquire answers a question by its keyword and argument.
	inquire func(keyword, argument string) ([]byte, error)
}

// agentError is what the agent answers.
type agentError struct {
	code uint32 // of libgpg-error, with the source in the high bits
	text string
}

func (e *agentError) Error() string { return "gpg-agent: " + e.text }

// Codes of libgpg-error.
const (
	gpgBadPassphrase = 11
	gpgBadPIN        = 87
	gpgCanceled      = 99
	gpgNoPassphrase  = 177
)

// passphrase reports whether the agent lacks the right passphrase.
func (e *agentError) passphrase() bool {
	switch e.code & 0xffff {
	case gpgBadPassphrase, gpgBadPIN, gpgNoPassphrase:
		return true
	}
	return false
}

// socket returns the path of the agent's socket, and starts the agent if it
// does not run.
func (g *GPG) socket(ctx context.Context) (string, error) {
	conf := "gpgconf"
	if dir, _ := filepath.Split(g.binary()); dir != "" {
		if beside := filepath.Join(dir, "gpgconf"); isFile(beside) {
			conf = beside
		}
	}
	var args []string
	for i, o := range g.Options {
		if o == "--homedir" && i+1 < len(g.Options) {
			args = []string{"--homedir", g.Options[i+1]}
		}
	}
	launch := exec.CommandContext(ctx, conf, append(args, "--launch", "gpg-agent")...)
	launch.Env = g.environ()
	if out, err := launch.CombinedOutput(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return "", fmt.Errorf("%w (%s)", ErrMissing, conf)
		}
		return "", fmt.Errorf("%w: gpg-agent cannot be started: %v %s", ErrFailed, err, bytes.TrimSpace(out))
	}
	list := exec.CommandContext(ctx, conf, append(args, "--list-dirs", "agent-socket")...)
	list.Env = g.environ()
	out, err := list.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrFailed, conf, err)
	}
	return unescape(strings.TrimSpace(string(out))), nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// dial connects to the agent. Whoever dials must close.
func (g *GPG) dial(ctx context.Context) (*agent, error) {
	path, err := g.socket(ctx)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: 10 * time.Second}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("gpg-agent: %w", err)
	}
	a := &agent{conn: conn, r: bufio.NewReaderSize(conn, 4096)}
	// Somebody may have to find a smartcard first: only ctx limits the time.
	a.stop = context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	if _, err := a.answer(); err != nil { // its greeting
		a.close()
		return nil, err
	}
	return a, nil
}

func (a *agent) close() {
	a.stop()
	_ = a.conn.Close() // nothing was left to be written
}

// maxAnswer bounds the data of an answer.
const maxAnswer = 64 << 10

// do sends a command and returns the data of the answer.
func (a *agent) do(command string) ([]byte, error) {
	if _, err := a.conn.Write([]byte(command + "\n")); err != nil {
		return nil, fmt.Errorf("gpg-agent: %w", err)
	}
	return a.answer()
}

// answer reads lines up to the verdict.
func (a *agent) answer() ([]byte, error) {
	var data []byte
	for {
		line, err := a.r.ReadSlice('\n')
		if err != nil {
			return nil, fmt.Errorf("gpg-agent: %w", err)
		}
		word, rest, _ := strings.Cut(string(line[:len(line)-1]), " ")
		switch word {
		case "OK":
			return data, nil
		case "ERR":
			code, text, _ := strings.Cut(rest, " ")
			n, _ := strconv.ParseUint(code, 10, 32) // 0 for none is as good
			if i := strings.LastIndex(text, " <"); i > 0 {
				text = text[:i]
			}
			return nil, &agentError{uint32(n), strings.ToLower(text)}
		case "D":
			if data = append(data, unescape(rest)...); len(data) > maxAnswer {
				return nil, fmt.Errorf("%w: gpg-agent answers too much", ErrFailed)
			}
		case "INQUIRE":
			if err := a.reply(rest); err != nil {
				return nil, err
			}
		}
	}
}

// reply answers a question.
func (a *agent) reply(question string) error {
	keyword, argument, _ := strings.Cut(question, " ")
	var text []byte
	var err error
	if a.inquire != nil {
		text, err = a.inquire(keyword, argument)
	}
	out := []byte("END\n")
	switch {
	case err != nil:
		out = []byte("CAN\n")
	case len(text) > 0:
		out = append(escape(text), out...)
	}
	if _, werr := a.conn.Write(out); werr != nil {
		return fmt.Errorf("gpg-agent: %w", werr)
	}
	if err != nil {
		_, _ = a.answer() // that it was cancelled
	}
	return err
}

// escape returns a data line.
func escape(p []byte) []byte {
	out := []byte("D ")
	for _, c := range p {
		if c == '%' || c == '\r' || c == '\n' {
			out = append(out, fmt.Sprintf("%%%02X", c)...)
		} else {
			out = append(out, c)
		}
	}
	return append(out, '\n')
}

// unescape undoes the escapes of data and of gpgconf.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(n))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}
