package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// glacier stands before an S3 server and keeps what is stored in the class
// GLACIER from being read until it was asked for and released, as Amazon does.
type glacier struct {
	mu      sync.Mutex
	objects map[string]string // path → "cold", "asked" or "thawed"
	tiers   []string          // of each request
	proxy   *httputil.ReverseProxy
}

func newGlacier(t *testing.T) (*glacier, string) {
	t.Helper()
	g := &glacier{objects: map[string]string{}, proxy: reverse(upstream(t, server(t, "S3_ENDPOINT")))}
	g.proxy.ModifyResponse = g.listed
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	return g, s.URL
}

func (g *glacier) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	state := g.objects[r.URL.Path]
	switch {
	case r.Method == http.MethodPut && r.Header.Get("X-Amz-Storage-Class") == "GLACIER":
		g.objects[r.URL.Path] = "cold"
	case r.Method == http.MethodPost && r.URL.Query().Has("restore"):
		defer g.mu.Unlock()
		g.restore(w, r, state)
		return
	case r.Method == http.MethodGet && (state == "cold" || state == "asked"):
		g.mu.Unlock()
		refuse(w, http.StatusForbidden, "InvalidObjectState")
		return
	case r.Method == http.MethodHead && state != "":
		w.Header().Set("X-Amz-Storage-Class", "GLACIER")
		if state != "cold" {
			w.Header().Set("X-Amz-Restore", fmt.Sprintf(`ongoing-request="%t", expiry-date="Fri, 01 Jan 2100 00:00:00 GMT"`, state == "asked"))
		}
	}
	g.mu.Unlock()
	g.proxy.ServeHTTP(w, r)
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>in Glacier</Message></Error>", code)
}

// restore takes a request for a readable copy. The lock is held.
func (g *glacier) restore(w http.ResponseWriter, r *http.Request, state string) {
	body, _ := io.ReadAll(r.Body)
	if state == "asked" {
		refuse(w, http.StatusConflict, "RestoreAlreadyInProgress")
		return
	}
	_, tier, _ := strings.Cut(string(body), "<Tier>")
	tier, _, _ = strings.Cut(tier, "<")
	g.tiers = append(g.tiers, tier)
	g.objects[r.URL.Path] = "asked"
	w.WriteHeader(http.StatusAccepted)
}

var contents = regexp.MustCompile(`(?s)<Contents>.*?</Contents>`)

// listed puts class and state into a listing.
func (g *glacier) listed(resp *http.Response) error {
	if resp.Request.Method != http.MethodGet || !resp.Request.URL.Query().Has("list-type") {
		return nil
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	bucket := strings.TrimSuffix(resp.Request.URL.Path, "/")
	text = contents.ReplaceAllFunc(text, func(c []byte) []byte {
		_, key, _ := strings.Cut(string(c), "<Key>")
		key, _, _ = strings.Cut(key, "<")
		state := g.objects[bucket+"/"+key]
		if state == "" {
			return c
		}
		class := "<StorageClass>GLACIER</StorageClass>"
		if state != "cold" {
			class += fmt.Sprintf("<RestoreStatus><IsRestoreInProgress>%t</IsRestoreInProgress></RestoreStatus>", state == "asked")
		}
		return bytes.Replace(c, []byte("<StorageClass>STANDARD</StorageClass>"), []byte(class), 1)
	})
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	resp.Header.Set("Content-Length", strconv.Itoa(len(text)))
	return nil
}

// release makes readable what was asked for.
func (g *glacier) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for name, state := range g.objects {
		if state == "asked" {
			g.objects[name] = "thawed"
		}
	}
}

// asked returns the tiers of the requests.
func (g *glacier) asked() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.tiers...)
}

// Volumes in Glacier are no dead end either: metadata never goes there, and
// rehydrate asks for readable copies of just what a path needs, and waits.
func TestGlacier(t *testing.T) {
	t.Parallel()
	g, endpoint := newGlacier(t)
	w := newWorld(t)
	w.env = append(w.env, "AWS_ACCESS_KEY_ID="+server(t, "S3_ACCESS_KEY"), "AWS_SECRET_ACCESS_KEY="+server(t, "S3_SECRET_KEY"))
	target := fmt.Sprintf("s3://glacier-%d/p", os.Getpid())
	run := func(args ...string) result {
		return w.exec(nil, binary, append(args, "--s3-endpoint-url", endpoint, "--s3-region-name", "us-east-1")...)
	}
	right := func(args ...string) string {
		t.Helper()
		r := run(args...)
		if r.code != 0 {
			t.Fatalf("%s: exit %d\n%s%s", r.line, r.code, r.stdout, r.stderr)
		}
		return r.stdout
	}
	w.sh("mkdir src; for i in 1 2 3 4; do head -c 900000 /dev/urandom > src/file$i; done")
	right("full", "--s3-use-glacier", "--volsize", "1", "--current-time", at(0), "src", target)
	if out := right("status", "--tiers", target); !strings.Contains(out, "GLACIER      volumes") || strings.Contains(out, "GLACIER      metadata") {
		t.Errorf("tiers:\n%s", out)
	}
	w.env = append(w.env, "XDG_CACHE_HOME="+w.path("fresh"))
	right("ls", target)
	if r := run("restore", "--path-to-restore", "file1", target, "out"); r.code != exitBackend ||
		!strings.Contains(r.stderr, "being archived: duplicity-full") || !strings.Contains(r.stderr, "hint: `dupfs rehydrate --wait ") {
		t.Errorf("restore: exit %d\n%s", r.code, r.stderr)
	}
	right("rehydrate", "--priority", "High", target, "file1")
	n := len(g.asked())
	if tiers := g.asked(); n == 0 || n > 2 || tiers[0] != "Expedited" {
		t.Errorf("asked for: %v", tiers)
	}
	right("rehydrate", target, "file1") // again: it has begun
	if again := len(g.asked()); again != n {
		t.Errorf("asked for %d, then %d", n, again)
	}
	release := time.AfterFunc(2*time.Second, g.release)
	if out := right("rehydrate", "--wait", target, "file1"); !strings.Contains(out, "all of them can be read") {
		t.Errorf("wait:\n%s", out)
	}
	release.Stop()
	right("restore", "--path-to-restore", "file1", target, "out")
	w.sh("cmp out src/file1")
	if r := run("cat", target, "file4"); r.code != exitBackend {
		t.Errorf("file4: exit %d\n%s", r.code, r.stderr)
	}
	right("rehydrate", target)
	g.release()
	right("restore", target, "all")
	w.sh("diff -r all src")
}
