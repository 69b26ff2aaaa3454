package web

import (
	"errors"
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
	over bool // Done was called
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
	s.live, s.over = &Piece{s: s, off: off, n: n}, false
	return s.live
}

// Parallel tells whether Parts can be had.
func (s *Source) Parallel() bool {
	_, ok := s.r.(io.ReaderAt)
	return ok
}

// Part is like Piece, but any number of parts, and the latest piece, can be
// used at a time. Call it only if Parallel.
func (s *Source) Part(off, n int64) *Piece {
	return &Piece{s: s, off: off, n: n, at: s.r.(io.ReaderAt)}
}

// Done takes the reader back from all pieces. It waits for the Read of one that
// is under way, though not for those of parts, which do not move the reader.
func (s *Source) Done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live, s.over = nil, true
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
	at     io.ReaderAt // of a part
}

// Len is how many bytes the whole piece has.
func (p *Piece) Len() int64 { return p.n }

func (p *Piece) Read(b []byte) (int, error) {
	if p.at != nil {
		return p.readAt(b)
	}
	s := p.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live != p {
		return 0, errOver
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
	return n, p.moved(n, err)
}

func (p *Piece) readAt(b []byte) (int, error) {
	s := p.s
	s.mu.Lock()
	over := s.over
	s.mu.Unlock()
	if over {
		return 0, errOver
	}
	if p.pos >= p.n {
		return 0, io.EOF
	}
	n, err := p.at.ReadAt(b[:min(int64(len(b)), p.n-p.pos)], s.base+p.off+p.pos)
	s.mu.Lock()
	defer s.mu.Unlock()
	return n, p.moved(n, err)
}

// moved notes that n bytes were read, and how that ended. s.mu is held.
func (p *Piece) moved(n int, err error) error {
	p.pos += int64(n)
	if err == io.EOF && p.pos < p.n {
		err = fmt.Errorf("it became %d bytes shorter while it was sent", p.n-p.pos)
	}
	if err != nil && err != io.EOF && p.s.err == nil {
		p.s.err = err
	}
	return err
}

var errOver = errors.New("the request is over")

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
