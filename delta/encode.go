package delta

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Encoder writes a delta stream. It is a Sink.
type Encoder struct {
	w   *bufio.Writer
	off int64 // bytes written so far
	lit int64
	cmd [17]byte // scratch: operation, offset, length
	err error
}

// NewEncoder returns an Encoder that writes to w through a small buffer. Close
// it to end the delta.
func NewEncoder(w io.Writer) *Encoder {
	e := &Encoder{w: bufio.NewWriterSize(w, 4096)}
	e.put(binary.BigEndian.AppendUint32(e.cmd[:0], deltaMagic))
	return e
}

// put writes p and counts it.
func (e *Encoder) put(p []byte) {
	if e.err != nil {
		return
	}
	n, err := e.w.Write(p)
	e.off += int64(n)
	e.err = err
}

// uintCode returns c such that v fits 1<<c bytes, the fewest of 1, 2, 4 and 8.
func uintCode(v uint64) byte {
	switch {
	case v < 1<<8:
		return 0
	case v < 1<<16:
		return 1
	case v < 1<<32:
		return 2
	}
	return 3
}

// appendUint appends v in 1<<code bytes.
func appendUint(p []byte, v uint64, code byte) []byte {
	for i := (8 << code) - 8; i >= 0; i -= 8 {
		p = append(p, byte(v>>i))
	}
	return p
}

// Copy writes a copy command in its shortest form.
func (e *Encoder) Copy(off, n int64) error {
	if off < 0 || n < 0 {
		return fmt.Errorf("delta: copy of %d bytes at %d", n, off)
	}
	if n == 0 {
		return e.err
	}
	p, q := uintCode(uint64(off)), uintCode(uint64(n))
	cmd := append(e.cmd[:0], opCopy+4*p+q)
	cmd = appendUint(cmd, uint64(off), p)
	e.put(appendUint(cmd, uint64(n), q))
	return e.err
}

// Literal writes p as one literal command.
func (e *Encoder) Literal(p []byte) error {
	n := uint64(len(p))
	switch {
	case n == 0:
		return e.err
	case n <= maxShort:
		e.put(append(e.cmd[:0], byte(n)))
	default:
		c := uintCode(n)
		e.put(appendUint(append(e.cmd[:0], opLiteral+c), n, c))
	}
	e.lit = e.off
	e.put(p)
	return e.err
}

// LiteralOff returns the offset in the delta stream of the first data byte of
// the last Literal.
func (e *Encoder) LiteralOff() int64 { return e.lit }

// Len returns the length of the delta stream so far, in bytes.
func (e *Encoder) Len() int64 { return e.off }

// Close writes END and flushes. It does not close the writer beneath. A second
// Close returns an error.
func (e *Encoder) Close() error {
	e.put([]byte{opEnd})
	if e.err == nil {
		e.err = e.w.Flush()
	}
	err := e.err
	if err == nil {
		e.err = errors.New("delta: closed")
	}
	return err
}
