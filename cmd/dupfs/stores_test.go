package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
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

// server returns what the environment tells of a server under DUPFS_TEST_, or
// skips or fails the test.
func server(t testing.TB, name string) string {
	t.Helper()
	v := os.Getenv("DUPFS_TEST_" + name)
	if v == "" {
		need.Missing(t, "DUPFS_TEST_"+name+" is not set: run scripts/test.sh")
	}
	return v
}

// swiftEnv are the variables of a user of Swift with the login of version 1,
// which goes to the address (host:port); "" is the server's own.
func swiftEnv(t testing.TB, address string) []string {
	t.Helper()
	login := server(t, "SWIFT_AUTHURL")
	if address != "" {
		login = "http://" + address + "/auth/v1.0"
	}
	return []string{
		"SWIFT_AUTHURL=" + login, "SWIFT_USERNAME=" + server(t, "SWIFT_USERNAME"),
		"SWIFT_PASSWORD=" + server(t, "SWIFT_PASSWORD"), "SWIFT_AUTHVERSION=1",
		// stock duplicity's library asks for these when it makes segments
		"ST_AUTH=" + login, "ST_USER=" + server(t, "SWIFT_USERNAME"), "ST_KEY=" + server(t, "SWIFT_PASSWORD"),
	}
}

// azureEnv are the variables of a user of Azure; the address (host:port)
// stands for the server's, if it is not "".
func azureEnv(t testing.TB, address string) []string {
	t.Helper()
	text := server(t, "AZURITE")
	if address != "" {
		text = blobAddress.ReplaceAllString(text, "${1}"+address+"${2}")
	}
	return []string{"AZURE_CONNECTION_STRING=" + text}
}

var blobAddress = regexp.MustCompile(`(BlobEndpoint=http://)[^/]*(/)`)

// storesUnderTest returns the servers that the environment tells of: all, or
// the test fails where nothing may be skipped.
func storesUnderTest(t *testing.T) []storeUnderTest {
	t.Helper()
	get := func(name string) string { return server(t, name) }
	dav := strings.Replace(get("WEBDAV"), "http://", "webdav://", 1)
	return []storeUnderTest{
		{name: "swift", url: "swift://%s/some/prefix", env: swiftEnv(t, "")},
		{name: "azure", url: "azure://%s", env: azureEnv(t, ""), opts: []string{"--azure-blob-tier", "Cold"}},
		{name: "s3", url: "s3://%s/some/prefix", env: []string{
			"AWS_ACCESS_KEY_ID=" + get("S3_ACCESS_KEY"), "AWS_SECRET_ACCESS_KEY=" + get("S3_SECRET_KEY"),
		}, opts: []string{"--s3-endpoint-url", get("S3_ENDPOINT"), "--s3-region-name", "us-east-1"}},
		{name: "sftp", url: "sftp://" + get("SFTP_USER") + "@" + get("SFTP_HOST") + ":" + get("SFTP_PORT") + "/" + get("SFTP_DATA") + "/%s",
			opts: []string{"--ssh-options=-oIdentityFile=" + get("SFTP_KEY") + " -oUserKnownHostsFile=" + get("SFTP_KNOWN_HOSTS")}},
		{name: "webdav", url: dav + "%s"},
		{name: "rclone", url: "rclone://disk:%s", env: []string{
			"PATH=" + filepath.Dir(get("RCLONE")) + ":" + os.Getenv("PATH"),
			"RCLONE_CONFIG=/nonexistent", "RCLONE_CONFIG_DISK_TYPE=alias", "RCLONE_CONFIG_DISK_REMOTE=/DIR",
		}},
	}
}

// The whole life of a chain on each store: full, increments, mount, copy out,
// restore at a time, removal, clean-up.
func TestLifeOnStores(t *testing.T) {
	for i, s := range storesUnderTest(t) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			testLife(t, s, fmt.Sprintf("life-%d-%d", os.Getpid(), i))
		})
	}
}

func testLife(t *testing.T, s storeUnderTest, name string) {
	w := newWorld(t)
	for _, v := range s.env {
		w.env = append(w.env, strings.Replace(v, "=/DIR", "="+w.dir, 1))
	}
	url := fmt.Sprintf(s.url, name)
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
	w := newWorld(t)
	w.env = append(w.env, swiftEnv(t, "")...)
	stock := func(args ...string) string {
		return w.stockSwift(append([]string{"--num-retries", "2", "--backend-retry-delay", "1"}, args...)...)
	}
	for _, first := range []string{"dupfs", "stock"} {
		url := fmt.Sprintf("swift://stock-%s-%d", first, os.Getpid())
		writer, reader := w.dupfs, stock
		if first == "stock" {
			writer, reader = reader, writer
		}
		w.sh("rm -rf src")
		w.grow(0)
		// volumes smaller than the segments, which stock duplicity cannot
		// make without Keystone
		writer("--volsize", "2", "--mp-segment-size", "100", "--current-time", at(0), "src", url)
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
