package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha1"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dupfs/chain/pgp"
)

// reseal encrypts an unencrypted archive in place. seal makes a message of a
// plaintext.
func (w *world) reseal(archive string, seal func(plain []byte) []byte) {
	w.t.Helper()
	names, err := filepath.Glob(w.path(archive, "duplicity-*"))
	if err != nil {
		w.t.Fatal(err)
	}
	slices.SortFunc(names, func(a, b string) int { // manifests last
		return strings.Compare(filepath.Ext(a), filepath.Ext(b))
	})
	var sums []string // old and new hashes of volumes
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			w.t.Fatal(err)
		}
		plain := text
		stem, zipped := strings.CutSuffix(name, ".gz")
		if zipped {
			r, err := gzip.NewReader(bytes.NewReader(text))
			if err != nil {
				w.t.Fatal(err)
			}
			if plain, err = io.ReadAll(r); err != nil {
				w.t.Fatal(err)
			}
		} else {
			plain = []byte(strings.NewReplacer(sums...).Replace(string(text)))
		}
		sealed := seal(plain)
		before, after := sha1.Sum(text), sha1.Sum(sealed)
		sums = append(sums, hex.EncodeToString(before[:]), hex.EncodeToString(after[:]))
		writeFile(w.t, stem+".gpg", string(sealed))
		if err := os.Remove(name); err != nil {
			w.t.Fatal(err)
		}
	}
}

// unprotected encrypts as GnuPG 1 did for old keys: without a hash at the end.
func unprotected(t *testing.T, e *pgp.Encrypter, plain []byte) []byte {
	t.Helper()
	esk, key, err := e.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	block, err := pgp.Session{Cipher: pgp.AES256, Key: key}.Block()
	if err != nil {
		t.Fatal(err)
	}
	prefix := bytes.Repeat([]byte{7}, 18)
	pgp.NewCFB(block, make([]byte, 16)).Encrypt(prefix)
	body := pgp.AppendLength([]byte{0xc0 | pgp.TagLiteral}, int64(6+len(plain)))
	body = append(append(body, 'b', 0, 0, 0, 0, 0), plain...)
	pgp.NewCFB(block, prefix[2:]).Encrypt(body)
	out := pgp.AppendLength(append(esk, 0xc0|pgp.TagEncrypted), int64(len(prefix)+len(body)))
	return append(append(out, prefix...), body...)
}

// What anybody may have changed is read only by those who say so, each time.
func TestUnauthenticatedChain(t *testing.T) {
	w := newWorld(t)
	w.write("src/letter", "dear\n")
	url := w.url("archive")
	w.stock("full", "--no-encryption", "src", url)
	e, err := pgp.NewEncrypter("fixture")
	if err != nil {
		t.Fatal(err)
	}
	w.reseal("archive", func(plain []byte) []byte { return unprotected(t, e, plain) })
	const hint = "--accept-unauthenticated reads them"
	for range 2 { // the second time a catalog knows everything
		for _, args := range [][]string{{"restore", url, "none"}, {"cat", url, "letter"}, {"ls", url}, {"incremental", "src", url}} {
			w.want(31, hint, nil, args...)
		}
		r := w.exec(nil, binary, "cat", "--accept-unauthenticated", url, "letter")
		if r.code != 0 || r.stdout != "dear\n" || strings.Count(r.stderr, "may have been changed by anybody") != 1 {
			t.Errorf("%s: exit %d\n%s%s", r.line, r.code, r.stdout, r.stderr)
		}
	}
	w.sh("rm -r home/.cache/duplicity")
	w.stock("restore", url, "stock") // says nothing
}

// Chains that GnuPG wrote with other ciphers, compressions, digests and keys
// are read, continued by dupfs, and restored by duplicity.
func TestGnuPGChains(t *testing.T) {
	w := keyWorld(t)
	rsa := w.key("al <al@example.org>", "", "rsa2048", "rsa2048")
	nist := w.key("bo <bo@example.org>", "", "nistp256", "nistp384")
	w.env = append(w.env, "PASSPHRASE=fixture", "SIGN_PASSPHRASE=fixture")
	for name, options := range map[string][]string{
		"camellia bzip2": {"--gpg-options=--cipher-algo CAMELLIA192 --compress-algo bzip2 --s2k-mode 1"},
		"rsa 3des zlib":  {"--gpg-options=--cipher-algo 3DES --compress-algo zlib --digest-algo SHA512", "--encrypt-sign-key", rsa},
		"nist hidden":    {"--gpg-options=--digest-algo SHA384", "--hidden-encrypt-key", nist, "--sign-key", rsa},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{t, w.dir, w.env}
			archive, out := "archive "+name, w.path("out "+name)
			url := w.url(archive)
			w.write("src/letter", "dear\n")
			w.stock(append([]string{"full", "--current-time", at(0), "src", url}, options...)...)
			w.write("src/letter", "dear all\n")
			w.sh("touch -d 2023-01-01 src/letter") // duplicity notes no sizes
			w.dupfs(append([]string{"incremental", "--current-time", at(1), "src", url}, options...)...)
			w.dupfs(append([]string{"restore", "--time", at(0), url, out + "0"}, options...)...)
			w.sh("rm -rf home/.cache/duplicity")
			w.stock(append([]string{"restore", url, out + "1"}, options...)...)
			if got := w.sh("cat '" + out + "0/letter' '" + out + "1/letter'"); got != "dear\ndear all\n" {
				t.Errorf("restored: %q", got)
			}
		})
	}
}
