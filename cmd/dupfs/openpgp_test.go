package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dupfs/internal/need"
)

// keyWorld is a world with GnuPG and without a passphrase.
func keyWorld(t testing.TB) *world {
	t.Helper()
	need.Program(t, "gpg")
	need.Program(t, "gpg-agent")
	w := newWorld(t)
	w.env = slices.DeleteFunc(w.env, func(v string) bool { return strings.HasPrefix(v, "PASSPHRASE=") })
	// Passphrases are hard to guess at a cost that tests need not pay.
	writeFile(t, w.path("gnupg", "gpg-agent.conf"), "s2k-count 65536\npinentry-program /bin/false\n")
	return w
}

func writeFile(t testing.TB, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// gpg runs gpg, which must succeed.
func (w *world) gpg(passphrase string, args ...string) string {
	w.t.Helper()
	r := w.exec(nil, "gpg", append([]string{"--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", passphrase}, args...)...)
	if r.code != 0 {
		w.t.Fatalf("%s: exit %d\n%s", r.line, r.code, r.stderr)
	}
	return r.stdout
}

// lock makes the agent forget all passphrases.
func (w *world) lock() { w.exec(nil, "gpgconf", "--reload", "gpg-agent") }

// key makes a key pair and returns its fingerprint.
func (w *world) key(name, passphrase, sign, encr string) string {
	w.t.Helper()
	w.gpg(passphrase, "--quick-gen-key", name, sign, "cert,sign", "never")
	id := w.fingerprint(name)
	w.gpg(passphrase, "--quick-add-key", id, encr, "encr", "never")
	w.lock()
	return id
}

// fingerprint returns that of a primary key.
func (w *world) fingerprint(name string) string {
	w.t.Helper()
	for line := range strings.Lines(w.gpg("", "--with-colons", "--list-keys", name)) {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			return f[9]
		}
	}
	w.t.Fatalf("there is no key %s", name)
	return ""
}

// want runs dupfs and checks its exit status and a part of what it says.
func (w *world) want(code int, text string, env []string, args ...string) {
	w.t.Helper()
	r := w.exec(env, binary, args...)
	if r.code != code || !strings.Contains(r.stderr, text) {
		w.t.Errorf("%s: exit %d, not %d, with %q\n%s%s", r.line, r.code, code, text, r.stdout, r.stderr)
	}
}

// same checks that a restored tree is the source.
func (w *world) same(dir string) {
	w.t.Helper()
	if r := w.exec(nil, "diff", "-r", w.path("src"), w.path(dir)); r.code != 0 {
		w.t.Errorf("%s: %s%s", dir, r.stdout, r.stderr)
	}
}

// Backups to a public key need no secret one, nor anybody to ask. Reading them
// does.
func TestEncryptKey(t *testing.T) {
	w := keyWorld(t)
	w.key("al <al@example.org>", "sesame", "ed25519", "cv25519")
	bo := w.key("bo <bo@example.org>", "", "rsa2048", "rsa2048")
	writeFile(t, w.path("src", "letter"), "dear")
	url := w.url("archive")
	to := []string{"--encrypt-key", "al@example.org", "--hidden-encrypt-key", bo, w.path("src"), url}
	backup := func(verb string) {
		t.Helper()
		w.lock()
		w.want(0, "", nil, append([]string{verb, "--no-print-statistics"}, to...)...)
	}
	public := w.path("public")
	if err := os.Rename(w.path("gnupg", "private-keys-v1.d"), public); err != nil {
		t.Fatal(err)
	}
	backup("full")
	time.Sleep(time.Second) // no two sets in one
	writeFile(t, w.path("src", "other"), "more")
	backup("incremental")
	w.want(0, "", nil, "ls", url) // from the catalog
	if err := os.RemoveAll(w.path("home", ".cache")); err != nil {
		t.Fatal(err)
	}
	w.want(31, "the local catalog does not know it", nil, append([]string{"incremental"}, to...)...)
	w.want(31, "no secret key", []string{"PASSPHRASE=sesame"}, "restore", url, w.path("none"))
	w.lock()
	os.RemoveAll(w.path("gnupg", "private-keys-v1.d"))
	if err := os.Rename(public, w.path("gnupg", "private-keys-v1.d")); err != nil {
		t.Fatal(err)
	}
	w.want(0, "", nil, "restore", url, w.path("bo")) // whose key has no passphrase
	w.same("bo")
	if r := w.exec(nil, "gpg", "--batch", "--yes", "--delete-secret-keys", bo); r.code != 0 {
		t.Fatal(r.stderr)
	}
	os.RemoveAll(w.path("home", ".cache"))
	w.want(31, "Bad passphrase", []string{"PASSPHRASE=wrong"}, "restore", url, w.path("none"))
	w.want(30, "nobody to ask", nil, "restore", url, w.path("none"))
	w.want(31, "no passphrase or key opens it", nil, "restore", "--use-agent", url, w.path("none"))
	w.want(0, "", []string{"PASSPHRASE=sesame"}, "restore", url, w.path("al"))
	w.same("al")
}

