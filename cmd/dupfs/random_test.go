package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Random trees and edits over several sets; then random ranges of random
// files at random points, read through the mount, are those of kept copies.
func TestRandomHistory(t *testing.T) {
	for _, seed := range []uint64{1, 2, 3} {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { testRandomHistory(t, seed) })
	}
}

func testRandomHistory(t *testing.T, seed uint64) {
	w := newWorld(t)
	r := rand.New(rand.NewPCG(seed, 7))
	opts := layers[[]string{"encrypted", "gzip", "plain"}[seed%3]]
	url := w.url("archive")
	w.sh("mkdir src")
	const sets = 6
	for n := range sets {
		w.mutate(r, 12)
		w.sh(fmt.Sprintf("cp -a src copy%d", n))
		verb := "backup"
		if n == 4 {
			verb = "full"
		}
		w.dupfs(append([]string{verb, "--volsize", "1", "--current-time", at(n), "src", url}, opts...)...)
	}
	mnt, _ := w.mount(url)
	points := make([]string, sets)
	for n := range sets {
		points[n] = filepath.Join(mnt, "snapshots", time.Unix(epoch+int64(n)*86400, 0).UTC().Format(time.RFC3339))
	}
	for range 300 {
		n := r.IntN(sets)
		readSomewhere(t, r, points[n], w.path(fmt.Sprint("copy", n)))
	}
	for n := range sets {
		same(t, fmt.Sprint("point ", n), points[n], w.path(fmt.Sprint("copy", n)))
	}
}

// mutate makes, changes, moves and removes some files below src.
func (w *world) mutate(r *rand.Rand, steps int) {
	w.t.Helper()
	for range steps {
		name := fmt.Sprintf("src/%c/%c%d", 'a'+r.IntN(3), 'a'+r.IntN(3), r.IntN(4))
		if r.IntN(3) == 0 {
			name = fmt.Sprintf("src/%c%d", 'k'+r.IntN(3), r.IntN(4))
		}
		old, err := os.ReadFile(w.path(name))
		switch op := r.IntN(8); {
		case err != nil || op == 0:
			w.write(name, string(randomBytes(r, r.IntN(1<<uint(r.IntN(22)+1)))))
		case op == 1:
			_ = os.Remove(w.path(name))
		case op == 2:
			w.write(name, string(old[:r.IntN(len(old)+1)]))
		case op == 3:
			w.write(name, string(old)+string(randomBytes(r, r.IntN(100000))))
		default:
			i := r.IntN(len(old) + 1)
			w.write(name, string(old[:i])+string(randomBytes(r, r.IntN(3000)))+string(old[min(len(old), i+r.IntN(2000)):]))
		}
	}
}

// randomBytes returns bytes of which half compress.
func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		if i%2 == 0 {
			b[i] = byte(r.Uint32())
		}
	}
	return b
}

// readSomewhere compares one range of one file.
func readSomewhere(t *testing.T, r *rand.Rand, point, want string) {
	t.Helper()
	var files []string
	_ = filepath.Walk(want, func(p string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			files = append(files, p)
		}
		return nil
	})
	if len(files) == 0 {
		return
	}
	name := files[r.IntN(len(files))]
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	rel, _ := filepath.Rel(want, name)
	f, err := os.Open(filepath.Join(point, rel))
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	off := r.IntN(len(whole) + 10)
	buf := make([]byte, r.IntN(1<<uint(r.IntN(20)+1)))
	n, err := f.ReadAt(buf, int64(off))
	if err != nil && err != io.EOF {
		t.Errorf("%s at %d: %v", rel, off, err)
	}
	if !bytes.Equal(buf[:n], whole[min(off, len(whole)):min(off+len(buf), len(whole))]) {
		t.Errorf("%s: %d bytes at %d differ", rel, len(buf), off)
	}
}
