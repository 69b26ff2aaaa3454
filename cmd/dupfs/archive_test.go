package main

import (
	"fmt"
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

// slowRehydration stands before Azurite, which rehydrates at once: a blob that
// is to leave the Archive tier stays there until release is called.
type slowRehydration struct {
	mu      sync.Mutex
	cold    map[string]bool          // by path: in the Archive tier
	pending map[string]*http.Request // by path: what Azurite is told in the end
	asked   []string                 // the priority of each request
	proxy   *httputil.ReverseProxy
}

func (p *slowRehydration) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	blob, tier := r.URL.EscapedPath(), r.Header.Get("x-ms-access-tier")
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Method == http.MethodPut && tier == "Archive" {
		p.cold[blob] = true
	}
	if r.Method == http.MethodPut && r.URL.Query().Get("comp") == "tier" && tier != "Archive" && p.cold[blob] {
		if p.pending[blob] != nil {
			w.Header().Set("x-ms-error-code", "BlobBeingRehydrated")
			w.WriteHeader(http.StatusConflict)
			return
		}
		later := r.Clone(r.Context())
		p.pending[blob] = later
		p.asked = append(p.asked, r.Header.Get("x-ms-rehydrate-priority"))
		w.WriteHeader(http.StatusAccepted)
		return
	}
	p.proxy.ServeHTTP(w, r)
}

// release lets Azurite do what it was asked for.
func (p *slowRehydration) release(t *testing.T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for blob, r := range p.pending {
		rec := httptest.NewRecorder()
		r.Body = http.NoBody
		p.proxy.ServeHTTP(rec, r.WithContext(t.Context()))
		if rec.Code >= 300 {
			t.Errorf("%s: %d", blob, rec.Code)
		}
		delete(p.pending, blob)
		delete(p.cold, blob)
	}
}

func (p *slowRehydration) waiting() (n int, asked []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.pending), p.asked
}

// newSlowRehydration returns the proxy and its address.
func newSlowRehydration(t *testing.T) (*slowRehydration, string) {
	t.Helper()
	up := upstream(t, server(t, "AZURITE"))
	p := &slowRehydration{cold: map[string]bool{}, pending: map[string]*http.Request{}, proxy: reverse(up)}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	return p, s.Listener.Addr().String()
}

// reverse returns a reverse proxy that leaves the host as it came: signatures
// may cover it.
func reverse(up *url.URL) *httputil.ReverseProxy {
	return &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = up.Scheme, up.Host, r.In.Host
	}}
}

// upstream finds the URL in a text such as a connection string.
func upstream(t testing.TB, text string) *url.URL {
	t.Helper()
	_, rest, ok := strings.Cut(text, "http://")
	if !ok {
		t.Fatal("no URL in a server's settings")
	}
	host, _, _ := strings.Cut(rest, "/")
	return &url.URL{Scheme: "http", Host: host}
}

// Volumes in the Archive tier are no dead end: what needs them says so before
// it begins, reads fail at once and say why, rehydrate asks for just those
// that a path needs, and waits.
func TestArchiveTier(t *testing.T) {
	slow, address := newSlowRehydration(t)
	w := newWorld(t)
	w.env = append(w.env, azureEnv(t, address)...)
	target := fmt.Sprintf("azure://archive-%d", os.Getpid())
	w.sh("mkdir src; for i in 1 2 3 4; do head -c 900000 /dev/urandom > src/file$i; done")
	w.dupfs("full", "--volsize", "1", "--azure-blob-tier", "Archive", "--current-time", at(0), "src", target)
	checkTiers(t, w.dupfs("status", "--tiers", target), "Archive")

	// Everything about names and times works without the volumes.
	w.env = append(w.env, "XDG_CACHE_HOME="+w.path("fresh"))
	if out := w.dupfs("ls", target); !strings.Contains(out, "file4") {
		t.Errorf("ls: %s", out)
	}
	r := w.exec(nil, binary, "restore", "--path-to-restore", "file1", target, "out")
	if r.code != exitBackend || !strings.Contains(r.stderr, "being archived: duplicity-full") ||
		!strings.Contains(r.stderr, "hint: `dupfs rehydrate --wait "+target+" file1`") {
		t.Errorf("restore: exit %d\n%s", r.code, r.stderr)
	}
	testArchivedMount(t, w, target)

	dry := w.dupfs("rehydrate", "--dry-run", target, "file1")
	if n, _ := slow.waiting(); n > 0 || !strings.Contains(dry, ".vol1.difftar") || strings.Contains(dry, ".vol4.") {
		t.Errorf("%d asked for by a dry run:\n%s", n, dry)
	}
	out := w.dupfs("rehydrate", "--priority", "High", target, "file1")
	n, asked := slow.waiting()
	if n == 0 || n > 2 || asked[0] != "High" || !strings.Contains(out, "archived (") {
		t.Errorf("%d asked for, %v\n%s", n, asked, out)
	}
	w.dupfs("rehydrate", target, "file1") // again: Azure refuses, having begun
	if again, _ := slow.waiting(); again != n {
		t.Errorf("%d on the way, then %d", n, again)
	}
	release := time.AfterFunc(2*time.Second, func() { slow.release(t) })
	out = w.dupfs("rehydrate", "--wait", target, "file1")
	release.Stop()
	if !strings.Contains(out, "all of them can be read") {
		t.Errorf("wait:\n%s", out)
	}
	w.dupfs("restore", "--path-to-restore", "file1", target, "out")
	w.sh("cmp out src/file1")
	if r = w.exec(nil, binary, "restore", "--path-to-restore", "file4", target, "out4"); r.code != exitBackend {
		t.Errorf("file4: exit %d\n%s", r.code, r.stderr)
	}
	w.dupfs("rehydrate", target)
	slow.release(t)
	w.dupfs("restore", target, "all")
	w.sh("diff -r all src")
	testRetier(t, w, target)
}

