package pgp

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dupfs/chain"
)

func testFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func testTarget(t testing.TB, name string, hidden bool) Target {
	t.Helper()
	key, err := EncryptionKey(testFile(t, name), "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return Target{key, hidden}
}

// encrypted returns a message with an empty packet inside.
func encrypted(t testing.TB, e *Encrypter) []byte {
	t.Helper()
	esk, key, err := e.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	block, err := Session{AES256, key}.Block()
	if err != nil {
		t.Fatal(err)
	}
	plain := append(bytes.Repeat([]byte{7}, 18), 0xa3, 1, 3, 0)
	plain = append(plain, make([]byte, 40)...)
	NewCFB(block, make([]byte, 16)).Encrypt(plain)
	m := AppendLength(append(esk, 0xc0|TagProtected), int64(1+len(plain)))
	return append(append(m, 1), plain...)
}

func opens(t testing.TB, k *Keys, m []byte) error {
	t.Helper()
	_, err := k.Open(t.Context(), bufio.NewReader(bytes.NewReader(m)), "file")
	return err
}

func withFile(t testing.TB, k *Keys, name string) *Keys {
	t.Helper()
	if err := k.AddKeyFile(testFile(t, name)); err != nil {
		t.Fatal(err)
	}
	return k
}

// Each recipient and the passphrase open a message alone.
func TestRecipients(t *testing.T) {
	for _, hidden := range []bool{false, true} {
		e, err := NewEncrypterTo(EncryptOptions{
			Passphrase: "both", To: []Target{testTarget(t, "enc.sec.asc", hidden), testTarget(t, "locked.sec.asc", hidden)},
		})
		if err != nil {
			t.Fatal(err)
		}
		m := encrypted(t, e)
		for name, k := range map[string]*Keys{
			"passphrase": NewKeys("both"),
			"first":      withFile(t, NewKeys(), "enc.sec.asc"),
			"second":     withFile(t, NewKeys("secret"), "locked.sec.asc"),
		} {
			if err := opens(t, k, m); err != nil {
				t.Errorf("hidden %v, %s: %v", hidden, name, err)
			}
		}
		for name, k := range map[string]*Keys{
			"wrong":  NewKeys("wrong"),
			"locked": withFile(t, NewKeys("wrong"), "locked.sec.asc"),
		} {
			if err := opens(t, k, m); !errors.Is(err, chain.ErrNoKey) {
				t.Errorf("hidden %v, %s: %v", hidden, name, err)
			}
		}
	}
	if _, err := NewEncrypterTo(EncryptOptions{}); err == nil {
		t.Error("an Encrypter to nobody")
	}
}

// What a run wrote, it and the next one read without the secret key.
func TestSessionFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions")
	cache, err := OpenSessionFile(path)
	if err != nil {
		t.Fatal(err)
	}
	keys := NewKeys()
	keys.Cache = cache
	e, err := NewEncrypterTo(EncryptOptions{To: []Target{testTarget(t, "enc.sec.asc", true)}, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	first, second := encrypted(t, e), encrypted(t, e)
	again := func() *Keys {
		t.Helper()
		k := NewKeys()
		if k.Cache, err = OpenSessionFile(path); err != nil {
			t.Fatal(err)
		}
		return k
	}
	for _, k := range []*Keys{keys, again()} {
		if opens(t, k, first) != nil || opens(t, k, second) != nil {
			t.Error("what was written is not read")
		}
	}
	if err := opens(t, NewKeys(), first); !errors.Is(err, chain.ErrNoKey) || !strings.Contains(err.Error(), "file") {
		t.Errorf("without the cache: %v", err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	// A torn line costs its key only.
	text := testRead(t, path)
	lines := bytes.SplitAfter(text, []byte("\n"))
	if err := os.WriteFile(path, append(append(lines[0][:len(lines[0])-9:len(lines[0])-9], '\n'), lines[1]...), 0o600); err != nil {
		t.Fatal(err)
	}
	k := again()
	if opens(t, k, first) == nil || opens(t, k, second) != nil {
		t.Error("a torn line costs another key, or none")
	}
}

func testRead(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func FuzzSessionLine(f *testing.F) {
	f.Add(strings.Repeat("ab", 32) + " 9 " + strings.Repeat("cd", 32))
	f.Fuzz(func(t *testing.T, line string) {
		if _, s, ok := parseSessionLine(line); ok && !s.valid() {
			t.Errorf("%q", line)
		}
	})
}

func TestIsHexID(t *testing.T) {
	for id, want := range map[string]bool{
		"AABBCCDD": true, "0xaabbccdd": true, "AABBCCDDEEFF0011!": true, strings.Repeat("ab", 20): true,
		"AABBCCD": false, "AABBCCDG": false, "al@example.org": false, "": false, "0x": false, "+1234567": false,
	} {
		if IsHexID(id) != want {
			t.Error(id)
		}
	}
}

func TestDemandSigner(t *testing.T) {
	file := testFile(t, "sign.pub.asc")
	id, err := Fingerprint(file)
	if err != nil {
		t.Fatal(err)
	}
	k := NewKeys()
	if k.Demands() || k.Unsigned() != nil {
		t.Error("demanded by nobody")
	}
	if err := k.DemandSigner(file, "0123456789ABCDEF", time.Now()); !errors.Is(err, ErrNoPublicKey) || k.Demands() {
		t.Error(err)
	}
	if err := k.DemandSigner(file, id[24:], time.Now()); err != nil || !k.Demands() {
		t.Error(err)
	}
	if err := k.Unsigned(); !errors.Is(err, ErrSigner) || !strings.Contains(err.Error(), id[24:]) {
		t.Error(err)
	}
}

// GnuPG's own newer form of keys is named as what it is.
func TestVersion5(t *testing.T) {
	file := testFile(t, "version5.pub.asc")
	if _, err := EncryptionKey(file, "440F617E2B309CEF", time.Now()); err == nil || !strings.Contains(err.Error(), "version 5 (Ed448 or X448") {
		t.Error(err)
	}
	if err := NewKeys().AddKeyFile(file); err == nil || !strings.Contains(err.Error(), "version 5 (Ed448 or X448") {
		t.Error(err)
	}
	if err := NewKeys().AddKeyFile([]byte{0xc6, 1, 5}); err == nil {
		t.Error("a key of nothing was read")
	}
}
