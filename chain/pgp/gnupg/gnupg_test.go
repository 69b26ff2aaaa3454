package gnupg

import (
	"bytes"
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dupfs/chain"
	"dupfs/chain/pgp"
	"dupfs/internal/need"
)

// home is a GnuPG with a home of its own.
type home struct {
	t   testing.TB
	dir string
	env []string
}

func newHome(t testing.TB) *home {
	t.Helper()
	need.Program(t, "gpg")
	need.Program(t, "gpg-agent")
	// Not t.TempDir: the agent's socket must have a short name.
	dir, err := os.MkdirTemp("", "gg")
	if err != nil {
		t.Fatal(err)
	}
	// Passphrases are hard to guess at a cost that tests need not pay.
	if err := os.WriteFile(filepath.Join(dir, "gpg-agent.conf"), []byte("s2k-count 65536\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := &home{t: t, dir: dir, env: []string{"GNUPGHOME=" + dir, "PATH=" + os.Getenv("PATH"), "HOME=" + dir}}
	t.Cleanup(func() {
		h.run(nil, "gpgconf", "--kill", "all")
		os.RemoveAll(dir)
	})
	return h
}

// run runs a program in the home.
func (h *home) run(in []byte, name string, args ...string) (out, messages string, err error) {
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Stdin = h.env, bytes.NewReader(in)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

// gpg runs gpg, which must succeed.
func (h *home) gpg(in []byte, passphrase string, args ...string) string {
	h.t.Helper()
	args = append([]string{
		"--batch", "--no-tty", "--yes", "--trust-model", "always", "--pinentry-mode", "loopback", "--passphrase", passphrase,
	}, args...)
	out, messages, err := h.run(in, "gpg", args...)
	if err != nil {
		h.t.Fatalf("gpg %s: %v\n%s", strings.Join(args, " "), err, messages)
	}
	return out
}

// generate makes a key pair: a primary one to sign with, and one to encrypt to
// if encr is not empty. It returns the fingerprint of the primary key.
func (h *home) generate(name, passphrase, sign, encr string) string {
	h.t.Helper()
	h.gpg(nil, passphrase, "--quick-gen-key", name, sign, "cert,sign", "never")
	fingerprint := h.fingerprints(name)[0]
	if encr != "" {
		h.gpg(nil, passphrase, "--quick-add-key", fingerprint, encr, "encr", "never")
	}
	// What the agent remembers must not stand in for a passphrase.
	h.run(nil, "gpgconf", "--reload", "gpg-agent")
	return fingerprint
}

// fingerprints returns those of a key and its subkeys.
func (h *home) fingerprints(name string) []string {
	h.t.Helper()
	var all []string
	for line := range strings.Lines(h.gpg(nil, "", "--with-colons", "--list-keys", name)) {
		if f := strings.Split(line, ":"); f[0] == "fpr" {
			all = append(all, f[9])
		}
	}
	if len(all) == 0 {
		h.t.Fatalf("no key %s", name)
	}
	return all
}

// user returns a GPG of the home, with passphrases.
func (h *home) user(passphrases ...string) *GPG {
	g := &GPG{Environ: h.env}
	if passphrases != nil {
		g.Passphrases = func(context.Context) ([]string, error) { return passphrases, nil }
	}
	return g
}

// pkesk returns the session key packets made for targets.
func pkesk(t testing.TB, targets ...pgp.Target) (bodies [][]byte, key []byte) {
	t.Helper()
	e, err := pgp.NewEncrypterTo(pgp.EncryptOptions{To: targets})
	if err != nil {
		t.Fatal(err)
	}
	esk, key, err := e.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	for len(esk) > 0 {
		tag, l, n, err := pgp.ParseHeader(esk)
		if err != nil || tag != pgp.TagPKESK {
			t.Fatal(tag, err)
		}
		bodies = append(bodies, esk[n:n+int(l.N)])
		esk = esk[n+int(l.N):]
	}
	return bodies, key
}

func (h *home) target(g *GPG, id string, hidden bool) pgp.Target {
	h.t.Helper()
	file, err := g.Export(h.t.Context(), id)
	if err != nil {
		h.t.Fatal(err)
	}
	key, err := pgp.EncryptionKey(file, id, time.Now())
	if err != nil {
		h.t.Fatal(err)
	}
	return pgp.Target{Key: key, Hidden: hidden}
}

func TestSessionKey(t *testing.T) {
	h := newHome(t)
	h.generate("al <al@example.org>", "sesame", "ed25519", "cv25519")
	h.generate("bo <bo@example.org>", "", "rsa2048", "rsa2048")
	ctx := t.Context()
	for _, hidden := range []bool{false, true} {
		g := h.user("wrong", "sesame")
		bodies, want := pkesk(t, h.target(g, "al@example.org", hidden), h.target(g, "bo@example.org", hidden))
		for i, b := range bodies {
			r := pgp.Recipient{Body: b}
			if !hidden {
				r.KeyID = uint64(b[1])<<56 | 1
			}
			s, err := g.SessionKey(ctx, r)
			if err != nil || s.Cipher != pgp.AES256 || !bytes.Equal(s.Key, want) {
				t.Fatalf("recipient %d, hidden %v: %v", i, hidden, err)
			}
		}
		h.run(nil, "gpgconf", "--reload", "gpg-agent")
		for _, bad := range []*GPG{h.user(), h.user("wrong")} {
			_, err := bad.SessionKey(ctx, pgp.Recipient{KeyID: 5, Body: bodies[0]})
			if !errors.Is(err, chain.ErrNoKey) || !strings.Contains(err.Error(), "assphrase") && !hidden {
				t.Errorf("hidden %v, without the passphrase: %v", hidden, err)
			}
		}
	}
	// Another home has no such key.
	bodies, _ := pkesk(t, h.target(h.user(), "bo@example.org", false))
	other := newHome(t)
	if _, err := other.user("sesame").SessionKey(ctx, pgp.Recipient{KeyID: 5, Body: bodies[0]}); !errors.Is(err, chain.ErrNoKey) ||
		!strings.Contains(err.Error(), "no secret key") {
		t.Errorf("in another home: %v", err)
	}
	done, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := h.user().SessionKey(done, pgp.Recipient{Body: bodies[0]}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// message returns a signed message without encryption.
func message(t testing.TB, s pgp.Signer, text string) []byte {
	t.Helper()
	m, err := pgp.OnePassPacket(s)
	if err != nil {
		t.Fatal(err)
	}
	m = pgp.AppendLength(append(m, 0xc0|pgp.TagLiteral), int64(6+len(text)))
	m = append(append(m, "b\x00\x00\x00\x00\x00"...), text...)
	sum := s.Hash().New()
	sum.Write([]byte(text))
	sig, err := s.Sign(sum)
	if err != nil {
		t.Fatal(err)
	}
	return append(m, sig...)
}

// gpg finds our signatures good, whatever the key.
func TestSigner(t *testing.T) {
	h := newHome(t)
	for _, c := range []struct {
		kind, passphrase string
		hash             crypto.Hash
	}{
		{"ed25519", "sesame", crypto.SHA256},
		{"rsa2048", "", crypto.SHA256},
		{"nistp256", "", crypto.SHA256},
		{"nistp521", "", crypto.SHA512},
		{"dsa2048", "", crypto.SHA256},
	} {
		id := h.generate(c.kind+"@example.org", c.passphrase, c.kind, "")
		var given []string
		if c.passphrase != "" {
			given = []string{"wrong", c.passphrase}
		}
		s, err := h.user().Signer(t.Context(), SignOptions{ID: id[24:], Passphrases: given, Now: time.Now})
		if err != nil {
			t.Errorf("%s: %v", c.kind, err)
			continue
		}
		if s.Hash() != c.hash {
			t.Errorf("%s: hash %v", c.kind, s.Hash())
		}
		for _, text := range []string{"", "a letter"} {
			m := message(t, s, text)
			out, noise, err := h.run(m, "gpg", "--batch", "--status-fd", "1", "--output", "/dev/null", "--decrypt")
			if err != nil || !strings.Contains(out, "GOODSIG "+id[24:]) {
				t.Errorf("%s: %v %s%s", c.kind, err, out, noise)
			}
			if len(text) > 0 {
				m[bytes.Index(m, []byte(text))] ^= 1
				if out, _, err = h.run(m, "gpg", "--batch", "--status-fd", "1", "--output", "/dev/null", "--decrypt"); err == nil || !strings.Contains(out, "BADSIG") {
					t.Errorf("%s: changed: %v %s", c.kind, err, out)
				}
			}
		}
	}
}

func TestSignerRefused(t *testing.T) {
	h := newHome(t)
	id := h.generate("al <al@example.org>", "sesame", "ed25519", "cv25519")
	asked := 0
	more := func(answer string) func(context.Context) (string, error) {
		return func(context.Context) (string, error) { asked++; return answer, nil }
	}
	for _, c := range []struct {
		name  string
		o     SignOptions
		want  string
		asked int
	}{
		{"no passphrase", SignOptions{ID: id}, "passphrase", 0},
		{"wrong", SignOptions{ID: id, Passphrases: []string{"no"}}, "bad passphrase", 0},
		{"asked", SignOptions{ID: id, More: more("sesame")}, "", 1},
		{"asked in vain", SignOptions{ID: id, Passphrases: []string{"no"}, More: more("neither")}, "bad passphrase", 1},
		{"no such key", SignOptions{ID: "0123456789ABCDEF"}, "0123456789ABCDEF", 0},
		{"no name", SignOptions{ID: ""}, "no name", 0},
	} {
		asked = 0
		c.o.Now = time.Now
		h.run(nil, "gpgconf", "--reload", "gpg-agent")
		_, err := h.user().Signer(t.Context(), c.o)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) || asked != c.asked {
			t.Errorf("%s: %v, asked %d times", c.name, err, asked)
		}
	}
}

// The key is chosen that GnuPG would choose.
func TestEncryptionKey(t *testing.T) {
	h := newHome(t)
	g := h.user()
	primary := h.generate("al <al@example.org>", "", "ed25519", "cv25519")
	old := h.fingerprints("al@example.org")[1]
	h.gpg(nil, "", "--faked-system-time", time.Now().Add(time.Hour).UTC().Format("20060102T150405!"), "--quick-add-key", primary, "rsa2048", "encr", "1d")
	newer := h.fingerprints("al@example.org")[2]
	file, err := g.Export(t.Context(), primary)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id    string
		after time.Duration
		want  string
	}{
		{primary, 2 * time.Hour, newer},
		{"al@example.org", 2 * time.Hour, newer},
		{old[24:] + "!", 2 * time.Hour, old},
		{"0x" + newer + "!", 2 * time.Hour, newer},
		{primary, 48 * time.Hour, old},
		{newer + "!", 48 * time.Hour, ""},
	} {
		key, err := pgp.EncryptionKey(file, c.id, time.Now().Add(c.after))
		if err != nil && (c.want != "" || !errors.Is(err, pgp.ErrNoPublicKey)) || err == nil && strings.ToUpper(hex.EncodeToString(key.Fingerprint)) != c.want {
			t.Errorf("%s after %v: %v", c.id, c.after, err)
		}
	}
	if _, err := g.Export(t.Context(), "nobody@example.org"); !errors.Is(err, pgp.ErrNoPublicKey) {
		t.Errorf("no such key: %v", err)
	}
}

func TestTrusted(t *testing.T) {
	h := newHome(t)
	id := h.generate("al <al@example.org>", "", "ed25519", "cv25519")
	file := h.gpg(nil, "", "--export", id)
	other := newHome(t)
	other.gpg([]byte(file), "", "--import")
	always := other.user()
	always.Options = []string{"--trust-model", "always"}
	for i, c := range []struct {
		g    *GPG
		id   string
		want bool
	}{{h.user(), "al@example.org", true}, {other.user(), "al@example.org", false}, {other.user(), id, true}, {always, "al@example.org", true}} {
		if got, err := c.g.Trusted(t.Context(), c.id); err != nil || got != c.want {
			t.Errorf("%d: %v, %v", i, got, err)
		}
	}
}

// No secret is an argument or in the environment of a program.
func TestSecretsStay(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "gpg")
	text := "#!/bin/sh\n{ env; echo \"$@\"; } >> " + dir + "/seen\ncat <&3 > " + dir + "/secret\n"
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	g := &GPG{Binary: script, Environ: append(os.Environ(), "PASSPHRASE=hush", "SIGN_PASSPHRASE=hush", "FTP_PASSWORD=hush")}
	g.Passphrases = func(context.Context) ([]string, error) { return []string{"hush"}, nil }
	secret := "hush"
	if _, _, err := g.session(t.Context(), pgp.Recipient{Body: make([]byte, 20)}, &secret); err != nil {
		t.Fatal(err)
	}
	seen, err := os.ReadFile(dir + "/seen")
	if err != nil || bytes.Contains(seen, []byte("hush")) || !bytes.Contains(seen, []byte("--passphrase-fd 3")) {
		t.Errorf("gpg saw %v\n%s", err, seen)
	}
	if got, _ := os.ReadFile(dir + "/secret"); string(got) != "hush\n" {
		t.Errorf("gpg read %q", got)
	}
	for _, missing := range []string{dir + "/none", "dupfs-no-such-gpg"} {
		if _, err := (&GPG{Binary: missing}).Export(t.Context(), "AABBCCDD"); !errors.Is(err, ErrMissing) {
			t.Errorf("%s: %v", missing, err)
		}
	}
}

func TestSignatureNumbers(t *testing.T) {
	for in, want := range map[string][]string{
		"(7:sig-val(3:rsa(1:s3:abc)))":              {"abc"},
		"(7:sig-val(5:eddsa(1:r2:ab)(1:s2:cd)))":    {"ab", "cd"},
		"(7:sig-val(5:ecdsa(1:r1:a)(1:s0:)))":       {"a", ""},
		"(7:sig-val(3:rsa(1:s4:abc)))":              nil,
		"(7:sig-val(3:rsa)":                         nil,
		"(7:sig-val(3:rsa(1:s3:abc":                 nil,
		"(7:sig-val(3:rsa(1:s99999999999999:abc)))": nil,
		"": nil,
	} {
		got, err := signatureNumbers([]byte(in))
		var text []string
		for _, n := range got {
			text = append(text, string(n))
		}
		if !slices.Equal(text, want) || (err == nil) != (want != nil) {
			t.Errorf("%s: %q, %v", in, text, err)
		}
	}
}

func FuzzSignatureNumbers(f *testing.F) {
	f.Add([]byte("(7:sig-val(5:eddsa(1:r2:ab)(1:s2:cd)))"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = signatureNumbers(b)
		_, _, _ = readStatus(result{out: b, noise: string(b)})
	})
}

func TestEscape(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	line := string(escape(all))
	if got := unescape(strings.TrimSuffix(strings.TrimPrefix(line, "D "), "\n")); got != string(all) {
		t.Errorf("%q", got)
	}
	if strings.ContainsAny(line[:len(line)-1], "\r\n") {
		t.Error("a line break within a line")
	}
}
