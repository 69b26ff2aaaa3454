package pgp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"dupfs/chain"
)

// Keys is what may open stored files. Safe for concurrent use once its
// fields are set; they must not change later.
type Keys struct {
	// Ask is called, at most once, when a passphrase is needed and none was
	// given. nil: nobody to ask.
	Ask func(ctx context.Context) (string, error)
	// Decrypter opens session keys of public-key encryption that no key file
	// opens. nil: none.
	Decrypter Decrypter
	// Cache remembers what public-key encryption was opened with, beyond this
	// process. nil: nothing does.
	Cache SessionCache
	// AcceptUnauthenticated lets messages without any protection of their
	// integrity be read (packet tag 9, written by GnuPG 1 for old keys).
	AcceptUnauthenticated bool
	// OnUnauthenticated is called with the name of the stored file whenever one
	// of them is opened. nil: nobody is told.
	OnUnauthenticated func(name string)

	passphrases []string

	askMu  sync.Mutex
	asked  bool
	answer string
	askErr error

	keyMu    sync.Mutex
	entities openpgp.EntityList
	unlocked bool            // the passphrases were tried on the secret keys
	demanded string          // the id of the signer that is demanded; "": none is
	signers  map[string]bool // fingerprints of keys that sign for it

	knownMu sync.Mutex
	known   map[[sha256.Size]byte]Session // by the hash of the packet

	derivedMu sync.Mutex
	derived   map[derivation]*derivedKey
	own       map[string]string // by passphrase: the derivation of our kind used last
}

// derivation names a key derived from a passphrase.
type derivation struct {
	spec, passphrase string
	size             int
}

// derivedKey is derived once, however many files need it at a time.
type derivedKey struct {
	once sync.Once
	key  []byte
}

// maxDerived bounds the derived keys that are remembered. A chain by dupfs has
// one a run, one by GnuPG has one a file.
const maxDerived = 4096

// NewKeys returns Keys that try the passphrases in their order. They open
// messages encrypted to a passphrase and secret keys protected by one.
func NewKeys(passphrases ...string) *Keys { return &Keys{passphrases: passphrases} }

// AddKeyFile adds the keys of an armored or binary key file: secret ones to
// decrypt with, public ones to check signatures with.
func (k *Keys) AddKeyFile(file []byte) error {
	list, err := readKeyFile(file)
	if err != nil {
		return fmt.Errorf("key file: %w", err)
	}
	k.keyMu.Lock()
	defer k.keyMu.Unlock()
	k.entities, k.unlocked = append(k.entities, list...), false
	return nil
}

