package delta

import "golang.org/x/crypto/blake2b"

// rollOffset is what rollsum adds to every byte.
const rollOffset = 31

// rollsum is librsync's rolling sum: s1 the sum of all bytes, each plus 31, s2
// the sum of all s1 on the way. Only the low 16 bits of each count.
type rollsum struct{ s1, s2 uint32 }

// add appends p to the window.
func (s *rollsum) add(p []byte) {
	s1, s2 := s.s1, s.s2
	for len(p) >= 8 {
		q := (*[8]byte)(p)
		p = p[8:]
		c0, c1, c2, c3 := uint32(q[0]), uint32(q[1]), uint32(q[2]), uint32(q[3])
		c4, c5, c6, c7 := uint32(q[4]), uint32(q[5]), uint32(q[6]), uint32(q[7])
		s2 += 8*s1 + 8*c0 + 7*c1 + 6*c2 + 5*c3 + 4*c4 + 3*c5 + 2*c6 + c7 + 36*rollOffset
		s1 += c0 + c1 + c2 + c3 + c4 + c5 + c6 + c7 + 8*rollOffset
	}
	for _, c := range p {
		s1 += uint32(c) + rollOffset
		s2 += s1
	}
	s.s1, s.s2 = s1, s2
}

// drop removes c, the first of n bytes.
func (s *rollsum) drop(c byte, n int) {
	v := uint32(c) + rollOffset
	s.s1 -= v
	s.s2 -= uint32(n) * v
}

// value is the weak sum as a signature has it.
func (s *rollsum) value() uint32 { return s.s2<<16 | s.s1&0xffff }

// rkMult and rkSeed are the parameters of librsync's RabinKarp sum.
const (
	rkMult uint32 = 0x08104225
	rkSeed uint32 = 1
)

// rabinKarp is librsync's polynomial rolling sum.
type rabinKarp struct{ h uint32 }

// add appends p to the window, which must have begun as {rkSeed}.
func (s *rabinKarp) add(p []byte) {
	h := s.h
	for _, c := range p {
		h = h*rkMult + uint32(c)
	}
	s.h = h
}

// drop removes c, the first byte of a window; pow is rkMult to the length of
// the window without it.
func (s *rabinKarp) drop(c byte, pow uint32) {
	s.h -= pow * (uint32(c) + rkMult - 1)
}

// roll rolls a window of n bytes on, past outs and over ins, to the first
// position whose weak sum the filter knows. It returns how far, and whether
// there is one. Apart from rollTo, so that all stays in registers.
func (s *rollsum) roll(outs, ins []byte, n uint32, filter []uint64, shift uint) (int, bool) {
	ins = ins[:len(outs)]
	s1, s2 := s.s1, s.s2
	for i, out := range outs {
		s1 += uint32(ins[i]) - uint32(out)
		s2 += s1 - n*(uint32(out)+rollOffset)
		bit := (s2<<16 | s1&0xffff) * filterMult >> (shift & 31)
		if filter[bit>>6]>>(bit&63)&1 != 0 {
			*s = rollsum{s1, s2}
			return i + 1, true
		}
	}
	*s = rollsum{s1, s2}
	return len(outs), false
}

// roll is that of rollsum, with rkMult to the length of the window.
func (s *rabinKarp) roll(outs, ins []byte, pow uint32, filter []uint64, shift uint) (int, bool) {
	ins = ins[:len(outs)]
	h := s.h
	for i, out := range outs {
		h = h*rkMult + uint32(ins[i]) - pow*(uint32(out)+rkMult-1)
		bit := h * filterMult >> (shift & 31)
		if filter[bit>>6]>>(bit&63)&1 != 0 {
			s.h = h
			return i + 1, true
		}
	}
	s.h = h
	return len(outs), false
}

// rkPow is rkMult to the n.
func rkPow(n int) uint32 {
	r, b := uint32(1), rkMult
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			r *= b
		}
		b *= b
	}
	return r
}

// kind tells a signature's sums by its magic.
type kind struct{ rk, blake bool }

// kindOf returns the sums of a magic; false if it is none.
func kindOf(magic uint32) (kind, bool) {
	switch magic {
	case DefaultMagic:
		return kind{}, true
	case magicRollBlake:
		return kind{blake: true}, true
	case magicRKMD4:
		return kind{rk: true}, true
	case magicRKBlake:
		return kind{rk: true, blake: true}, true
	}
	return kind{}, false
}

// maxStrong is the length of the whole strong sum.
func (k kind) maxStrong() int {
	if k.blake {
		return 32
	}
	return 16
}

// weak is the weak sum of p.
func (k kind) weak(p []byte) uint32 {
	if k.rk {
		s := rabinKarp{rkSeed}
		s.add(p)
		return s.h
	}
	var s rollsum
	s.add(p)
	return s.value()
}

// strong is the strong sum of p, of which the first maxStrong bytes count.
func (k kind) strong(p []byte) (out [maxStrong]byte) {
	if k.blake {
		return blake2b.Sum256(p)
	}
	var m md4State
	m.reset()
	m.write(p)
	s := m.sum()
	copy(out[:], s[:])
	return out
}
