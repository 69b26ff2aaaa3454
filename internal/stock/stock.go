// Package stock runs stock duplicity for tests, many times a second: it is
// loaded once and forks for each run.
package stock

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"dupfs/internal/need"
)

//go:embed server.py
var script string

// runTime bounds one run.
const runTime = 5 * time.Minute

// Server is a duplicity that is loaded. It is safe for concurrent use, and
// does one run at a time.
type Server struct {
	dir    string // of what runs print
	mu     sync.Mutex
	in     io.Writer
	out    *bufio.Reader
	kill   func() error
	failed *strings.Builder // standard error of the server itself
}

// Result is how a run ended.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// Start loads duplicity in an environment, of which HOME, XDG_CACHE_HOME and
// TMPDIR count for all runs. It ends with the test.
func Start(t testing.TB, env []string) *Server {
	t.Helper()
	s := &Server{dir: t.TempDir(), failed: &strings.Builder{}}
	cmd := Python(t, script, need.Program(t, "duplicity"))
	cmd.Env, cmd.Stderr = env, s.failed
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.in, s.out, s.kill = in, bufio.NewReader(out), cmd.Process.Kill
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil && !t.Failed() {
			t.Errorf("stock: %v\n%s", err, s.failed)
		}
	})
	return s
}

// Python returns a command that runs a script in the Python of stock duplicity,
// with its modules.
func Python(t testing.TB, script string, args ...string) *exec.Cmd {
	t.Helper()
	text, err := os.ReadFile(need.Program(t, "duplicity"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	python := strings.Fields(strings.TrimPrefix(first, "#!"))
	return exec.Command(python[0], slices.Concat(python[1:], []string{"-c", script}, args)...)
}

// Run runs duplicity in a directory, with nothing but these variables, no
// terminal, and nothing on standard input.
func (s *Server) Run(t testing.TB, dir string, env []string, args ...string) Result {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	files := [2]string{filepath.Join(s.dir, "out"), filepath.Join(s.dir, "err")}
	line, err := json.Marshal(map[string]any{
		"dir": latin(dir), "env": latins(env), "args": latins(args), "out": latin(files[0]), "err": latin(files[1]),
	})
	if err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(runTime, func() { _ = s.kill() })
	defer late.Stop()
	var r Result
	if _, err := fmt.Fprintf(s.in, "%s\n", line); err != nil {
		t.Fatalf("stock %q: %v\n%s", args, err, s.failed)
	}
	if _, err := fmt.Fscanln(s.out, &r.Code); err != nil {
		t.Fatalf("stock %q: %v\n%s", args, err, s.failed)
	}
	for i, text := range []*string{&r.Stdout, &r.Stderr} {
		b, err := os.ReadFile(files[i])
		if err != nil {
			t.Fatal(err)
		}
		*text = string(b)
	}
	return r
}

// latin spells bytes as the characters of Latin-1: JSON has no bytes.
func latin(s string) string {
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return string(runes)
}

func latins(list []string) []string {
	out := []string{}
	for _, s := range list {
		out = append(out, latin(s))
	}
	return out
}
