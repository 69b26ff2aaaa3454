// Package pgp handles the OpenPGP packets that stored files are made of: their
// headers and lengths, the session keys in front of the data, and the keys and
// passphrases that open them. The data itself is decoded by package volume.
//
// Reading begins with Keys.Open, writing with NewEncrypter.
package pgp

import (
	"context"
	"crypto/cipher"
	"crypto/subtle"
)

// Session is the key of one OpenPGP message.
type Session struct {
	Cipher byte // OpenPGP's number of the cipher: 9 is AES-256
	Key    []byte
}

// Recipient is a session key encrypted to a public key (packet tag 1).
type Recipient struct {
	KeyID uint64 // of the key it is encrypted to; 0: hidden
	Body  []byte // of the packet
}

// Decrypter opens session keys with secret keys that are kept elsewhere, for
// example by gpg-agent.
type Decrypter interface {
	// SessionKey returns the session key, or an error that wraps
	// chain.ErrNoKey if it has no key for it.
	SessionKey(ctx context.Context, r Recipient) (Session, error)
}

// Message is an encrypted message whose session key is known.
type Message struct {
	Session Session
	Tag     int    // of the packet with the data: TagEncrypted, TagProtected or TagAEAD
	Body    *Body  // of that packet
	First   Length // of its first piece
	// LengthOff is the offset of the first length of that packet in the
	// input, and LengthLen how many bytes it has.
	LengthOff int64
	LengthLen int
}

// probe is the beginning of an encrypted packet's body, on which session keys
// are tried.
type probe struct {
	tag  int
	body []byte
}

// probeLen is how much of a body a probe needs: version, prefix, and the
// beginning of the first packet, with the largest blocks.
const probeLen = 1 + 16 + 2 + MaxHeader + 1

// fits reports whether a session key opens the body. A wrong one passes with a
// probability of less than one in 65536: the last two bytes of the random
// prefix are repeated, and a packet must follow that belongs there. Data in
// authenticated chunks tells only when a chunk is decrypted.
func (p probe) fits(s Session) bool {
	block, err := s.Block()
	if err != nil {
		return false
	}
	size := block.BlockSize()
	switch p.tag {
	case TagAEAD:
		return len(p.body) > 1 && p.body[1] == s.Cipher
	case TagProtected:
		if len(p.body) <= 1+size+2 {
			return false
		}
		body := p.body[1:]
		plain := make([]byte, len(body))
		DecryptCFB(block, plain, body, make([]byte, size))
		return subtle.ConstantTimeCompare(plain[size-2:size], plain[size:size+2]) == 1 && begins(plain[size+2:])
	}
	if len(p.body) <= size+2 {
		return false
	}
	plain := make([]byte, size+2)
	DecryptCFB(block, plain, p.body[:size+2], make([]byte, size))
	rest := make([]byte, len(p.body)-size-2)
	// The cipher stream begins anew behind the prefix (RFC 4880, section 13.9).
	DecryptCFB(block, rest, p.body[size+2:], p.body[2:size+2])
	return subtle.ConstantTimeCompare(plain[size-2:size], plain[size:size+2]) == 1 && begins(rest)
}

// begins reports whether plaintext begins with a packet that may stand there.
func begins(plain []byte) bool {
	tag, _, n, err := ParseHeader(plain)
	if err != nil || n == 0 {
		return false
	}
	switch tag {
	case TagCompressed:
		return n >= len(plain) || plain[n] <= 3
	case TagSignature, TagOnePass, TagLiteral:
		return true
	}
	return Ignored(tag)
}

// DecryptCFB decrypts src, in cipher feedback mode, to dst, which must not
// overlap it. iv is the block of ciphertext before src. Both slices have the
// same length, which need not be whole blocks.
func DecryptCFB(b cipher.Block, dst, src, iv []byte) {
	if n := decryptMost(b, dst, src); n > 0 {
		size := b.BlockSize()
		decryptCFB(b, dst[:size], src[:size], iv)
		decryptCFB(b, dst[n:], src[n:], src[n-size:n])
		return
	}
	decryptCFB(b, dst, src, iv)
}

// decryptCFB is DecryptCFB, block by block.
func decryptCFB(b cipher.Block, dst, src, iv []byte) {
	size := b.BlockSize()
	// The key stream is the encrypted ciphertext, one block late.
	i := 0
	for ; i+size <= len(src); i += size {
		b.Encrypt(dst[i:i+size], iv)
		iv = src[i : i+size]
	}
	if i < len(src) {
		var last [16]byte
		b.Encrypt(last[:size], iv)
		copy(dst[i:], last[:])
	}
	subtle.XORBytes(dst, dst, src)
}