// Stock duplicity and dupfs continue and check each other's signed chains.
func TestSignKeyStock(t *testing.T) {
	w := keyWorld(t)
	duplicity := need.Program(t, "duplicity")
	al := w.key("al <al@example.org>", "sesame", "ed25519", "cv25519")
	writeFile(t, w.path("src", "letter"), "dear")
	url := w.url("archive")
	env := []string{"PASSPHRASE=sesame", "SIGN_PASSPHRASE=sesame"}
	stock := func(args ...string) {
		t.Helper()
		if r := w.exec(env, duplicity, args...); r.code != 0 {
			t.Fatalf("%s: exit %d\n%s%s", r.line, r.code, r.stdout, r.stderr)
		}
	}
	id := al[24:]
	w.want(0, "", env[:1], "full", "--encrypt-sign-key", id, w.path("src"), url)
	time.Sleep(time.Second)
	writeFile(t, w.path("src", "letter"), "dear all")
	stock("--encrypt-sign-key", id, w.path("src"), url)
	stock("restore", "--sign-key", id, url, w.path("stock"))
	w.same("stock")
	w.want(0, "", env, "restore", "--sign-key", id, url, w.path("ours"))
	w.same("ours")
	time.Sleep(time.Second)
	writeFile(t, w.path("src", "third"), "hello")
	w.want(0, "", env[:1], "incremental", "--encrypt-sign-key", id, w.path("src"), url)
	os.RemoveAll(w.path("home", ".cache"))
	stock("restore", "--sign-key", id, url, w.path("stock2"))
	w.same("stock2")
	files, _ := filepath.Glob(w.path("archive", "*"))
	for _, f := range files {
		if out := w.gpg("sesame", "--status-fd", "1", "--output", w.path("out"), "--decrypt", f); !strings.Contains(out, "GOODSIG "+id) {
			t.Errorf("%s: %s", f, out)
		}
	}
	if len(files) < 11 {
		t.Errorf("%d files", len(files))
	}
}

func TestSignKeyRefused(t *testing.T) {
	w := keyWorld(t)
	al := w.key("al <al@example.org>", "", "ed25519", "cv25519")
	bo := w.key("bo <bo@example.org>", "", "ed25519", "cv25519")
	writeFile(t, w.path("src", "letter"), "dear")
	url := w.url("archive")
	src := w.path("src")
	w.want(0, "", nil, "full", "--encrypt-key", al, src, url)
	for _, verb := range [][]string{{"restore", url, w.path("none")}, {"verify", url}, {"ls", url}, {"cat", url, "letter"}} {
		w.want(22, "it is not signed", nil, append([]string{"--sign-key", al}, verb...)...)
	}
	w.want(22, "begin a chain that is signed", nil, "incremental", "--encrypt-sign-key", al, src, url)
	time.Sleep(time.Second)
	w.want(0, "", nil, "full", "--encrypt-sign-key", al, src, url)
	w.want(0, "", nil, "restore", "--sign-key", al, url, w.path("out"))
	w.same("out")
	w.want(22, "it was signed by key "+al[24:], nil, "restore", "--sign-key", bo, url, w.path("none"))
	w.want(0, "", nil, "ls", url)
	for _, c := range []struct {
		code int
		text string
		args []string
	}{
		{10, "sign key should be an 8, 16 or 40 character hex key ID, received \"al\"", []string{"ls", "--sign-key", "al", url}},
		{10, "received \"DEADBEE\"", []string{"--encrypt-sign-key", "DEADBEE", src, url}},
		{31, "DEADBEEFDEADBEEF", []string{"ls", "--sign-key", "DEADBEEFDEADBEEF", url}},
		{31, "no usable public key: key nobody", []string{"--encrypt-key", "nobody", src, url}},
		{2, "--frobnicate is not understood here", []string{"--gpg-options", "--homedir x --frobnicate", "ls", url}},
		{2, "--homedir needs a value", []string{"--gpg-options", "--homedir", "ls", url}},
		{31, "GnuPG is needed", []string{"--gpg-binary", "/nonexistent/gpg", "--encrypt-key", al, src, url}},
	} {
		w.want(c.code, c.text, nil, c.args...)
	}
}

