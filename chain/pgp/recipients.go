package pgp

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Target is a public key that session keys are encrypted to.
type Target struct {
	Key    *packet.PublicKey
	Hidden bool // its id is not written down: the reader tries all secret keys
}

// EncryptOptions say who shall be able to read what is written.
type EncryptOptions struct {
	Passphrase string   // "": none
	To         []Target // may be empty if there is a passphrase
	Sign       Signer   // nil: nothing is signed
	// Keys, if set, learns the session keys that are made, so that this run
	// reads what it wrote without the secret key. A passphrase is used as by
	// its method Encrypter.
	Keys *Keys
}

// NewEncrypterTo returns an Encrypter to public keys, a passphrase, or both:
// each of them alone opens what is written.
func NewEncrypterTo(o EncryptOptions) (*Encrypter, error) {
	e := &Encrypter{}
	if o.Passphrase != "" || len(o.To) == 0 {
		keys := o.Keys
		if keys == nil {
			keys = new(Keys)
		}
		var err error
		if e, err = keys.Encrypter(o.Passphrase); err != nil {
			return nil, err
		}
	}
	if len(o.To) > maxESKs-1 {
		return nil, fmt.Errorf("%d recipients, which is more than %d", len(o.To), maxESKs-1)
	}
	e.to, e.signer, e.keys = slices.Clone(o.To), o.Sign, o.Keys
	return e, nil
}

// Signer returns what signs the files that are written, nil for nothing.
func (e *Encrypter) Signer() Signer {
	if e == nil {
		return nil
	}
	return e.signer
}

// sealTo returns the session key encrypted to each public key.
func (e *Encrypter) sealTo(key []byte) ([]byte, error) {
	var all []byte
	for _, t := range e.to {
		var b bytes.Buffer
		err := packet.SerializeEncryptedKeyAEADwithHiddenOption(&b, t.Key, packet.CipherAES256, false, key, t.Hidden, nil)
		if err != nil {
			return nil, fmt.Errorf("session key for %016X: %w", t.Key.KeyId, err)
		}
		if e.keys != nil {
			if err := e.keys.learn(b.Bytes(), key); err != nil {
				return nil, err
			}
		}
		all = append(all, b.Bytes()...)
	}
	return all, nil
}

// learn remembers the session key of a packet of tag 1 that was just made.
func (k *Keys) learn(pkt, key []byte) error {
	_, l, n, err := ParseHeader(pkt)
	if err != nil || n == 0 || int64(len(pkt)-n) != l.N {
		return ErrPacket
	}
	return k.keep(pkt[n:], Session{AES256, key})
}

var (
	// ErrNoPublicKey says that a public key is not there, or is no longer
	// good for what it is wanted for.
	ErrNoPublicKey = errors.New("no usable public key")
	errNoEncrypt   = errors.New("it has no key to encrypt to that is neither expired nor revoked")
)

// EncryptionKey returns the public key that GnuPG would encrypt to, given an
// exported key: the newest one for it that is neither expired nor revoked. id
// is how the user names the key; with "!" behind a hexadecimal id it is that
// very key. ErrNoPublicKey if there is none.
func EncryptionKey(file []byte, id string, now time.Time) (*packet.PublicKey, error) {
	list, err := readKeyFile(file)
	if err != nil {
		return nil, fmt.Errorf("%w: key %s: %v", ErrNoPublicKey, id, err)
	}
	id, exact := strings.CutSuffix(id, "!")
	var best *packet.PublicKey
	for _, e := range list {
		key, ok := encryptionKey(e, id, exact, now)
		if ok && (best == nil || key.CreationTime.After(best.CreationTime)) {
			best = key
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%w: key %s: %w", ErrNoPublicKey, id, errNoEncrypt)
	}
	return best, nil
}

// encryptionKey chooses the key of an entity.
func encryptionKey(e *openpgp.Entity, id string, exact bool, now time.Time) (*packet.PublicKey, bool) {
	if !exact {
		key, ok := e.EncryptionKey(now)
		return key.PublicKey, ok
	}
	if e.Revoked(now) {
		return nil, false
	}
	for i := range e.Subkeys {
		s := &e.Subkeys[i]
		if MatchesID(s.PublicKey, id) && s.PublicKey.PubKeyAlgo.CanEncrypt() && !s.Revoked(now) &&
			!s.PublicKey.KeyExpired(s.Sig, now) {
			return s.PublicKey, true
		}
	}
	if MatchesID(e.PrimaryKey, id) && e.PrimaryKey.PubKeyAlgo.CanEncrypt() {
		return e.PrimaryKey, true
	}
	return nil, false
}

// IsHexID reports whether a key is named by hexadecimal digits: a key id or a
// fingerprint.
func IsHexID(id string) bool {
	id = hexID(id)
	switch len(id) {
	case 8, 16, 32, 40, 64:
	default:
		return false
	}
	for i := 0; i < len(id); i += 8 {
		if _, err := strconv.ParseUint(id[i:i+8], 16, 32); err != nil {
			return false
		}
	}
	return true
}

// hexID strips what may be around hexadecimal digits.
func hexID(id string) string {
	id = strings.TrimSuffix(id, "!")
	if len(id) > 2 && id[0] == '0' && (id[1] == 'x' || id[1] == 'X') {
		id = id[2:]
	}
	return strings.ToUpper(id)
}

// MatchesID reports whether a key has the id: the end of its fingerprint.
func MatchesID(key *packet.PublicKey, id string) bool {
	id = hexID(id)
	return len(id) >= 8 && strings.HasSuffix(fmt.Sprintf("%X", key.Fingerprint), id)
}

// EncryptionKeyOf is EncryptionKey for a file of several keys: only those are
// looked at that an id names, by hexadecimal digits or as part of a user id.
func EncryptionKeyOf(file []byte, id string, now time.Time) (*packet.PublicKey, error) {
	list, err := readKeyFile(file)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	id, exact := strings.CutSuffix(id, "!")
	found := fmt.Errorf("%w: key %s is not in the file", ErrNoPublicKey, id)
	for _, e := range list {
		if !named(e, id) {
			continue
		}
		key, ok := encryptionKey(e, id, exact, now)
		if ok {
			return key, nil
		}
		found = fmt.Errorf("key %s: %w", id, errNoEncrypt)
	}
	return nil, found
}

// named reports whether an id names an entity.
func named(e *openpgp.Entity, id string) bool {
	if IsHexID(id) {
		for _, k := range keysOf(e) {
			if MatchesID(k, id) {
				return true
			}
		}
		return false
	}
	for _, i := range e.Identities {
		if strings.Contains(strings.ToLower(i.Name), strings.ToLower(id)) {
			return true
		}
	}
	return false
}
