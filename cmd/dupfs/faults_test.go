package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// faults are what a network does. sound: it must not keep a command from
// success; down: it must.
var faults = []struct {
	name        string
	toxics      []toxic
	sound, down bool
}{
	{name: "latency", sound: true, toxics: []toxic{
		{"latency", "downstream", map[string]int{"latency": 30, "jitter": 10}}}},
	{name: "bandwidth", sound: true, toxics: []toxic{
		{"bandwidth", "downstream", map[string]int{"rate": 2000}}, {"bandwidth", "upstream", map[string]int{"rate": 2000}}}},
	{name: "small pieces", sound: true, toxics: []toxic{
		{"slicer", "downstream", map[string]int{"average_size": 1000, "size_variation": 500, "delay": 10}}}},
	{name: "bodies cut short", sound: true, toxics: []toxic{
		{"limit_data", "downstream", map[string]int{"bytes": 700_000}}}},
	{name: "uploads cut short", toxics: []toxic{
		{"limit_data", "upstream", map[string]int{"bytes": 300_000}}}},
	{name: "reset in a body", toxics: []toxic{
		{"bandwidth", "downstream", map[string]int{"rate": 1000}}, {"bandwidth", "upstream", map[string]int{"rate": 1000}},
		{"reset_peer", "downstream", map[string]int{"timeout": 400}}}},
	{name: "answers lost", down: true, toxics: []toxic{
		{"timeout", "downstream", map[string]int{"timeout": 500}}}},
	{name: "silence", down: true, toxics: []toxic{
		{"timeout", "downstream", map[string]int{"timeout": 0}}}},
	{name: "refused", down: true},
}

// impatient are options with which a command gives up soon.
var impatient = []string{"--timeout", "2", "--num-retries", "4", "--backend-retry-delay", "0.2"}

// faultTime is what a command may take at the very most until it gives up.
const faultTime = 2 * time.Minute

// Whatever the network does: the result is right, or there is a clear error in
// bounded time, and nothing half-written counts as done.
func TestFaults(t *testing.T) {
	for _, store := range []string{"swift", "azure"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			testFaults(t, store)
		})
	}
}

// faultyStore returns a world that reaches a store at an address, and the
// URL of an archive there.
func faultyStore(t *testing.T, store, address, name string) (*world, string) {
	w := newWorld(t)
	if store == "swift" {
		w.env = append(w.env, swiftEnv(t, address)...)
	} else {
		w.env = append(w.env, azureEnv(t, address)...)
	}
	return w, fmt.Sprintf("%s://%s-%d", store, name, os.Getpid())
}

// realServer returns where a store really is.
func realServer(t *testing.T, store string) *url.URL {
	t.Helper()
	return upstream(t, server(t, map[string]string{"swift": "SWIFT_AUTHURL", "azure": "AZURITE"}[store]))
}

func testFaults(t *testing.T, store string) {
	line := newWire(t, store, realServer(t, store))
	w, target := faultyStore(t, store, line.address, "faults")
	w.sh("mkdir src; for i in 0 1 2 3 4 5 6 7 8; do head -c 500000 /dev/urandom > src/file$i; done")
	w.dupfs("full", "--volsize", "1", "--current-time", at(0), "src", target)
	mnt, unmount := w.mount(target, append([]string{"--cache-size", "0"}, impatient...)...)
	for i, f := range faults {
		if testing.Verbose() {
			t.Logf("%s: %s", store, f.name)
		}
		mend := line.fault(f.toxics)
		restored := w.tried(f.name, "restore", target, "out", "--cache-size", "0")
		w.readMount(f.name, filepath.Join(mnt, "snapshots/2023-11-14T22:13:20Z", fmt.Sprint("file", i)), w.path("src", fmt.Sprint("file", i)))
		w.sh(fmt.Sprintf("head -c 1500000 /dev/urandom > src/new%d", i))
		stored := w.tried(f.name, "--volsize", "1", "--current-time", at(i+1), "src", target)
		mend()
		if f.sound && !(restored && stored) || f.down && (restored || stored) {
			t.Errorf("%s: restored %v, stored %v", f.name, restored, stored)
		}
		if restored {
			w.sh("rm -f src/file_; diff -r --exclude='new*' out src")
		}
		w.sh("rm -rf out")
		if !stored {
			w.afterFailure(f.name, target, i)
		}
	}
	unmount()
	w.env = append(w.env, "XDG_CACHE_HOME="+w.path("fresh"))
	w.dupfs("cleanup", "--force", target)
	w.dupfs("restore", target, "end")
	w.sh("diff -r end src")
	w.dupfs("verify", "--compare-data", target, "src")
}

