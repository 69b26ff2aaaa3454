package pgp

import (
	"bytes"
	"crypto/aes"
	"crypto/sha1"
	"os/exec"
	"strings"
	"testing"

	"dupfs/internal/need"
)

// sealed is a whole message, as GnuPG checks it.
func sealed(t *testing.T, e *Encrypter, text string) []byte {
	t.Helper()
	esk, key, err := e.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	literal := append([]byte("b\x00\x00\x00\x00\x00"), text...)
	body := append(bytes.Repeat([]byte{3}, 18), AppendLength([]byte{0xc0 | TagLiteral}, int64(len(literal)))...)
	body = append(append(body, literal...), 0xd3, 20)
	sum := sha1.Sum(body)
	body = append(body, sum[:]...)
	block, _ := aes.NewCipher(key)
	NewCFB(block, make([]byte, 16)).Encrypt(body)
	b := append(esk, 0xc0|TagProtected)
	return append(append(AppendLength(b, int64(len(body)+1)), 1), body...)
}

// TestOneSalt writes three sets, each by a run that has looked at the one
// before, and reads them as somebody who knows nothing yet.
func TestOneSalt(t *testing.T) {
	gpg := need.Program(t, "gpg")
	var sets [][]byte
	for i := range 3 {
		run := NewKeys("secret")
		if i > 0 {
			if _, err := open(run, sets[i-1]); err != nil {
				t.Fatal(err)
			}
		}
		e, err := run.Encrypter("secret")
		if err != nil {
			t.Fatal(err)
		}
		if n := len(run.derived); n != 1 {
			t.Errorf("run %d derived %d keys", i, n)
		}
		sets = append(sets, sealed(t, e, "text"+string(rune('0'+i))))
	}
	cold := NewKeys("secret")
	home := t.TempDir()
	for i, set := range sets {
		if _, err := open(cold, set); err != nil {
			t.Errorf("set %d: %v", i, err)
		}
		c := exec.Command(gpg, "--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", "secret", "-d")
		c.Stdin = bytes.NewReader(set)
		if out, err := c.Output(); err != nil || string(out) != "text"+string(rune('0'+i)) {
			t.Errorf("set %d: gpg: %q, %v", i, out, err)
		}
	}
	if n := len(cold.derived); n != 1 {
		t.Errorf("%d keys derived for three sets", n)
	}
	other, err := NewKeys("secret").Encrypter("secret")
	if err != nil {
		t.Fatal(err)
	}
	if b, _, _ := other.NewSession(); bytes.HasPrefix(sets[0], b[:len(other.prefix)]) {
		t.Error("two archives with one salt")
	}
}

func TestSaltsNotReused(t *testing.T) {
	e, err := NewEncrypter("one")
	if err != nil {
		t.Fatal(err)
	}
	keys := NewKeys("one", "two")
	if _, err := open(keys, message(t, e, inner)); err != nil {
		t.Fatal(err)
	}
	two, err := keys.Encrypter("two")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(e.prefix, two.prefix) {
		t.Error("the salt of another passphrase")
	}
	if again, err := keys.Encrypter("one"); err != nil || !bytes.Equal(again.prefix, e.prefix) {
		t.Errorf("a second salt for one passphrase: %v", err)
	}
	salt, key := strings.Repeat("s", 8), strings.Repeat("k", 33)
	for name, c := range map[string]struct {
		body string
		own  bool
	}{
		"our own":                  {"\x04\x09\x03\x08" + salt + "\xff" + key, true},
		"the session key itself":   {"\x04\x09\x03\x08" + salt + "\xff", false},
		"less work":                {"\x04\x09\x03\x08" + salt + "\xfe" + key, false},
		"SHA-1":                    {"\x04\x09\x03\x02" + salt + "\xff" + key, false},
		"AES-128":                  {"\x04\x07\x03\x08" + salt + "\xff" + key[:17], false},
		"not iterated":             {"\x04\x09\x01\x08" + salt + key, false},
		"a key for another cipher": {"\x04\x09\x03\x08" + salt + "\xff" + key[:17], false},
	} {
		s, err := parseSKESK([]byte(c.body))
		if err != nil || s.isOwn() != c.own {
			t.Errorf("%s: taken %v, %v", name, !c.own, err)
		}
	}
}
