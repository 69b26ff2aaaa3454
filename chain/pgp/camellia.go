package pgp

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// camellia is the block cipher of RFC 3713. GnuPG can write with it, so it is
// there to read such files; no table is hidden from caches.
type camellia struct {
	kw [4]uint64  // whitening
	k  [24]uint64 // one a round
	ke [6]uint64  // of the layers between every six rounds
	n  int        // rounds: 18 or 24
}

// camelliaSBox is SBOX1; the other three are rotations of it.
const camelliaSBox = "" +
	"\x70\x82\x2c\xec\xb3\x27\xc0\xe5\xe4\x85\x57\x35\xea\x0c\xae\x41" +
	"\x23\xef\x6b\x93\x45\x19\xa5\x21\xed\x0e\x4f\x4e\x1d\x65\x92\xbd" +
	"\x86\xb8\xaf\x8f\x7c\xeb\x1f\xce\x3e\x30\xdc\x5f\x5e\xc5\x0b\x1a" +
	"\xa6\xe1\x39\xca\xd5\x47\x5d\x3d\xd9\x01\x5a\xd6\x51\x56\x6c\x4d" +
	"\x8b\x0d\x9a\x66\xfb\xcc\xb0\x2d\x74\x12\x2b\x20\xf0\xb1\x84\x99" +
	"\xdf\x4c\xcb\xc2\x34\x7e\x76\x05\x6d\xb7\xa9\x31\xd1\x17\x04\xd7" +
	"\x14\x58\x3a\x61\xde\x1b\x11\x1c\x32\x0f\x9c\x16\x53\x18\xf2\x22" +
	"\xfe\x44\xcf\xb2\xc3\xb5\x7a\x91\x24\x08\xe8\xa8\x60\xfc\x69\x50" +
	"\xaa\xd0\xa0\x7d\xa1\x89\x62\x97\x54\x5b\x1e\x95\xe0\xff\x64\xd2" +
	"\x10\xc4\x00\x48\xa3\xf7\x75\xdb\x8a\x03\xe6\xda\x09\x3f\xdd\x94" +
	"\x87\x5c\x83\x02\xcd\x4a\x90\x33\x73\x67\xf6\xf3\x9d\x7f\xbf\xe2" +
	"\x52\x9b\xd8\x26\xc8\x37\xc6\x3b\x81\x96\x6f\x4b\x13\xbe\x63\x2e" +
	"\xe9\x79\xa7\x8c\x9f\x6e\xbc\x8e\x29\xf5\xf9\xb6\x2f\xfd\xb4\x59" +
	"\x78\x98\x06\x6a\xe7\x46\x71\xba\xd4\x25\xab\x42\x88\xa2\x8d\xfa" +
	"\x72\x07\xb9\x55\xf8\xee\xac\x0a\x36\x49\x2a\x68\x3c\x38\xf1\xa4" +
	"\x40\x28\xd3\x7b\xbb\xc9\x43\xc1\x15\xe3\xad\xf4\x77\xc7\x80\x9e"

// camelliaF is the round function.
func camelliaF(x, k uint64) uint64 {
	x ^= k
	s1 := func(i uint) byte { return camelliaSBox[byte(x>>(56-8*i))] }
	t1, t5 := s1(0), bits.RotateLeft8(s1(4), 1)
	t2, t6 := bits.RotateLeft8(s1(1), 1), bits.RotateLeft8(s1(5), 7)
	t3, t8 := bits.RotateLeft8(s1(2), 7), s1(7)
	s4 := func(i uint) byte { return camelliaSBox[bits.RotateLeft8(byte(x>>(56-8*i)), 1)] }
	t4, t7 := s4(3), s4(6)
	y := [8]byte{
		t1 ^ t3 ^ t4 ^ t6 ^ t7 ^ t8,
		t1 ^ t2 ^ t4 ^ t5 ^ t7 ^ t8,
		t1 ^ t2 ^ t3 ^ t5 ^ t6 ^ t8,
		t2 ^ t3 ^ t4 ^ t5 ^ t6 ^ t7,
		t1 ^ t2 ^ t6 ^ t7 ^ t8,
		t2 ^ t3 ^ t5 ^ t7 ^ t8,
		t3 ^ t4 ^ t5 ^ t6 ^ t8,
		t1 ^ t4 ^ t5 ^ t6 ^ t7,
	}
	return binary.BigEndian.Uint64(y[:])
}

func camelliaFL(x, k uint64) uint64 {
	x1, x2 := uint32(x>>32), uint32(x)
	k1, k2 := uint32(k>>32), uint32(k)
	x2 ^= bits.RotateLeft32(x1&k1, 1)
	x1 ^= x2 | k2
	return uint64(x1)<<32 | uint64(x2)
}

func camelliaFLInv(y, k uint64) uint64 {
	y1, y2 := uint32(y>>32), uint32(y)
	k1, k2 := uint32(k>>32), uint32(k)
	y1 ^= y2 | k2
	y2 ^= bits.RotateLeft32(y1&k1, 1)
	return uint64(y1)<<32 | uint64(y2)
}

// key128 is a key schedule's register.
type key128 struct{ hi, lo uint64 }

// rot returns both halves of the register rotated left by n.
func (k key128) rot(n uint) (uint64, uint64) {
	if n >= 64 {
		k.hi, k.lo, n = k.lo, k.hi, n-64
	}
	if n == 0 {
		return k.hi, k.lo
	}
	return k.hi<<n | k.lo>>(64-n), k.lo<<n | k.hi>>(64-n)
}

