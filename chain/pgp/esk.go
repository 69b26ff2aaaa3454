package pgp

import (
	"bytes"
	"crypto"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"

	"github.com/ProtonMail/go-crypto/eax"
	"github.com/ProtonMail/go-crypto/ocb"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/ProtonMail/go-crypto/openpgp/s2k"
)

const (
	// maxESK is the longest packet with a session key that is read. The
	// largest known ones, for post-quantum keys, have some 2 KiB.
	maxESK = 16 << 10
	// maxESKs bounds the recipients of a message.
	maxESKs = 1024
	// maxSKESKs bounds the passphrases of a message: GnuPG writes one, and each
	// can cost a tenth of a second to try.
	maxSKESKs = 16
	// maxArgon2 is the largest memory exponent of Argon2 that is followed: 256
	// MiB, and argon2Work how much is written to it in all: 1 GiB, or a second. A
	// file could ask for terabytes, or hours. What RFC 9580 recommends where memory
	// is short, three passes over 64 MiB, is a fifth of that.
	maxArgon2  = 18
	argon2Work = 1 << 20 // KiB
)

// skesk is a session key encrypted to a passphrase (packet tag 3).
type skesk struct {
	version byte // 4, or 5 from GnuPG's AEAD encryption
	cipher  byte
	mode    byte   // of AEAD
	spec    string // the derivation, as stored
	derive  func(key, passphrase []byte)
	sealed  []byte // the session key, encrypted; none: the passphrase's key is it
}

// parseSKESK parses the body of a packet of tag 3. An error of the form
// errUnsupported means that the packet may be skipped.
func parseSKESK(body []byte) (*skesk, error) {
	if len(body) < 3 {
		return nil, ErrPacket
	}
	s := &skesk{version: body[0], cipher: body[1]}
	rest := body[2:]
	switch s.version {
	case 4:
	case 5:
		s.mode, rest = rest[0], rest[1:]
	default:
		return nil, fmt.Errorf("%w: session key of version %d", errUnsupported, s.version)
	}
	if specOf(s.cipher).newCipher == nil {
		return nil, fmt.Errorf("%w: cipher %d", errUnsupported, s.cipher)
	}
	r := bytes.NewReader(rest)
	params, err := s2k.ParseIntoParams(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnsupported, err)
	}
	used := len(rest) - r.Len()
	if params.Mode() == s2k.Argon2S2K {
		passes, memory := rest[used-3], rest[used-1]
		if memory > maxArgon2 || int(passes)<<memory > argon2Work {
			return nil, fmt.Errorf("%w: Argon2 with %d passes over 2^%d KiB of memory", errUnsupported, passes, memory)
		}
	}
	if s.derive, err = params.Function(); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnsupported, err)
	}
	s.spec, s.sealed = string(rest[:used]), rest[used:]
	if hash, ok := s2kHashes[rest[1]]; ok && params.Mode() == s2k.IteratedSaltedS2K {
		s.derive = func(key, passphrase []byte) { iterated(hash.New(), key, passphrase, s.spec) }
	}
	return s, nil
}

// s2kHashes are the hashes of iterated, by their numbers.
var s2kHashes = map[byte]crypto.Hash{2: crypto.SHA1, 8: crypto.SHA256, 9: crypto.SHA384, 10: crypto.SHA512, 11: crypto.SHA224}

// iterated is the derivation by hashing salt and passphrase again and again,
// megabytes in all. Package s2k hands them to the hash a few bytes at a time,
// which takes twice as long, and every run waits for it.
func iterated(h hash.Hash, key, passphrase []byte, spec string) {
	const salt, end = 2, 10 // after the mode and the hash's number
	unit := append([]byte(spec[salt:end]), passphrase...)
	coded := int(spec[end])
	count := max((16+coded&15)<<(coded>>4+6), len(unit))
	many := bytes.Repeat(unit, min(16<<10, count)/len(unit)+1)
	for round := 0; len(key) > 0; round++ {
		h.Reset()
		h.Write(make([]byte, round))
		for left := count; left > 0; left -= len(many) {
			h.Write(many[:min(left, len(many))])
		}
		key = key[copy(key, h.Sum(nil)):]
	}
}

// errUnsupported marks packets that we cannot use.
var errUnsupported = errors.New("not supported")

// open returns the session key, given the key derived from a passphrase. It
// reports false if the passphrase is certainly wrong.
func (s *skesk) open(kek []byte) (Session, bool) {
	if len(s.sealed) == 0 {
		return Session{s.cipher, kek}, s.version == 4
	}
	block, err := Session{s.cipher, kek}.Block()
	if err != nil {
		return Session{}, false
	}
	if s.version == 5 {
		return s.openAEAD(block)
	}
	plain := make([]byte, len(s.sealed))
	DecryptCFB(block, plain, s.sealed, make([]byte, block.BlockSize()))
	got := Session{plain[0], plain[1:]}
	return got, got.valid()
}

// openAEAD opens a session key of version 5.
func (s *skesk) openAEAD(block cipher.Block) (Session, bool) {
	aead, err := NewAEAD(block, s.mode)
	if err != nil || len(s.sealed) < aead.NonceSize() {
		return Session{}, false
	}
	nonce, sealed := s.sealed[:aead.NonceSize()], s.sealed[aead.NonceSize():]
	key, err := aead.Open(nil, nonce, sealed, []byte{0xc3, s.version, s.cipher, s.mode})
	got := Session{s.cipher, key}
	return got, err == nil && got.valid()
}

// NewAEAD returns OpenPGP's AEAD mode of that number: 1 is EAX, 2 is OCB.
func NewAEAD(block cipher.Block, mode byte) (cipher.AEAD, error) {
	if block.BlockSize() != 16 {
		return nil, errors.New("AEAD with a cipher of small blocks")
	}
	switch mode {
	case 1:
		return eax.NewEAX(block)
	case 2:
		return ocb.NewOCB(block)
	}
	return nil, fmt.Errorf("AEAD mode %d is not supported", mode)
}

// parsePKESK parses the body of a packet of tag 1. key is nil if only an
// outside Decrypter may understand it.
func parsePKESK(body []byte) (r Recipient, key *packet.EncryptedKey, err error) {
	if len(body) < 10 {
		return r, nil, ErrPacket
	}
	r.Body = body
	if body[0] == 3 || body[0] == 2 {
		r.KeyID = binary.BigEndian.Uint64(body[1:])
	}
	key, _ = readPacket(TagPKESK, body).(*packet.EncryptedKey)
	return r, key, nil
}