// tried runs dupfs, which may fail, but soon, clearly, and with nothing left.
func (w *world) tried(fault string, args ...string) bool {
	w.t.Helper()
	began := time.Now()
	r := w.exec(nil, binary, append(args, impatient...)...)
	if took := time.Since(began); took > faultTime {
		w.t.Errorf("%s: %s took %v", fault, r.line, took)
	}
	if r.code == 0 {
		return true
	}
	if testing.Verbose() {
		w.t.Logf("%s: exit %d: %s", r.line, r.code, r.stderr)
	}
	clear := r.code == exitBackend || r.code == exitConnection || r.code == exitDamaged
	if !clear || !strings.Contains(r.stderr, "dupfs: ") || !strings.Contains(r.stderr, "hint: ") || strings.Contains(r.stderr, "goroutine ") {
		w.t.Errorf("%s: %s: exit %d\n%s", fault, r.line, r.code, r.stderr)
	}
	return false
}

// readMount reads a file of a mount: right, or EIO.
func (w *world) readMount(fault, name, want string) {
	w.t.Helper()
	began := time.Now()
	got, err := os.ReadFile(name)
	if took := time.Since(began); took > faultTime {
		w.t.Errorf("%s: a read took %v", fault, took)
	}
	if err != nil {
		if !strings.Contains(err.Error(), "input/output error") {
			w.t.Errorf("%s: %v", fault, err)
		}
		// It is not for ever.
		return
	}
	if right, rerr := os.ReadFile(want); rerr != nil || !bytes.Equal(got, right) {
		w.t.Errorf("%s: the mount has other bytes", fault)
	}
}

// afterFailure looks at an archive to which a backup failed, and makes it.
func (w *world) afterFailure(fault, target string, i int) {
	w.t.Helper()
	if out := w.dupfs("status", target); strings.Contains(out, "damaged") {
		w.t.Errorf("%s: after the failure:\n%s", fault, out)
	}
	w.dupfs("--volsize", "1", "--current-time", fmt.Sprint(epoch+(i+1)*86400+3600), "src", target)
	if out := w.dupfs("ls", target); !strings.Contains(out, fmt.Sprint("new", i)) {
		w.t.Errorf("%s: the backup after the failure lacks something:\n%s", fault, out)
	}
}

// storm stands before a server and answers some requests by itself.
type storm struct {
	mu     sync.Mutex
	n      int
	every  int // which requests: 1 all, 3 each third
	status int
	after  string               // Retry-After
	failed map[string]time.Time // when a request of this kind was refused
	soon   []string             // which came back before the time it was told
	tries  map[string]int
	next   http.Handler
}

func (s *storm) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key := r.Method + " " + r.URL.Path + " " + r.Header.Get("Range")
	s.mu.Lock()
	s.n++
	refuse := s.every > 0 && s.n%s.every == 0
	if at, ok := s.failed[key]; ok && s.after == "1" && time.Since(at) < 900*time.Millisecond {
		s.soon = append(s.soon, key)
	}
	delete(s.failed, key)
	status, after := s.status, s.after
	if refuse {
		s.failed[key] = time.Now()
		s.tries[key]++
	}
	s.mu.Unlock()
	if !refuse {
		s.next.ServeHTTP(w, r)
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	if after != "" {
		w.Header().Set("Retry-After", after)
	}
	http.Error(w, "a storm", status)
}

// set begins another storm.
func (s *storm) set(every, status int, after string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n, s.every, s.status, s.after = 0, every, status, after
	s.failed, s.tries, s.soon = map[string]time.Time{}, map[string]int{}, nil
}

// seen returns the most tries of one request, and what came too soon.
func (s *storm) seen() (most int, soon []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.tries {
		most = max(most, n)
	}
	return most, s.soon
}

// Servers that are overloaded are asked again, no sooner than they say and no
// more often than --num-retries; --verbosity info tells of it.
func TestStorms(t *testing.T) {
	for _, store := range []string{"swift", "azure"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			testStorms(t, store)
		})
	}
}

func testStorms(t *testing.T, store string) {
	s := &storm{next: reverse(realServer(t, store))}
	s.set(0, 0, "")
	front := httptest.NewServer(s)
	t.Cleanup(front.Close)
	w, target := faultyStore(t, store, front.Listener.Addr().String(), "storms")
	w.sh("mkdir src; head -c 2500000 /dev/urandom > src/file")
	w.dupfs("full", "--volsize", "1", "--current-time", at(0), "src", target)
	options := []string{"--num-retries", "4", "--backend-retry-delay", "0.1", "--timeout", "5", "--verbosity", "info"}
	for i, storm := range []struct {
		status int
		every  int
		after  string
	}{{500, 3, ""}, {503, 7, "1"}, {429, 9, "1"}} {
		s.set(storm.every, storm.status, storm.after)
		w.sh(fmt.Sprintf("rm -rf out; head -c 1500000 /dev/urandom > src/new%d", i))
		r := w.exec(nil, binary, append([]string{"--volsize", "1", "--current-time", at(i + 1), "src", target}, options...)...)
		if r.code != 0 || !strings.Contains(r.stderr, "note: ") || !strings.Contains(r.stderr, "try 1 failed, next in ") {
			t.Errorf("%d: backup: exit %d\n%s", storm.status, r.code, r.stderr)
		}
		r = w.exec([]string{"XDG_CACHE_HOME=" + w.path(fmt.Sprint("cache", i))}, binary, append([]string{"restore", target, "out"}, options...)...)
		if r.code != 0 {
			t.Errorf("%d: restore: exit %d\n%s", storm.status, r.code, r.stderr)
		} else {
			w.sh("diff -r out src")
		}
		if _, soon := s.seen(); len(soon) > 0 {
			t.Errorf("%d: asked again too soon: %v", storm.status, soon)
		}
	}
	// One that does not end.
	s.set(1, http.StatusServiceUnavailable, "")
	w.tried("storm", "--current-time", at(9), "src", target)
	r := w.exec(nil, binary, append([]string{"--current-time", at(9), "src", target}, options...)...)
	if most, _ := s.seen(); r.code == 0 || most != 4+4 {
		t.Errorf("exit %d, %d tries; want 4 and 4\n%s", r.code, most, r.stderr)
	}
	s.set(0, 0, "")
	if out := w.dupfs("status", target); strings.Contains(out, "damaged") || strings.Contains(out, "incomplete") {
		t.Errorf("status:\n%s", out)
	}
}