func newCamellia(key []byte) (cipher.Block, error) {
	var kl, kr key128
	switch len(key) {
	case 16, 24, 32:
		kl = key128{binary.BigEndian.Uint64(key), binary.BigEndian.Uint64(key[8:])}
	default:
		return nil, fmt.Errorf("a Camellia key of %d bytes", len(key))
	}
	if len(key) > 16 {
		kr.hi = binary.BigEndian.Uint64(key[16:])
		kr.lo = ^kr.hi
	}
	if len(key) == 32 {
		kr.lo = binary.BigEndian.Uint64(key[24:])
	}
	d1, d2 := kl.hi^kr.hi, kl.lo^kr.lo
	d2 ^= camelliaF(d1, 0xA09E667F3BCC908B)
	d1 ^= camelliaF(d2, 0xB67AE8584CAA73B2)
	d2 ^= kl.lo
	d1 ^= kl.hi
	d2 ^= camelliaF(d1, 0xC6EF372FE94F82BE)
	d1 ^= camelliaF(d2, 0x54FF53A5F1D36F1C)
	ka := key128{d1, d2}
	if len(key) == 16 {
		return camellia128(kl, ka), nil
	}
	d1, d2 = ka.hi^kr.hi, ka.lo^kr.lo
	d2 ^= camelliaF(d1, 0x10E527FADE682D1D)
	d1 ^= camelliaF(d2, 0xB05688C2B3E6C1FD)
	return camellia256(kl, kr, ka, key128{d1, d2}), nil
}

func camellia128(kl, ka key128) *camellia {
	c := &camellia{n: 18}
	c.kw[0], c.kw[1] = kl.rot(0)
	c.k[0], c.k[1] = ka.rot(0)
	c.k[2], c.k[3] = kl.rot(15)
	c.k[4], c.k[5] = ka.rot(15)
	c.ke[0], c.ke[1] = ka.rot(30)
	c.k[6], c.k[7] = kl.rot(45)
	c.k[8], _ = ka.rot(45)
	_, c.k[9] = kl.rot(60)
	c.k[10], c.k[11] = ka.rot(60)
	c.ke[2], c.ke[3] = kl.rot(77)
	c.k[12], c.k[13] = kl.rot(94)
	c.k[14], c.k[15] = ka.rot(94)
	c.k[16], c.k[17] = kl.rot(111)
	c.kw[2], c.kw[3] = ka.rot(111)
	return c
}

func camellia256(kl, kr, ka, kb key128) *camellia {
	c := &camellia{n: 24}
	c.kw[0], c.kw[1] = kl.rot(0)
	c.k[0], c.k[1] = kb.rot(0)
	c.k[2], c.k[3] = kr.rot(15)
	c.k[4], c.k[5] = ka.rot(15)
	c.ke[0], c.ke[1] = kr.rot(30)
	c.k[6], c.k[7] = kb.rot(30)
	c.k[8], c.k[9] = kl.rot(45)
	c.k[10], c.k[11] = ka.rot(45)
	c.ke[2], c.ke[3] = kl.rot(60)
	c.k[12], c.k[13] = kr.rot(60)
	c.k[14], c.k[15] = kb.rot(60)
	c.k[16], c.k[17] = kl.rot(77)
	c.ke[4], c.ke[5] = ka.rot(77)
	c.k[18], c.k[19] = kr.rot(94)
	c.k[20], c.k[21] = ka.rot(94)
	c.k[22], c.k[23] = kl.rot(111)
	c.kw[2], c.kw[3] = kb.rot(111)
	return c
}

// BlockSize implements cipher.Block.
func (c *camellia) BlockSize() int { return 16 }

// Encrypt implements cipher.Block.
func (c *camellia) Encrypt(dst, src []byte) {
	d1, d2 := binary.BigEndian.Uint64(src)^c.kw[0], binary.BigEndian.Uint64(src[8:])^c.kw[1]
	for i := 0; i < c.n; i += 2 {
		if i > 0 && i%6 == 0 {
			d1 = camelliaFL(d1, c.ke[i/3-2])
			d2 = camelliaFLInv(d2, c.ke[i/3-1])
		}
		d2 ^= camelliaF(d1, c.k[i])
		d1 ^= camelliaF(d2, c.k[i+1])
	}
	binary.BigEndian.PutUint64(dst, d2^c.kw[2])
	binary.BigEndian.PutUint64(dst[8:], d1^c.kw[3])
}

// Decrypt implements cipher.Block.
func (c *camellia) Decrypt(dst, src []byte) {
	d2, d1 := binary.BigEndian.Uint64(src)^c.kw[2], binary.BigEndian.Uint64(src[8:])^c.kw[3]
	for i := c.n - 2; i >= 0; i -= 2 {
		d1 ^= camelliaF(d2, c.k[i+1])
		d2 ^= camelliaF(d1, c.k[i])
		if i > 0 && i%6 == 0 {
			d1 = camelliaFLInv(d1, c.ke[i/3-2])
			d2 = camelliaFL(d2, c.ke[i/3-1])
		}
	}
	binary.BigEndian.PutUint64(dst, d1^c.kw[0])
	binary.BigEndian.PutUint64(dst[8:], d2^c.kw[1])
}
