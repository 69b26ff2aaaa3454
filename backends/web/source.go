package web

import (
	"fmt"
	"io"
	"sync"
)

// Source hands out what a Put is given, in pieces that can be sent again. A
// request's body may still be read after the request has failed, by a goroutine
// of the transport that is late: Source sees to it that this disturbs neither
// the next try nor the owner of the reader.
type Source struct {
	mu   sync.Mutex // held while the reader is used
	r    io.ReadSeeker
	base int64 // where r stood at the beginning
	pos  int64 // where r stands, from base; -1 if that is not known
	live *Piece
	err  error
}

// NewSource returns a Source of all that follows the position of r.
func NewSource(r io.ReadSeeker) (*Source, error) {
	base, err := r.Seek(0, io.SeekCurrent)
	return &Source{r: r, base: base, pos: -1}, err
}

// Piece returns the n bytes from off (from where the reader stood), for one
// request; the piece before it reads nothing any more. A source that ends
// early is an error.
func (s *Source) Piece(off, n int64) *Piece {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = &Piece{s: s, off: off, n: n}
	return s.live
}

// Done takes the reader back from the last piece. It waits for a Read under way.
func (s *Source) Done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = nil
}

// Err is why reading the source failed; nil if it has not. A failed request
// reports it less clearly, or not at all.
func (s *Source) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Piece is the body of one request: an io.ReadSeekCloser.
type Piece struct {
	s      *Source
	off, n int64
	pos    int64
}

// Len is how many bytes the whole piece has.
func (p *Piece) Len() int64 { return p.n }

func (p *Piece) Read(b []byte) (int, error) {
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live != p {
		return 0, fmt.Errorf("the request is over")
	}
	if p.pos >= p.n {
		return 0, io.EOF
	}
	if at := p.off + p.pos; s.pos != at {
		if _, s.err = s.r.Seek(s.base+at, io.SeekStart); s.err != nil {
			return 0, s.err
		}
		s.pos = at
	}
	n, err := s.r.Read(b[:min(int64(len(b)), p.n-p.pos)])
	s.pos += int64(n)
	p.pos += int64(n)
	if err == io.EOF && p.pos < p.n {
		err = fmt.Errorf("it became %d bytes shorter while it was sent", p.n-p.pos)
	}
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

// Seek moves within the piece.
func (p *Piece) Seek(off int64, whence int) (int64, error) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	switch whence {
	case io.SeekCurrent:
		off += p.pos
	case io.SeekEnd:
		off += p.n
	}
	if off < 0 {
		return 0, fmt.Errorf("seek before the beginning")
	}
	p.pos = off
	return off, nil
}

// Close does nothing: the reader is the caller's.
func (p *Piece) Close() error { return nil }
