// Package pgp handles the OpenPGP packets that stored files are made of: their
// headers and lengths, the session keys in front of the data, and the keys and
// passphrases that open them. The data itself is decoded by package volume.
//
// Reading begins with Keys.Open, writing with NewEncrypter.
package pgp

import (
	"context"
	"errors"
)

// errTodo stands where code is still to come.
var errTodo = errors.New("pgp: not written yet")

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

// Keys is what may open stored files. Safe for concurrent use once its
// fields are set; they must not change later.
type Keys struct {
	// Ask is called, at most once, when a passphrase is needed and none was
	// given. nil: nobody to ask.
	Ask func(ctx context.Context) (string, error)
	// Decrypter opens session keys of public-key encryption that no key file
	// opens. nil: none.
	Decrypter Decrypter
	// AcceptUnauthenticated lets messages without any protection of their
	// integrity be read (packet tag 9, written by GnuPG 1 for old keys).
	AcceptUnauthenticated bool
}

// NewKeys returns Keys that try the passphrases in their order. They open
// messages encrypted to a passphrase and secret keys protected by one.
func NewKeys(passphrases ...string) *Keys { return &Keys{} }

// AddKeyFile adds the keys of an armored or binary key file: secret ones to
// decrypt with, public ones to check signatures with.
func (k *Keys) AddKeyFile(file []byte) error { return errTodo }

// Encrypter makes session keys and encrypts them for whoever shall read what
// one run writes. Safe for concurrent use.
type Encrypter struct{}

// NewEncrypter returns an Encrypter to a passphrase. The slow derivation of
// the key from the passphrase happens here, once for all files of a run.
func NewEncrypter(passphrase string) (*Encrypter, error) { return nil, errTodo }

// NewSession returns a fresh AES-256 session key and the packets that hand it
// to the readers, as they stand at the beginning of a stored file.
func (e *Encrypter) NewSession() (esk, key []byte, err error) { return nil, nil, errTodo }
