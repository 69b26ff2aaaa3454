package par2

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"io"
	"os"
)

// A packet of the Parity Volume Set format 2.0 is a magic number, its length in
// bytes with all of this (8), the MD5 of what follows (16), an id of the set (16),
// a kind (16) and a body. Numbers are little-endian.
const (
	magic       = "PAR2\x00PKT"
	headLen     = 64
	kindFile    = "PAR 2.0\x00FileDesc"
	kindUnicode = "PAR 2.0\x00UniFileN"
	// maxDescription bounds the packets that are looked at, in bytes: a
	// description holds little more than a name.
	maxDescription = 64 << 10
)

var le = binary.LittleEndian

// packets calls f for each intact packet of a recovery file that describes a
// file. As par2 does, it finds them behind whatever is damaged.
func packets(path string, f func(kind string, body []byte) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	r := bufio.NewReaderSize(file, 2*maxDescription)
	for {
		head, err := r.Peek(headLen)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(head, []byte(magic)) {
			skip := bytes.IndexByte(head[1:], magic[0]) + 1
			if skip == 0 {
				skip = len(head)
			}
			if _, err := r.Discard(skip); err != nil {
				return err
			}
			continue
		}
		kind, length := string(head[48:64]), le.Uint64(head[8:])
		if (kind == kindFile || kind == kindUnicode) && length >= headLen && length <= maxDescription {
			p, err := r.Peek(int(length))
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if sum := md5.Sum(p[min(32, len(p)):]); err == nil && bytes.Equal(sum[:], p[16:32]) {
				if err := f(kind, p[headLen:]); err != nil {
					return err
				}
			}
		}
		if _, err := r.Discard(len(magic)); err != nil {
			return err
		}
	}
}
