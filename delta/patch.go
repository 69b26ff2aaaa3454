package delta

import (
	"errors"
	"fmt"
	"io"
)

// Patch writes the new file to out: that of basis, which has basisSize bytes,
// changed by a delta. Errors are those of ReadCommands, of basis and out; a copy
// beyond the basis is an error, and a basis that ends early is
// io.ErrUnexpectedEOF. What was written to out before an error is of no use.
// Memory: 96 KiB. To stop early, let one of the readers fail.
func Patch(basis io.ReaderAt, basisSize int64, delta io.Reader, out io.Writer) error {
	p := newParser(delta)
	buf := make([]byte, 64<<10)
	return p.run(func(c Command) error {
		if !c.Copy {
			n, err := io.CopyBuffer(out, onlyReader{io.LimitReader(p.br, c.Len)}, buf)
			p.off += n
			if err == nil && n < c.Len {
				err = cut(io.EOF)
			}
			return err
		}
		if c.Off > basisSize || c.Len > basisSize-c.Off {
			return fmt.Errorf("delta: copy of %d bytes at %d of a file of %d", c.Len, c.Off, basisSize)
		}
		return copyRange(basis, c, out, buf)
	})
}

// onlyReader hides WriteTo, so that io.CopyBuffer uses its buffer.
type onlyReader struct{ io.Reader }

// copyRange writes the range of the basis that c names.
func copyRange(basis io.ReaderAt, c Command, out io.Writer, buf []byte) error {
	for off, left := c.Off, c.Len; left > 0; {
		b := buf[:min(left, int64(len(buf)))]
		n, err := basis.ReadAt(b, off)
		if n < len(b) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("basis at %d: %w", off+int64(n), err)
		}
		if _, err := out.Write(b); err != nil {
			return err
		}
		off += int64(n)
		left -= int64(n)
	}
	return nil
}
