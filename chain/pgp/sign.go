package pgp

import (
	"bytes"
	"crypto"
	_ "crypto/sha256" // the hashes of signatures
	_ "crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Signer signs what is written.
type Signer interface {
	// Key is the public key that signatures are checked with.
	Key() *packet.PublicKey
	// Hash is the function that the content is hashed with.
	Hash() crypto.Hash
	// Sign returns the signature packet, given the hash of the content, which
	// it may add to.
	Sign(h hash.Hash) ([]byte, error)
}

// OnePassPacket returns the packet that announces a Signer's signature.
func OnePassPacket(s Signer) ([]byte, error) {
	id, ok := hashIDs[s.Hash()]
	if !ok {
		return nil, errHash
	}
	key := s.Key()
	body := []byte{3, byte(packet.SigTypeBinary), id, byte(key.PubKeyAlgo)}
	body = binary.BigEndian.AppendUint64(body, key.KeyId)
	return append(AppendLength([]byte{0xc0 | TagOnePass}, int64(len(body)+1)), append(body, 1)...), nil
}

// hashIDs are OpenPGP's numbers of hash functions.
var hashIDs = map[crypto.Hash]byte{crypto.SHA256: 8, crypto.SHA384: 9, crypto.SHA512: 10}

var errHash = errors.New("a hash function that is not used for signatures")

// SignatureHash returns the hash function for a key's signatures. GnuPG refuses
// one that is shorter than the numbers of an elliptic curve.
func SignatureHash(key *packet.PublicKey) crypto.Hash {
	// The size of a point: both coordinates and three bits of a tag, or for
	// EdDSA one coordinate and a tag.
	const ecdsa256, eddsa256 = 2*256 + 3, 256 + 7
	n, err := key.BitLength()
	switch {
	case err != nil:
	case key.PubKeyAlgo == packet.PubKeyAlgoECDSA && n > ecdsa256, key.PubKeyAlgo == packet.PubKeyAlgoEdDSA && n > eddsa256:
		return crypto.SHA512
	}
	return crypto.SHA256
}

// DigestSigner is a Signer whose secret key is elsewhere: SignDigest is given
// the digest and returns the numbers of the signature, big-endian and in the
// order of OpenPGP.
type DigestSigner struct {
	Public     *packet.PublicKey
	SignDigest func(digest []byte, h crypto.Hash) (numbers [][]byte, err error)
	Now        func() time.Time
}

// Key implements Signer.
func (s *DigestSigner) Key() *packet.PublicKey { return s.Public }

// Hash implements Signer.
func (s *DigestSigner) Hash() crypto.Hash { return SignatureHash(s.Public) }

// Subpackets of a signature (RFC 4880, section 5.2.3.1).
const (
	subCreated     = 2
	subIssuer      = 16
	subFingerprint = 33
)

// Sign implements Signer.
func (s *DigestSigner) Sign(h hash.Hash) ([]byte, error) {
	if s.Public.Version != 4 {
		return nil, fmt.Errorf("key %016X is of version %d, which cannot sign here", s.Public.KeyId, s.Public.Version)
	}
	hashed := append([]byte{5, subCreated}, binary.BigEndian.AppendUint32(nil, uint32(s.Now().Unix()))...)
	hashed = append(hashed, byte(2+len(s.Public.Fingerprint)), subFingerprint, byte(s.Public.Version))
	hashed = append(hashed, s.Public.Fingerprint...)
	body := []byte{4, byte(packet.SigTypeBinary), byte(s.Public.PubKeyAlgo), hashIDs[s.Hash()]}
	body = binary.BigEndian.AppendUint16(body, uint16(len(hashed)))
	body = append(body, hashed...)
	h.Write(body)
	h.Write(binary.BigEndian.AppendUint32([]byte{4, 0xff}, uint32(len(body))))
	digest := h.Sum(nil)
	numbers, err := s.SignDigest(digest, s.Hash())
	if err != nil {
		return nil, err
	}
	unhashed := binary.BigEndian.AppendUint64([]byte{9, subIssuer}, s.Public.KeyId)
	body = binary.BigEndian.AppendUint16(body, uint16(len(unhashed)))
	body = append(body, unhashed...)
	body = append(body, digest[:2]...)
	for _, n := range numbers {
		n = bytes.TrimLeft(n, "\x00")
		bits := 0
		if len(n) > 0 {
			bits = len(n)*8 - leadingZeros(n[0])
		}
		body = append(binary.BigEndian.AppendUint16(body, uint16(bits)), n...)
	}
	return append(AppendLength([]byte{0xc0 | TagSignature}, int64(len(body))), body...), nil
}

func leadingZeros(b byte) (n int) {
	for ; b < 0x80; b <<= 1 {
		n++
	}
	return n
}

// keySigner signs with a secret key at hand.
type keySigner struct {
	key *packet.PrivateKey
	now func() time.Time
}

func (s *keySigner) Key() *packet.PublicKey { return &s.key.PublicKey }
func (s *keySigner) Hash() crypto.Hash      { return SignatureHash(&s.key.PublicKey) }

func (s *keySigner) Sign(h hash.Hash) ([]byte, error) {
	sig := &packet.Signature{
		SigType: packet.SigTypeBinary, PubKeyAlgo: s.key.PubKeyAlgo, Hash: s.Hash(),
		CreationTime: s.now(), IssuerKeyId: &s.key.KeyId,
	}
	if err := sig.Sign(h, s.key, nil); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	var b bytes.Buffer
	err := sig.Serialize(&b)
	return b.Bytes(), err
}

// NewKeySigner returns a Signer with a secret key of a key file: the one of
// that id, or the newest of that key that may sign. Passphrases unlock it.
// ErrNoPublicKey if the file has no such key.
func NewKeySigner(file []byte, id string, passphrases []string, now func() time.Time) (Signer, error) {
	list, err := readKeyFile(file)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	for _, e := range list {
		key := signingKey(e, id, now())
		if key == nil {
			continue
		}
		for _, p := range passphrases {
			if key.Encrypted {
				_ = key.Decrypt([]byte(p)) // the next one may fit
			}
		}
		if key.Encrypted {
			return nil, fmt.Errorf("the passphrase of signing key %s is wrong or missing", id)
		}
		return &keySigner{key, now}, nil
	}
	return nil, fmt.Errorf("%w: no secret key %s to sign with", ErrNoPublicKey, id)
}

// signingKey returns the secret key of an entity that signs for an id.
func signingKey(e *openpgp.Entity, id string, now time.Time) *packet.PrivateKey {
	var match bool
	for _, k := range keysOf(e) {
		match = match || MatchesID(k, id)
	}
	if !match {
		return nil
	}
	for _, k := range keysOf(e) {
		if MatchesID(k, id) {
			if key, ok := e.SigningKeyById(now, k.KeyId); ok && key.PrivateKey != nil && !key.PrivateKey.Dummy() {
				return key.PrivateKey
			}
		}
	}
	key, ok := e.SigningKey(now)
	if !ok || key.PrivateKey == nil || key.PrivateKey.Dummy() {
		return nil
	}
	return key.PrivateKey
}

// keysOf returns all public keys of an entity.
func keysOf(e *openpgp.Entity) []*packet.PublicKey {
	all := []*packet.PublicKey{e.PrimaryKey}
	for i := range e.Subkeys {
		all = append(all, e.Subkeys[i].PublicKey)
	}
	return all
}

// PublicKey returns the very key of a file that has the id.
func PublicKey(file []byte, id string) (*packet.PublicKey, error) {
	list, err := readKeyFile(file)
	if err != nil {
		return nil, fmt.Errorf("%w: key %s: %v", ErrNoPublicKey, id, err)
	}
	for _, e := range list {
		for _, k := range keysOf(e) {
			if MatchesID(k, id) {
				return k, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: key %s is not among those exported", ErrNoPublicKey, id)
}

// Fingerprint returns that of the first primary key of a file, in hexadecimal.
func Fingerprint(file []byte) (string, error) {
	list, err := readKeyFile(file)
	if err != nil {
		return "", fmt.Errorf("key file: %w", err)
	}
	if len(list) == 0 {
		return "", fmt.Errorf("%w: the file is empty", ErrNoPublicKey)
	}
	return fmt.Sprintf("%X", list[0].PrimaryKey.Fingerprint), nil
}
