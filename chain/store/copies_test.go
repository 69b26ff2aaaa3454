package store

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"dupfs/backends/backendtest"
	"dupfs/cache"
	"dupfs/chain"
	"dupfs/internal/need"
)

// bzip2File stores what gpg makes of data with bzip2.
func bzip2File(t *testing.T, b *bench, number int, data []byte) chain.Stored {
	t.Helper()
	n := volumeName(chain.OpenPGP)
	n.Volume = number
	n.File = b.Prefixes().Format(n)
	home, err := os.MkdirTemp("", "gpg") // its sockets need a short path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(home)
	defer func() { _ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run() }()
	cmd := exec.Command(need.Program(t, "gpg"), "--homedir", home, "--no-random-seed-file", "--batch", "--quiet", "--pinentry-mode", "loopback",
		"--passphrase", "secret", "--symmetric", "--s2k-count", "1024", "--compress-algo", "bzip2")
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	if err == nil {
		err = b.mem.Put(t.Context(), n.File, bytes.NewReader(out))
	}
	if err != nil {
		t.Fatal(err)
	}
	return chain.Stored{Name: n, Size: int64(len(out))}
}

// scanned makes a pass over a file.
func scanned(t *testing.T, b *bench, n chain.Stored) *File {
	t.Helper()
	sc, err := b.Scan(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, sc)
	layout, lerr := sc.Layout()
	if err = errors.Join(err, lerr, sc.Close()); err != nil {
		t.Fatal(err)
	}
	return &File{n, layout}
}

// Files that can only be read in order are read by ranges from a copy.
func TestCopies(t *testing.T) {
	disk, err := cache.OpenDir(filepath.Join(t.TempDir(), "cache"), 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, Options{Disk: disk, Memory: 1 << 20})
	data := [][]byte{content(600_000), content(400_000)[1:]}
	var files []*File
	for i, d := range data {
		f := scanned(t, b, bzip2File(t, b, i+1, d))
		if !f.Layout.Ordered || f.Layout.PlainSize != int64(len(d)) {
			t.Fatalf("%+v", f.Layout)
		}
		files = append(files, f)
	}
	read := func(i int, off, n int64) {
		got := make([]byte, n)
		if _, err := b.ReadAt(t.Context(), files[i], got, off); err != nil || !bytes.Equal(got, data[i][off:off+n]) {
			t.Errorf("file %d: %d bytes at %d: %v", i, n, off, err)
		}
	}
	b.count.Reset()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 0))
			for range 20 {
				i := r.IntN(2)
				off := r.Int64N(int64(len(data[i])))
				read(i, off, min(r.Int64N(100_000), int64(len(data[i]))-off))
			}
		})
	}
	wg.Wait()
	if got := b.count.Of(backendtest.Get).Calls; got != 2 {
		t.Errorf("%d requests for two copies", got)
	}
	for _, f := range files {
		for k := range f.Layout.Len() {
			if disk.Has(diskKey(f.id(), f.Layout.Chunk(k))) {
				t.Fatal("plaintext is in the disk cache")
			}
		}
	}
	// The stored copy is no plaintext either.
	c := b.copies.all[files[0].id()]
	raw := make([]byte, 4096)
	if _, err := c.file.ReadAt(raw, 8192); err != nil || bytes.Equal(raw, data[0][8192:8192+4096]) {
		t.Errorf("the copy is not encrypted, or: %v", err)
	}
	// With room for one only, they take turns.
	b.copies.budget = 1
	b.count.Reset()
	b.blocks = cache.NewBlocks[blockKey](1)
	for range 2 {
		read(0, 5, 100)
		read(1, 5, 100)
	}
	if got, n := b.count.Of(backendtest.Get).Calls, len(b.copies.all); got < 2 || n != 1 {
		t.Errorf("%d requests, %d copies", got, n)
	}
}

// A copy that cannot be made is an error, and tried again.
func TestCopyFails(t *testing.T) {
	b := newBench(t, Options{})
	data := content(300_000)
	name := bzip2File(t, b, 1, data)
	f := scanned(t, b, name)
	r, err := b.mem.Open(t.Context(), name.File, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(stored)
	bad[len(bad)/2] ^= 1
	got := make([]byte, 100)
	var corrupt *chain.CorruptError
	for _, s := range [][]byte{bad, stored[:len(stored)-30], bzip2Swapped(t, b, data)} {
		if err := b.mem.Put(t.Context(), name.File, bytes.NewReader(s)); err != nil {
			t.Fatal(err)
		}
		if _, err := b.ReadAt(t.Context(), f, got, 299_000); !errors.As(err, &corrupt) {
			t.Errorf("damaged: %v", err)
		}
		b.copies.close()
		b.copies.budget = maxCopies
	}
	if err := b.mem.Put(t.Context(), name.File, bytes.NewReader(stored)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ReadAt(t.Context(), f, got, 299_000); err != nil || !bytes.Equal(got, data[299_000:299_100]) {
		t.Errorf("mended: %v", err)
	}
}

// bzip2Swapped returns another file of the same length of plaintext.
func bzip2Swapped(t *testing.T, b *bench, data []byte) []byte {
	t.Helper()
	other := bytes.Clone(data)
	other[299_050] ^= 1
	n := bzip2File(t, b, 9, other)
	r, err := b.mem.Open(t.Context(), n.File, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
