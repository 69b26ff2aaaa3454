package volume

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dupfs/chain"
	"dupfs/chain/pgp"
)

func keyFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "keys", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// signedEncrypter encrypts to the test's key and signs.
func signedEncrypter(t testing.TB) (*pgp.Encrypter, pgp.Signer) {
	t.Helper()
	to, err := pgp.EncryptionKey(keyFile(t, "enc.pub.asc"), "enc", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	id := idOf(t, "sign.pub.asc")
	signer, err := pgp.NewKeySigner(keyFile(t, "sign.sec.asc"), id, nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	enc, err := pgp.NewEncrypterTo(pgp.EncryptOptions{To: []pgp.Target{{Key: to}}, Sign: signer})
	if err != nil {
		t.Fatal(err)
	}
	return enc, signer
}

// demanding returns keys that decrypt and demand a signature.
func demanding(t testing.TB, signer string) *pgp.Keys {
	t.Helper()
	keys := fixtureKeys(t, "enc.sec.asc", "sign.pub.asc")
	if err := keys.DemandSigner(keyFile(t, signer), idOf(t, signer), time.Now()); err != nil {
		t.Fatal(err)
	}
	return keys
}

// Signed files of all shapes are seekable like others, and what is signed is
// all of the content.
func TestSigned(t *testing.T) {
	enc, signer := signedEncrypter(t)
	keys := fixtureKeys(t, "enc.sec.asc", "sign.pub.asc")
	for _, n := range []int{0, 1, 441, 442, 505, 506, 507, 4095, 4096, 70_000} {
		for _, bare := range []bool{false, true} {
			plain := sample(n, uint64(n))
			stored, l := write(t, chain.OpenPGP, enc, Options{Chunk: 4096, NoTrailer: bare, pieceBits: 12}, plain)
			checkLayout(t, l, stored, plain)
			got, scanned, err := scanAll(stored, chain.OpenPGP, keys, defaultSpacing)
			if err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("%d bytes: %d, %v", n, len(got), err)
			}
			if scanned.Own == bare {
				t.Fatalf("%d bytes, bare %v: own %v", n, bare, scanned.Own)
			}
			checkLayout(t, scanned, stored, plain)
			if !bare {
				found, _, err := trailerOf(stored, chain.OpenPGP, keys)
				if err != nil {
					t.Fatalf("%d bytes: %v", n, err)
				}
				checkLayout(t, found, stored, plain)
			}
			demand := demanding(t, "sign.pub.asc")
			if got, err := readAll(stored, chain.OpenPGP, demand); err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("%d bytes, signature demanded: %v", n, err)
			}
			if _, _, err := trailerOf(stored, chain.OpenPGP, demand); !errors.Is(err, ErrForeign) {
				t.Fatalf("a table is believed though a signature is demanded: %v", err)
			}
			r, err := NewReader(t.Context(), bytes.NewReader(stored), chain.OpenPGP, keys, "file")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r); err != nil {
				t.Fatal(err)
			}
			if s := r.Signatures(); len(s) != 1 || !s[0].Good || s[0].KeyID != signer.Key().KeyId {
				t.Fatalf("signatures %+v", s)
			}
			r.Close()
		}
	}
}

// Where a signature is demanded, nothing else passes.
func TestSignatureDemanded(t *testing.T) {
	signed, _ := signedEncrypter(t)
	to, err := pgp.EncryptionKey(keyFile(t, "enc.pub.asc"), "enc", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other, err := pgp.NewKeySigner(keyFile(t, "enc.sec.asc"), idOf(t, "enc.pub.asc"), nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	unsigned, err := pgp.NewEncrypterTo(pgp.EncryptOptions{To: []pgp.Target{{Key: to}}})
	if err != nil {
		t.Fatal(err)
	}
	others, err := pgp.NewEncrypterTo(pgp.EncryptOptions{To: []pgp.Target{{Key: to}}, Sign: other})
	if err != nil {
		t.Fatal(err)
	}
	plain := sample(9000, 1)
	for _, c := range []struct {
		name  string
		layer chain.Layer
		enc   *pgp.Encrypter
		want  string
	}{
		{"unsigned", chain.OpenPGP, unsigned, "it is not signed"},
		{"another's", chain.OpenPGP, others, "it was signed by key"},
		{"gzip", chain.Gzip, nil, "it is not signed"},
		{"plain", chain.Plain, nil, "it is not signed"},
	} {
		for _, bare := range []bool{false, true} {
			stored, _ := write(t, c.layer, c.enc, Options{Chunk: 4096, NoTrailer: bare}, plain)
			_, err := readAll(stored, c.layer, demanding(t, "sign.pub.asc"))
			var corrupt *chain.CorruptError
			if !errors.Is(err, pgp.ErrSigner) || !errors.As(err, &corrupt) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", c.name, err)
			}
			if got, err := readAll(stored, c.layer, fixtureKeys(t, "enc.sec.asc")); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%s, nothing demanded: %v", c.name, err)
			}
		}
	}
	stored, _ := write(t, chain.OpenPGP, signed, Options{}, plain)
	if _, err := readAll(stored, chain.OpenPGP, demanding(t, "enc.pub.asc")); !errors.Is(err, pgp.ErrSigner) {
		t.Errorf("signed by another: %v", err)
	}
}

// idOf returns the fingerprint of the primary key of a file.
func idOf(t testing.TB, file string) string {
	t.Helper()
	id, err := pgp.Fingerprint(keyFile(t, file))
	if err != nil {
		t.Fatal(err)
	}
	return id
}