// testArchivedMount reads what is archived.
func testArchivedMount(t *testing.T, w *world, target string) {
	mnt, err := os.MkdirTemp(w.dir, "mnt")
	if err != nil {
		t.Fatal(err)
	}
	r := w.exec(nil, binary, "mount", target, mnt)
	if r.code != 0 || !strings.Contains(r.stderr, "being archived: duplicity-full") || !strings.Contains(r.stderr, "hint: `dupfs rehydrate --wait "+target+"`") {
		t.Errorf("mount: exit %d\n%s", r.code, r.stderr)
	}
	defer w.dupfs("umount", mnt)
	name := filepath.Join(mnt, "snapshots/latest/file2")
	if info, err := os.Stat(name); err != nil || info.Size() != 900000 {
		t.Errorf("stat: %v", err)
	}
	began := time.Now()
	_, err = os.ReadFile(name)
	if err == nil || !strings.Contains(err.Error(), "input/output error") {
		t.Errorf("read: %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the read failed after %v", took)
	}
	logs, _ := filepath.Glob(w.path("fresh/dupfs/*/mount.log"))
	if len(logs) != 1 {
		t.Fatalf("logs: %v", logs)
	}
	if text, _ := os.ReadFile(logs[0]); !strings.Contains(string(text), "archive") || !strings.Contains(string(text), "file2") {
		t.Errorf("the log does not say why:\n%s", text)
	}
}

// testRetier moves volumes, and nothing else, between tiers.
func testRetier(t *testing.T, w *world, target string) {
	w.dupfs("full", "--volsize", "1", "--azure-blob-tier", "Hot", "--current-time", at(9), "src", target)
	if out := w.dupfs("retier", "--dry-run", target, "Cold"); strings.Count(out, " to Cold\n") < 4 || strings.Contains(out, "manifest") {
		t.Errorf("dry run:\n%s", out)
	}
	w.dupfs("retier", "--older-than", at(5), target, "Cold")
	out := w.dupfs("status", "--tiers", target)
	if !strings.Contains(out, "Cold         volumes") || !strings.Contains(out, "Hot          volumes") || strings.Contains(out, "Cold         metadata") {
		t.Errorf("after retier --older-than:\n%s", out)
	}
	w.dupfs("retier", target, "Cool")
	checkTiers(t, w.dupfs("status", "--tiers", target), "Cool")
	r := w.exec(nil, binary, "retier", target, "Lukewarm")
	if r.code == 0 || !strings.Contains(r.stderr, "Lukewarm") {
		t.Errorf("no such tier: exit %d\n%s", r.code, r.stderr)
	}
}

// A store without tiers says so.
func TestNoTiers(t *testing.T) {
	w := newWorld(t)
	w.write("src/file", "x")
	w.dupfs("full", "src", w.url("archive"))
	for _, args := range [][]string{{"rehydrate", w.url("archive")}, {"retier", w.url("archive"), "Cool"}} {
		if r := w.exec(nil, binary, args...); r.code != exitUser || !strings.Contains(r.stderr, "no access tiers") {
			t.Errorf("%v: exit %d\n%s", args, r.code, r.stderr)
		}
	}
	if out := w.dupfs("status", "--tiers", w.url("archive")); !strings.Contains(out, "(no tier)") {
		t.Errorf("status:\n%s", out)
	}
}
