package restore

import (
	"context"
	"errors"
	"io"

	"dupfs/chain"
)

const (
	// pieceLen is the length of a read.
	pieceLen = 1 << 20
	// maxAhead is the number of reads of one file in flight.
	maxAhead = 4
	// extraPieces is the number of buffers that workers share to read ahead.
	extraPieces = 8
)

// buffers are the buffers for reading ahead. Each worker has one of its own
// besides, so that it never waits.
type buffers struct{ free chan []byte }

// newBuffers returns buffers that are not yet allocated.
func newBuffers() *buffers {
	b := &buffers{make(chan []byte, extraPieces)}
	for range extraPieces {
		b.free <- nil
	}
	return b
}

// try returns a buffer if one is free.
func (b *buffers) try() ([]byte, bool) {
	select {
	case p := <-b.free:
		if p == nil {
			p = make([]byte, pieceLen)
		}
		return p, true
	default:
		return nil, false
	}
}

// piece is a read in flight.
type piece struct {
	buf  []byte
	off  int64
	n    int
	err  error
	done chan struct{}
}

// streamer reads contents in order. Each worker has one.
type streamer struct {
	own   []byte // nil while in use
	extra *buffers
	queue []*piece
}

// newStreamer returns a streamer.
func newStreamer(extra *buffers) *streamer {
	return &streamer{own: make([]byte, pieceLen), extra: extra}
}

// read calls fn with the bytes of c from off to end in order, in pieces of up
// to 1 MiB, with several reads in flight. A content that ends before is
// io.ErrUnexpectedEOF.
func (s *streamer) read(ctx context.Context, c chain.Content, off, end int64, fn func(off int64, p []byte) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer s.drain()
	defer cancel()
	for {
		for off < end && len(s.queue) < maxAhead {
			buf, ok := s.buffer()
			if !ok {
				break
			}
			p := &piece{buf: buf, off: off, n: int(min(pieceLen, end-off)), done: make(chan struct{})}
			off += int64(p.n)
			s.queue = append(s.queue, p)
			if len(s.queue) == 1 && off == end {
				p.read(ctx, c) // the only one: here
			} else {
				go p.read(ctx, c)
			}
		}
		if len(s.queue) == 0 {
			return nil
		}
		p := s.queue[0]
		<-p.done
		if p.err != nil {
			return p.err
		}
		if err := fn(p.off, p.buf[:p.n]); err != nil {
			return err
		}
		s.queue = s.queue[1:]
		s.release(p.buf)
	}
}

// buffer returns the own buffer or an extra one.
func (s *streamer) buffer() ([]byte, bool) {
	if p := s.own; p != nil {
		s.own = nil
		return p, true
	}
	return s.extra.try()
}

// release gives a buffer back.
func (s *streamer) release(p []byte) {
	if s.own == nil {
		s.own = p
		return
	}
	s.extra.free <- p
}

// drain waits for what is in flight.
func (s *streamer) drain() {
	for _, p := range s.queue {
		<-p.done
		s.release(p.buf)
	}
	s.queue = nil
}

// read fills the piece.
func (p *piece) read(ctx context.Context, c chain.Content) {
	defer close(p.done)
	n, err := c.ReadAt(ctx, p.buf[:p.n], p.off)
	switch {
	case n == p.n:
	case err == nil || errors.Is(err, io.EOF):
		p.err = io.ErrUnexpectedEOF
	default:
		p.err = err
	}
}
