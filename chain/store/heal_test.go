package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"dupfs/backends"
	"dupfs/backends/backendtest"
	"dupfs/backends/mem"
	"dupfs/chain"
	"dupfs/chain/pgp"
)

// physician is a backend whose damaged files come back from a second one.
type physician struct {
	*mem.Backend
	whole *mem.Backend
	asked atomic.Int64
}

func (p *physician) Healer() backends.Healer { return p }

func (p *physician) Recovery(ctx context.Context) (map[string]backends.Recovery, error) {
	there := map[string]bool{}
	files, err := p.List(ctx)
	for _, f := range files {
		there[f.Name] = true
	}
	all := map[string]backends.Recovery{}
	copies, werr := p.whole.List(ctx)
	for _, f := range copies {
		all[f.Name] = backends.Recovery{Files: 1, Bytes: f.Size, Lost: !there[f.Name]}
	}
	return all, errors.Join(err, werr)
}

func (p *physician) Heal(ctx context.Context, name string) (*os.File, error) {
	p.asked.Add(1)
	r, err := p.whole.Open(ctx, name, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	f, err := TempFile("")
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(f, r)
	return f, err
}

func (p *physician) PutBack(ctx context.Context, name string, r io.ReadSeeker) error {
	return p.Put(ctx, name, r)
}

func (p *physician) Protect(ctx context.Context, name string, r io.ReadSeeker) error {
	return p.whole.Put(ctx, name, r)
}

// ward is a store over a physician, with one volume that both know.
func ward(t *testing.T, layer chain.Layer, data []byte) (*physician, *bench, *File) {
	t.Helper()
	b := newBench(t, Options{})
	f := b.put(t, layer, data)
	p := &physician{Backend: b.mem, whole: mem.New()}
	if err := p.whole.Put(t.Context(), f.File(), bytes.NewReader(backendtest.Read(t, b.mem, f.File()))); err != nil {
		t.Fatal(err)
	}
	return p, b, f
}

func (p *physician) open(t *testing.T, notify func(Healed)) *Store {
	t.Helper()
	s := New(p, Options{Keys: pgp.NewKeys("secret"), Notify: notify})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := s.List(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// Many readers of a damaged file have it healed once, are told once, and get
// what was stored; then it can be put back.
func TestHealing(t *testing.T) {
	eachLayer(t, func(t *testing.T, layer chain.Layer) {
		data := content(20 * testChunk)
		p, b, f := ward(t, layer, data)
		text := backendtest.Read(t, b.mem, f.File())
		for i := range text {
			if i%1000 == 500 {
				text[i] ^= 1
			}
		}
		backendtest.Write(t, b.mem, f.File(), text)
		var told atomic.Int64
		s := p.open(t, func(h Healed) {
			if told.Add(1); h.File != f.File() || h.Reason == "" || strings.Contains(h.Reason, h.File) {
				t.Errorf("%+v", h)
			}
		})
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				got := make([]byte, 5000)
				off := int64(i * 9000)
				if _, err := s.ReadAt(t.Context(), f, got, off); err != nil || !bytes.Equal(got, data[off:off+5000]) {
					t.Errorf("at %d: %v", off, err)
				}
			})
		}
		wg.Wait()
		if p.asked.Load() != 1 || told.Load() != 1 || len(s.Healed()) != 1 {
			t.Errorf("healed %d times, told %d times: %v", p.asked.Load(), told.Load(), s.Healed())
		}
		if err := s.PutBack(t.Context(), f.Stored, []byte("another sum")); err == nil {
			t.Error("put back with another SHA-1")
		}
		if err := s.PutBack(t.Context(), f.Stored, f.Layout.SHA1[:]); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(backendtest.Read(t, b.mem, f.File()), backendtest.Read(t, p.whole, f.File())) || len(s.Healed()) != 0 {
			t.Errorf("it is not what it was; %v", s.Healed())
		}
	})
}

// A file that is gone is in the listing of a set that has its manifest, and in
// no other, and is read whole.
func TestHealLost(t *testing.T) {
	data := content(3 * testChunk)
	p, b, f := ward(t, chain.OpenPGP, data)
	if err := b.mem.Delete(t.Context(), f.File()); err != nil {
		t.Fatal(err)
	}
	if s := p.open(t, nil); s.Lost(f.File()) || len(s.Leftovers()) != 1 {
		t.Errorf("without a manifest: lost %v, left %v", s.Lost(f.File()), s.Leftovers())
	}
	n := f.Name
	n.Kind, n.Volume = chain.ManifestFile, 0
	backendtest.Write(t, b.mem, chain.Prefixes{}.Format(n), []byte("x"))
	s := p.open(t, nil)
	files, err := s.List(t.Context())
	if err != nil || len(files) != 2 || !s.Lost(f.File()) || len(s.Leftovers()) != 0 {
		t.Fatalf("%v, %v", files, err)
	}
	r, err := s.Open(t.Context(), f.Stored)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// What heals to something that does not pass is not served, and is not asked
// for again and again; the error has both reasons.
func TestHealInVain(t *testing.T) {
	data := content(3 * testChunk)
	p, b, f := ward(t, chain.OpenPGP, data)
	text := backendtest.Read(t, b.mem, f.File())
	text[len(text)/2] ^= 1
	backendtest.Write(t, b.mem, f.File(), text)
	backendtest.Write(t, p.whole, f.File(), text)
	s := p.open(t, nil)
	var corrupt *chain.CorruptError
	for range 3 {
		if _, err := io.ReadAll(must(s.Open(t.Context(), f.Stored))); !errors.As(err, &corrupt) {
			t.Errorf("%v", err)
		}
		if _, err := s.ReadAt(t.Context(), f, make([]byte, len(data)), 0); !errors.As(err, &corrupt) {
			t.Errorf("%v", err)
		}
	}
	if n := p.asked.Load(); n != 1 {
		t.Errorf("healed %d times", n)
	}
	if err := s.PutBack(t.Context(), f.Stored, nil); err == nil {
		t.Error("it was put back")
	}

	s = p.open(t, nil)
	if err := p.whole.Delete(t.Context(), f.File()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := s.Open(t.Context(), f.Stored); !errors.As(err, &corrupt) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v", err)
		}
	}
	if n := p.asked.Load(); n != 2 {
		t.Errorf("asked %d times", n)
	}
}

// must gives a reader of what was opened, or of the error.
func must(r io.ReadCloser, err error) io.Reader {
	if err != nil {
		return errorReader{err}
	}
	return r
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

// What is intact costs nothing but one more reading, and can get recovery files.
func TestHealthy(t *testing.T) {
	data := content(3 * testChunk)
	p, _, f := ward(t, chain.OpenPGP, data)
	s := p.open(t, func(h Healed) { t.Errorf("%+v", h) })
	if got, err := io.ReadAll(must(s.Open(t.Context(), f.Stored))); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if err := s.Protect(t.Context(), f.Stored, f.Layout.SHA1[:]); err != nil {
		t.Error(err)
	}
	if err := s.Protect(t.Context(), f.Stored, make([]byte, 20)); err == nil {
		t.Error("something else was protected")
	}
	if p.asked.Load() != 0 {
		t.Error("it was healed")
	}
}
