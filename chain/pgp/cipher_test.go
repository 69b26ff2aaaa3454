package pgp

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// The examples of RFC 3713, appendix A.
func TestCamellia(t *testing.T) {
	const key = "0123456789abcdeffedcba98765432100011223344556677" + "8899aabbccddeeff"
	k, _ := hex.DecodeString(key)
	plain, _ := hex.DecodeString("0123456789abcdeffedcba9876543210")
	for n, want := range map[int]string{
		16: "67673138549669730857065648eabe43",
		24: "b4993401b3e996f84ee5cee7d79b09b9",
		32: "9acc237dff16d76c20ef7c919e3a7509",
	} {
		c, err := newCamellia(k[:n])
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 16)
		c.Encrypt(got, plain)
		if hex.EncodeToString(got) != want {
			t.Errorf("key of %d bytes: %x, not %s", n, got, want)
		}
		if c.Decrypt(got, got); !bytes.Equal(got, plain) {
			t.Errorf("key of %d bytes: decrypted to %x", n, got)
		}
	}
	if _, err := newCamellia(k[:17]); err == nil {
		t.Error("a key of 17 bytes was taken")
	}
}

func TestBlock(t *testing.T) {
	for number := range byte(20) {
		spec := specOf(number)
		if spec.newCipher == nil {
			if _, err := (Session{number, make([]byte, 16)}).Block(); err == nil {
				t.Errorf("cipher %d was made", number)
			}
			continue
		}
		b, err := Session{number, make([]byte, spec.key)}.Block()
		if err != nil || b.BlockSize() != spec.block {
			t.Errorf("%s: %v", spec.name, err)
		}
		if _, err := (Session{number, make([]byte, spec.key-1)}).Block(); err == nil {
			t.Errorf("%s: a short key was taken", spec.name)
		}
	}
}
