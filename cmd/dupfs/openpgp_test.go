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
	var id string
	for line := range strings.Lines(w.gpg(passphrase, "--with-colons", "--list-keys", name)) {
		if f := strings.Split(line, ":"); f[0] == "fpr" && id == "" {
			id = f[9]
		}
	}
	w.gpg(passphrase, "--quick-add-key", id, encr, "encr", "never")
	w.lock()
	return id
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
