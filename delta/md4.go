package delta

import (
	"encoding/binary"
	"math/bits"
)

// md4State computes MD4 (RFC 1320). It is here rather than golang.org/x/crypto
// because that one is about half as fast, and every byte of a file that changed
// goes through it. The zero value is not ready: reset it.
type md4State struct {
	h   [4]uint32
	buf [64]byte // the last n%64 bytes
	n   uint64
}

// reset begins a new sum.
func (m *md4State) reset() {
	m.h = [4]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}
	m.n = 0
}

// write adds p.
func (m *md4State) write(p []byte) {
	have := int(m.n % 64)
	m.n += uint64(len(p))
	if have > 0 {
		k := copy(m.buf[have:], p)
		p = p[k:]
		if have+k < 64 {
			return
		}
		md4Blocks(&m.h, m.buf[:])
	}
	full := len(p) &^ 63
	md4Blocks(&m.h, p[:full])
	copy(m.buf[:], p[full:])
}

// sum ends the sum and returns it. Reset before the next write.
func (m *md4State) sum() (out [16]byte) {
	have := int(m.n % 64)
	var pad [128]byte
	copy(pad[:], m.buf[:have])
	pad[have] = 0x80
	end := 64
	if have >= 56 {
		end = 128
	}
	binary.LittleEndian.PutUint64(pad[end-8:], m.n*8)
	md4Blocks(&m.h, pad[:end])
	for i, v := range m.h {
		binary.LittleEndian.PutUint32(out[4*i:], v)
	}
	return out
}

// le is word i of a 64-byte block.
func le(q *[64]byte, i int) uint32 { return binary.LittleEndian.Uint32(q[4*i:]) }

// md4Blocks adds whole 64-byte blocks. It is one long function so that the
// state stays in registers.
func md4Blocks(h *[4]uint32, p []byte) {
	a0, b0, c0, d0 := h[0], h[1], h[2], h[3]
	for len(p) >= 64 {
		q := (*[64]byte)(p)
		p = p[64:]
		a, b, c, d := a0, b0, c0, d0

		a = bits.RotateLeft32(a+le(q, 0)+(b&(c^d)^d), 3)
		d = bits.RotateLeft32(d+le(q, 1)+(a&(b^c)^c), 7)
		c = bits.RotateLeft32(c+le(q, 2)+(d&(a^b)^b), 11)
		b = bits.RotateLeft32(b+le(q, 3)+(c&(d^a)^a), 19)
		a = bits.RotateLeft32(a+le(q, 4)+(b&(c^d)^d), 3)
		d = bits.RotateLeft32(d+le(q, 5)+(a&(b^c)^c), 7)
		c = bits.RotateLeft32(c+le(q, 6)+(d&(a^b)^b), 11)
		b = bits.RotateLeft32(b+le(q, 7)+(c&(d^a)^a), 19)
		a = bits.RotateLeft32(a+le(q, 8)+(b&(c^d)^d), 3)
		d = bits.RotateLeft32(d+le(q, 9)+(a&(b^c)^c), 7)
		c = bits.RotateLeft32(c+le(q, 10)+(d&(a^b)^b), 11)
		b = bits.RotateLeft32(b+le(q, 11)+(c&(d^a)^a), 19)
		a = bits.RotateLeft32(a+le(q, 12)+(b&(c^d)^d), 3)
		d = bits.RotateLeft32(d+le(q, 13)+(a&(b^c)^c), 7)
		c = bits.RotateLeft32(c+le(q, 14)+(d&(a^b)^b), 11)
		b = bits.RotateLeft32(b+le(q, 15)+(c&(d^a)^a), 19)

		a = bits.RotateLeft32(a+le(q, 0)+0x5a827999+c&d+b&(c^d), 3)
		d = bits.RotateLeft32(d+le(q, 4)+0x5a827999+b&c+a&(b^c), 5)
		c = bits.RotateLeft32(c+le(q, 8)+0x5a827999+a&b+d&(a^b), 9)
		b = bits.RotateLeft32(b+le(q, 12)+0x5a827999+d&a+c&(d^a), 13)
		a = bits.RotateLeft32(a+le(q, 1)+0x5a827999+c&d+b&(c^d), 3)
		d = bits.RotateLeft32(d+le(q, 5)+0x5a827999+b&c+a&(b^c), 5)
		c = bits.RotateLeft32(c+le(q, 9)+0x5a827999+a&b+d&(a^b), 9)
		b = bits.RotateLeft32(b+le(q, 13)+0x5a827999+d&a+c&(d^a), 13)
		a = bits.RotateLeft32(a+le(q, 2)+0x5a827999+c&d+b&(c^d), 3)
		d = bits.RotateLeft32(d+le(q, 6)+0x5a827999+b&c+a&(b^c), 5)
		c = bits.RotateLeft32(c+le(q, 10)+0x5a827999+a&b+d&(a^b), 9)
		b = bits.RotateLeft32(b+le(q, 14)+0x5a827999+d&a+c&(d^a), 13)
		a = bits.RotateLeft32(a+le(q, 3)+0x5a827999+c&d+b&(c^d), 3)
		d = bits.RotateLeft32(d+le(q, 7)+0x5a827999+b&c+a&(b^c), 5)
		c = bits.RotateLeft32(c+le(q, 11)+0x5a827999+a&b+d&(a^b), 9)
		b = bits.RotateLeft32(b+le(q, 15)+0x5a827999+d&a+c&(d^a), 13)

		a = bits.RotateLeft32(a+le(q, 0)+0x6ed9eba1+(b^(c^d)), 3)
		d = bits.RotateLeft32(d+le(q, 8)+0x6ed9eba1+(a^(b^c)), 9)
		c = bits.RotateLeft32(c+le(q, 4)+0x6ed9eba1+(d^(a^b)), 11)
		b = bits.RotateLeft32(b+le(q, 12)+0x6ed9eba1+(c^(d^a)), 15)
		a = bits.RotateLeft32(a+le(q, 2)+0x6ed9eba1+(b^(c^d)), 3)
		d = bits.RotateLeft32(d+le(q, 10)+0x6ed9eba1+(a^(b^c)), 9)
		c = bits.RotateLeft32(c+le(q, 6)+0x6ed9eba1+(d^(a^b)), 11)
		b = bits.RotateLeft32(b+le(q, 14)+0x6ed9eba1+(c^(d^a)), 15)
		a = bits.RotateLeft32(a+le(q, 1)+0x6ed9eba1+(b^(c^d)), 3)
		d = bits.RotateLeft32(d+le(q, 9)+0x6ed9eba1+(a^(b^c)), 9)
		c = bits.RotateLeft32(c+le(q, 5)+0x6ed9eba1+(d^(a^b)), 11)
		b = bits.RotateLeft32(b+le(q, 13)+0x6ed9eba1+(c^(d^a)), 15)
		a = bits.RotateLeft32(a+le(q, 3)+0x6ed9eba1+(b^(c^d)), 3)
		d = bits.RotateLeft32(d+le(q, 11)+0x6ed9eba1+(a^(b^c)), 9)
		c = bits.RotateLeft32(c+le(q, 7)+0x6ed9eba1+(d^(a^b)), 11)
		b = bits.RotateLeft32(b+le(q, 15)+0x6ed9eba1+(c^(d^a)), 15)

		a0, b0, c0, d0 = a0+a, b0+b, c0+c, d0+d
	}
	h[0], h[1], h[2], h[3] = a0, b0, c0, d0
}
