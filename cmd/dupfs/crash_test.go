package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"dupfs/backends"
	"dupfs/backends/all"
	"dupfs/backends/file"
	"dupfs/chain"
	"dupfs/chain/manifest"
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
		wrap: func(b backends.Backend) backends.Backend { return newMortal(b, k) },
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

// newMortal returns b with what it can do, mortal.
func newMortal(b backends.Backend, k *killer) backends.Backend {
	m := &mortal{b, k}
	s, canStat := b.(backends.Stater)
	e, canExclude := b.(backends.Exclusive)
	t, canTier := b.(backends.Tierer)
	switch {
	case canStat && canExclude && canTier:
		return struct {
			*mortal
			backends.Stater
			mortalNew
			mortalTier
		}{m, s, mortalNew{e, k}, mortalTier{t, k}}
	case canStat && canExclude:
		return struct {
			*mortal
			backends.Stater
			mortalNew
		}{m, s, mortalNew{e, k}}
	case canStat:
		return struct {
			*mortal
			backends.Stater
		}{m, s}
	}
	return m
}

func (m *mortal) Put(ctx context.Context, name string, r io.ReadSeeker) error {
	return m.k.around(func() error { return m.Backend.Put(ctx, name, r) })
}

func (m *mortal) Delete(ctx context.Context, name string) error {
	return m.k.around(func() error { return m.Backend.Delete(ctx, name) })
}

// Doubtful implements backends.Doubtful.
func (m *mortal) Doubtful() bool { return !backends.Excludes(m.Backend) }

// Close closes the store.
func (m *mortal) Close() error { return backends.Close(m.Backend) }

type mortalNew struct {
	store backends.Exclusive
	k     *killer
}

func (m mortalNew) PutNew(ctx context.Context, name string, r io.ReadSeeker) error {
	return m.k.around(func() error { return m.store.PutNew(ctx, name, r) })
}

type mortalTier struct {
	store backends.Tierer
	k     *killer
}

func (m mortalTier) SetTier(ctx context.Context, name, tier, priority string) error {
	return m.k.around(func() error { return m.store.SetTier(ctx, name, tier, priority) })
}

// crash is a command that is killed, and what must be so once it has been run
// again.
type crash struct {
	name   string
	args   []string
	before string // script that makes the archive that it begins with, below base
	home   string // the local cache, as it is with that archive; "": none
	after  func(m *matrix)
	least  int      // places to be killed at
	again  []string // how it is run again; nil: in the same way
	lost   bool     // its local cache is gone by then
	goneOn int      // how often it goes on with what was there, at least

	journal bool // what the process notes after a call differs from what it notes before the next
	long    bool // only in the long form
	tiers   bool // only where a store has access tiers
}

// matrix is where commands are killed: the archive is in a directory of the
// world, or what a directory holds is put into a real store for each run.
type matrix struct {
	*world
	url, copyURL string           // of the archive, and of a second one
	store        backends.Backend // of the archive; nil: the directory "archive"
	copies       backends.Backend // of the second one; nil: the directory "copy"
	opts         []string
	wentOn       int // how often a run that was killed was gone on with
}

func (m *matrix) with(args ...string) []string { return append(args, m.opts...) }

// points compares points of an archive with the copies that were kept; late is
// how many seconds later than asked for they may be.
func (m *matrix) points(url string, late int, n ...int) {
	m.t.Helper()
	for _, n := range n {
		m.sh("rm -rf out")
		m.dupfs(m.with("restore", "--time", fmt.Sprint(epoch+n*86400+late), url, "out")...)
		m.sh(fmt.Sprintf("diff -r --no-dereference out copy%d", n))
	}
}

