package rclone

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dupfs/backends"
	"dupfs/backends/backendtest"
	"dupfs/backends/internal/server"
)

// open runs rclone with an empty configuration and a remote "store" in a
// directory.
func open(t testing.TB, remote, dir string) *Backend {
	t.Helper()
	b, err := Open(remote, Options{
		Program: server.Rclone(t),
		Env: append(os.Environ(), "RCLONE_CONFIG="+os.DevNull, "RCLONE_CACHE_DIR="+t.TempDir(),
			"RCLONE_CONFIG_STORE_TYPE=alias", "RCLONE_CONFIG_STORE_REMOTE="+dir),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestContract(t *testing.T) {
	dir := t.TempDir()
	n := 0
	backendtest.Run(t, func(t testing.TB) backends.Backend {
		n++
		return open(t, fmt.Sprintf("store:%d/some dir", n), dir)
	}, backendtest.Options{Objects: 200, Gap: true})
}

func TestListing(t *testing.T) {
	dir := t.TempDir()
	at := func(n string) string { return filepath.Join(dir, n) }
	os.MkdirAll(at("sub/deep"), 0o777)
	past := time.Now().Add(-50 * time.Hour)
	for name, old := range map[string]bool{"file": false, "sub/inner": false, tempPrefix + "young": false, tempPrefix + "old": true} {
		if err := os.WriteFile(at(name), []byte("abc"), 0o600); err != nil {
			t.Fatal(err)
		}
		if old {
			os.Chtimes(at(name), past, past)
		}
	}
	b := open(t, "store:", dir)
	files, err := b.List(t.Context())
	if err != nil || len(files) != 1 || files[0].Name != "file" || files[0].Size != 3 || files[0].ModTime.IsZero() {
		t.Errorf("%+v, %v", files, err)
	}
	if err := b.Delete(t.Context(), "sub"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("deleting a directory: %v", err)
	}
	if err := b.Put(t.Context(), "new", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"sub/inner": true, tempPrefix + "young": true, tempPrefix + "old": false, "new": true} {
		if _, err := os.Stat(at(name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// More files than a page of any store, in one listing.
func TestManyFiles(t *testing.T) {
	dir := t.TempDir()
	names := server.Fill(t, dir, 10_500)
	files, err := open(t, "store:", dir).List(t.Context())
	if err != nil || len(files) != len(names) {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		if size, ok := names[f.Name]; !ok || f.Size != size {
			t.Fatalf("%+v", f)
		}
	}
}

// The password is not where others can read it, and the process ends with the
// backend.
func TestProcess(t *testing.T) {
	b := open(t, "store:", t.TempDir())
	if _, err := b.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	p := b.cur
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.cmd.Process.Pid))
	if err != nil || bytes.Contains(args, []byte(p.password)) || len(p.password) < 20 {
		t.Errorf("%q, %v", args, err)
	}
	resp, err := b.client.Post(p.url+"/rc/noopauth", "application/json", strings.NewReader("{}"))
	if err != nil || resp.StatusCode != 401 {
		t.Errorf("without a password: %v, %v", resp, err)
	}
	resp.Body.Close()
	// If it dies, another takes its place.
	syscall.Kill(p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.ended
	if err := b.Put(t.Context(), "x", strings.NewReader("abc")); err != nil || b.cur == p {
		t.Errorf("after its death: %v", err)
	}
	p = b.cur
	b.Close()
	select {
	case <-p.ended:
	default:
		t.Error("rclone still runs")
	}
	if _, err := b.List(t.Context()); err == nil {
		t.Error("a closed backend lists")
	}
}

// A body that breaks because rclone dies is transient.
func TestDeathInABody(t *testing.T) {
	b := open(t, "store:", t.TempDir())
	data := backendtest.Data(1, 20<<20)
	if err := b.Put(t.Context(), "x", bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	r, err := b.Open(t.Context(), "x", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(b.cur.cmd.Process.Pid, syscall.SIGKILL)
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, backends.ErrTransient) {
		t.Errorf("%v", err)
	}
	retried := backends.Retry(b, backends.RetryOptions{})
	r, err = retried.Open(t.Context(), "x", 100, 1000)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data[100:1100]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestWrongRemote(t *testing.T) {
	for _, remote := range []string{"nowhere:x", ":nosuchtype:x"} {
		b := open(t, remote, t.TempDir())
		_, err := b.List(t.Context())
		if err == nil || errors.Is(err, backends.ErrTransient) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", remote, err)
		}
	}
	for _, remote := range []string{"", "x", "-x:"} {
		if _, err := Open(remote, Options{Program: server.Rclone(t)}); err == nil {
			t.Errorf("%q was taken", remote)
		}
	}
	if _, err := Open("x:", Options{Program: "/nowhere/rclone"}); err == nil {
		t.Error("a missing program was not noticed")
	}
	b, err := Open("x:", Options{Program: "/bin/false"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, err := b.List(t.Context()); err == nil || !strings.Contains(err.Error(), "rclone") {
		t.Errorf("a program that fails: %v", err)
	}
}

func TestKind(t *testing.T) {
	for text, want := range map[string]error{
		"object not found":                           fs.ErrNotExist,
		"error in ListJSON: directory not found":     fs.ErrNotExist,
		"didn't find section in config file":         nil,
		"write /x: no space left on device":          backends.ErrNoSpace,
		"googleapi: Error 403: storageQuotaExceeded": backends.ErrNoSpace,
		"couldn't list: 401 Unauthorized":            backends.ErrAuth,
		"Post \"https://x\": dial tcp: i/o timeout":  backends.ErrTransient,
	} {
		if got := kind(500, text); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
}
