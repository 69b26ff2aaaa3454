package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"dupfs/backends"
	"dupfs/backends/all"
	"dupfs/backends/backendtest"
	"dupfs/backends/s3"
)

// openAs opens a store as the program does with the world's variables.
func (w *world) openAs(url string) backends.Backend {
	w.t.Helper()
	env := map[string]string{}
	for _, v := range w.env {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	o := all.Options{Getenv: func(name string) string { return env[name] }}
	if strings.HasPrefix(url, "s3:") {
		o.S3 = s3.Options{Endpoint: server(w.t, "S3_ENDPOINT"), Region: "us-east-1"}
	}
	b, err := all.Open(context.Background(), url, o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = backends.Close(b) })
	return b
}

// hashes runs verify --level hashes and returns what it says.
func (w *world) hashes(code int, args ...string) (sum verifyLine, stderr string) {
	w.t.Helper()
	r := w.exec(nil, binary, append([]string{"verify", "--json", "--level", "hashes"}, args...)...)
	if err := json.Unmarshal([]byte(r.stdout), &sum); err != nil || r.code != code {
		w.t.Errorf("%s: exit %d, not %d: %v\n%s%s", r.line, r.code, code, err, r.stdout, r.stderr)
	}
	return sum, r.stderr
}

// Where the store tells checksums, verify sees another content in the place of
// a volume without a download, on any machine. What dupfs notes for it in
// manifests does not disturb duplicity.
func TestVerifyHashes(t *testing.T) {
	for _, s := range storesUnderTest(t) {
		if s.name != "swift" && s.name != "azure" && s.name != "s3" {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			testHashes(t, s, fmt.Sprintf("hashes-%d", os.Getpid()))
		})
	}
}

func testHashes(t *testing.T, s storeUnderTest, name string) {
	w := newWorld(t)
	w.env = append(w.env, s.env...)
	url := fmt.Sprintf(s.url, name)
	w.sh("mkdir src; head -c 7000000 /dev/urandom > src/big; echo small > src/small")
	opts := append([]string{url}, s.opts...)
	if s.name == "s3" { // a volume of two parts
		opts = append(opts, "--s3-multipart-chunk-size", "5")
	}
	w.dupfs(append([]string{"backup", "src", "--volsize", "6", "--current-time", at(0)}, opts...)...)
	fresh := append(opts, "--archive-dir", w.path("fresh"))
	// Two volumes and signatures; index and manifest are read.
	if got, _ := w.hashes(exitOK, fresh...); got.Compared != 3 || got.Uncompared != 0 || got.Fetched > 1<<20 {
		t.Errorf("intact: %+v", got)
	}
	b := w.openAs(url)
	names := map[string]int64{}
	files, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		names[f.Name] = f.Size
	}
	swap := func(part string) string {
		t.Helper()
		for n, size := range names {
			if strings.Contains(n, part) {
				if err := b.Put(t.Context(), n, bytes.NewReader(backendtest.Data(7, int(size)))); err != nil {
					t.Fatal(err)
				}
				return n
			}
		}
		t.Fatalf("no %s in %v", part, names)
		return ""
	}
	if s.name == "s3" {
		w.dupfs("replicate", "--s3-endpoint-url", server(t, "S3_ENDPOINT"), "--s3-region-name", "us-east-1", url, w.url("copy"))
		w.stock("verify", "--compare-data", w.url("copy"), w.path("src"))
		w.sh("echo more > src/more")
		w.stock("incremental", "--current-time", at(1), "src", w.url("copy"))
		w.stock("verify", "--compare-data", w.url("copy"), w.path("src"))
		w.dupfs("verify", "--compare-data", w.url("copy"), w.path("src"))
	}
	n := swap(".vol2.") // one that is stored in one piece everywhere
	got, said := w.hashes(exitDamaged, fresh...)
	if got.Flaws != 1 || got.Compared != 2 || got.Fetched > 1<<20 || !strings.Contains(said, n) {
		t.Errorf("%s is another: %+v\n%s", n, got, said)
	}
	// Signatures can have been made anew, so they are read.
	n = swap("sigtar")
	if got, said = w.hashes(exitDamaged, fresh...); got.Flaws != 2 || got.Compared != 1 || got.Fetched > 1<<20 || !strings.Contains(said, n) {
		t.Errorf("%s is another: %+v\n%s", n, got, said)
	}
	n = swap(".vol1.")
	if got, said = w.hashes(exitDamaged, fresh...); got.Flaws != 3 || got.Compared != 0 || !strings.Contains(said, n) {
		t.Errorf("%s is another: %+v\n%s", n, got, said)
	}
}

// What duplicity wrote is compared with what the store said when it was read.
func TestVerifyHashesLearned(t *testing.T) {
	w := newWorld(t)
	w.env = append(w.env, azureEnv(t, "")...)
	url := fmt.Sprintf("azure://learned-%d", os.Getpid())
	w.sh("mkdir src; head -c 1500000 /dev/urandom > src/big")
	w.stock("--volsize", "1", "--current-time", at(0), "src", w.url("archive"))
	w.dupfs("replicate", w.url("archive"), url)
	if got, said := w.hashes(exitIncomplete, url); got.Compared != 0 || got.Uncompared != 3 || !strings.Contains(said, "--level volumes") {
		t.Errorf("unknown: %+v\n%s", got, said)
	}
	w.dupfs("verify", "--level", "volumes", url)
	if got, _ := w.hashes(exitOK, url); got.Compared != 3 || got.Fetched > 1<<19 {
		t.Errorf("known: %+v", got)
	}
	b := w.openAs(url)
	name := strings.TrimSpace(w.sh("cd archive; ls *.vol1.*"))
	size := lstat(t, w.path("archive", name)).Size
	if err := b.Put(t.Context(), name, bytes.NewReader(backendtest.Data(8, int(size)))); err != nil {
		t.Fatal(err)
	}
	if got, said := w.hashes(exitDamaged, url); got.Flaws != 1 || got.Compared != 2 || got.Fetched > 1<<19 || !strings.Contains(said, name) {
		t.Errorf("%s is another: %+v\n%s", name, got, said)
	}
	// A disk tells nothing.
	if got, _ := w.hashes(exitIncomplete, w.url("archive")); got.Uncompared != 3 {
		t.Errorf("on disk: %+v", got)
	}
}