// breaker stands before a server and breaks off the transfer of volumes in the
// middle.
type breaker struct {
	mu     sync.Mutex
	method string // GET or PUT; "" breaks nothing
	hang   bool   // says nothing more, instead of closing the connection
	left   int    // how many it breaks; -1 all
	broken int
	done   chan struct{} // closed at the end of the test
	next   *httputil.ReverseProxy
}

func (b *breaker) set(method string, hang bool, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.method, b.hang, b.left, b.broken = method, hang, n, 0
}

// breaks reports whether a request is to be broken.
func (b *breaker) breaks(r *http.Request) (yes, hang bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.method == "" || r.Method != b.method || b.left == 0 || !strings.Contains(r.URL.Path, ".difftar") {
		return false, false
	}
	b.left--
	b.broken++
	return true, b.hang
}

func (b *breaker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	yes, hang := b.breaks(r)
	if !yes {
		b.next.ServeHTTP(w, r)
		return
	}
	if r.Method == http.MethodPut {
		_, _ = io.CopyN(io.Discard, r.Body, r.ContentLength/2)
	} else {
		rec := httptest.NewRecorder()
		b.next.ServeHTTP(rec, r)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()[:rec.Body.Len()/2])
		_ = http.NewResponseController(w).Flush()
	}
	if hang {
		select {
		case <-r.Context().Done(): // not for an upload, whose body was not read to its end
		case <-b.done:
		}
	}
	panic(http.ErrAbortHandler)
}

// Transfers of volumes that break off, or stop, in the middle are repeated; if
// that goes on the command fails and nothing half-written counts.
func TestBrokenTransfers(t *testing.T) {
	for _, store := range []string{"swift", "azure"} {
		t.Run(store, func(t *testing.T) {
			t.Parallel()
			testBroken(t, store)
		})
	}
}

func testBroken(t *testing.T, store string) {
	b := &breaker{done: make(chan struct{}), next: reverse(realServer(t, store))}
	front := httptest.NewServer(b)
	t.Cleanup(front.Close)
	t.Cleanup(func() { close(b.done) })
	w, target := faultyStore(t, store, front.Listener.Addr().String(), "broken")
	w.sh("mkdir src; head -c 2500000 /dev/urandom > src/file")
	w.dupfs("full", "--volsize", "1", "--current-time", at(0), "src", target)
	for i, hang := range []bool{false, true} {
		w.sh(fmt.Sprintf("rm -rf out; head -c 1500000 /dev/urandom > src/new%d", i))
		backup := []string{"--volsize", "1", "--current-time", at(2*i + 1), "src", target}
		b.set(http.MethodPut, hang, -1)
		if w.tried("broken uploads", backup...) || b.broken < 4 {
			t.Errorf("hang %v: stored, or broken only %d times", hang, b.broken)
		}
		b.set("", false, 0)
		if out := w.dupfs("status", target); strings.Contains(out, "damaged") || strings.Contains(out, ".difftar") {
			t.Errorf("after broken uploads:\n%s", out)
		}
		b.set(http.MethodPut, hang, 2)
		backup[3] = at(2*i + 2)
		if !w.tried("two broken uploads", backup...) || b.broken != 2 {
			t.Errorf("hang %v: not stored, or broken %d times", hang, b.broken)
		}
		b.set(http.MethodGet, hang, 2)
		if !w.tried("two broken downloads", "restore", target, "out", "--cache-size", "0") || b.broken != 2 {
			t.Errorf("hang %v: not restored, or broken %d times", hang, b.broken)
		} else {
			w.sh("diff -r out src")
		}
		b.set(http.MethodGet, hang, -1)
		if w.tried("broken downloads", "restore", "--force", target, "out", "--cache-size", "0") {
			t.Errorf("hang %v: restored from nothing", hang)
		}
		b.set("", false, 0)
		w.dupfs("restore", "--force", target, "out")
		w.sh("diff -r out src")
	}
}