// crashes returns the commands of the matrix.
func (m *matrix) crashes() []crash {
	url, with := m.url, m.with
	points := func(n ...int) func(m *matrix) {
		return func(m *matrix) {
			m.t.Helper()
			m.points(url, 0, n...)
		}
	}
	// The claim of a run that is forgotten stays, so that the next one takes a
	// later second.
	pointsLater := func(n ...int) func(m *matrix) {
		return func(m *matrix) {
			m.t.Helper()
			m.points(url, 9, n...)
		}
	}
	removed := func(m *matrix) {
		m.t.Helper()
		points(2)(m)
		m.dupfs(with("cleanup", "--force", url)...) // sets that have lost their manifest
		if names := strings.Join(m.names(), "\n"); strings.Contains(names, "20231114") || strings.Contains(names, "20231115") {
			m.t.Error(names)
		}
	}
	const two, three = "cp -a archive1 archive", "cp -a archive2 archive; cp -a copy2 src"
	return []crash{
		{name: "full", args: with("full", "--volsize", "1", "--current-time", at(0), "src", url),
			before: "cp -a copy0 src", after: points(0), least: 6, journal: true},
		{name: "full, from the store", args: with("full", "--volsize", "1", "--current-time", at(0), "src", url),
			again: with("full", "--volsize", "1", "--current-time", at(0), "--resume-from-store", "src", url), lost: true, goneOn: 3,
			before: "cp -a copy0 src", after: pointsLater(0), least: 6},
		{name: "increment", args: with("--volsize", "1", "--current-time", at(1), "src", url),
			before: "cp -a archive0 archive; cp -a copy1 src", home: "home0", after: points(0, 1), least: 4, journal: true},
		{name: "increment, from the store", args: with("--volsize", "1", "--current-time", at(1), "src", url),
			again: with("--volsize", "1", "--current-time", at(1), "--resume-from-store", "src", url), lost: true, goneOn: 1,
			before: "cp -a archive0 archive; cp -a copy1 src", home: "home0", after: pointsLater(0, 1), least: 4},
		{name: "compact", args: with("compact", "--volsize", "1", url), before: two, home: "home1", least: 6, journal: true,
			after: func(m *matrix) {
				m.t.Helper()
				points(0, 1)(m)
				m.dupfs(with("remove-all-but-n-full", "1", "--force", url)...)
				m.sh("rm -rf out")
				m.dupfs(with("restore", url, "out")...)
				m.sh("diff -r --no-dereference out copy1")
			}},
		{name: "remove-all-but-n-full", args: with("remove-all-but-n-full", "1", "--force", url), before: three, least: 10, after: removed},
		{name: "remove-older-than", args: with("remove-older-than", at(2), "--force", url), before: three, least: 10, after: removed, long: true},
		{name: "prune", args: with("prune", "--keep-last", "1", "--force", url), before: three, least: 10, after: removed, long: true},
		{name: "cleanup", args: with("cleanup", "--force", url), least: 3,
			before: "cp -a archive2 archive; rm archive/duplicity-inc.*manifest*", after: points(0, 2)},
		{name: "repair", args: with("doctor", "--repair", url), least: 1,
			before: "cp -a archive1 archive; rm archive/duplicity-full.*manifest* archive/duplicity-new-sig*",
			after: func(m *matrix) {
				m.t.Helper()
				points(0, 1)(m)
				if len(m.names()) != len(m.world.archiveNames("archive1", "")) {
					m.t.Errorf("not all is there: %q", m.names())
				}
			}},
		{name: "replicate", args: with("replicate", url, m.copyURL), before: "cp -a archive1 archive", least: 8, long: true,
			after: func(m *matrix) {
				m.t.Helper()
				m.points(m.copyURL, 0, 0, 1)
				if out := m.dupfs(with("cleanup", m.copyURL)...); !strings.Contains(out, "No extraneous files") {
					m.t.Error(out)
				}
			}},
		{name: "retier", args: with("retier", url, "Cool"), before: "cp -a archive1 archive", least: 4, after: points(0, 1), tiers: true},
		{name: "index", args: []string{"index", "--upload", "--no-encryption", url}, least: 5,
			before: "cp -a foreign archive", after: func(m *matrix) {
				m.t.Helper()
				for _, t := range foreignTimes {
					m.sh("rm -rf out")
					m.dupfs("restore", "--no-encryption", "--numeric-owner", "--time", t, url, "out")
					m.sh("diff -r --no-dereference out foreign" + t)
				}
			}},
	}
}