// readKeyFile reads a binary key ring, or any number of armored ones.
func readKeyFile(file []byte) (openpgp.EntityList, error) {
	if !bytes.Contains(file, []byte("-----BEGIN PGP")) {
		return readRing(file)
	}
	var all openpgp.EntityList
	r := bufio.NewReader(bytes.NewReader(file))
	for {
		block, err := armor.Decode(r)
		if err == io.EOF && all != nil {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		ring, err := io.ReadAll(block.Body) // no larger than the file
		if err != nil {
			return nil, err
		}
		list, err := readRing(ring)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
}

// errVersion5 says that a key has a form that only GnuPG knows.
var errVersion5 = errors.New("it is of version 5 (Ed448 or X448 by GnuPG 2.3 or newer): gpg opens what is encrypted to it, " +
	"but dupfs cannot encrypt to it, nor sign with it")

// readRing reads binary keys.
func readRing(ring []byte) (openpgp.EntityList, error) {
	list, err := openpgp.ReadKeyRing(bytes.NewReader(ring))
	if err != nil {
		const secretKey, publicKey = 5, 6
		tag, _, n, perr := ParseHeader(ring)
		if perr == nil && (tag == secretKey || tag == publicKey) && n > 0 && n < len(ring) && ring[n] == 5 {
			err = errVersion5
		}
	}
	return list, err
}

// passes returns the passphrases to try, asking if there are none. It returns
// none if there is nobody to ask.
func (k *Keys) passes(ctx context.Context) ([]string, error) {
	if len(k.passphrases) > 0 || k.Ask == nil {
		return k.passphrases, nil
	}
	k.askMu.Lock()
	defer k.askMu.Unlock()
	if !k.asked {
		k.answer, k.askErr = k.Ask(ctx)
		k.asked = ctx.Err() == nil // who gave up did not answer
	}
	if k.askErr != nil {
		return nil, k.askErr
	}
	return []string{k.answer}, nil
}

// derive returns the key that a passphrase gives, from the cache if possible.
func (k *Keys) derive(s *skesk, passphrase string) []byte {
	d := derivation{s.spec, passphrase, specOf(s.cipher).key}
	k.derivedMu.Lock()
	if k.derived == nil || len(k.derived) >= maxDerived {
		k.derived = make(map[derivation]*derivedKey)
	}
	e := k.derived[d]
	if e == nil {
		e = &derivedKey{}
		k.derived[d] = e
	}
	k.derivedMu.Unlock()
	e.once.Do(func() {
		key := make([]byte, d.size)
		s.derive(key, []byte(passphrase))
		e.key = key
	})
	return e.key
}

// secrets returns the secret keys that may open what is encrypted to the id,
// 0 for any, without those whose protection no passphrase opens.
func (k *Keys) secrets(ctx context.Context, id uint64) ([]*packet.PrivateKey, error) {
	var found []*packet.PrivateKey
	k.keyMu.Lock()
	defer k.keyMu.Unlock()
	locked := false
	k.each(func(_ *packet.PublicKey, key *packet.PrivateKey) {
		locked = locked || key != nil && key.Encrypted && (id == 0 || key.KeyId == id)
	})
	if locked && !k.unlocked {
		passphrases, err := k.passes(ctx)
		if err != nil {
			return nil, err
		}
		for _, p := range passphrases {
			for _, e := range k.entities {
				_ = e.DecryptPrivateKeys([]byte(p)) // what stays locked is skipped below
			}
		}
		k.unlocked = true
	}
	k.each(func(_ *packet.PublicKey, key *packet.PrivateKey) {
		if key != nil && !key.Encrypted && !key.Dummy() && (id == 0 || key.KeyId == id) {
			found = append(found, key)
		}
	})
	return found, nil
}

// public returns the public keys of an id.
func (k *Keys) public(id uint64) []*packet.PublicKey {
	var found []*packet.PublicKey
	k.keyMu.Lock()
	defer k.keyMu.Unlock()
	k.each(func(key *packet.PublicKey, _ *packet.PrivateKey) {
		if key.KeyId == id {
			found = append(found, key)
		}
	})
	return found
}

// each calls fn with every key there is. The lock is held.
func (k *Keys) each(fn func(*packet.PublicKey, *packet.PrivateKey)) {
	for _, e := range k.entities {
		fn(e.PrimaryKey, e.PrivateKey)
		for i := range e.Subkeys {
			fn(e.Subkeys[i].PublicKey, e.Subkeys[i].PrivateKey)
		}
	}
}

// Open reads a message up to its encrypted data and finds the session key. r
// must buffer at least 64 bytes and be at the beginning of the message. name
// is that of the stored file, for errors: chain.ErrNoKey with the ids of the
// keys that it is encrypted to, chain.ErrNoPassphrase, a *chain.CorruptError,
// or what r fails with.
func (k *Keys) Open(ctx context.Context, r *bufio.Reader, name string) (*Message, error) {
	m, esks, err := readHead(r)
	if err != nil {
		return nil, damaged(name, err)
	}
	if m.Tag == TagEncrypted && !k.AcceptUnauthenticated {
		return nil, fmt.Errorf("%s: %w", name, ErrUnauthenticated)
	}
	body, err := m.Body.Peek(probeLen)
	if err != nil {
		return nil, damaged(name, err)
	}
	if m.Tag == TagProtected && len(body) > 0 && body[0] != 1 {
		return nil, fmt.Errorf("%s: encrypted data of version %d is not supported", name, body[0])
	}
	if m.Session, err = k.find(ctx, esks, probe{m.Tag, body}); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if m.Tag == TagEncrypted && k.OnUnauthenticated != nil {
		k.OnUnauthenticated(name)
	}
	return m, nil
}

// ErrUnauthenticated says that a message is not read as nothing protects its
// integrity: packet tag 9, which GnuPG 1 wrote for old keys.
var ErrUnauthenticated = errors.New("it has no protection of its integrity, so that anybody may have changed it (OpenPGP packet 9)")

// damaged names the file in an error of reading packets.
func damaged(name string, err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return chain.Corrupt(name, "it ends before its encrypted data")
	case errors.Is(err, ErrPacket):
		return chain.Corrupt(name, err.Error())
	}
	return fmt.Errorf("%s: %w", name, err)
}

// esk is a session key packet.
type esk struct {
	tag  int
	body []byte
}

// readHead reads the packets up to the encrypted data.
func readHead(r *bufio.Reader) (*Message, []esk, error) {
	var off int64
	var esks []esk
	passphrases := 0
	for {
		tag, l, n, err := ReadHeader(r)
		if err != nil {
			return nil, nil, err
		}
		switch tag {
		case TagEncrypted, TagProtected, TagAEAD:
			return &Message{
				Tag: tag, Body: NewBody(r, l), First: l,
				LengthOff: off + 1, LengthLen: n - 1,
			}, esks, nil
		case TagPKESK, TagMarker:
		case TagSKESK:
			if passphrases++; passphrases > maxSKESKs {
				return nil, nil, fmt.Errorf("%w: more than %d passphrases", ErrPacket, maxSKESKs)
			}
		case TagCompressed, TagLiteral, TagOnePass, TagSignature:
			return nil, nil, fmt.Errorf("%w: it is not encrypted", ErrPacket)
		default:
			return nil, nil, fmt.Errorf("%w: packet %d does not belong here", ErrPacket, tag)
		}
		if l.Partial || l.N < 0 || len(esks) == maxESKs {
			return nil, nil, ErrPacket
		}
		body, err := NewBody(r, l).ReadAll(maxESK)
		if err != nil {
			return nil, nil, err
		}
		off += int64(n) + l.N
		if tag != TagMarker {
			esks = append(esks, esk{tag, body})
		}
	}
}

// find tries all keys, public-key encryption first, for it needs no passphrase
// in most cases.
func (k *Keys) find(ctx context.Context, esks []esk, p probe) (Session, error) {
	var ids []string
	var skipped, refused error
	var symmetric []*skesk
	for _, e := range esks {
		if err := ctx.Err(); err != nil {
			return Session{}, err
		}
		if e.tag == TagSKESK {
			s, err := parseSKESK(e.body)
			if err != nil {
				skipped = err
				continue
			}
			symmetric = append(symmetric, s)
			continue
		}
		r, key, err := parsePKESK(e.body)
		if err != nil {
			skipped = err
			continue
		}
		id := fmt.Sprintf("%016X", r.KeyID)
		if r.KeyID == 0 {
			id = "(hidden)"
		}
		ids = append(ids, id)
		s, ok, err := k.openPKESK(ctx, r, key, p)
		if ok || ctx.Err() != nil {
			return s, err
		}
		if refused == nil {
			refused = err // another one may fit
		}
	}
	if len(symmetric) > 0 {
		s, ok, err := k.openSKESK(ctx, symmetric, p)
		if ok || err != nil {
			return s, err
		}
		return Session{}, fmt.Errorf("wrong passphrase: %w", chain.ErrNoKey)
	}
	switch {
	case refused != nil:
		return Session{}, fmt.Errorf("encrypted to key %s: %w", strings.Join(ids, ", "), refused)
	case len(ids) > 0:
		return Session{}, fmt.Errorf("%w (encrypted to key %s)", chain.ErrNoKey, strings.Join(ids, ", "))
	case skipped != nil:
		return Session{}, skipped
	}
	return Session{}, fmt.Errorf("%w: it has no session key", ErrPacket)
}

// openPKESK tries the secret keys at hand, then the Decrypter.
func (k *Keys) openPKESK(ctx context.Context, r Recipient, key *packet.EncryptedKey, p probe) (Session, bool, error) {
	if s, ok := k.cached(r.Body); ok && p.fits(s) {
		return s, true, nil
	}
	if key != nil {
		secrets, err := k.secrets(ctx, r.KeyID)
		if err != nil {
			return Session{}, false, err
		}
		for _, secret := range secrets {
			if key.Decrypt(secret, nil) != nil {
				continue // for a hidden recipient it may be another one
			}
			if s := (Session{byte(key.CipherFunc), key.Key}); p.fits(s) {
				return s, true, nil
			}
		}
	}
	if k.Decrypter == nil {
		return Session{}, false, nil
	}
	s, err := k.Decrypter.SessionKey(ctx, r)
	if err != nil || !p.fits(s) {
		return s, false, err
	}
	return s, true, k.keep(r.Body, s)
}

// openSKESK tries the passphrases on the session keys.
func (k *Keys) openSKESK(ctx context.Context, esks []*skesk, p probe) (Session, bool, error) {
	passphrases, err := k.passes(ctx)
	if err != nil {
		return Session{}, false, err
	}
	if len(passphrases) == 0 {
		return Session{}, false, chain.ErrNoPassphrase
	}
	for _, passphrase := range passphrases {
		for _, e := range esks {
			if err := ctx.Err(); err != nil {
				return Session{}, false, err
			}
			if s, ok := e.open(k.derive(e, passphrase)); ok && p.fits(s) {
				if e.isOwn() {
					k.remember(passphrase, e.spec)
				}
				return s, true, nil
			}
		}
	}
	return Session{}, false, nil
}
