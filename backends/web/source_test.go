package web

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestSource(t *testing.T) {
	r := strings.NewReader("..0123456789")
	r.Seek(2, io.SeekStart)
	s, err := NewSource(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		off, n int64
		want   string
	}{{0, 10, "0123456789"}, {3, 4, "3456"}, {7, 3, "789"}, {4, 0, ""}, {0, 1, "0"}} {
		for _, p := range []*Piece{s.Piece(c.off, c.n), s.Part(c.off, c.n)} {
			if err := iotest.TestReader(struct{ io.ReadSeeker }{p}, []byte(c.want)); err != nil {
				t.Errorf("piece (%d, %d): %v", c.off, c.n, err)
			}
		}
	}
	if s.Err() != nil {
		t.Error(s.Err())
	}
}

func TestSourceOnePieceAtATime(t *testing.T) {
	s, _ := NewSource(strings.NewReader("0123456789"))
	old := s.Piece(0, 10)
	io.ReadFull(old, make([]byte, 4))
	p := s.Piece(0, 10)
	if n, err := old.Read(make([]byte, 4)); n != 0 || err == nil || err == io.EOF {
		t.Errorf("a piece that was replaced read %d bytes, %v", n, err)
	}
	part, part2 := s.Part(2, 3), s.Part(3, 3)
	for p, want := range map[*Piece]string{p: "0123456789", part: "234", part2: "345"} {
		if got, err := io.ReadAll(p); string(got) != want || err != nil {
			t.Errorf("the new piece: %q, %v", got, err)
		}
	}
	s.Done()
	for _, p := range []*Piece{p, part} {
		p.Seek(0, io.SeekStart)
		if n, err := p.Read(make([]byte, 4)); n != 0 || err == nil || err == io.EOF {
			t.Errorf("a piece read %d bytes, %v after Done", n, err)
		}
	}
}

func TestSourceFails(t *testing.T) {
	s, _ := NewSource(bytes.NewReader(make([]byte, 5)))
	if _, err := io.ReadAll(s.Piece(0, 10)); err == nil || !errors.Is(s.Err(), err) {
		t.Errorf("a source that is too short: %v, %v", err, s.Err())
	}
	s, _ = NewSource(bytes.NewReader(make([]byte, 5)))
	if _, err := io.ReadAll(s.Part(2, 10)); err == nil || !errors.Is(s.Err(), err) {
		t.Errorf("a part of a source that is too short: %v, %v", err, s.Err())
	}
	broken := errors.New("broken")
	s, _ = NewSource(failing{broken})
	if _, err := io.ReadAll(s.Piece(0, 10)); !errors.Is(err, broken) || !errors.Is(s.Err(), broken) {
		t.Errorf("a source that fails: %v, %v", err, s.Err())
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)       { return 0, f.err }
func (f failing) Seek(int64, int) (int64, error) { return 0, nil }
