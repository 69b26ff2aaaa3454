package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"dupfs/backends/backendtest"
	"dupfs/backends/mem"
	"dupfs/cache"
	"dupfs/chain"
	"dupfs/chain/pgp"
)

const testChunk = 4096

// bench is a store over a counting, faulty backend in memory.
type bench struct {
	*Store
	mem   *mem.Backend
	count *backendtest.Count
	fault *backendtest.Faulty
}

// open returns a new store on the same backend, with empty memory.
func (b *bench) open(t *testing.T, o Options) *bench {
	t.Helper()
	n := &bench{mem: b.mem}
	n.fault = backendtest.NewFaulty(b.mem)
	n.count = backendtest.NewCount(n.fault)
	o.Volume.Chunk = testChunk
	o.Keys = pgp.NewKeys("secret")
	o.Encrypter = func() (*pgp.Encrypter, error) { return pgp.NewEncrypter("secret") }
	n.Store = New(n.count, o)
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func newBench(t *testing.T, o Options) *bench {
	return (&bench{mem: mem.New()}).open(t, o)
}

// volumeName is the name of a test's volume.
func volumeName(layer chain.Layer) chain.Name {
	at := time.Unix(1700000000, 0).UTC()
	return chain.Name{Kind: chain.VolumeFile, Full: true, Start: at, End: at, Volume: 1, Layer: layer}
}

// content is half compressible.
func content(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32()) & byte(i)
	}
	return b
}

// put stores a volume and returns it.
func (b *bench) put(t *testing.T, layer chain.Layer, data []byte) *File {
	t.Helper()
	w, err := b.Create(t.Context(), volumeName(layer))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	layout, err := w.Commit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &File{chain.Stored{Name: w.Name(), Size: w.Size()}, layout}
}

func eachLayer(t *testing.T, fn func(t *testing.T, layer chain.Layer)) {
	for _, layer := range []chain.Layer{chain.OpenPGP, chain.Gzip, chain.Plain} {
		t.Run(layer.String(), func(t *testing.T) { fn(t, layer) })
	}
}

func TestReadAt(t *testing.T) {
	eachLayer(t, func(t *testing.T, layer chain.Layer) {
		b := newBench(t, Options{})
		data := content(50*testChunk + 123)
		f := b.put(t, layer, data)
		r := rand.New(rand.NewPCG(3, 4))
		for range 500 {
			off := r.IntN(len(data) + 100)
			p := make([]byte, r.IntN(1<<uint(r.IntN(16))))
			checkRead(t, b.Store, f, data, p, off)
		}
	})
}

// checkRead compares one ReadAt with the data.
func checkRead(t *testing.T, s *Store, f *File, data, p []byte, off int) {
	t.Helper()
	n, err := s.ReadAt(t.Context(), f, p, int64(off))
	want := data[min(off, len(data)):min(off+len(p), len(data))]
	if !bytes.Equal(p[:n], want) {
		t.Fatalf("%d bytes at %d: got %d, want %d, or others: %v", len(p), off, n, len(want), err)
	}
	if short := len(want) < len(p); short != (err == io.EOF) || err != nil && err != io.EOF {
		t.Fatalf("%d bytes at %d: %v", len(p), off, err)
	}
}