// foreignTimes are the ends of the chains in a fixture of stock's.
var foreignTimes = []string{"1700200000", "1700500000"}

// crashWorld makes the sources and archives that crashes begin with.
func crashWorld(t *testing.T, opts []string) *matrix {
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
	return &matrix{world: w, url: url, copyURL: w.url("copy"), opts: opts}
}

// begin sets a crash up. The local cache is that of the archive's time.
func (m *matrix) begin(c crash) {
	m.t.Helper()
	m.sh("rm -rf src archive copy home out; mkdir home archive; rmdir archive; " + c.before)
	if c.home != "" && m.store == nil {
		m.sh("rm -rf home; cp -a " + c.home + " home")
	}
	if m.store != nil {
		m.fill()
	}
}

// fill makes the stores hold what the directory does, and nothing else.
func (m *matrix) fill() {
	m.t.Helper()
	ctx := context.Background()
	for _, b := range []backends.Backend{m.store, m.copies} {
		files, err := b.List(ctx)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			m.t.Fatal(err)
		}
		for _, f := range files {
			if err := b.Delete(ctx, f.Name); err != nil {
				m.t.Fatal(err)
			}
		}
	}
	for _, path := range m.archiveNames("archive", "") {
		f, err := os.Open(path)
		if err == nil {
			err = m.store.Put(ctx, filepath.Base(path), f)
			f.Close()
		}
		if err != nil {
			m.t.Fatal(err)
		}
	}
}

// names returns the names of all that is stored in the archive.
func (m *matrix) names() (names []string) {
	m.t.Helper()
	if m.store == nil {
		for _, path := range m.archiveNames("archive", "") {
			// A file that was being written is removed by the next write, a day later.
			if name := filepath.Base(path); !strings.HasPrefix(name, ".dupfs-tmp-") {
				names = append(names, name)
			}
		}
		return names
	}
	files, err := m.store.List(context.Background())
	if err != nil {
		m.t.Fatal(err)
	}
	for _, f := range files {
		names = append(names, f.Name)
	}
	return names
}

// rerun runs the command again and looks at what there is then: everything can
// be restored, and nothing is left over but what cleanup removes.
func (m *matrix) rerun(c crash, what string) {
	m.t.Helper()
	args := c.args
	if c.again != nil {
		args = c.again
	}
	if c.lost {
		m.sh("rm -rf home; mkdir home")
	}
	r := m.exec(nil, binary, args...)
	if strings.Contains(r.stdout, "Going on with") {
		m.wentOn++
	}
	if r.code != 0 {
		m.t.Fatalf("%s, %s: run again: exit %d\n%s%s", c.name, what, r.code, r.stdout, r.stderr)
	}
	c.after(m)
	if out := m.dupfs(m.with("status", m.url)...); strings.Contains(out, "damaged") || strings.Contains(out, "incomplete") || strings.Contains(out, "belongs to no set") {
		m.t.Errorf("%s, %s:\n%s", c.name, what, out)
	}
	m.dupfs(m.with("cleanup", "--force", m.url)...)
	m.swept(c.name + ", " + what)
	if left := m.sh("find home -name 'journal*' -o -name verify"); left != "" {
		m.t.Errorf("%s, %s: left in the cache:\n%s", c.name, what, left)
	}
}

// swept makes sure that every stored file is of a set that is complete, and
// that no set has a volume too many.
func (m *matrix) swept(what string) {
	m.t.Helper()
	var files []chain.Stored
	for _, name := range m.names() {
		n, _ := chain.ParseName(name, chain.Prefixes{})
		files = append(files, chain.Stored{Name: n})
	}
	c := chain.Collect(files)
	if len(c.Orphaned)+len(c.Incomplete)+len(c.LooseIndexes)+len(c.LooseSigtars)+len(c.Claims)+len(c.Unknown) > 0 {
		m.t.Errorf("%s: left over: %q", what, m.names())
	}
	for _, ch := range c.Chains {
		for _, s := range ch.Sets {
			if n := m.volumes(s); len(s.Duplicates) > 0 || n >= 0 && len(s.Volumes) != n {
				m.t.Errorf("%s: a set of %d volumes has %v, and %v", what, n, s.Volumes, s.Duplicates)
			}
		}
	}
}

