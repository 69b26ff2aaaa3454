package all

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dupfs/backends"
	"dupfs/backends/backendtest"
	"dupfs/backends/internal/server"
)

func env(vars map[string]string) func(string) string { return func(k string) string { return vars[k] } }

// roundTrip stores, lists and reads a file through a URL.
func roundTrip(t *testing.T, url string, o Options) {
	t.Helper()
	ctx := t.Context()
	b, err := Open(ctx, url, o)
	if err != nil {
		t.Errorf("%s: %v", Redact(url), err)
		return
	}
	defer backends.Close(b)
	data := backendtest.Data(1, 100_000)
	if err := b.Put(ctx, "x.gpg", bytes.NewReader(data)); err != nil {
		t.Errorf("%s: %v", Redact(url), err)
		return
	}
	files, err := b.List(ctx)
	if err != nil || len(files) != 1 || files[0].Name != "x.gpg" {
		t.Errorf("%s: %+v, %v", Redact(url), files, err)
	}
	r, err := b.Open(ctx, "x.gpg", 1000, 500)
	if err != nil {
		t.Errorf("%s: %v", Redact(url), err)
		return
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data[1000:1500]) {
		t.Errorf("%s: %d bytes, %v", Redact(url), len(got), err)
	}
}

func there(t *testing.T, path string) {
	t.Helper()
	if fi, err := os.Stat(path); err != nil || fi.Size() != 100_000 {
		t.Errorf("%s: %v", path, err)
	}
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for url, path := range map[string]string{
		"file://" + dir + "/abs":          "abs",
		"file://rel/dir":                  "rel/dir",
		"file://" + dir + "/a%20b":        "a b",
		"gio+file://" + dir + "/gio":      "gio",
		"file://" + dir + "/odd:50%/a@b?": "odd:50%/a@b?",
	} {
		roundTrip(t, url, Options{})
		there(t, filepath.Join(dir, path, "x.gpg"))
	}
	if _, err := Open(t.Context(), "file://", Options{}); err == nil {
		t.Error("no directory was taken")
	}
}

func TestSFTP(t *testing.T) {
	s := server.SSHD(t)
	vars := env(map[string]string{"HOME": s.Home})
	at := fmt.Sprintf("%s@%s", s.User, net.JoinHostPort(s.Host, s.Port))
	roundTrip(t, "sftp://"+at+"/"+s.Data+"/a%20b", Options{Getenv: vars})
	there(t, filepath.Join(s.Data, "a b", "x.gpg"))
	roundTrip(t, "scp://"+s.Host+"/"+s.Data+"/opt", Options{Getenv: env(map[string]string{"HOME": t.TempDir(), "USER": s.User}),
		SSHOptions: "-oPort=" + s.Port + " -oIdentityFile=" + s.Home + "/.ssh/id_ed25519 -oUserKnownHostsFile=" + s.Home + "/.ssh/known_hosts"})
	there(t, filepath.Join(s.Data, "opt", "x.gpg"))
}

func TestWebDAV(t *testing.T) {
	dir := t.TempDir()
	addr := server.WebDAV(t, dir)
	roundTrip(t, "webdav://tester:t%26st%3Apa%2Fss@"+addr+"/in%20url", Options{})
	there(t, filepath.Join(dir, "in url", "x.gpg"))
	roundTrip(t, "http://tester@"+addr+"/env/", Options{Getenv: env(map[string]string{"FTP_PASSWORD": server.Password})})
	there(t, filepath.Join(dir, "env", "x.gpg"))
	asked := ""
	roundTrip(t, "webdav://tester@"+addr+"/ask", Options{Getenv: env(nil), Password: func(_ context.Context, prompt string) (string, error) {
		asked = prompt
		return server.Password, nil
	}})
	if !strings.HasPrefix(asked, "Password for 'tester@127.0.0.1") {
		t.Errorf("asked %q", asked)
	}
	b, err := Open(t.Context(), "webdav://tester:s3cr3t@"+addr+"/x", Options{Getenv: env(nil)})
	if err != nil {
		t.Fatal(err)
	}
	defer backends.Close(b)
	if _, err := b.List(t.Context()); !errors.Is(err, backends.ErrAuth) || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("%v", err)
	}
}

func TestRclone(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("RCLONE_CONFIG", os.DevNull)
	t.Setenv("RCLONE_CONFIG_STORE_TYPE", "alias")
	t.Setenv("RCLONE_CONFIG_STORE_REMOTE", dir)
	o := Options{Rclone: server.Rclone(t)}
	roundTrip(t, "rclone://store:/a/b", o)
	there(t, filepath.Join(dir, "a/b/x.gpg"))
	roundTrip(t, "rclone://:local:"+dir+"/c", o)
	there(t, filepath.Join(dir, "c/x.gpg"))
}

func TestSchemes(t *testing.T) {
	for _, url := range []string{"xyz://foo", "xyz://u:s3cr3t@foo", "par2+xyz://x", "gio+xyz://x"} {
		_, err := Open(t.Context(), url, Options{})
		if !errors.Is(err, ErrScheme) || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%s: %v", url, err)
		}
	}
	if _, err := Open(t.Context(), "xyz://foo", Options{}); err.Error() != "scheme not supported in url: xyz://foo" {
		t.Errorf("%v", err)
	}
	for _, url := range []string{"s3://", "swift://", "sftp:///x", "webdav:///x", "rclone://x", "azure://", "/local/dir"} {
		if b, err := Open(t.Context(), url, Options{Getenv: env(map[string]string{"AWS_EC2_METADATA_DISABLED": "true"})}); err == nil {
			backends.Close(b)
			t.Errorf("%q was opened", url)
		}
	}
}

// Every scheme takes recovery files.
func TestPar2(t *testing.T) {
	if _, err := exec.LookPath("par2"); err != nil {
		t.Skip("par2 is not installed")
	}
	dir := t.TempDir()
	roundTrip(t, "par2+file://"+dir, Options{})
	for _, name := range []string{"x.gpg", "x.gpg.par2"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	addr := server.WebDAV(t, dir)
	roundTrip(t, "PAR2+webdav://tester:t%26st%3Apa%2Fss@"+addr+"/dav", Options{})
	if _, err := os.Stat(filepath.Join(dir, "dav", "x.gpg.par2")); err != nil {
		t.Error(err)
	}
}

// Speed limits and failed tries reach the drivers.
func TestOptions(t *testing.T) {
	dir := t.TempDir()
	addr := server.WebDAV(t, dir)
	url := "webdav://tester:t%26st%3Apa%2Fss@" + addr + "/limit"
	start := time.Now()
	roundTrip(t, url, Options{Upload: 100_000})
	if d := time.Since(start); d < 600*time.Millisecond {
		t.Errorf("100000 bytes at 100000 a second took %v", d)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	tries := 0
	b, err := Open(t.Context(), "webdav://"+dead+"/x", Options{Tries: 2, RetryDelay: time.Millisecond, Notify: func(backends.Attempt) { tries++ }})
	if err != nil {
		t.Fatal(err)
	}
	defer backends.Close(b)
	if _, err := b.List(t.Context()); !errors.Is(err, backends.ErrTransient) || tries != 2 {
		t.Errorf("%v after %d tries", err, tries)
	}
}
