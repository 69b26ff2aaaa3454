package backup

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
)

// TestCutter puts bodies of literals and copies together again from pieces
// and spans, at every small size.
func TestCutter(t *testing.T) {
	for _, size := range []int{1, 2, 3, 7, 16} {
		for seed := range uint64(40) {
			t.Run(fmt.Sprint(size, seed), func(t *testing.T) { testCutter(t, size, rand.New(rand.NewPCG(seed, 1))) })
		}
	}
}

func testCutter(t *testing.T, size int, rng *rand.Rand) {
	basis := []byte("abcdefghijklmnopqrstuvwxyz")
	var body, file []byte
	var pieces []piece
	c := &cutter{
		size: size, alloc: func() []byte { return nil },
		emit: func(p piece) error { pieces = append(pieces, p); return nil },
	}
	for range rng.IntN(8) {
		head := bytes.Repeat([]byte{'#'}, rng.IntN(3))
		data := bytes.Repeat([]byte{byte('A' + rng.IntN(26))}, 1+rng.IntN(20))
		at := span{fileOff: int64(len(file))}
		if rng.IntN(3) == 0 {
			off := rng.IntN(20)
			at.basis, at.off, at.n = true, int64(off), int64(1+rng.IntN(6))
			file = append(file, basis[off:off+int(at.n)]...)
			data = nil
		} else {
			at.off, at.n = int64(len(body)+len(head)), int64(len(data))
			file = append(file, data...)
		}
		c.span(at)
		body = append(append(body, head...), data...)
		for _, part := range [][]byte{head, data} {
			if _, err := c.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.cut(); err != nil {
			t.Fatal(err)
		}
	}
	last, err := c.finish()
	if err != nil {
		t.Fatal(err)
	}
	pieces = append(pieces, last)
	var gotBody, gotFile []byte
	for i, p := range pieces {
		if p.last != (i == len(pieces)-1) || !p.last && len(p.data) != size || len(p.data) > size {
			t.Errorf("piece %d of %d: %d bytes, last %v", i, len(pieces), len(p.data), p.last)
		}
		gotBody = append(gotBody, p.data...)
		for _, s := range p.spans {
			if s.fileOff != int64(len(gotFile)) || s.n <= 0 {
				t.Errorf("piece %d: span %+v at %d", i, s, len(gotFile))
			}
			from := p.data
			if s.basis {
				from = basis
			}
			gotFile = append(gotFile, from[s.off:s.off+s.n]...)
		}
	}
	if !bytes.Equal(gotBody, body) || !bytes.Equal(gotFile, file) {
		t.Errorf("body %q, want %q\nfile %q, want %q", gotBody, body, gotFile, file)
	}
	if c.sent != len(pieces)-1 {
		t.Errorf("%d pieces counted, %d emitted", c.sent, len(pieces)-1)
	}
}

func TestCutterEmitFails(t *testing.T) {
	c := &cutter{size: 1, alloc: func() []byte { return nil }, emit: func(piece) error { return io.ErrClosedPipe }}
	if _, err := c.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if err := c.cut(); err != io.ErrClosedPipe {
		t.Errorf("cut: %v", err)
	}
	if _, err := c.finish(); err != io.ErrClosedPipe {
		t.Errorf("finish: %v", err)
	}
}

func TestSpool(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []int{0, 1, spoolMemory, spoolMemory + 1, 3*spoolMemory + 5} {
		s := &spool{dir: dir}
		want := bytes.Repeat([]byte("0123456789"), n/10+1)[:n]
		for part := range bytesChunks(want, 100_001) {
			if _, err := s.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			got, err := io.ReadAll(s.reader())
			if err != nil || !bytes.Equal(got, want) || s.size() != int64(n) {
				t.Errorf("%d bytes: read %d, size %d, %v", n, len(got), s.size(), err)
			}
		}
		if (s.file != nil) != (n > spoolMemory) {
			t.Errorf("%d bytes: in a file is %v", n, s.file != nil)
		}
		s.close()
	}
	s := &spool{dir: dir + "/missing"}
	if _, err := s.Write(make([]byte, spoolMemory+1)); err == nil {
		t.Error("wrote into a missing directory")
	}
}

func bytesChunks(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			m := min(n, len(b))
			if !yield(b[:m]) {
				return
			}
			b = b[m:]
		}
	}
}