// volumes returns how many volumes the manifest of a set tells of, -1 if it is
// encrypted.
func (m *matrix) volumes(s *chain.Set) int {
	m.t.Helper()
	if s.Manifest.Layer == chain.OpenPGP {
		return -1
	}
	b := m.store
	if b == nil {
		var err error
		if b, err = file.Open(m.path("archive")); err != nil {
			m.t.Fatal(err)
		}
	}
	body, err := b.Open(context.Background(), s.Manifest.File, 0, -1)
	if err != nil {
		m.t.Fatal(err)
	}
	defer body.Close()
	text, err := manifest.Parse(body)
	if err != nil {
		m.t.Fatal(err)
	}
	return len(text.Volumes)
}

// crashesVariable asks for the long form of TestCrashMatrix.
const crashesVariable = "DUPFS_TEST_CRASHES"

// TestCrashMatrix kills commands, with SIGKILL, before and after every call that
// writes to the store, runs them again, and compares every point with the copy
// that was kept of it. DUPFS_TEST_CRASHES=1 makes it with more commands, with
// encryption too, and at system calls that write, wherever they do: at some of
// them, at every one with DUPFS_TEST_CRASHES=all.
func TestCrashMatrix(t *testing.T) {
	layersHere := map[string][]string{"gzip": {"--no-encryption"}}
	long := os.Getenv(crashesVariable) != ""
	if long {
		layersHere["encrypted"] = nil
	}
	for layer, opts := range layersHere {
		t.Run(layer, func(t *testing.T) {
			m := crashWorld(t, opts)
			for _, c := range m.crashes() {
				if c.tiers || c.long && !long {
					continue
				}
				t.Run(c.name, func(t *testing.T) {
					m.world.t, m.wentOn = t, 0
					n := m.killed(c)
					calls := 0
					if long {
						calls = m.traced(c)
					}
					if m.wentOn < c.goneOn {
						t.Errorf("gone on with %d times", m.wentOn)
					}
					t.Logf("killed at %d places, %d of them system calls", n+calls, calls)
				})
			}
			m.world.t = t
		})
	}
}

// TestCrashesOnStores is TestCrashMatrix on real servers, in its long form only.
func TestCrashesOnStores(t *testing.T) {
	if os.Getenv(crashesVariable) == "" {
		t.Skip(crashesVariable + " is not set: it takes long")
	}
	for _, s := range storesUnderTest(t) {
		if s.name != "swift" && s.name != "azure" && s.name != "s3" {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			m := crashWorld(t, []string{"--no-encryption"})
			m.env = append(m.env, s.env...)
			m.opts = append(m.opts, s.opts...)
			m.url = fmt.Sprintf(s.url, fmt.Sprint("crash-", os.Getpid()))
			m.copyURL = fmt.Sprintf(s.url, fmt.Sprint("crash-copy-", os.Getpid()))
			m.store, m.copies = m.opened(s, m.url), m.opened(s, m.copyURL)
			for _, c := range m.crashes() {
				if c.tiers && s.name != "azure" || c.name == "index" {
					continue
				}
				t.Run(c.name, func(t *testing.T) {
					m.world.t = t
					n := m.killed(c)
					calls := 0
					if os.Getenv(crashesVariable) == "all" {
						calls = m.tracedAt(c, "write")
					}
					t.Logf("killed at %d places, %d of them writes to files and sockets", n+calls, calls)
				})
			}
			m.world.t = t
		})
	}
}

// opened opens a store of the test's own.
func (m *matrix) opened(s storeUnderTest, url string) backends.Backend {
	m.t.Helper()
	o := all.Options{Getenv: func(name string) string {
		for _, v := range s.env {
			if value, ok := strings.CutPrefix(v, name+"="); ok {
				return value
			}
		}
		return ""
	}}
	if s.name == "s3" {
		o.S3.Endpoint, o.S3.Region = server(m.t, "S3_ENDPOINT"), "us-east-1"
	}
	b, err := all.Open(context.Background(), url, o)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { backends.Close(b) })
	return b
}

