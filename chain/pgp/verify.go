package pgp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Signature tells of a signature met in a message.
type Signature struct {
	KeyID uint64
	// Good says that it was checked. Otherwise the signer's public key is
	// not at hand, or it is of a kind that is not supported.
	Good bool
	// Fingerprint is that of the key that it was checked with.
	Fingerprint string
}

// ErrSignature says that the signature of a known key is wrong or missing.
var ErrSignature = errors.New("bad signature")

// maxSignatures bounds the signatures of a message.
const maxSignatures = 64

// Verifier checks the signatures of a message, as its packets come by.
type Verifier struct {
	keys    *Keys
	open    []*signing // announced, innermost last
	results []Signature
	started bool // some of the content was seen
}

// signing is a signature to come.
type signing struct {
	id        uint64
	announced bool // by a packet before the content: the signature follows it
	keys      []*packet.PublicKey
	text      hash.Hash // takes the content
	sum       hash.Hash // what the signature is over
	sig       *packet.Signature
}

// NewVerifier returns a Verifier of one message.
func (k *Keys) NewVerifier() *Verifier { return &Verifier{keys: k} }

// OnePass takes the body of a packet that announces a signature.
func (v *Verifier) OnePass(body []byte) error {
	if len(v.open) == maxSignatures {
		return ErrPacket
	}
	s := &signing{announced: true}
	v.open = append(v.open, s)
	if len(body) >= 12 && body[0] == 3 {
		s.id = binary.BigEndian.Uint64(body[4:])
	}
	if p, ok := readPacket(TagOnePass, body).(*packet.OnePassSignature); ok && p.Hash.Available() {
		v.begin(s, p.KeyId, p.Hash.New(), p.SigType)
	}
	return nil
}

// begin sets up the hash of a signature, if it can be checked.
func (v *Verifier) begin(s *signing, id uint64, sum hash.Hash, kind packet.SignatureType) {
	s.id = id
	keys := v.keys.public(id)
	switch kind {
	case packet.SigTypeBinary:
		s.keys, s.sum, s.text = keys, sum, sum
	case packet.SigTypeText:
		s.keys, s.sum, s.text = keys, sum, openpgp.NewCanonicalTextHash(sum)
	}
}

// readPacket parses a packet by go-crypto; nil if it cannot.
func readPacket(tag int, body []byte) packet.Packet {
	head := AppendLength([]byte{0xc0 | byte(tag)}, int64(len(body)))
	p, err := packet.Read(io.MultiReader(bytes.NewReader(head), bytes.NewReader(body)))
	if err != nil {
		return nil
	}
	return p
}

// Write takes content of the literal packet. It never fails.
func (v *Verifier) Write(p []byte) (int, error) {
	v.started = true
	for _, s := range v.open {
		if len(s.keys) > 0 {
			s.text.Write(p)
		}
	}
	return len(p), nil
}

// Signature takes the body of a signature packet, which follows the content,
// or comes before it in messages of old. ErrSignature if it is wrong.
func (v *Verifier) Signature(body []byte) error {
	sig, _ := readPacket(TagSignature, body).(*packet.Signature)
	// Of no content nothing is seen.
	if n := len(v.open); !v.started && (n == 0 || !v.open[n-1].announced) {
		if len(v.open) == maxSignatures {
			return ErrPacket
		}
		s := &signing{sig: sig}
		v.open = append(v.open, s)
		if sig != nil && sig.IssuerKeyId != nil {
			s.id = *sig.IssuerKeyId
			if sum, err := sig.PrepareVerify(); err == nil {
				v.begin(s, s.id, sum, sig.SigType)
			}
		}
		return nil
	}
	if len(v.open) == 0 {
		if len(v.results) == maxSignatures {
			return ErrPacket
		}
		v.results = append(v.results, Signature{})
		return nil
	}
	s := v.open[len(v.open)-1]
	v.open = v.open[:len(v.open)-1]
	s.sig = sig
	return v.check(s)
}

// check notes the verdict on a signature.
func (v *Verifier) check(s *signing) error {
	if len(s.keys) == 0 {
		v.results = append(v.results, Signature{KeyID: s.id})
		return nil
	}
	if s.sig == nil || s.sig.SigType != packet.SigTypeBinary && s.sig.SigType != packet.SigTypeText ||
		s.sig.IssuerKeyId != nil && *s.sig.IssuerKeyId != s.id {
		return ErrSignature
	}
	for _, key := range s.keys {
		if !key.CanSign() {
			continue
		}
		if key.VerifySignature(s.sum, s.sig) != nil {
			return ErrSignature
		}
		v.results = append(v.results, Signature{KeyID: s.id, Good: true, Fingerprint: string(key.Fingerprint)})
		return nil
	}
	return ErrSignature
}

// Finish is called at the message's end. ErrSignature if a signature that was
// announced is missing, ErrSigner if one is demanded that is not there.
func (v *Verifier) Finish() error {
	for len(v.open) > 0 {
		s := v.open[len(v.open)-1]
		v.open = v.open[:len(v.open)-1]
		if err := v.check(s); err != nil {
			return err
		}
	}
	return v.keys.signedAsDemanded(v.results)
}

// Results returns the signatures met so far.
func (v *Verifier) Results() []Signature { return v.results }