// A chain of stock duplicity opens with GnuPG, and with key files where there
// is none.
func TestPubkeyFixture(t *testing.T) {
	const dir = "testdata/pubkey-signed"
	const signer = "EF4DE3392CF58D4B"
	w := keyWorld(t)
	archive, err := filepath.Abs(dir + "/archive")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := filepath.Abs(dir + "/keys")
	if err != nil {
		t.Fatal(err)
	}
	f := fixture{dir: dir}
	url := "file://" + archive
	w.want(31, "encrypted to key", []string{"PASSPHRASE=x"}, "restore", url, w.path("none"))
	w.gpg("", "--import", keys+"/enc.sec.asc", keys+"/sign.pub.asc")
	for _, c := range []struct {
		name string
		args []string
	}{
		{"gpg", nil},
		{"files", []string{"--gpg-binary=/nonexistent/gpg", "--key-file", keys + "/enc.sec.asc", "--key-file", keys + "/sign.pub.asc"}},
	} {
		os.RemoveAll(w.path("home", ".cache"))
		for at, label := range map[string]string{"1700000000": "0-full", "1700100000": "1-incremental"} {
			out := w.path(c.name + label)
			args := append([]string{"restore", "--numeric-owner", "--sign-key", signer, "--time", at}, c.args...)
			w.want(0, "", nil, append(args, url, out)...)
			compareLines(t, c.name, diskLines(t, out), f.expected(t, "expected/"+label+".restore.json"))
		}
	}
	w.want(22, "it was signed by key "+signer, nil, "restore", "--sign-key", "C8CD52F457DEA55E", url, w.path("none"))
}

// A key file signs and encrypts where there is no GnuPG.
func TestKeyFiles(t *testing.T) {
	w := keyWorld(t)
	keys, err := filepath.Abs("testdata/pubkey-signed/keys")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, w.path("src", "letter"), "dear")
	url := w.url("archive")
	none := "--gpg-binary=/nonexistent/gpg"
	w.want(0, "", nil, none, "--key-file", keys+"/enc.pub.asc", "--key-file", keys+"/sign.sec.asc",
		"--encrypt-key", "C8CD52F457DEA55E", "--sign-key", "EF4DE3392CF58D4B", w.path("src"), url)
	os.RemoveAll(w.path("home", ".cache"))
	w.want(0, "", nil, none, "restore", "--key-file", keys+"/enc.sec.asc", "--key-file", keys+"/sign.pub.asc",
		"--sign-key", "EF4DE3392CF58D4B", url, w.path("out"))
	w.same("out")
	w.gpg("", "--import", keys+"/enc.sec.asc", keys+"/sign.pub.asc")
	files, _ := filepath.Glob(w.path("archive", "*"))
	for _, f := range files {
		if out := w.gpg("", "--status-fd", "1", "--output", w.path("out.tar"), "--decrypt", f); !strings.Contains(out, "GOODSIG") {
			t.Errorf("%s: %s", f, out)
		}
	}
}

