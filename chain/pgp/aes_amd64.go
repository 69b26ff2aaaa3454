package pgp

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"math/bits"

	"golang.org/x/sys/cpu"
)

// aesBlock is AES with its round keys at hand. The standard library encrypts one
// block at a time, which leaves the processor waiting for each of its 14 rounds;
// in feedback mode all ciphertext is known when decrypting, so eight blocks go
// through the rounds side by side, five times as fast.
type aesBlock struct {
	cipher.Block
	keys   [60]uint32 // in the order of bytes in memory
	rounds int
}

// newAES is aes.NewCipher, which DecryptCFB knows how to be quick with.
func newAES(key []byte) (cipher.Block, error) {
	b, err := aes.NewCipher(key)
	if err != nil || !cpu.X86.HasAES {
		return b, err
	}
	a := &aesBlock{Block: b, rounds: len(key)/4 + 6}
	a.expand(key)
	return a, nil
}

// expand makes the round keys (FIPS 197, section 5.2). Its time does not depend
// on the key: the processor substitutes, not a table.
func (a *aesBlock) expand(key []byte) {
	n := len(key) / 4
	for i := range n {
		a.keys[i] = binary.LittleEndian.Uint32(key[4*i:])
	}
	round := uint32(1)
	for i := n; i < 4*(a.rounds+1); i++ {
		w := a.keys[i-1]
		switch {
		case i%n == 0:
			w = subWord(bits.RotateLeft32(w, -8)) ^ round
			round = round<<1 ^ round>>7*0x11b
		case n > 6 && i%n == 4:
			w = subWord(w)
		}
		a.keys[i] = a.keys[i-n] ^ w
	}
}

// subWord substitutes the bytes of a word. Needs AES instructions.
//
//go:noescape
func subWord(w uint32) uint32

// decryptGroups decrypts n groups of eight blocks, n > 0. src begins with the
// block before the first of them. Needs AES instructions.
//
//go:noescape
func decryptGroups(keys *uint32, rounds int, dst, src *byte, n int)

// group is how many bytes are decrypted side by side.
const group = 8 * aes.BlockSize

// decryptMost decrypts as much of src as goes quickly, from its second block
// on, and returns where it ended; 0 if b or src is not fit for it.
func decryptMost(b cipher.Block, dst, src []byte) int {
	a, ok := b.(*aesBlock)
	if !ok || len(src) < aes.BlockSize+group {
		return 0
	}
	n := (len(src) - aes.BlockSize) / group
	end := aes.BlockSize + n*group
	_ = dst[end-1]
	decryptGroups(&a.keys[0], a.rounds, &dst[aes.BlockSize], &src[0], n)
	return end
}
