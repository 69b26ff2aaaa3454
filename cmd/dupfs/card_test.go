package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"dupfs/internal/need"
)

const pin = "246810"

// card makes a token of SoftHSM with two keys that were born in it and cannot
// leave it, which gpg-agent takes for a smartcard by gnupg-pkcs11-scd. It returns
// the fingerprint of the OpenPGP key that they make.
func (w *world) card() string {
	w.t.Helper()
	for _, name := range []string{"softhsm2-util", "pkcs11-tool", "gnupg-pkcs11-scd"} {
		need.Program(w.t, name)
	}
	const module = "/usr/lib/softhsm/libsofthsm2.so"
	w.env = append(w.env, "SOFTHSM2_CONF="+w.path("softhsm2.conf"), "MODULE="+module)
	w.sh("mkdir -m 700 tokens")
	w.write("softhsm2.conf", "directories.tokendir = "+w.path("tokens")+"\nobjectstore.backend = file\nlog.level = ERROR\n")
	writeFile(w.t, w.path("gnupg", "gnupg-pkcs11-scd.conf"), "providers soft\nprovider-soft-library "+module+"\n")
	// It keeps its socket in a temporary directory for a moment longer than the agent lives.
	w.sh("mkdir -m 700 card")
	w.write("bin/scd", "#!/bin/sh\nTMPDIR="+w.path("card")+" exec "+need.Program(w.t, "gnupg-pkcs11-scd")+" \"$@\"\n")
	w.sh("chmod +x bin/scd")
	writeFile(w.t, w.path("gnupg", "gpg-agent.conf"), "scdaemon-program "+w.path("bin", "scd")+"\npinentry-program /bin/false\n")
	made := w.sh(`softhsm2-util --init-token --free --label backup --so-pin 12345678 --pin ` + pin + ` >/dev/null
		for id in 01 02; do
			pkcs11-tool --module $MODULE --login --pin ` + pin + ` --token-label backup --keypairgen --key-type rsa:2048 --id $id --label key$id
			pkcs11-tool --module $MODULE --token-label backup --read-object --type pubkey --id $id -o $id.pub
		done 2>&1`)
	if strings.Count(made, "never extractable, local") != 2 {
		w.t.Fatalf("the keys are not bound to the token: %s", made)
	}
	// The daemon finds keys by certificates; who has signed them is nothing to it.
	ca, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, id := range []string{"01", "02"} {
		w.write(id+".der", string(certificate(w.t, ca, w.path(id+".pub"), "key"+id)))
		w.sh("pkcs11-tool --module $MODULE --login --pin " + pin + " --token-label backup --write-object " + id + ".der --type cert --id " + id + " 2>&1")
	}
	w.sh("gpg-connect-agent learn /bye >/dev/null 2>&1")
	grip := func(id string) string {
		out := w.sh("gpg-connect-agent 'SCD LEARN --force' /bye")
		m := regexp.MustCompile(`S KEY-FRIEDNLY ([0-9A-F]{40}) /CN=key` + id).FindStringSubmatch(out)
		if m == nil {
			w.t.Fatalf("no key %s on the card: %s", id, out)
		}
		return m[1]
	}
	w.write("key", "Key-Type: RSA\nKey-Grip: "+grip("01")+"\nKey-Usage: cert,sign\nName-Real: card\nExpire-Date: 0\n%commit\n")
	w.gpg(pin, "--gen-key", w.path("key"))
	id := w.fingerprint("card")
	w.sh(`printf 'addkey\n13\n` + grip("02") + `\nS\nQ\n0\nsave\n' | gpg --expert --no-tty --command-fd 0 --pinentry-mode loopback --passphrase ` + pin + ` --edit-key ` + id + ` 2>&1`)
	return id
}

// certificate returns one of a public key.
func certificate(t testing.TB, ca *rsa.PrivateKey, public, name string) []byte {
	t.Helper()
	der, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().AddDate(10, 0, 0)}
	out, err := x509.CreateCertificate(rand.Reader, c, c, key, ca)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Keys on a smartcard sign and decrypt there, given the PIN, and stay there.
func TestSmartcard(t *testing.T) {
	w := keyWorld(t)
	id := w.card()
	stub := w.sh("gpg --batch --pinentry-mode loopback --passphrase " + pin + " --export-secret-keys " + id + " | gpg --list-packets")
	if strings.Count(stub, "gnu-divert-to-card") != 2 || strings.Contains(stub, "skey[") {
		t.Fatalf("exported: %s", stub)
	}
	remove := func() { // the card, so that no PIN is remembered, and what is known of the archive
		w.sh("gpgconf --kill gpg-agent; rm -rf home/.cache")
		// Its daemon lives on for a moment, and two with one token get card errors.
		w.sh("for i in $(seq 100); do grep -qsa TMPDIR=" + w.path("card") + " /proc/[0-9]*/environ || break; sleep 0.1; done")
	}
	w.write("src/letter", "dear\n")
	url := w.url("archive")
	id = id[24:]
	full := []string{"full", "--encrypt-sign-key", id, "src", url}
	remove()
	w.want(30, "SIGN_PASSPHRASE is not set", nil, full...)
	w.want(31, "bad passphrase", []string{"PASSPHRASE=135790", "SIGN_PASSPHRASE=135790"}, full...)
	w.env = append(w.env, "PASSPHRASE="+pin)
	w.want(0, "", nil, append([]string{"--current-time", at(0)}, full...)...)
	w.write("src/letter", "dear all\n")
	w.want(0, "", nil, "incremental", "--encrypt-sign-key", id, "src", url)
	remove()
	w.want(31, "Bad PIN", []string{"PASSPHRASE=135790"}, "ls", url)
	remove()
	w.want(0, "", nil, "verify", "--all-points", "--sign-key", id, url)
	w.want(0, "", nil, "restore", "--sign-key", id, url, "out")
	w.same("out")
	remove()
	mnt, unmount := w.mount(url, "--sign-key", id)
	if got := w.sh("cat " + mnt + "/at/" + at(0) + "/letter " + mnt + "/snapshots/latest/letter"); got != "dear\ndear all\n" {
		t.Errorf("mounted: %q", got)
	}
	unmount()
	remove()
	w.sh("SIGN_PASSPHRASE=" + pin + " " + need.Program(t, "duplicity") + " restore --sign-key " + id + " " + url + " stock")
	w.same("stock")
	for line := range strings.Lines(w.sh("for f in archive/*; do gpg --batch --pinentry-mode loopback --passphrase " + pin +
		" --status-fd 1 -o /dev/null -d $f 2>/dev/null | grep -c GOODSIG; done")) {
		if line != "1\n" {
			t.Errorf("signatures: %q", line)
		}
	}
}
