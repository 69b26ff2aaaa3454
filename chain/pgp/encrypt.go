package pgp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"strings"
)

// Encrypter makes session keys and encrypts them for whoever shall read what
// one run writes. Safe for concurrent use.
type Encrypter struct {
	// prefix is the beginning of the session key packet's body: version,
	// cipher, and how the key is derived from the passphrase.
	prefix []byte
	kek    cipher.Block // nil: no passphrase

	to     []Target
	signer Signer // nil: none
	keys   *Keys  // learns the session keys; may be nil
}

const (
	// s2kOwn begins the derivation that we write: iterated, salted, SHA-256.
	// 255, after the salt, is the count: 65011712 bytes are hashed, which is
	// what GnuPG 2 uses and the most that the format can say.
	s2kOwn     = "\x03\x08"
	s2kSaltLen = 8
	keyLen     = 32
)

// NewEncrypter returns an Encrypter to a passphrase with a salt of its own. The
// slow derivation of the key from the passphrase happens here, once for all
// files of a run.
//
// The session keys of a run are then all encrypted under one key, and OpenPGP
// begins each with the same initialisation vector. Who knows one of them (but
// not the passphrase) so learns the first 15 of 32 bytes of the others; 136 bits
// of each stay secret.
func NewEncrypter(passphrase string) (*Encrypter, error) {
	return new(Keys).newEncrypter(passphrase, newSpec())
}

// Encrypter returns an Encrypter to a passphrase. If k has opened a file that
// an Encrypter to that passphrase wrote, the new one goes on with its salt and
// costs nothing; else it is made as by NewEncrypter.
//
// An archive to which every run is added after one look at it so has one salt
// in all, and whoever reads its sets derives one key, not one a set, at some
// 0.2 s each. The salt is still random and differs from archive to archive,
// so that nothing can be computed before the archive is seen, and a guess of the
// passphrase costs as much as ever. What NewEncrypter says of the session keys of
// one run holds for all runs that share the salt.
func (k *Keys) Encrypter(passphrase string) (*Encrypter, error) {
	k.derivedMu.Lock()
	spec := k.own[passphrase]
	k.derivedMu.Unlock()
	if spec == "" {
		spec = newSpec()
	}
	return k.newEncrypter(passphrase, spec)
}

// newSpec returns a derivation of our kind with a new salt.
func newSpec() string {
	salt := make([]byte, s2kSaltLen)
	rand.Read(salt)
	return s2kOwn + string(salt) + "\xff"
}

// isOwn reports whether an Encrypter may have made the session key. One whose
// passphrase gives the session key itself must not lend its salt: the key of
// that file would then encrypt those of others.
func (s *skesk) isOwn() bool {
	return s.version == 4 && s.cipher == AES256 && len(s.sealed) == 1+keyLen &&
		len(s.spec) == len(s2kOwn)+s2kSaltLen+1 &&
		strings.HasPrefix(s.spec, s2kOwn) && strings.HasSuffix(s.spec, "\xff")
}

// newEncrypter derives the key for a derivation of our kind, unless k did.
func (k *Keys) newEncrypter(passphrase, spec string) (*Encrypter, error) {
	if passphrase == "" {
		return nil, errors.New("the passphrase is empty")
	}
	prefix := append([]byte{4, AES256}, spec...)
	s, err := parseSKESK(prefix)
	if err != nil {
		return nil, err
	}
	kek, err := aes.NewCipher(k.derive(s, passphrase))
	if err != nil {
		return nil, err
	}
	k.remember(passphrase, spec)
	return &Encrypter{prefix: prefix, kek: kek}, nil
}

// remember notes the derivation that the next Encrypter goes on with.
func (k *Keys) remember(passphrase, spec string) {
	k.derivedMu.Lock()
	defer k.derivedMu.Unlock()
	if k.own == nil {
		k.own = make(map[string]string)
	}
	k.own[passphrase] = spec
}

// NewSession returns a fresh AES-256 session key and the packets that hand it
// to the readers, as they stand at the beginning of a stored file.
func (e *Encrypter) NewSession() (esk, key []byte, err error) {
	if e == nil || e.kek == nil && len(e.to) == 0 {
		return nil, nil, errors.New("no key to encrypt with")
	}
	key = make([]byte, keyLen)
	rand.Read(key)
	if esk, err = e.sealTo(key); err != nil || e.kek == nil {
		return esk, key, err
	}
	sealed := append([]byte{AES256}, key...)
	NewCFB(e.kek, make([]byte, aes.BlockSize)).Encrypt(sealed)
	esk = AppendLength(append(esk, 0xc0|TagSKESK), int64(len(e.prefix)+len(sealed)))
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
