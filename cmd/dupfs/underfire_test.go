package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// battlefield is a mount on Swift that is read while the archive changes and the
// network fails.
type battlefield struct {
	*world
	t      *testing.T
	direct []string // environment of commands that do not go over the wire
	url    string
	mnt    string

	mu     sync.Mutex
	points map[int64]string // copies, by time
	reads  int
	failed int
	slow   time.Duration
}

// A mount is read by four readers while backups and removals go on and the network
// fails in every way: no wrong byte, no wait beyond what the time limits allow, and
// once the network is back everything is as it was. It is short; DUPFS_SOAK=10m
// makes it long.
func TestMountUnderFire(t *testing.T) {
	limit, err := time.ParseDuration(os.Getenv("DUPFS_SOAK"))
	if err != nil {
		limit = 5 * time.Second
	}
	login, err := url.Parse(server(t, "SWIFT_AUTHURL"))
	if err != nil {
		t.Fatal(err)
	}
	b := &battlefield{world: newWorld(t), t: t, points: map[int64]string{}, direct: swiftEnv(t, "")}
	b.url = fmt.Sprintf("swift://fire-%d", os.Getpid())
	line := newWire(t, "fire", login)
	b.sh("mkdir src copies")
	r := rand.New(rand.NewPCG(uint64(limit), 3))
	for n := range 3 {
		b.backup(r, n, "backup")
	}
	home := b.env
	b.env = append(slices.Clone(home), swiftEnv(t, line.address)...)
	// Little cache, so that the network is needed, and one of its own: what is
	// removed must not be held by the mount's lease here.
	mnt, unmount := b.mount(b.url, append([]string{"--memory", "2M", "--cache-size", "2M", "--archive-dir", b.path("cache")}, impatient...)...)
	b.mnt, b.env = mnt, home
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for i := range 4 {
		readers.Go(func() { b.reader(rand.New(rand.NewPCG(uint64(i), 9)), stop) })
	}
	for n, end := 3, time.Now().Add(limit); time.Now().Before(end) && !t.Failed(); n++ {
		f := faults[r.IntN(len(faults))]
		mend := line.fault(f.toxics)
		b.backup(r, n, []string{"backup", "backup", "full"}[r.IntN(3)])
		if r.IntN(3) == 0 {
			b.thin()
		}
		time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
		mend()
		time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
	}
	close(stop)
	readers.Wait()
	t.Logf("%d reads, %d failed, the slowest took %v, %d points", b.reads, b.failed, b.slow, len(b.points))
	if b.reads == b.failed || b.slow > faultTime {
		t.Errorf("%d of %d reads failed, the slowest took %v", b.failed, b.reads, b.slow)
	}
	for at, dir := range b.points {
		point := filepath.Join(mnt, "snapshots", time.Unix(at, 0).UTC().Format(time.RFC3339))
		if _, err := os.Stat(point); errors.Is(err, fs.ErrNotExist) {
			continue // newer than the last listing
		}
		same(t, fmt.Sprint("in the end, ", at), point, dir)
	}
	unmount()
}

// backup makes a set, not over the wire, and keeps a copy.
func (b *battlefield) backup(r *rand.Rand, n int, verb string) {
	b.t.Helper()
	b.mutate(r, 8)
	at := epoch + int64(n)*3600
	// Whole seconds, and a copy that is there before the point is.
	b.sh(fmt.Sprintf("find src -newermt @%d -exec touch -h -d @%d {} + ; cp -a src copies/%d", at, at-1800, at))
	res := b.exec(b.direct, binary, verb, "--volsize", "1", "--current-time", fmt.Sprint(at), "src", b.url)
	if res.code != 0 {
		b.t.Fatalf("%s: exit %d: %s", res.line, res.code, res.stderr)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.points[at] = b.path("copies", fmt.Sprint(at))
}

// thin removes all chains but two.
func (b *battlefield) thin() {
	b.t.Helper()
	res := b.exec(b.direct, binary, "remove-all-but-n-full", "2", "--force", b.url)
	if res.code != 0 {
		b.t.Fatalf("%s: exit %d: %s", res.line, res.code, res.stderr)
	}
	status := b.exec(b.direct, binary, "status", b.url)
	b.mu.Lock()
	defer b.mu.Unlock()
	for at := range b.points {
		if status.code == 0 && !strings.Contains(status.stdout, time.Unix(at, 0).UTC().Format(time.RFC3339)) {
			delete(b.points, at)
		}
	}
}

// reader reads ranges until stop.
func (b *battlefield) reader(r *rand.Rand, stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		b.mu.Lock()
		var times []int64
		for at := range b.points {
			times = append(times, at)
		}
		slices.Sort(times)
		at := times[r.IntN(len(times))]
		dir := b.points[at]
		b.mu.Unlock()
		began := time.Now()
		err := b.rangeOf(r, filepath.Join(b.mnt, "snapshots", time.Unix(at, 0).UTC().Format(time.RFC3339)), dir)
		took := time.Since(began)
		b.mu.Lock()
		b.slow = max(b.slow, took)
		b.reads++
		if err != nil {
			b.failed++
		}
		_, there := b.points[at]
		b.mu.Unlock()
		switch {
		case err == nil, errors.Is(err, unix.EIO), errors.Is(err, fs.ErrNotExist):
			// The network, or a point that is gone or not listed yet.
		case there:
			b.t.Errorf("point %d: %v", at, err)
			return
		}
	}
}

// rangeOf reads a range of some file and compares it.
func (b *battlefield) rangeOf(r *rand.Rand, point, dir string) error {
	var files []string
	_ = filepath.Walk(dir, func(p string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			files = append(files, p)
		}
		return nil
	})
	name := files[r.IntN(len(files))]
	whole, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	rel, _ := filepath.Rel(dir, name)
	f, err := os.Open(filepath.Join(point, rel))
	if err != nil {
		return err
	}
	defer f.Close()
	off := r.IntN(len(whole) + 1)
	buf := make([]byte, 1+r.IntN(200_000))
	n, err := f.ReadAt(buf, int64(off))
	if !bytes.Equal(buf[:n], whole[off:min(off+n, len(whole))]) {
		return fmt.Errorf("%s: %d bytes at %d are wrong", rel, n, off)
	}
	if err == io.EOF && off+n == len(whole) {
		err = nil
	}
	return err
}
