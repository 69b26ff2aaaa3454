package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
)

func (w *world) cost(args ...string) (c cost) {
	w.t.Helper()
	out := w.dupfs(append([]string{"cost", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &c); err != nil {
		w.t.Fatalf("%v in %s", err, out)
	}
	return c
}

// counting stands before Azurite and counts what is read of volumes.
type counting struct {
	next http.Handler
	mu   sync.Mutex
	all  int // requests of any kind
	gets int
	sent int64
}

func (p *counting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	cw := &countingWriter{ResponseWriter: w}
	p.next.ServeHTTP(cw, r)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all++
	if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "difftar") {
		p.gets++
		p.sent += cw.n
	}
}

type countingWriter struct {
	http.ResponseWriter
	n int64
}

func (w *countingWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.n += int64(n)
	return n, err
}

func (p *counting) take() (all, gets int, sent int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all, gets, sent = p.all, p.gets, p.sent
	p.all, p.gets, p.sent = 0, 0, 0
	return all, gets, sent
}

// What cost foretells, without asking the store, is what a restore does.
func TestCost(t *testing.T) {
	p := &counting{next: reverse(upstream(t, server(t, "AZURITE")))}
	s := httptest.NewServer(p)
	t.Cleanup(s.Close)
	w := newWorld(t)
	w.env = append(w.env, azureEnv(t, s.Listener.Addr().String())...)
	url := fmt.Sprintf("azure://cost-%d", os.Getpid())
	w.sh("mkdir -p src/sub; for i in 1 2 3 4; do head -c 900000 /dev/urandom > src/file$i; done; echo x > src/sub/small; ln src/file1 src/sub/again")
	w.dupfs("full", "--volsize", "1", "--azure-blob-tier", "Cool", "--current-time", at(0), "src", url)
	w.sh("printf changed | dd of=src/file2 bs=1 seek=400000 conv=notrunc status=none")
	w.dupfs("incremental", "--current-time", at(1), "src", url)
	w.env = append(w.env, "XDG_CACHE_HOME="+w.path("fresh"))
	w.dupfs("ls", url)
	for _, path := range []string{"file2", "sub/small", "sub", "."} {
		p.take()
		plan := w.cost(url, path)
		if all, _, _ := p.take(); all != 0 {
			t.Errorf("%s: cost sent %d requests", path, all)
		}
		w.dupfs("restore", "--no-restore-ownership", "--path-to-restore", path, url, "out-"+strings.ReplaceAll(path, "/", "-"))
		_, gets, sent := p.take()
		const ahead = 3 * 300_000 // what reading ahead may take besides
		if sent < plan.Bytes || sent > plan.Bytes+ahead || int64(gets) < plan.Requests || int64(gets) > plan.MostRequests+3 {
			t.Errorf("%s: planned %+v, but %d requests, %d bytes", path, plan, gets, sent)
		}
		if again := w.cost(url, path); again.Bytes != 0 || again.Requests != 0 || again.Cached < plan.Bytes {
			t.Errorf("%s: once it is cached: %+v", path, again)
		}
	}
	w.sh("rm -r fresh/dupfs/*/volumes")
	plan := w.cost(url, "file2")
	if len(plan.Tiers) != 2 || plan.Tiers[0].Tier != "Cool" || plan.Files != 1 || plan.Size != 900000 {
		t.Errorf("%+v", plan)
	}
	if text := w.dupfs("cost", url, "file2"); !strings.Contains(text, "to fetch: ") || !strings.Contains(text, "tier Cool: ") {
		t.Errorf("to a person:\n%s", text)
	}
	w.dupfs("retier", url, "Archive")
	if plan := w.cost(url, "file2"); len(plan.Tiers) != 1 || !plan.Tiers[0].Rehydrate || plan.Tiers[0].RehydrateBytes < plan.Bytes {
		t.Errorf("after retier: %+v", plan)
	}
}

// What is kept answers though the archive is away; a new backup is seen at
// once, and what is not known locally is asked for.
func TestCostKept(t *testing.T) {
	w := newWorld(t)
	w.sh("mkdir src; head -c 100000 /dev/urandom > src/a")
	url := w.url("archive")
	w.dupfs("full", "--current-time", at(0), "src", url)
	w.dupfs("ls", url)
	w.sh("mv archive away")
	if c := w.cost(url); c.Files != 1 || c.Bytes < 100_000 || c.Requests != 1 {
		t.Errorf("%+v", c)
	}
	if r := w.exec(nil, binary, "cost", "--refresh", url); r.code == 0 {
		t.Error("--refresh did not ask the archive")
	}
	if r := w.exec(nil, binary, "cost", url, "nothing"); r.code != exitNoPath {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	w.sh("mv away archive; cp src/a src/b")
	w.dupfs("incremental", "--current-time", at(1), "src", url)
	if c := w.cost(url); c.Files != 2 {
		t.Errorf("after a backup: %+v", c)
	}
	w.sh("rm home/.cache/dupfs/*/*/*.db home/.cache/dupfs/*/*.db 2>/dev/null || true")
	if c := w.cost(url); c.Files != 2 {
		t.Errorf("without the catalog: %+v", c)
	}
}
