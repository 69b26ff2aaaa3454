package pgp

import (
	"errors"
	"fmt"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
)

// ErrSigner says that something is not signed by the key that was demanded.
var ErrSigner = errors.New("not signed by the key that was demanded")

// DemandSigner makes everything that is read with k fail with ErrSigner unless
// it bears a good signature of the key with that id, or of one that belongs to
// it. file has the public key, possibly among others. A key that expired since
// has still signed; one that was revoked has not. ErrNoPublicKey if there is
// none, or several with that id.
//
// It must be called before k is used.
func (k *Keys) DemandSigner(file []byte, id string, now time.Time) error {
	list, err := readKeyFile(file)
	if err != nil {
		return fmt.Errorf("%w: key %s: %v", ErrNoPublicKey, id, err)
	}
	var found *openpgp.Entity
	for _, e := range list {
		if !named(e, id) {
			continue
		}
		if found != nil && string(found.PrimaryKey.Fingerprint) != string(e.PrimaryKey.Fingerprint) {
			return fmt.Errorf("%w: %s is the id of several keys: give the whole fingerprint", ErrNoPublicKey, id)
		}
		found = e
	}
	if found == nil {
		return fmt.Errorf("%w: key %s is not in the file", ErrNoPublicKey, id)
	}
	signers := map[string]bool{}
	if !found.Revoked(now) {
		if found.PrimaryKey.PubKeyAlgo.CanSign() {
			signers[string(found.PrimaryKey.Fingerprint)] = true
		}
		for i := range found.Subkeys {
			s := &found.Subkeys[i]
			if s.Sig != nil && s.Sig.FlagsValid && s.Sig.FlagSign && s.PublicKey.PubKeyAlgo.CanSign() && !s.Revoked(now) {
				signers[string(s.PublicKey.Fingerprint)] = true
			}
		}
	}
	if len(signers) == 0 {
		return fmt.Errorf("%w: key %s is revoked, or cannot sign", ErrNoPublicKey, id)
	}
	k.keyMu.Lock()
	defer k.keyMu.Unlock()
	k.entities = append(k.entities, found)
	k.demanded, k.signers = id, signers
	return nil
}

// Demands reports whether a signature is demanded.
func (k *Keys) Demands() bool {
	k.keyMu.Lock()
	defer k.keyMu.Unlock()
	return k.demanded != ""
}

// signedAsDemanded checks the signatures of a message.
func (k *Keys) signedAsDemanded(all []Signature) error {
	k.keyMu.Lock()
	defer k.keyMu.Unlock()
	if k.demanded == "" {
		return nil
	}
	for _, s := range all {
		if s.Good && k.signers[s.Fingerprint] {
			return nil
		}
	}
	if len(all) == 0 {
		return signerError("it is not signed, but a signature by key " + k.demanded + " is demanded")
	}
	return signerError(fmt.Sprintf("it was signed by key %016X, not %s", all[0].KeyID, k.demanded))
}

// signerError says more closely what ErrSigner says.
type signerError string

func (e signerError) Error() string        { return string(e) }
func (e signerError) Is(target error) bool { return target == ErrSigner }

// Unsigned is the error for a file whose format has no signatures, nil if none
// is demanded.
func (k *Keys) Unsigned() error { return k.signedAsDemanded(nil) }
