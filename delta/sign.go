package delta

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
)

// Signer writes the signature of the content that is written to it: rollsum
// and MD4 with 8 bytes of it, as duplicity does. It holds no block in memory.
type Signer struct {
	w        *bufio.Writer
	blockLen int
	weak     rollsum
	strong   md4State
	n        int // bytes in the current block
	rec      [4 + strongLen]byte
	err      error
}

// NewSigner returns a Signer that writes to w in blocks of blockLen bytes,
// which must be 1 to MaxBlockLen. Close it.
func NewSigner(w io.Writer, blockLen int) *Signer {
	s := &Signer{w: bufio.NewWriterSize(w, 4096), blockLen: blockLen}
	if blockLen < 1 || blockLen > MaxBlockLen {
		s.err = errors.New("signature: bad block length")
		return s
	}
	var h [12]byte
	binary.BigEndian.PutUint32(h[0:], DefaultMagic)
	binary.BigEndian.PutUint32(h[4:], uint32(blockLen))
	binary.BigEndian.PutUint32(h[8:], strongLen)
	_, s.err = s.w.Write(h[:])
	s.strong.reset()
	return s
}

// Write adds content.
func (s *Signer) Write(p []byte) (int, error) {
	total := len(p)
	for s.err == nil && len(p) > 0 {
		k := min(len(p), s.blockLen-s.n)
		s.weak.add(p[:k])
		s.strong.write(p[:k])
		s.n += k
		p = p[k:]
		if s.n == s.blockLen {
			s.flush()
		}
	}
	return total - len(p), s.err
}

// flush writes the record of the current block.
func (s *Signer) flush() {
	binary.BigEndian.PutUint32(s.rec[:], s.weak.value())
	sum := s.strong.sum()
	copy(s.rec[4:], sum[:])
	if _, err := s.w.Write(s.rec[:]); err != nil {
		s.err = err
	}
	s.weak, s.n = rollsum{}, 0
	s.strong.reset()
}

// Close writes the record of the last, short block and flushes. It does not
// close the writer beneath. A second Close returns an error.
func (s *Signer) Close() error {
	if s.err == nil && s.n > 0 {
		s.flush()
	}
	if s.err == nil {
		s.err = s.w.Flush()
	}
	err := s.err
	if err == nil {
		s.err = errors.New("signature: closed")
	}
	return err
}