// killed kills a command at each call to the store and returns how many times.
func (m *matrix) killed(c crash) (times int) {
	m.t.Helper()
	self, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	for _, when := range []string{"before", "after"} {
		if when == "after" && !c.journal && os.Getenv(crashesVariable) == "" {
			break // as before the next one
		}
		for n := 1; ; n++ {
			m.begin(c)
			what := fmt.Sprintf("%s %d", when, n)
			r := m.exec([]string{dyingVariable + "=" + what}, self, c.args...)
			if r.code == 0 {
				if n <= c.least {
					m.t.Errorf("%s: only %d places to be killed at", c.name, n-1)
				}
				break
			}
			if r.code != -1 {
				m.t.Fatalf("%s, %s: exit %d\n%s", c.name, what, r.code, r.stderr)
			}
			times++
			m.rerun(c, what)
		}
	}
	return times
}

// traced kills a command at system calls that write, counted for each thread by
// strace, and returns how many times.
func (m *matrix) traced(c crash) (times int) {
	m.t.Helper()
	for _, call := range []string{"write", "pwrite64", "fsync", "fdatasync", "ftruncate", "renameat,renameat2,rename", "unlinkat,unlink", "openat"} {
		times += m.tracedAt(c, call)
	}
	return times
}

// tracedAt is traced for one kind of system call.
func (m *matrix) tracedAt(c crash, call string) (times int) {
	m.t.Helper()
	strace := need.Program(m.t, "strace")
	step := func(n int) int { return n/2 + 1 }
	if os.Getenv(crashesVariable) == "all" {
		step = func(int) int { return 1 }
	}
	for n, misses := 1, 0; n < 500 && misses < 3; n += step(n) {
		m.begin(c)
		args := append([]string{"-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call, "-e",
			fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n), binary}, c.args...)
		cmd := exec.Command(strace, args...)
		cmd.Dir, cmd.Env = m.dir, m.env
		out, err := cmd.CombinedOutput()
		if err == nil {
			misses++
			continue
		}
		if !strings.Contains(err.Error(), "killed") {
			m.t.Fatalf("%s, %s %d: %v\n%s", c.name, call, n, err, out)
		}
		times++
		m.sh("rm -rf tmp; mkdir -m 700 tmp")
		m.rerun(c, fmt.Sprintf("%s %d", call, n))
	}
	return times
}

// --resume-from-store removes nothing of a set that may have been whole, nor of
// one that it cannot go on with: what is left may be the only copy.
func TestResumeFromStoreKeeps(t *testing.T) {
	for what, spoil := range map[string]string{
		"lost its manifest":                                       "rm *manifest*",
		"is built on":                                             "rm *full*manifest* *full-signatures* dupfs-index*; ls *inc*vol1*",
		"has a damaged first one":                                 "find . -type f ! -name '*.vol*' -delete; rm -f *inc*; truncate -s -100 *.vol1.*",
		"is of another kind of key":                               "find . -type f ! -name '*.vol*' -delete; rm -f *inc*",
		"is an increment, and a full one is asked for":            "rm *inc*manifest*",
		"is an unfinished increment, and a full one is asked for": "rm *inc*manifest* *new-signatures* dupfs-index.*.to.*; ls *inc*vol1*",
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			url := w.url("archive")
			w.sh("mkdir src; head -c 2500000 /dev/urandom > src/big; echo x > src/a")
			w.dupfs("full", "--volsize", "1", "--no-encryption", "--current-time", at(0), "src", url)
			w.sh("echo y > src/b")
			w.dupfs("incremental", "--no-encryption", "--current-time", at(1), "src", url)
			w.sh("cd archive; " + spoil + "; cd ..; rm -r home; mkdir home; cp -a archive before")
			args := []string{"full", "--no-encryption", "--resume-from-store", "--current-time", at(5), "src", url}
			if what == "is of another kind of key" {
				args = slices.Delete(args, 1, 2)
			}
			w.dupfs(args...)
			w.sh("cd before; for f in *; do cmp $f ../archive/$f || exit 1; done")
			if left := w.sh("find home -name 'journal*'"); left != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
}