// A small read costs one small request, a second one none, neighbours one
// request together, and reading in order few.
func TestRequests(t *testing.T) {
	eachLayer(t, func(t *testing.T, layer chain.Layer) {
		seed := newBench(t, Options{})
		chunk := testChunk
		if layer == chain.Plain {
			chunk = 256 << 10 // there the caller has no choice
		}
		data := content(200 * chunk)
		f := seed.put(t, layer, data)

		b := seed.open(t, Options{})
		p := make([]byte, 100)
		checkRead(t, b.Store, f, data, p, 77*chunk+5)
		if got := b.count.Of(backendtest.Get); got.Calls != 1 || got.Bytes > 2*int64(chunk) {
			t.Errorf("a small read: %+v", got)
		}
		checkRead(t, b.Store, f, data, p, 77*chunk+500)
		if got := b.count.Of(backendtest.Get); got.Calls != 1 {
			t.Errorf("a second read: %+v", got)
		}
		checkRead(t, b.Store, f, data, make([]byte, 8*chunk), 100*chunk)
		if got := b.count.Of(backendtest.Get); got.Calls != 2 {
			t.Errorf("neighbours: %+v", got)
		}

		b = seed.open(t, Options{})
		for off := 0; off < len(data); off += chunk / 4 {
			checkRead(t, b.Store, f, data, make([]byte, chunk/4), off)
		}
		b.behind.Wait()
		got := b.count.Of(backendtest.Get)
		if got.Calls > 100 {
			t.Errorf("200 chunks in order: %+v", got)
		}
		if got.Bytes > f.Size*11/10+int64(100*got.Calls) {
			t.Errorf("200 chunks in order: %+v of %d bytes", got, f.Size)
		}
	})
}

// TestNear reads out of order where stored bytes are near: a chunk is decoded as
// far as it is needed, whole when more of it is, and then not again.
func TestNear(t *testing.T) {
	eachLayer(t, func(t *testing.T, layer chain.Layer) {
		if layer == chain.Plain {
			t.Skip("nothing is inflated there")
		}
		seed := newBench(t, Options{})
		data := content(200 * testChunk)
		f := seed.put(t, layer, data)
		b := seed.open(t, Options{Near: true})
		used := func(k int, at, n int, calls int, bytes int64) {
			t.Helper()
			off := int(f.Layout.Chunk(k).PlainOff) + at
			checkRead(t, b.Store, f, data, make([]byte, n), off)
			got := b.count.Of(backendtest.Get)
			if int(got.Calls) != calls || b.blocks.Used() != bytes {
				t.Errorf("%d bytes at %d: %d requests, not %d; %d bytes are kept, not %d", n, off, got.Calls, calls, b.blocks.Used(), bytes)
			}
		}
		const c = testChunk
		used(50, 100, 50, 1, 150)       // the start
		used(50, 10, 100, 1, 150)       // within it
		used(50, 1000, 50, 2, 150+c)    // beyond: all of it
		used(50, 3000, 500, 2, 150+c)   //
		used(150, 3900, 10, 3, 150+2*c) // near the end: all of it
		used(99, c-10, 20, 4, 150+4*c)  // two chunks
		used(20, 0, 30, 5, 180+4*c)     // another start
		used(20, 30, 30, 6, 180+5*c)    // the next bytes
		used(20, 60, 30, 6, 180+5*c)    //
		used(21, 0, 30, 7, 180+6*c)     // and on: in order now
		used(21, 30, 30, 7, 180+6*c)    //
		r := rand.New(rand.NewPCG(3, 4))
		for range 500 {
			checkRead(t, b.Store, f, data, make([]byte, r.IntN(1<<uint(r.IntN(14)))), r.IntN(len(data)+100))
		}
	})
}

func TestConcurrent(t *testing.T) {
	b := newBench(t, Options{Memory: 40 * testChunk})
	data := content(100 * testChunk)
	f := b.put(t, chain.OpenPGP, data)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for range 100 {
				off := r.IntN(len(data))
				p := make([]byte, r.IntN(6*testChunk))
				n, err := b.ReadAt(t.Context(), f, p, int64(off))
				if err != nil && err != io.EOF || !bytes.Equal(p[:n], data[off:min(off+len(p), len(data))]) {
					t.Errorf("%d at %d: %d, %v", len(p), off, n, err)
				}
			}
		})
	}
	wg.Wait()
	if used := b.blocks.Used(); used > 40*testChunk {
		t.Errorf("%d bytes cached", used)
	}
}

