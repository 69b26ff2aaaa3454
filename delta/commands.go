package delta

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
)

// The operations of a delta.
const (
	opEnd      = 0x00
	maxShort   = 0x40 // the longest literal whose length is its operation
	opLiteral  = 0x41 // to 0x44
	opCopy     = 0x45 // to 0x54
	opReserved = 0x55
)

// Command is a piece of the new file, without literal bytes. Len > 0.
type Command struct {
	Copy bool
	// Off is, of a copy, the offset in the basis; of a literal, that of its
	// first data byte in the delta stream.
	Off int64
	Len int64 // in bytes
}

// ReadCommands reads a delta and calls fn for each command in order, until fn
// returns an error, which it returns. Literal data are skipped; memory is 32
// KiB. Commands of no length are left out. A stream that is cut is
// io.ErrUnexpectedEOF; what is not a delta, has lengths or a sum of lengths of
// 1<<63 or more, or goes on after END, is an error too. Whether copies lie in
// the basis is for the caller to check.
func ReadCommands(r io.Reader, fn func(Command) error) error {
	p := newParser(r)
	return p.run(func(c Command) error {
		if err := fn(c); err != nil || c.Copy {
			return err
		}
		return p.skip(c.Len)
	})
}

// parser reads the commands of a delta.
type parser struct {
	br    *bufio.Reader
	off   int64 // of the next byte
	total int64 // bytes of the new file so far
}

// newParser returns a parser of r.
func newParser(r io.Reader) *parser { return &parser{br: bufio.NewReaderSize(r, 32<<10)} }

// run calls fn for each command; fn reads or skips the data of a literal.
func (p *parser) run(fn func(Command) error) error {
	magic, err := p.uint(2)
	if err != nil {
		return err
	}
	if magic != deltaMagic {
		return fmt.Errorf("delta: magic %08x", magic)
	}
	for {
		c, end, err := p.next()
		switch {
		case err != nil:
			return err
		case end:
			return p.atEOF()
		case c.Len == 0:
			continue
		}
		if err := fn(c); err != nil {
			return err
		}
	}
}

// next reads a command up to the data of a literal.
func (p *parser) next() (c Command, end bool, err error) {
	op, err := p.uint(0)
	if err != nil || op == opEnd {
		return c, true, err
	}
	switch {
	case op <= maxShort:
		c.Len = int64(op)
	case op < opCopy:
		c.Len, err = p.length(byte(op - opLiteral))
	case op < opReserved:
		c.Copy = true
		if c.Off, err = p.length(byte(op-opCopy) / 4); err == nil {
			c.Len, err = p.length(byte(op-opCopy) % 4)
		}
	default:
		err = fmt.Errorf("delta: reserved command %02x", op)
	}
	if err != nil {
		return c, false, err
	}
	if !c.Copy {
		c.Off = p.off
	}
	if c.Len > math.MaxInt64-p.total || c.Len > math.MaxInt64-c.Off {
		return c, false, errors.New("delta: lengths overflow")
	}
	p.total += c.Len
	return c, false, nil
}

// length reads a number of 1<<code bytes that must not be negative as int64.
func (p *parser) length(code byte) (int64, error) {
	v, err := p.uint(code)
	if err == nil && v > math.MaxInt64 {
		err = fmt.Errorf("delta: number %d too large", v)
	}
	return int64(v), err
}

// uint reads a number of 1<<code bytes.
func (p *parser) uint(code byte) (uint64, error) {
	var v uint64
	for range 1 << code {
		b, err := p.br.ReadByte()
		if err != nil {
			return 0, cut(err)
		}
		v = v<<8 | uint64(b)
		p.off++
	}
	return v, nil
}

// skip reads over n bytes of data.
func (p *parser) skip(n int64) error {
	k, err := io.CopyN(io.Discard, p.br, n)
	p.off += k
	if err != nil {
		return cut(err)
	}
	return nil
}

// atEOF checks that nothing follows.
func (p *parser) atEOF() error {
	switch _, err := p.br.ReadByte(); {
	case err == nil:
		return errors.New("delta: goes on after its end")
	case err != io.EOF:
		return cut(err)
	}
	return nil
}

// cut makes an end of input the error that it is.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("delta: %w", err)
}