// Sets with different passphrases are read with several, written with one.
func TestSeveralPassphrases(t *testing.T) {
	w := newWorld(t)
	writeFile(t, w.path("one"), "one\n")
	writeFile(t, w.path("two"), "two\r\nrest\n")
	writeFile(t, w.path("src", "letter"), "dear")
	url := w.url("archive")
	with := func(first string) []string { return []string{"PASSPHRASE=" + first} }
	w.want(0, "", with("one"), "full", w.path("src"), url)
	time.Sleep(time.Second)
	w.want(31, "wrong passphrase", with("two"), "full", w.path("src"), url)
	w.want(0, "", with("two"), "full", "--passphrase-file", w.path("one"), w.path("src"), url)
	w.want(31, "another passphrase than the first", with("one"), "incremental", "--passphrase-file", w.path("two"), w.path("src"), url)
	os.RemoveAll(w.path("home", ".cache"))
	w.env = slices.DeleteFunc(w.env, func(v string) bool { return strings.HasPrefix(v, "PASSPHRASE=") })
	w.want(0, "", nil, "verify", "--passphrase-file", w.path("one"), "--password-command", "echo two", url)
	w.want(30, "--password-command: exit status 3", nil, "ls", "--password-command", "exit 3", url)
}

func TestGPGOptions(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "",
		"--homedir=/x --batch":   "--homedir /x",
		"--homedir /x -z 3":      "--homedir /x",
		"--trust-model 'always'": "--trust-model always",
		"--compress-algo=bzip2 --bzip2-compress-level=9 --cipher-algo AES256": "",
		"--always-trust --keyring k --no-default-keyring":                     "--always-trust --keyring k --no-default-keyring",
	} {
		got, err := gpgOptions([]string{in})
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"--passphrase x", "--recipient K", "-r K", "--status-fd 3", "--output x", "word", "--throw-keyids"} {
		if got, err := gpgOptions([]string{in}); err == nil {
			t.Errorf("%s: %q", in, got)
		}
	}
}

// A key that may not be used is named with the reason, before anything is begun.
func TestUnusableKeys(t *testing.T) {
	w := keyWorld(t)
	w.write("src/letter", "dear\n")
	spoiled := func(name, spoil string) string {
		id := w.key(name+" <"+name+"@example.org>", "", "ed25519", "cv25519")
		w.sh("k=" + id + "; " + spoil)
		return id[24:]
	}
	good := spoiled("good", ":")
	revoked := spoiled("revoked", "sed 's/^:-/-/' gnupg/openpgp-revocs.d/$k.rev | gpg --batch --import 2>&1")
	disabled := spoiled("disabled", "printf 'disable\\nsave\\n' | gpg --no-tty --command-fd 0 --edit-key $k 2>&1")
	w.gpg("", "--faked-system-time", "20200101T000000!", "--quick-gen-key", "expired <expired@example.org>", "ed25519", "cert,sign", "2021-01-01")
	expired := w.fingerprint("expired@")[24:]
	for _, c := range []struct {
		id, encrypt, sign string
		signs             bool
	}{
		{revoked, "neither expired nor revoked", "is revoked, or cannot sign", false},
		{expired, "neither expired nor revoked", "is expired, revoked, or may not sign", false},
		{disabled, "is disabled in GnuPG", "", true}, // gpg signs with it, too
	} {
		w.want(31, c.encrypt, nil, "full", "--encrypt-key", good, "--encrypt-key", c.id, "src", w.url("e"+c.id))
		if c.signs {
			w.want(0, "", nil, "full", "--encrypt-key", good, "--sign-key", c.id, "src", w.url("s"+c.id))
		} else {
			w.want(31, c.sign, nil, "full", "--encrypt-key", good, "--sign-key", c.id, "src", w.url("s"+c.id))
		}
		r := w.exec(nil, binary, "full", "--encrypt-key", good, "src", w.url("e"+c.id))
		if r.code != 0 || strings.Contains(r.stderr, "interrupted") {
			t.Errorf("after a key that may not be used: exit %d\n%s", r.code, r.stderr)
		}
		stock := w.exec([]string{"PASSPHRASE="}, need.Program(t, "duplicity"), "full", "--encrypt-key", c.id, "src", w.url("stock"+c.id))
		if stock.code != 31 {
			t.Errorf("stock: exit %d\n%s%s", stock.code, stock.stdout, stock.stderr)
		}
	}
}

