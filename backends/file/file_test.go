package file

import (
	"bytes"
	"context"
	"errors"
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

func TestContract(t *testing.T) {
	backendtest.Run(t, func(t testing.TB) backends.Backend {
		b, err := Open(filepath.Join(t.TempDir(), "not", "yet"))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}, backendtest.Options{Objects: 1000})
}

func open(t *testing.T) *Backend {
	b, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReadingMakesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	b, _ := Open(dir)
	b.List(t.Context())
	b.Open(t.Context(), "x", 0, -1)
	b.Delete(t.Context(), "x")
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
}

func TestListOnlyFiles(t *testing.T) {
	b := open(t)
	at := func(n string) string { return filepath.Join(b.dir, n) }
	for _, err := range []error{
		os.Mkdir(at("dir"), 0o777),
		os.WriteFile(at(tempPrefix+"1"), nil, 0o600),
		os.WriteFile(at("file"), []byte("abc"), 0o600),
		os.Symlink("file", at("link")),
		os.Symlink("nowhere", at("dangling")),
		os.Symlink("dir", at("dirlink")),
		syscall.Mkfifo(at("fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	files, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		got = append(got, f.Name)
		if f.Size != 3 || f.ModTime.IsZero() {
			t.Errorf("%+v", f)
		}
	}
	if len(got) != 2 || !(got[0] == "file" || got[1] == "file") {
		t.Errorf("List: %q, want file and link", got)
	}
	for _, name := range []string{"dir", "fifo", "dangling"} {
		if _, err := b.Open(t.Context(), name, 0, -1); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open %s: %v", name, err)
		}
	}
}

// More files than a page of any store, in one listing.
func TestManyFiles(t *testing.T) {
	b := open(t)
	names := server.Fill(t, b.dir, 10_500)
	files, err := b.List(t.Context())
	if err != nil || len(files) != len(names) {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		if size, ok := names[f.Name]; !ok || f.Size != size {
			t.Fatalf("%+v", f)
		}
	}
}

func TestNames(t *testing.T) {
	b := open(t)
	for _, name := range []string{"", ".", "..", "a/b", "/x", "../x", "a\x00b", tempPrefix + "x"} {
		if err := b.Put(t.Context(), name, strings.NewReader("x")); err == nil {
			t.Errorf("Put %q succeeded", name)
		}
		if _, err := b.Open(t.Context(), name, 0, -1); err == nil {
			t.Errorf("Open %q succeeded", name)
		}
		if err := b.Delete(t.Context(), name); err == nil {
			t.Errorf("Delete %q succeeded", name)
		}
	}
}

func TestStaleTemporaryFiles(t *testing.T) {
	b := open(t)
	old, young, other := filepath.Join(b.dir, tempPrefix+"old"), filepath.Join(b.dir, tempPrefix+"young"), filepath.Join(b.dir, ".other")
	for _, f := range []string{old, young, other} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-25 * time.Hour)
	for _, f := range []string{old, other} {
		if err := os.Chtimes(f, past, past); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Put(t.Context(), "x", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	for f, want := range map[string]bool{old: false, young: true, other: true} {
		if _, err := os.Stat(f); (err == nil) != want {
			t.Errorf("%s: %v", filepath.Base(f), err)
		}
	}
}

// Nothing is left of a Put that failed.
func TestNoTemporaryFileIsLeft(t *testing.T) {
	b := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b.Put(ctx, "x", strings.NewReader("x"))
	b.PutNew(t.Context(), "y", strings.NewReader("y"))
	b.PutNew(t.Context(), "y", strings.NewReader("z"))
	os.Mkdir(filepath.Join(b.dir, "dir"), 0o777)
	if err := b.Put(t.Context(), "dir", strings.NewReader("x")); err == nil {
		t.Error("a directory was replaced")
	}
	all, _ := filepath.Glob(filepath.Join(b.dir, ".*"))
	if len(all) > 0 {
		t.Errorf("left over: %q", all)
	}
}

func TestNoPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	b := open(t)
	if err := os.Chmod(b.dir, 0o500); err != nil {
		t.Fatal(err)
	}
	err := b.Put(t.Context(), "x", strings.NewReader("x"))
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "put x: ") {
		t.Errorf("%v", err)
	}
}

// A full disk is told as such: /dev/full stands for it.
func TestFull(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	_, err = f.Write([]byte("x"))
	if err := fail("put", "x", err); !errors.Is(err, backends.ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) || errors.Is(err, backends.ErrTransient) {
		t.Errorf("%v", err)
	}
}

func TestTargetIsAFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b, _ := Open(dir)
	if _, err := b.List(t.Context()); err == nil {
		t.Error("a file was listed as a directory")
	}
	if err := b.Put(t.Context(), "x", bytes.NewReader(nil)); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("Put: %v", err)
	}
}
