package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dupfs/backends"
	"dupfs/internal/need"
)

// dyingVariable makes the test program be dupfs, until SIGKILL comes at a call
// that writes to the store: "before 3" or "after 3".
const dyingVariable = "DUPFS_TEST_DYING"

// dying runs the command line as dupfs does.
func dying() int {
	when, n, _ := strings.Cut(os.Getenv(dyingVariable), " ")
	left, err := strconv.ParseInt(n, 10, 64)
	if err != nil {
		panic(err)
	}
	k := &killer{after: when == "after"}
	k.left.Store(left)
	e := &environ{
		stdin: bufio.NewReader(os.Stdin), stdout: os.Stdout, stderr: os.Stderr, lookup: os.LookupEnv, now: time.Now,
		wrap: func(b backends.Backend) backends.Backend { return &mortal{b, k} },
	}
	return run(context.Background(), e, os.Args[1:])
}

// killer kills the process at a call that writes.
type killer struct {
	left  atomic.Int64
	after bool
}

func (k *killer) around(do func() error) error {
	now := k.left.Add(-1) == 0
	if now && !k.after {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	err := do()
	if now {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	return err
}

// mortal is a store whose calls that write may kill.
type mortal struct {
	backends.Backend
	k *killer
}

func (m *mortal) Put(ctx context.Context, name string, r io.ReadSeeker) error {
	return m.k.around(func() error { return m.Backend.Put(ctx, name, r) })
}

func (m *mortal) PutNew(ctx context.Context, name string, r io.ReadSeeker) error {
	return m.k.around(func() error { return m.Backend.(backends.Exclusive).PutNew(ctx, name, r) })
}

func (m *mortal) Delete(ctx context.Context, name string) error {
	return m.k.around(func() error { return m.Backend.Delete(ctx, name) })
}

// crash is a command that is killed, and what must be so once it has been run
// again.
type crash struct {
	name   string
	args   []string
	before string // script that makes the state it begins with, below base
	after  func(w *world)
	least  int // places to be killed at

	journal bool // what the process notes after a call differs from what it notes before the next
}

// crashes returns the commands of the matrix. The archive is in "archive".
func crashes(url string, opts []string) []crash {
	with := func(args ...string) []string { return append(args, opts...) }
	points := func(n ...int) func(w *world) {
		return func(w *world) {
			w.t.Helper()
			for _, n := range n {
				w.sh("rm -rf out")
				w.dupfs(with("restore", "--time", at(n), url, "out")...)
				w.sh(fmt.Sprintf("diff -r --no-dereference out copy%d", n))
			}
		}
	}
	return []crash{
		{name: "full", args: with("full", "--volsize", "1", "--current-time", at(0), "src", url),
			before: "cp -a copy0 src", after: points(0), least: 6, journal: true},
		{name: "increment", args: with("--volsize", "1", "--current-time", at(1), "src", url),
			before: "cp -a archive0 archive; cp -a copy1 src", after: points(0, 1), least: 4, journal: true},
		{name: "removal", args: with("remove-all-but-n-full", "1", "--force", url),
			before: "cp -a archive2 archive; cp -a copy2 src", least: 10, after: func(w *world) {
				points(2)(w)
				w.dupfs(with("cleanup", "--force", url)...) // sets that have lost their manifest
				w.sh("! ls archive | grep -e 2023111[45]")
			}},
		{name: "cleanup", args: with("cleanup", "--force", url), least: 3,
			before: "cp -a archive2 archive; rm archive/duplicity-inc.*manifest*", after: points(0, 2)},
		{name: "index", args: with("index", "--upload", url), least: 5,
			before: "cp -a foreign archive", after: func(w *world) {
				w.t.Helper()
				for _, t := range foreignTimes {
					w.sh("rm -rf out")
					w.dupfs(with("restore", "--numeric-owner", "--time", t, url, "out")...)
					w.sh("diff -r --no-dereference out foreign" + t)
				}
			}},
	}
}

// foreignTimes are the ends of the chains in a fixture of stock's.
var foreignTimes = []string{"1700200000", "1700500000"}

// crashWorld makes the sources and archives that crashes begin with.
func crashWorld(t *testing.T, opts []string) *world {
	w := newWorld(t)
	url := w.url("archive")
	w.sh(`mkdir copy0; head -c 1500000 /dev/urandom > copy0/big; for i in 1 2 3; do head -c 400000 /dev/urandom > copy0/f$i; done
		ln -s big copy0/link; mkdir copy0/d; echo one > copy0/d/file; echo gone > copy0/gone
		cp -a copy0 copy1; head -c 700000 /dev/urandom >> copy1/big; rm copy1/gone; echo two > copy1/d/file; head -c 900000 /dev/urandom > copy1/new
		cp -a copy1 copy2; rm copy2/new; echo three > copy2/d/file`)
	fixture, err := filepath.Abs(filepath.Join(fixtureDir, "multichain", "archive"))
	if err != nil {
		t.Fatal(err)
	}
	w.sh("cp -a " + fixture + " foreign")
	for _, at := range foreignTimes {
		w.dupfs("restore", "--no-encryption", "--numeric-owner", "--time", at, w.url("foreign"), "foreign"+at)
	}
	for n, verb := range []string{"full", "incremental", "full"} {
		w.sh(fmt.Sprintf("rm -rf src; cp -a copy%d src", n))
		w.dupfs(append([]string{verb, "--volsize", "1", "--current-time", at(n), "src", url}, opts...)...)
		w.sh(fmt.Sprintf("cp -a archive archive%d; cp -a home home%d", n, n))
	}
	return w
}

// begin sets a crash up. The local cache is that of the archive's time.
func (w *world) begin(c crash) {
	w.t.Helper()
	w.sh("rm -rf src archive home out; mkdir home; " + c.before)
	if strings.Contains(c.before, "archive0") {
		w.sh("rm -rf home; cp -a home0 home")
	}
}

// rerun runs the command again and looks at what there is then.
func (w *world) rerun(c crash, what string) {
	w.t.Helper()
	r := w.exec(nil, binary, c.args...)
	if r.code != 0 {
		w.t.Fatalf("%s, %s: run again: exit %d\n%s%s", c.name, what, r.code, r.stdout, r.stderr)
	}
	c.after(w)
	if out := w.dupfs("status", "--no-encryption", w.url("archive")); c.name != "cleanup" && strings.Contains(out, "damaged") || strings.Contains(out, "incomplete") {
		w.t.Errorf("%s, %s:\n%s", c.name, what, out)
	}
}

// crashesVariable asks for the long form of TestCrashMatrix.
const crashesVariable = "DUPFS_TEST_CRASHES"

// TestCrashMatrix kills commands, with SIGKILL, before and after every call that
// writes to the store, runs them again, and compares every point with the copy
// that was kept of it. DUPFS_TEST_CRASHES=1 makes it also with encryption, and
// at system calls that write, wherever they do.
func TestCrashMatrix(t *testing.T) {
	layersHere := map[string][]string{"gzip": {"--no-encryption"}}
	long := os.Getenv(crashesVariable) != ""
	if long {
		layersHere["encrypted"] = nil
	}
	for layer, opts := range layersHere {
		w := crashWorld(t, opts)
		for _, c := range crashes(w.url("archive"), opts) {
			t.Run(layer+" "+c.name, func(t *testing.T) {
				w.t = t
				n := w.killed(c)
				if long {
					n += w.traced(c)
				}
				t.Logf("killed at %d places", n)
			})
		}
		w.t = t
	}
}

// killed kills a command at each call to the store and returns how many times.
func (w *world) killed(c crash) (times int) {
	w.t.Helper()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, when := range []string{"before", "after"} {
		if when == "after" && !c.journal && os.Getenv(crashesVariable) == "" {
			break // as before the next one
		}
		for n := 1; ; n++ {
			w.begin(c)
			what := fmt.Sprintf("%s %d", when, n)
			r := w.exec([]string{dyingVariable + "=" + what}, self, c.args...)
			if r.code == 0 {
				if n <= c.least {
					w.t.Errorf("%s: only %d places to be killed at", c.name, n-1)
				}
				break
			}
			if r.code != -1 {
				w.t.Fatalf("%s, %s: exit %d\n%s", c.name, what, r.code, r.stderr)
			}
			times++
			w.rerun(c, what)
		}
	}
	return times
}

// traced kills a command at system calls that write, counted for each thread by
// strace, and returns how many times.
func (w *world) traced(c crash) (times int) {
	w.t.Helper()
	strace := need.Program(w.t, "strace")
	for _, call := range []string{"write", "pwrite64", "fsync", "fdatasync", "ftruncate", "renameat,renameat2,rename", "unlinkat,unlink", "openat"} {
		for n, misses := 1, 0; n < 60 && misses < 3; n += 1 + n/6 {
			w.begin(c)
			args := append([]string{"-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call, "-e",
				fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n), binary}, c.args...)
			cmd := exec.Command(strace, args...)
			cmd.Dir, cmd.Env = w.dir, w.env
			out, err := cmd.CombinedOutput()
			if err == nil {
				misses++
				continue
			}
			if !strings.Contains(err.Error(), "killed") {
				w.t.Fatalf("%s: %v\n%s", c.name, err, out)
			}
			times++
			w.sh("rm -rf tmp; mkdir -m 700 tmp")
			w.rerun(c, fmt.Sprintf("%s %d", call, n))
		}
	}
	return times
}