// What is encrypted to a passphrase is signed with another one; gpg is what
// --gpg-binary says.
func TestSymmetricSigned(t *testing.T) {
	w := keyWorld(t)
	al := w.key("al <al@example.org>", "sesame", "ed25519", "cv25519")[24:]
	bo := w.key("bo <bo@example.org>", "", "ed25519", "")[24:]
	w.write("src/letter", "dear\n")
	w.write("wrapper", "#!/bin/sh\necho called >> "+w.path("calls")+"\nexec gpg \"$@\"\n")
	w.sh("chmod 755 wrapper")
	w.env = append(w.env, "PASSPHRASE=geheim")
	url := w.url("archive")
	full := []string{"full", "--gpg-binary", w.path("wrapper"), "--sign-key", al, "src", url}
	w.want(31, "bad passphrase", []string{"SIGN_PASSPHRASE=geheim"}, full...)
	w.want(30, "SIGN_PASSPHRASE is not set", nil, full...)
	r := w.exec([]string{"SIGN_PASSPHRASE=sesame"}, binary, full...)
	if r.code != 0 || strings.Contains(r.stderr, "interrupted") || !strings.Contains(w.sh("cat calls"), "called") {
		t.Errorf("%s: exit %d\n%s", r.line, r.code, r.stderr)
	}
	w.lock()
	w.sh("rm -rf home/.cache")
	w.want(0, "", nil, "verify", "--sign-key", al, url)
	w.want(22, "it was signed by key "+al, nil, "verify", "--sign-key", bo, url)
	w.sh("SIGN_PASSPHRASE=sesame " + need.Program(t, "duplicity") + " restore --sign-key " + al + " " + url + " stock")
	w.same("stock")
	w.write("fails", "#!/bin/sh\nexit 3\n")
	w.sh("chmod 755 fails; rm -rf home/.cache")
	w.want(31, "exit status 3", nil, "verify", "--gpg-binary", w.path("fails"), "--sign-key", al, url)
}

// Somebody who can encrypt and store, but not sign, puts each file of an archive
// of his own in the place of ours. Nothing of his is ever shown.
func TestSignedByAnother(t *testing.T) {
	w := keyWorld(t)
	al := w.key("al <al@example.org>", "", "ed25519", "cv25519")[24:]
	bo := w.key("bo <bo@example.org>", "", "ed25519", "")[24:]
	w.write("src/letter", "dear\n")
	w.write("evil/letter", "hate\n")
	w.write("evil/more", "lies\n")
	w.dupfs("full", "--current-time", at(0), "--encrypt-sign-key", al, "src", w.url("archive"))
	w.dupfs("full", "--current-time", at(0), "--encrypt-key", al, "--sign-key", bo, "evil", w.url("other"))
	url := w.url("changed")
	for _, c := range []struct {
		kind, remove string
		code         int
		text         string
	}{
		{"dupfs-index", "", 0, ""}, // all that it could tell is elsewhere
		{"*sigtar", "", 0, ""},     // the index tells it
		{"*sigtar", "dupfs-index", 0, ""},
		{"*manifest", "", 22, "it was signed by key " + bo},
		{"*vol1", "", 21, "its hash is wrong"},
		{"*vol1", "dupfs-index", 21, "it was signed by key " + bo},
	} {
		w.sh("rm -rf changed home/.cache out; cp -r archive changed; cp other/" + c.kind + "* changed")
		if c.remove != "" {
			w.sh("rm changed/" + c.remove + "*")
		}
		w.want(c.code, c.text, nil, "restore", "--sign-key", al, url, "out")
		if c.code == 0 {
			w.same("out")
		}
		for range 2 { // by the catalog that is there now, and by none
			if r := w.exec(nil, binary, "ls", "--sign-key", al, url); r.code == 0 && r.stdout != "letter\n" || r.code != 0 && r.code != 22 {
				t.Errorf("%s, %s missing: %s: exit %d\n%s%s", c.kind, c.remove, r.line, r.code, r.stdout, r.stderr)
			}
			w.sh("rm -rf home/.cache")
		}
	}
}
