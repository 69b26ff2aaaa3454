package pgp

import (
	"bytes"
	"crypto"
	"fmt"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/s2k"
)

// The derivation is that of go-crypto, also where the key is longer than a
// hash, and where salt and passphrase are longer than what is hashed.
func TestIterated(t *testing.T) {
	for _, c := range []struct {
		id    byte
		hash  crypto.Hash
		coded byte
		size  int
		pass  int
	}{
		{2, crypto.SHA1, 0, 16, 7}, {2, crypto.SHA1, 96, 32, 1}, {2, crypto.SHA1, 97, 64, 0},
		{8, crypto.SHA256, 0x60, 32, 9}, {8, crypto.SHA256, 0x73, 24, 5000}, {8, crypto.SHA256, 0x35, 32, 40000},
		{10, crypto.SHA512, 0x80, 32, 255},
	} {
		salt := []byte("saltsalt")
		pass := bytes.Repeat([]byte("secret!"), c.pass/7+1)[:c.pass]
		spec := fmt.Sprintf("\x03%c%s", c.id, salt) + string([]byte{c.coded})
		s, err := parseSKESK(append([]byte{4, AES256}, spec...))
		if err != nil {
			t.Fatal(err)
		}
		got, want := make([]byte, c.size), make([]byte, c.size)
		s.derive(got, pass)
		count := (16 + int(c.coded)&15) << (int(c.coded)>>4 + 6)
		s2k.Iterated(want, c.hash.New(), pass, salt, count)
		if !bytes.Equal(got, want) {
			t.Errorf("%+v: %x, not %x", c, got, want)
		}
	}
}
