package tarstream

import (
	"bytes"
	"errors"
	"strconv"
)

// The fields of a header block, from and to.
type field struct{ from, to int }

func (f field) of(b *[blockSize]byte) []byte { return b[f.from:f.to] }

func fieldName() field     { return field{0, 100} }
func fieldMode() field     { return field{100, 108} }
func fieldUID() field      { return field{108, 116} }
func fieldGID() field      { return field{116, 124} }
func fieldSize() field     { return field{124, 136} }
func fieldMtime() field    { return field{136, 148} }
func fieldChecksum() field { return field{148, 156} }
func fieldLink() field     { return field{157, 257} }
func fieldMagic() field    { return field{257, 265} } // with the version
func fieldUser() field     { return field{265, 297} }
func fieldGroup() field    { return field{297, 329} }
func fieldMajor() field    { return field{329, 337} }
func fieldMinor() field    { return field{337, 345} }
func fieldPrefix() field   { return field{345, 500} }

const (
	offType    = 156
	ustarMagic = "ustar\x00"
)

var errNumber = errors.New("bad number")

// text returns a field's bytes up to the first NUL.
func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// number reads a numeric field: octal digits among blanks, or GNU's base-256.
func number(b []byte) (int64, error) {
	if b[0]&0x80 != 0 {
		return base256(b)
	}
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	b = bytes.Trim(b, " ")
	if len(b) == 0 {
		return 0, nil
	}
	v, err := strconv.ParseInt(string(b), 8, 64)
	if err != nil || v < 0 {
		return 0, errNumber
	}
	return v, nil
}

// base256 reads a big-endian two's complement number without its top bit.
func base256(b []byte) (int64, error) {
	var v int64
	if b[0]&0x40 != 0 {
		v = -1
	}
	for i, c := range b {
		if i == 0 {
			v = v<<6 | int64(c&0x3f)
			continue
		}
		if v<<8>>8 != v {
			return 0, errNumber
		}
		v = v<<8 | int64(c)
	}
	return v, nil
}

// octal writes v into a field, zeros before it and a NUL after it.
func octal(b []byte, v int64) {
	s := strconv.FormatInt(v, 8)
	n := len(b) - 1
	for i := range n {
		b[i] = '0'
	}
	copy(b[n-len(s):n], s)
	b[n] = 0
}

// checksum returns the sum of a block's bytes with the checksum field blank.
func checksum(b *[blockSize]byte) int64 {
	sum := 8 * uint32(' ')
	for _, c := range b {
		sum += uint32(c)
	}
	for _, c := range fieldChecksum().of(b) {
		sum -= uint32(c)
	}
	return int64(sum)
}

// signedChecksum is the checksum as old programs got it, by taking bytes as
// signed.
func signedChecksum(b *[blockSize]byte) int64 {
	sum := checksum(b)
	f := fieldChecksum()
	for i, c := range b {
		if c >= 0x80 && (i < f.from || i >= f.to) {
			sum -= 256
		}
	}
	return sum
}

// isZero reports whether the block is all zeros.
func isZero(b *[blockSize]byte) bool { return *b == [blockSize]byte{} }
