//go:build linux

package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"dupfs/chain"
	"dupfs/chain/chaintest"

	"golang.org/x/sys/unix"
)

// pattern is a content that can be computed anywhere.
type pattern struct{ seed, size int64 }

func (p pattern) at(off int64) byte {
	return byte(uint64(off+p.seed) * 0x9e3779b97f4a7c15 >> 56)
}

func (p pattern) Size() int64 { return p.size }

func (p pattern) ReadAt(ctx context.Context, b []byte, off int64) (int, error) {
	n := int(max(0, min(int64(len(b)), p.size-off)))
	for i := range b[:n] {
		b[i] = p.at(off + int64(i))
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// TestRandomReads reads anywhere in several files, by many readers at once,
// some of them past the page cache's back with O_DIRECT.
func TestRandomReads(t *testing.T) {
	sizes := []int64{0, 1, 4095, 4096, 4097, 1<<20 - 1, 3<<20 + 77}
	var items []chaintest.Item
	for i, size := range sizes {
		items = append(items, chaintest.Big(fmt.Sprint(i), pattern{int64(i), size}))
	}
	dir := only(t, mount(t, chaintest.New(chaintest.Point{Items: items}), Options{}))
	var readers sync.WaitGroup
	for r := range 16 {
		readers.Go(func() {
			for range 15 {
				i := rand.IntN(len(sizes))
				if err := readSome(fmt.Sprintf("%s/%d", dir, i), pattern{int64(i), sizes[i]}, r%4 == 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	readers.Wait()
}

func readSome(name string, want pattern, direct bool) error {
	flags := os.O_RDONLY
	if direct {
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(name, flags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for range 5 {
		off, buf := rand.Int64N(want.size+10), make([]byte, rand.IntN(300_000))
		n, err := f.ReadAt(buf, off)
		if err != nil && err != io.EOF || int64(n) != max(0, min(int64(len(buf)), want.size-off)) {
			return fmt.Errorf("%s: %d bytes of %d at %d: %v", name, n, len(buf), off, err)
		}
		for i, c := range buf[:n] {
			if c != want.at(off+int64(i)) {
				return fmt.Errorf("%s: wrong byte at %d", name, off+int64(i))
			}
		}
	}
	return nil
}

// TestMmap reads through a mapping.
func TestMmap(t *testing.T) {
	want := pattern{3, 1<<20 + 5}
	dir := only(t, mount(t, chaintest.New(chaintest.Point{Items: []chaintest.Item{chaintest.Big("f", want)}}), Options{}))
	sh(t, dir, `test "$(cmp f "$1" | wc -c)" = 0`, writeTemp(t, want))
	f, err := os.Open(dir + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, int(want.size), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	for i, c := range b {
		if c != want.at(int64(i)) {
			t.Fatalf("wrong byte at %d", i)
		}
	}
}

func writeTemp(t testing.TB, c chain.Content) string {
	t.Helper()
	b := make([]byte, c.Size())
	if _, err := c.ReadAt(context.Background(), b, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	name := t.TempDir() + "/f"
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestDamage: what is damaged is EIO, with the reason in the log, once; all
// else is read.
func TestDamage(t *testing.T) {
	f := chaintest.New(chaintest.Point{Items: []chaintest.Item{
		chaintest.File("good", "good"), chaintest.Big("bad", pattern{1, 8 << 20}), chaintest.File("missing", "x"),
		chaintest.File("late", "x"),
	}})
	f.Wrap = func(n chain.Node, c chain.Content) chain.Content {
		switch n.Name {
		case "bad":
			return chaintest.Faulty{Content: c, Off: 6 << 20, Err: chain.Corrupt("volume 3", "chunk 9: hash mismatch")}
		case "missing":
			return chaintest.Faulty{Content: c, Err: fmt.Errorf("volume 4: %w", fs.ErrNotExist)}
		case "late":
			return chaintest.Slow{Content: c, Delay: time.Hour}
		}
		return c
	}
	book := new(logBook)
	dir := only(t, mount(t, f, Options{Log: book.log, Timeout: 300 * time.Millisecond}))
	for range 3 {
		if got, err := os.ReadFile(dir + "/good"); err != nil || string(got) != "good" {
			t.Errorf("good: %q, %v", got, err)
		}
		got, err := os.ReadFile(dir + "/bad")
		if !errors.Is(err, unix.EIO) || len(got) > 6<<20 {
			t.Errorf("bad: %d bytes, %v", len(got), err)
		}
		for i, c := range got {
			if c != (pattern{1, 8 << 20}).at(int64(i)) {
				t.Fatalf("bad: wrong byte at %d", i)
			}
		}
		for _, name := range []string{"missing", "late"} {
			if _, err := os.ReadFile(dir + "/" + name); !errors.Is(err, unix.EIO) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	for _, line := range []string{
		`read "bad": volume 3: chunk 9: hash mismatch`, `read "missing": volume 4: file does not exist`,
		`read "late": context deadline exceeded`,
	} {
		if strings.Count(book.String(), line) != 1 {
			t.Errorf("want once %q in\n%s", line, book)
		}
	}
}

// gate is a content whose reads wait until it is opened.
type gate struct {
	chain.Content
	waits chan struct{} // gets one for each read that waits
	open  chan struct{}
}

func (g gate) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := g.wait(ctx); err != nil {
		return 0, err
	}
	return g.Content.ReadAt(ctx, p, off)
}

func (g gate) wait(ctx context.Context) error {
	select {
	case g.waits <- struct{}{}:
	default:
	}
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// slowForest is a forest whose look-ups of names in " slow" wait at a gate.
type slowForest struct {
	*chaintest.Forest
	g gate
}

func (f *slowForest) Tree(ctx context.Context, n uint32) (chain.Tree, error) {
	t, err := f.Forest.Tree(ctx, n)
	return slowTree{t, f.g}, err
}

type slowTree struct {
	chain.Tree
	g gate
}

func (s slowTree) Lookup(ctx context.Context, dir uint64, name string) (chain.Node, error) {
	if strings.HasSuffix(name, " slow") {
		if err := s.g.wait(ctx); err != nil {
			return chain.Node{}, err
		}
	}
	return s.Tree.Lookup(ctx, dir, name)
}

// gated mounts a file whose reads, and one whose look-up, wait at a gate.
func gated(t *testing.T) (string, gate) {
	t.Helper()
	g := gate{waits: make(chan struct{}, 1), open: make(chan struct{})}
	f := chaintest.New(chaintest.Point{Items: []chaintest.Item{chaintest.File("f", "content"), chaintest.File("f slow", "")}})
	f.Wrap = func(n chain.Node, c chain.Content) chain.Content {
		return gate{c, g.waits, g.open}
	}
	return only(t, mount(t, &slowForest{f, g}, Options{})) + "/f", g
}

// TestStopped: who waits for a read or a look-up can be stopped, at once. With
// the page cache between, the kernel itself lets only SIGKILL through, which
// is what becomes of other signals that are not caught.
func TestStopped(t *testing.T) {
	programs := map[string][]string{"cat": {"cat"}, "direct": {"dd", "iflag=direct", "of=/dev/null"}, "stat": {"stat"}}
	for program, args := range programs {
		for _, sig := range []os.Signal{unix.SIGKILL, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT} {
			if program == "cat" && sig == unix.SIGQUIT {
				continue
			}
			t.Run(program+" "+sig.String(), func(t *testing.T) {
				name, g := gated(t)
				if program == "stat" {
					name += " slow"
				} else if program == "direct" {
					name = "if=" + name
				}
				cmd := exec.Command(args[0], append(args[1:], name)...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				<-g.waits
				if err := cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				if err := cmd.Wait(); err == nil {
					t.Error("it was not stopped")
				}
			})
		}
	}
}

// TestSignalled: signals that do not ask a program to stop disturb neither its
// reads nor its look-ups.
func TestSignalled(t *testing.T) {
	for what, do := range map[string]string{
		"cached": `sysopen(F, $f, 0) or die; $r = sysread(F, $b, 100);`,
		"direct": `sysopen(F, $f, 0x4000) or die; $r = sysread(F, $b, 100);`,
		"stat":   `@s = stat("$f slow"); $r = 1 if @s; $b = "content";`,
	} {
		t.Run(what, func(t *testing.T) {
			name, g := gated(t)
			cmd := exec.Command("perl", "-e", `$f = $ARGV[0]; $n = 0;
				$SIG{USR1} = sub { $n++ }; $SIG{ALRM} = sub { $n++ }; $SIG{CHLD} = sub { $n++ };`+do+
				`print defined $r ? "read $b" : "error $!", $n ? " signalled" : " in peace"`, name)
			var out strings.Builder
			cmd.Stdout = &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-g.waits
			for range 50 {
				cmd.Process.Signal(unix.SIGUSR1)
				cmd.Process.Signal(unix.SIGALRM)
				cmd.Process.Signal(unix.SIGCHLD)
				time.Sleep(5 * time.Millisecond) // longer in all than a caller is left alone
			}
			close(g.open)
			if err := cmd.Wait(); err != nil || out.String() != "read content signalled" {
				t.Errorf("it said %q, %v", out.String(), err)
			}
		})
	}
}

func TestStopPending(t *testing.T) {
	status := func(thread, shared, blocked uint64) string {
		return fmt.Sprintf("Name:\tx\nSigQ:\t0/1\nSigPnd:\t%016x\nShdPnd:\t%016x\nSigBlk:\t%016x\nSigIgn:\t0\n", thread, shared, blocked)
	}
	bit := func(s unix.Signal) uint64 { return 1 << (s - 1) }
	for _, c := range []struct {
		status          string
		stopping, known bool
	}{
		{status(0, 0, 0), false, true},
		{status(bit(unix.SIGKILL), 0, 0), true, true},
		{status(0, bit(unix.SIGINT), 0), true, true},
		{status(0, bit(unix.SIGINT), bit(unix.SIGINT)), false, true},
		{status(bit(unix.SIGURG), bit(unix.SIGALRM), 0), false, true},
		{status(bit(unix.SIGURG)|bit(unix.SIGTERM), 0, 0), true, true},
		{"Name:\tx\nSigPnd:\tz\n", false, false},
		{"", false, false},
	} {
		if stopping, known := stopPending([]byte(c.status)); stopping != c.stopping || known != c.known {
			t.Errorf("%q: %v, %v", c.status, stopping, known)
		}
	}
}

// TestRequest checks the context of a request.
func TestRequest(t *testing.T) {
	base, stopBase := context.WithCancel(context.Background())
	f := newFileSystem(base, chaintest.New(), Options{Timeout: 20 * time.Millisecond}.withDefaults())
	r := f.begin(nil, 0)
	<-r.Done()
	if r.Err() != context.DeadlineExceeded {
		t.Errorf("after its time: %v", r.Err())
	}
	r.end()
	f.opts.Timeout = time.Hour
	interrupt := make(chan struct{})
	r = f.begin(interrupt, 0)
	child, stop := context.WithCancel(r)
	close(interrupt)
	time.Sleep(2 * pollCaller)
	if r.Err() != nil || child.Err() != nil {
		t.Errorf("interrupted by a caller that is not known: %v, %v", r.Err(), child.Err())
	}
	stop()
	r.end()
	r = f.begin(interrupt, 0)
	r.giveUp = true
	<-r.Done()
	if r.Err() != context.Canceled {
		t.Errorf("interrupted where it gives up: %v", r.Err())
	}
	r.end()
	r = f.begin(nil, 0)
	if r.Err() != nil {
		t.Error(r.Err())
	}
	stopBase()
	if r.Err() != context.Canceled {
		t.Errorf("after the mount has gone: %v", r.Err())
	}
	<-r.Done()
	r.end()
}
