package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dupfs/internal/need"
)

// storeUnderTest is a real server that scripts/servers/start.sh has started.
type storeUnderTest struct {
	name string
	url  string   // %s is replaced by a name for the archive
	env  []string // variables that users set for duplicity
	opts []string
}

// storesUnderTest returns the servers that the environment tells of: all, or
// the test fails where nothing may be skipped.
func storesUnderTest(t *testing.T) []storeUnderTest {
	t.Helper()
	get := func(name string) string {
		v := os.Getenv("DUPFS_TEST_" + name)
		if v == "" {
			need.Missing(t, "DUPFS_TEST_"+name+" is not set: run scripts/test.sh")
		}
		return v
	}
	dav := strings.Replace(get("WEBDAV"), "http://", "webdav://", 1)
	return []storeUnderTest{
		{name: "swift", url: "swift://%s/some/prefix", env: []string{
			"SWIFT_AUTHURL=" + get("SWIFT_AUTHURL"), "SWIFT_USERNAME=" + get("SWIFT_USERNAME"),
			"SWIFT_PASSWORD=" + get("SWIFT_PASSWORD"), "SWIFT_AUTHVERSION=1",
		}},
		{name: "azure", url: "azure://%s", env: []string{"AZURE_CONNECTION_STRING=" + get("AZURITE")},
			opts: []string{"--azure-blob-tier", "Cold"}},
		{name: "sftp", url: "sftp://" + get("SFTP_USER") + "@" + get("SFTP_HOST") + ":" + get("SFTP_PORT") + "/" + get("SFTP_DATA") + "/%s",
			opts: []string{"--ssh-options=-oIdentityFile=" + get("SFTP_KEY") + " -oUserKnownHostsFile=" + get("SFTP_KNOWN_HOSTS")}},
		{name: "webdav", url: dav + "%s"},
		{name: "rclone", url: "rclone:///DIR/rclone-%s"},
	}
}

// The whole life of a chain on each store: full, increments, mount, copy out,
// restore at a time, removal, clean-up.
func TestLifeOnStores(t *testing.T) {
	for i, s := range storesUnderTest(t) {
		t.Run(s.name, func(t *testing.T) { testLife(t, s, fmt.Sprintf("life-%d-%d", os.Getpid(), i)) })
	}
}

func testLife(t *testing.T, s storeUnderTest, name string) {
	w := newWorld(t)
	w.env = append(w.env, s.env...)
	url := strings.Replace(fmt.Sprintf(s.url, name), "/DIR", w.dir, 1)
	dupfs := func(args ...string) string { return w.dupfs(append(args, s.opts...)...) }
	for n := range 3 {
		w.grow(n)
		dupfs("--volsize", "1", "--current-time", at(n), "src", url)
	}
	mnt, unmount := w.mount(url, s.opts...)
	for n := range 3 {
		stamp := strings.TrimSpace(w.sh("date -u -d @" + at(n) + " +%Y-%m-%dT%H:%M:%SZ"))
		same(t, fmt.Sprint("mount of ", n), filepath.Join(mnt, "snapshots", stamp), w.path(fmt.Sprint("copy", n)))
	}
	unmount()
	w.env = append(w.env, "XDG_CACHE_HOME="+w.path("fresh")) // as from another machine
	dupfs("restore", "--time", at(1), url, w.path("out"))
	same(t, "restore of 1", w.path("out"), w.path("copy1"))

	dupfs("full", "--volsize", "1", "--current-time", at(5), "src", url)
	dupfs("remove-all-but-n-full", "1", "--force", url)
	if out := dupfs("status", url); !strings.Contains(out, ": 1 chain\n") || strings.Contains(out, "2023-11-14T") {
		t.Errorf("after the removal:\n%s", out)
	}
	if out := dupfs("cleanup", url); !strings.Contains(out, "No extraneous files") {
		t.Errorf("something is left:\n%s", out)
	}
	dupfs("restore", url, w.path("out2"))
	same(t, "restore of the rest", w.path("out2"), w.path("copy2"))
	for _, secret := range s.env {
		_, value, _ := strings.Cut(secret, "=")
		if len(value) > 20 && strings.Contains(w.sh("cat /proc/mounts"), value) {
			t.Error("a secret is in the table of mounts")
		}
	}
}

// What dupfs stored in Swift stock duplicity restores, and the reverse.
func TestSwiftWithStock(t *testing.T) {
	s := storesUnderTest(t)[0]
	w := newWorld(t)
	w.env = append(w.env, s.env...)
	for _, first := range []string{"dupfs", "stock"} {
		url := fmt.Sprintf("swift://stock-%s-%d", first, os.Getpid())
		writer, reader := w.dupfs, w.stockSwift
		if first == "stock" {
			writer, reader = reader, writer
		}
		w.sh("rm -rf src")
		w.grow(0)
		writer("--volsize", "1", "--current-time", at(0), "src", url)
		out := w.path("out-" + first)
		reader("restore", url, out)
		same(t, first+" wrote", out, w.path("copy0"))
	}
}

// stockSwift runs stock duplicity with the libraries for Swift that the set-up
// unpacked, where they are not installed.
func (w *world) stockSwift(args ...string) string {
	w.t.Helper()
	if os.Getenv("DUPFS_TEST_STOCK") == "" {
		return w.stock(args...)
	}
	r := w.exec(nil, os.Getenv("DUPFS_TEST_STOCK"), append([]string{"duplicity"}, args...)...)
	if r.code != 0 {
		w.t.Fatalf("%s: exit %d\n%s%s", r.line, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}
