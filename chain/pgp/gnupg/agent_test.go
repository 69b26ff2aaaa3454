package gnupg

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dupfs/chain"
	"dupfs/chain/pgp"
)

// pinentry makes the agent ask a script, which answers with a passphrase or,
// if it is empty, gives up.
func (h *home) pinentry(passphrase string) {
	h.t.Helper()
	answer := `printf 'D ` + passphrase + `\nOK\n'`
	if passphrase == "" {
		answer = `echo 'ERR 83886179 Operation cancelled <Pinentry>'`
	}
	script := filepath.Join(h.dir, "pinentry")
	text := "#!/bin/sh\necho OK\nwhile read -r word rest; do\ncase $word in\nGETPIN) echo asked >> " + h.dir + "/asked; " + answer +
		" ;;\nBYE) echo OK; exit ;;\n*) echo OK ;;\nesac\ndone\n"
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		h.t.Fatal(err)
	}
	conf := "s2k-count 65536\npinentry-program " + script + "\n"
	if err := os.WriteFile(filepath.Join(h.dir, "gpg-agent.conf"), []byte(conf), 0o600); err != nil {
		h.t.Fatal(err)
	}
	h.run(nil, "gpgconf", "--reload", "gpg-agent")
}

// asked returns how often the script was asked, and forgets it.
func (h *home) asked() int {
	b, _ := os.ReadFile(filepath.Join(h.dir, "asked"))
	os.Remove(filepath.Join(h.dir, "asked"))
	return strings.Count(string(b), "asked")
}

// With Agent set the agent asks, and we know no passphrase.
func TestAgentAsks(t *testing.T) {
	h := newHome(t)
	id := h.generate("al <al@example.org>", "sesame", "ed25519", "cv25519")
	g := h.user("unused")
	g.Agent = true
	bodies, want := pkesk(t, h.target(g, id, false))
	r := pgp.Recipient{KeyID: 1, Body: bodies[0]}

	h.pinentry("")
	if _, err := g.SessionKey(t.Context(), r); !errors.Is(err, chain.ErrNoKey) || h.asked() != 1 {
		t.Errorf("given up: %v", err)
	}
	if _, err := g.Signer(t.Context(), SignOptions{ID: id, Now: time.Now}); !errors.Is(err, ErrNoSigningKey) || h.asked() != 1 {
		t.Errorf("given up signing: %v", err)
	}
	h.pinentry("sesame")
	if s, err := g.SessionKey(t.Context(), r); err != nil || !bytes.Equal(s.Key, want) || h.asked() != 1 {
		t.Errorf("asked: %v", err)
	}
	h.run(nil, "gpgconf", "--reload", "gpg-agent") // which remembers
	s, err := g.Signer(t.Context(), SignOptions{ID: id, Now: time.Now})
	if err != nil || h.asked() != 1 {
		t.Fatalf("asked to sign: %v", err)
	}
	if out, noise, err := h.run(message(t, s, "a letter"), "gpg", "--batch", "--status-fd", "1", "--decrypt"); err != nil || !strings.Contains(out, "GOODSIG") {
		t.Errorf("%v\n%s%s", err, out, noise)
	}
}

// A primary key that is kept elsewhere leaves its subkey to sign.
func TestSigningSubkey(t *testing.T) {
	h := newHome(t)
	id := h.generate("al <al@example.org>", "", "ed25519", "")
	h.gpg(nil, "", "--quick-add-key", id, "ed25519", "sign", "never")
	sub := h.fingerprints(id)[1]
	for _, c := range []struct{ ask, want string }{{id, id}, {sub[24:], sub}, {"0x" + sub, sub}} {
		s, err := h.user().Signer(t.Context(), SignOptions{ID: c.ask, Now: time.Now})
		if err != nil || !pgp.MatchesID(s.Key(), c.want) {
			t.Errorf("%s: %v", c.ask, err)
		}
	}
	secret := h.gpg(nil, "", "--export-secret-subkeys", id)
	other := newHome(t)
	other.gpg([]byte(secret), "", "--import")
	s, err := other.user().Signer(t.Context(), SignOptions{ID: id, Now: time.Now})
	if err != nil || !pgp.MatchesID(s.Key(), sub) {
		t.Errorf("without the primary secret key: %v", err)
	}
}
