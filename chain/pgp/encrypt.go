package pgp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"

	"github.com/ProtonMail/go-crypto/openpgp/s2k"
)

// Encrypter makes session keys and encrypts them for whoever shall read what
// one run writes. Safe for concurrent use.
type Encrypter struct {
	// prefix is the beginning of the session key packet's body: version,
	// cipher, and how the key is derived from the passphrase.
	prefix []byte
	kek    cipher.Block
}

const (
	// s2kCount is the iteration count as stored: 65011712 bytes are hashed,
	// which is what GnuPG 2 uses and the most that the format can say.
	s2kCount  = 65011712
	s2kSHA256 = 8
	keyLen    = 32
)

// NewEncrypter returns an Encrypter to a passphrase. The slow derivation of
// the key from the passphrase happens here, once for all files of a run.
//
// The session keys of a run are then all encrypted under one key, and OpenPGP
// begins each with the same initialisation vector. Who knows one of them (but
// not the passphrase) so learns the first 15 of 32 bytes of the others; 136 bits
// of each stay secret.
func NewEncrypter(passphrase string) (*Encrypter, error) {
	if passphrase == "" {
		return nil, errors.New("the passphrase is empty")
	}
	salt := make([]byte, 8)
	rand.Read(salt)
	key := make([]byte, keyLen)
	s2k.Iterated(key, sha256.New(), []byte(passphrase), salt, s2kCount)
	kek, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	prefix := append([]byte{4, AES256, byte(s2k.IteratedSaltedS2K), s2kSHA256}, salt...)
	return &Encrypter{prefix: append(prefix, 255), kek: kek}, nil
}

// NewSession returns a fresh AES-256 session key and the packets that hand it
// to the readers, as they stand at the beginning of a stored file.
func (e *Encrypter) NewSession() (esk, key []byte, err error) {
	if e == nil || e.kek == nil {
		return nil, nil, errors.New("no key to encrypt with")
	}
	key = make([]byte, keyLen)
	rand.Read(key)
	sealed := append([]byte{AES256}, key...)
	NewCFB(e.kek, make([]byte, aes.BlockSize)).Encrypt(sealed)
	esk = AppendLength([]byte{0xc0 | TagSKESK}, int64(len(e.prefix)+len(sealed)))
	esk = append(esk, e.prefix...)
	return append(esk, sealed...), key, nil
}

// CFB encrypts a stream in cipher feedback mode.
type CFB struct {
	block cipher.Block
	key   []byte // the current block's key stream, overwritten by ciphertext
	used  int
}

// NewCFB begins a stream whose block of ciphertext before it is iv.
func NewCFB(b cipher.Block, iv []byte) *CFB {
	return &CFB{block: b, key: bytes.Clone(iv), used: len(iv)}
}

// Encrypt encrypts p in place.
func (c *CFB) Encrypt(p []byte) {
	size := len(c.key)
	if c.used < size {
		n := subtle.XORBytes(p, p, c.key[c.used:])
		copy(c.key[c.used:], p[:n])
		c.used += n
		p = p[n:]
	}
	if len(p) == 0 {
		return
	}
	var key [16]byte
	last := c.key
	if size == 16 {
		for len(p) >= 16 {
			c.block.Encrypt(key[:], last)
			last = p[:16]
			binary.NativeEndian.PutUint64(last, binary.NativeEndian.Uint64(last)^binary.NativeEndian.Uint64(key[:]))
			binary.NativeEndian.PutUint64(last[8:], binary.NativeEndian.Uint64(last[8:])^binary.NativeEndian.Uint64(key[8:]))
			p = p[16:]
		}
	}
	for len(p) >= size {
		c.block.Encrypt(key[:size], last)
		subtle.XORBytes(p[:size], p[:size], key[:size])
		last, p = p[:size], p[size:]
	}
	copy(c.key, last)
	if len(p) > 0 {
		c.block.Encrypt(c.key, c.key)
		c.used = subtle.XORBytes(p, p, c.key)
		copy(c.key, p)
	}
}
