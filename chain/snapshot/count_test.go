package snapshot

import (
	"bytes"
	"os"
	"testing"

	"dupfs/backends/backendtest"
	"dupfs/chain"
)

// rootNames lists the root of a tree.
func rootNames(t testing.TB, tree chain.Tree) (n int) {
	t.Helper()
	if err := tree.ReadDir(t.Context(), rootDir, "", true, func(chain.Node) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// readFile reads a range of a file.
func (w *world) readFile(a *archive, tree chain.Tree, p chain.Path, off int64, n int) []byte {
	w.t.Helper()
	node, err := Resolve(w.t.Context(), tree, p)
	w.must(err)
	c, err := a.OpenVersion(w.t.Context(), node.Version)
	w.must(err)
	b := make([]byte, min(int64(n), c.Size()-off))
	_, err = c.ReadAt(w.t.Context(), b, off)
	w.must(err)
	return b
}

// The last point of a long chain costs what the first one does, and a chain
// that was seen costs a listing, and a request for a small file.
func TestLongChainRequests(t *testing.T) {
	const increments = 60
	w := newWorld(t, chain.Gzip)
	w.must(os.RemoveAll(w.path("a")))
	w.must(os.RemoveAll(w.path("b c")))
	w.must(os.Remove(w.path("b.c")))
	w.extend, w.dir, w.chunk = true, t.TempDir(), 0
	w.write("zz", 48)
	w.backup(true)
	var contents [][]byte
	note := func() {
		b, err := os.ReadFile(w.path("zz"))
		w.must(err)
		contents = append(contents, b)
	}
	note()
	for range increments {
		w.write("zz", 48)
		w.backup(false)
		note()
	}
	count := backendtest.NewCount(w.b)
	seen := func(point int) backendtest.Tally {
		count.Reset()
		a := w.open(count)
		tree := w.treeOf(a, point)
		if n := rootNames(t, tree); n != 3 {
			t.Errorf("point %d: %d entries", point, n)
		}
		if got := count.Total().Calls; got != 1 {
			t.Errorf("point %d: %d requests for ls", point, got)
		}
		if got := w.readFile(a, tree, "zz", 0, 100); !bytes.Equal(got, contents[point]) {
			t.Errorf("point %d: %x", point, got)
		}
		total := count.Total()
		w.readFile(a, tree, "zz", 0, 100)
		if again := count.Total(); again != total {
			t.Errorf("point %d: read again: %+v after %+v", point, again, total)
		}
		return total
	}
	for _, point := range []int{0, 20, increments} {
		if got := seen(point); got.Calls != 2 || got.Bytes > 10_000 {
			t.Errorf("point %d: %+v", point, got)
		}
	}
	w.dir = "" // never seen
	count.Reset()
	rootNames(t, w.treeOf(w.open(count), increments))
	if got := count.Total().Calls; got != 1+2*(increments+1) {
		t.Errorf("%d requests for ls of a chain that was never seen", got)
	}
}

// A small read of a file that deltas made costs one request of a chunk for each
// place where its bytes are.
func TestRandomReadRequests(t *testing.T) {
	const size = 3 << 20
	w := newWorld(t, chain.Gzip)
	w.extend, w.dir, w.chunk, w.volSize = true, t.TempDir(), 0, 8<<20
	w.write("big", size)
	w.backup(true)
	for i := range 4 {
		w.patch("big", (i+1)*500_000)
		w.backup(false)
	}
	content, err := os.ReadFile(w.path("big"))
	w.must(err)
	count := backendtest.NewCount(w.b)
	requests := 0
	const reads = 12
	for i := range reads {
		a := w.open(count)
		tree := w.treeOf(a, 4)
		off := i * (size / reads)
		count.Reset()
		if got := w.readFile(a, tree, "big", int64(off), 4096); !bytes.Equal(got, content[off:off+4096]) {
			t.Errorf("wrong bytes at %d", off)
		}
		got := count.Total()
		if got.Bytes > int64(got.Calls)*300_000 {
			t.Errorf("at %d: %+v", off, got)
		}
		requests += got.Calls
	}
	if requests < reads || requests > 2*reads {
		t.Errorf("%d requests for %d reads", requests, reads)
	}
}
