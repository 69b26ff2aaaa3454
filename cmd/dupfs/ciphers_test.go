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
	"dupfs/internal/need"
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
			w := &world{t: t, dir: w.dir, env: w.env}
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

// GnuPG 1.4 writes chains that are read and continued here, and reads what is
// written here. Its own keys are used by way of a newer GnuPG, or of a file.
func TestGnuPG1(t *testing.T) {
	gpg1 := need.Program(t, "gpg1")
	w := keyWorld(t)
	id := w.key("al <al@example.org>", "", "rsa2048", "rsa2048")
	w.sh("mkdir -m 700 gnupg1; gpg --batch --export-secret-keys " + id + " > key; GNUPGHOME=gnupg1 gpg1 --batch --import key 2>&1" +
		"; echo " + id + ":6: | GNUPGHOME=gnupg1 gpg1 --import-ownertrust 2>&1")
	w.env = append(w.env, "PASSPHRASE=fixture", "SIGN_PASSPHRASE=")
	old := []string{"GNUPGHOME=" + w.path("gnupg1")}
	stock := func(args ...string) {
		t.Helper()
		if r := w.exec(old, need.Program(t, "duplicity"), append(args, "--gpg-binary", gpg1)...); r.code != 0 {
			t.Fatalf("%s: exit %d\n%s%s", r.line, r.code, r.stdout, r.stderr)
		}
	}
	for name, c := range map[string]struct {
		options []string
		signed  bool
		extra   []string // for dupfs
	}{
		"cast5 bzip2":  {options: []string{"--gpg-options=--cipher-algo CAST5 --compress-algo bzip2"}},
		"signed 3des":  {options: []string{"--gpg-options=--cipher-algo 3DES", "--encrypt-sign-key", id}, signed: true},
		"tag 9 hidden": {options: []string{"--gpg-options=--cipher-algo BLOWFISH --disable-mdc", "--hidden-encrypt-key", id}, extra: []string{"--accept-unauthenticated"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{t: t, dir: w.dir, env: w.env}
			archive, out := "archive "+name, w.path("out "+name)
			url := w.url(archive)
			w.write("src/letter", "dear\n")
			stock(append([]string{"full", "--current-time", at(0), "src", url}, c.options...)...)
			w.write("src/letter", "dear all\n")
			w.sh("touch -d 2023-01-01 src/letter") // duplicity notes no sizes
			options := slices.Concat(c.extra, c.options[1:])
			dupfs := func(args ...string) result { return w.exec(nil, binary, append(args, options...)...) }
			if c.extra != nil {
				w.want(31, "--accept-unauthenticated reads them", nil, "ls", url)
			}
			for _, args := range [][]string{
				{"incremental", "--current-time", at(1), "src", url},
				{"restore", "--time", at(0), url, out + "0"},
				{"verify", "--all-points", url},
			} {
				r := dupfs(args...)
				if r.code != 0 || strings.Contains(r.stderr, "may have been changed by anybody") != (c.extra != nil) {
					t.Errorf("%s: exit %d\n%s%s", r.line, r.code, r.stdout, r.stderr)
				}
			}
			w.sh("rm -rf home/.cache/duplicity")
			stock(append([]string{"restore", url, out + "1"}, c.options...)...)
			if got := w.sh("cat '" + out + "0/letter' '" + out + "1/letter'"); got != "dear\ndear all\n" {
				t.Errorf("restored: %q", got)
			}
			if !c.signed { // the passphrase takes gpg1 a second a file, and it has just read them
				return
			}
			ours := w.exec(old, "/bin/bash", "-c", "for f in 'archive "+name+"'/*.to.*; do gpg1 --batch --status-fd 1 -o /dev/null -d \"$f\" 2>/dev/null; done")
			if strings.Count(ours.stdout, "GOODMDC") != 4 || strings.Count(ours.stdout, "GOODSIG") != 4 {
				t.Errorf("gpg1 of ours: %s%s", ours.stdout, ours.stderr)
			}
		})
	}
	w.sh("rm -rf home/.cache")
	w.want(31, "GnuPG 2.1 or newer is needed", nil, "ls", "--gpg-binary", gpg1, w.url("archive signed 3des"))
	w.want(31, "GnuPG 2.1 or newer is needed", old, "full", "--gpg-binary", gpg1, "--encrypt-key", id, "--sign-key", id, "src", w.url("new"))
}