// The disk cache survives; what is wrong in it is fetched again.
func TestDiskCache(t *testing.T) {
	dir := t.TempDir()
	disk := func() *cache.Dir {
		d, err := cache.OpenDir(dir, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	seed := newBench(t, Options{})
	data := content(20 * testChunk)
	f := seed.put(t, chain.OpenPGP, data)

	b := seed.open(t, Options{Disk: disk()})
	checkRead(t, b.Store, f, data, make([]byte, len(data)), 0)
	b.behind.Wait()

	b = seed.open(t, Options{Disk: disk()})
	checkRead(t, b.Store, f, data, make([]byte, len(data)), 0)
	if got := b.count.Total(); got.Calls != 0 {
		t.Errorf("all is on disk, but %+v", got)
	}

	files, _ := filepath.Glob(filepath.Join(dir, "*", "*"))
	for i, name := range files {
		switch i % 3 {
		case 0:
			os.WriteFile(name, []byte("garbage"), 0o600)
		case 1:
			flipByte(t, name)
		}
	}
	b = seed.open(t, Options{Disk: disk()})
	checkRead(t, b.Store, f, data, make([]byte, len(data)), 0)
	if got := b.count.Of(backendtest.Get); got.Calls == 0 {
		t.Error("garbage was not fetched again")
	}
	for _, name := range files {
		if text, _ := os.ReadFile(name); bytes.Contains(data, text) && len(text) > 16 {
			t.Errorf("%s holds plaintext", name)
		}
	}
}

func flipByte(t *testing.T, name string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Whatever happens on the way, a read gives the right bytes or an error.
func TestFaults(t *testing.T) {
	seed := newBench(t, Options{})
	data := content(60 * testChunk)
	f := seed.put(t, chain.OpenPGP, data)
	for s := range uint64(30) {
		b := &bench{mem: seed.mem}
		b.fault = backendtest.NewRandom(seed.mem, s, 0.3)
		b.Store = New(b.fault, Options{Keys: pgp.NewKeys("secret")})
		r := rand.New(rand.NewPCG(s, 9))
		for range 30 {
			off := r.IntN(len(data))
			p := make([]byte, r.IntN(4*testChunk))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			n, _ := b.ReadAt(ctx, f, p, int64(off))
			cancel()
			if !bytes.Equal(p[:n], data[off:off+n]) {
				t.Fatalf("seed %d: wrong bytes", s)
			}
		}
		b.Close()
	}
}

// A read that is cancelled returns, and another one for the same chunk works.
func TestCancel(t *testing.T) {
	seed := newBench(t, Options{})
	data := content(10 * testChunk)
	f := seed.put(t, chain.OpenPGP, data)
	b := seed.open(t, Options{})
	b.fault.Add(backendtest.Fault{Op: backendtest.Get, Kind: backendtest.Stall})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.ReadAt(ctx, f, make([]byte, 10), 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// Close waits for the fills of readers who are gone, and a read that comes
// later fails rather than touch a closed backend.
func TestReadAfterClose(t *testing.T) {
	seed := newBench(t, Options{})
	data := content(10 * testChunk)
	f := seed.put(t, chain.OpenPGP, data)
	b := seed.open(t, Options{})
	var readers sync.WaitGroup
	for k := range 10 {
		readers.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Microsecond)
			defer cancel()
			_, _ = b.ReadAt(ctx, f, make([]byte, 10), int64(k*testChunk))
		})
	}
	readers.Wait()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if n, err := b.ReadAt(t.Context(), f, make([]byte, 10), 0); n != 0 || !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %d bytes, %v", n, err)
	}
}

func TestScanFillsDisk(t *testing.T) {
	eachLayer(t, func(t *testing.T, layer chain.Layer) {
		d, err := cache.OpenDir(t.TempDir(), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		seed := newBench(t, Options{})
		data := content(30 * testChunk)
		f := seed.put(t, layer, data)
		b := seed.open(t, Options{Disk: d})
		sc, err := b.Scan(t.Context(), f.Stored)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(sc)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		layout, err := sc.Layout()
		if err != nil {
			t.Fatal(err)
		}
		if err := sc.Close(); err != nil {
			t.Fatal(err)
		}
		b.count.Reset()
		checkRead(t, b.Store, &File{f.Stored, layout}, data, make([]byte, len(data)), 0)
		if got := b.count.Total(); got.Calls != 0 {
			t.Errorf("after a pass: %+v", got)
		}
	})
}

// A stored file that cannot even be begun is an error of the open.
func TestEmptyFile(t *testing.T) {
	b := newBench(t, Options{})
	n := chain.Stored{Name: volumeName(chain.OpenPGP)}
	n.File = chain.Prefixes{}.Format(n.Name)
	if err := b.mem.Put(t.Context(), n.File, bytes.NewReader(nil)); err != nil {
		t.Fatal(err)
	}
	var corrupt *chain.CorruptError
	if _, err := b.Scan(t.Context(), n); !errors.As(err, &corrupt) {
		t.Errorf("Scan: %v", err)
	}
	if _, err := b.Open(t.Context(), n); !errors.As(err, &corrupt) {
		t.Errorf("Open: %v", err)
	}
}

func TestTrailer(t *testing.T) {
	b := newBench(t, Options{})
	data := content(30 * testChunk)
	f := b.put(t, chain.OpenPGP, data)
	b.count.Reset()
	layout, err := b.Trailer(t.Context(), f.Stored)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.count.Of(backendtest.Get); got.Calls > 3 {
		t.Errorf("%+v", got)
	}
	checkRead(t, b.Store, &File{f.Stored, layout}, data, make([]byte, 1000), 12345)
}

// An upload that is not what was sent is noticed.
func TestUploadSize(t *testing.T) {
	b := newBench(t, Options{})
	b.Store.backend = cutPut{b.mem}
	w, err := b.Create(t.Context(), volumeName(chain.Gzip))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if _, err := w.Write(content(1000)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(t.Context()); !errors.Is(err, ErrUploadSize) {
		t.Errorf("got %v", err)
	}
}

// cutPut stores less than it was given.
type cutPut struct{ *mem.Backend }

func (c cutPut) Put(ctx context.Context, name string, r io.ReadSeeker) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return c.Backend.Put(ctx, name, bytes.NewReader(b[:len(b)-1]))
}

func TestPutGet(t *testing.T) {
	eachLayer(t, func(t *testing.T, layer chain.Layer) {
		b := newBench(t, Options{})
		n := volumeName(layer)
		n.Kind, n.Volume = chain.ManifestFile, 0
		if err := b.Put(t.Context(), n, []byte("Hostname vm\n")); err != nil {
			t.Fatal(err)
		}
		files, err := b.List(t.Context())
		if err != nil || len(files) != 1 || files[0].Kind != chain.ManifestFile {
			t.Fatalf("%+v, %v", files, err)
		}
		text := make([]byte, 8) // the rest is read through, too
		err = b.ReadThrough(t.Context(), files[0], func(r io.Reader) error {
			_, err := io.ReadFull(r, text)
			return err
		})
		if err != nil || string(text) != "Hostname" {
			t.Errorf("%q, %v", text, err)
		}
		bad := errors.New("bad")
		if err := b.ReadThrough(t.Context(), files[0], func(io.Reader) error { return bad }); !errors.Is(err, bad) {
			t.Error(err)
		}
		for range 2 { // the second time it is gone already
			if err := b.Delete(t.Context(), files[0]); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestStreamRead(t *testing.T) {
	const window = 16
	st := &stream{next: -1}
	ask := func(k int) string {
		to := st.read(k, k, window)
		if to < 0 {
			return "-"
		}
		return fmt.Sprint(to)
	}
	for _, step := range []struct {
		chunk int
		want  string
	}{
		{10, "-"}, {11, "-"}, {12, "16"}, {12, "-"}, {13, "19"}, {14, "-"}, {15, "25"}, {3, "-"}, {4, "-"}, {5, "9"},
	} {
		if got := ask(step.chunk); got != step.want {
			t.Errorf("chunk %d: %s, want %s", step.chunk, got, step.want)
		}
	}
}
