package volume

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// The flags of a gzip member's header (RFC 1952, section 2.3.1).
const (
	flagHeaderCRC = 1 << 1
	flagExtra     = 1 << 2
	flagName      = 1 << 3
	flagComment   = 1 << 4
	flagReserved  = 0xe0
)

var (
	errGzip    = errors.New("it is not in gzip format")
	errGzipCRC = errors.New("gzip checksum is wrong")
)

// maxGzipName bounds name and comment of a member.
const maxGzipName = 1 << 20

// memberHeader reads the header of a gzip member. It returns the extra field.
func memberHeader(r io.ByteReader) (extra []byte, err error) {
	sum := crc32.NewIEEE()
	next := func() byte {
		var b byte
		if err == nil {
			b, err = r.ReadByte()
		}
		sum.Write([]byte{b})
		return b
	}
	var head [10]byte
	for i := range head {
		head[i] = next()
	}
	if err == nil && (string(head[:3]) != gzipHead[:3] || head[3]&flagReserved != 0) {
		return nil, errGzip
	}
	flags := head[3]
	if flags&flagExtra != 0 {
		extra = make([]byte, int(next())|int(next())<<8)
		for i := range extra {
			extra[i] = next()
		}
	}
	for _, flag := range []byte{flagName, flagComment} {
		if flags&flag == 0 {
			continue
		}
		for n := 0; err == nil && next() != 0; n++ {
			if n == maxGzipName {
				return nil, errGzip
			}
		}
	}
	if flags&flagHeaderCRC != 0 {
		want := uint16(sum.Sum32())
		if got := uint16(next()) | uint16(next())<<8; err == nil && got != want {
			return nil, errGzipCRC
		}
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return extra, err
}

// memberTail reads and checks what follows a member's deflate stream.
func memberTail(r io.Reader, crc uint32, size int64) error {
	var tail [8]byte
	if _, err := io.ReadFull(r, tail[:]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if binary.LittleEndian.Uint32(tail[:]) != crc || binary.LittleEndian.Uint32(tail[4:]) != uint32(size) {
		return errGzipCRC
	}
	return nil
}

// skipZeros skips the zero bytes that may follow a member, and reports whether
// there is another one: as Python's gzip module, stock duplicity's reader.
func skipZeros(r *bufio.Reader) (bool, error) {
	for {
		b, err := r.Peek(1)
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if b[0] != 0 {
			return true, nil
		}
		if _, err := r.Discard(1); err != nil {
			return false, err
		}
	}
}

// inflateMembers appends n bytes of plaintext to dst: from the rest of one
// gzip member, or a whole one, and those behind it.
func (l *Layout) inflateMembers(dst []byte, s *scratch, k int, in []byte, n int64) ([]byte, error) {
	want := int64(len(dst)) + n
	var dict []byte
	header := l.Own || l.resume[k].header
	if !l.Own {
		var err error
		if in, dict, err = l.segment(s, k, in); err != nil {
			return nil, err
		}
	}
	for {
		if header {
			r := bytes.NewReader(in)
			if _, err := memberHeader(r); err != nil {
				return nil, err
			}
			in, dict = in[len(in)-r.Len():], nil
		}
		s.inflate.ResetBytes(in, dict)
		for int64(len(dst)) < want {
			s.inflate.Most = int(want - int64(len(dst)))
			b, err := s.inflate.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return nil, err
			}
			dst = append(dst, b[:min(int64(len(b)), want-int64(len(dst)))]...)
		}
		if int64(len(dst)) == want {
			return dst, nil
		}
		// The hash stands in for the member's checksum.
		if in = in[s.inflate.In():]; len(in) < 8 {
			return nil, io.ErrUnexpectedEOF
		}
		in, header = bytes.TrimLeft(in[8:], "\x00"), true
	}
}
