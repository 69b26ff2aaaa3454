package pgp

import (
	"crypto/cipher"
	"crypto/des"
	"fmt"

	//lint:ignore SA1019 old archives are read with it
	"golang.org/x/crypto/blowfish"
	//lint:ignore SA1019 old archives are read with it
	"golang.org/x/crypto/cast5"
	//lint:ignore SA1019 old archives are read with it
	"golang.org/x/crypto/twofish"
)

// AES256 is OpenPGP's number of the cipher that we write with.
const AES256 = 9

// cipherSpec is a symmetric cipher of RFC 4880, section 9.2, and RFC 5581.
type cipherSpec struct {
	name      string
	key       int // bytes
	block     int // bytes
	newCipher func(key []byte) (cipher.Block, error)
}

// specOf returns the cipher of a number, with no name if there is none.
func specOf(number byte) cipherSpec {
	switch number {
	case 2:
		return cipherSpec{"3DES", 24, 8, des.NewTripleDESCipher}
	case 3:
		return cipherSpec{"CAST5", 16, 8, func(k []byte) (cipher.Block, error) { return cast5.NewCipher(k) }}
	case 4:
		return cipherSpec{"Blowfish", 16, 8, func(k []byte) (cipher.Block, error) { return blowfish.NewCipher(k) }}
	case 7:
		return cipherSpec{"AES128", 16, 16, newAES}
	case 8:
		return cipherSpec{"AES192", 24, 16, newAES}
	case AES256:
		return cipherSpec{"AES256", 32, 16, newAES}
	case 10:
		return cipherSpec{"Twofish", 32, 16, func(k []byte) (cipher.Block, error) { return twofish.NewCipher(k) }}
	case 11:
		return cipherSpec{"Camellia128", 16, 16, newCamellia}
	case 12:
		return cipherSpec{"Camellia192", 24, 16, newCamellia}
	case 13:
		return cipherSpec{"Camellia256", 32, 16, newCamellia}
	}
	return cipherSpec{}
}

// Block returns the cipher of the session, keyed.
func (s Session) Block() (cipher.Block, error) {
	spec := specOf(s.Cipher)
	if spec.newCipher == nil {
		return nil, fmt.Errorf("cipher %d is not supported", s.Cipher)
	}
	if len(s.Key) != spec.key {
		return nil, fmt.Errorf("a session key of %d bytes for %s", len(s.Key), spec.name)
	}
	return spec.newCipher(s.Key)
}

// valid reports whether the session has a known cipher and a key to fit.
func (s Session) valid() bool {
	spec := specOf(s.Cipher)
	return spec.newCipher != nil && len(s.Key) == spec.key
}
