package gnupg

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"dupfs/chain"
	"dupfs/chain/pgp"
)

// SessionKey implements pgp.Decrypter by gpg. gpg tells the session key of a
// message when asked to, so it is given one: the packet, and a few random bytes
// for data, which it then complains about.
func (g *GPG) SessionKey(ctx context.Context, r pgp.Recipient) (pgp.Session, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.refused[r.KeyID]; err != nil && r.KeyID != 0 {
		return pgp.Session{}, err
	}
	s, v, err := g.session(ctx, r, nil)
	if err != nil || s.Key != nil {
		return s, err
	}
	// Of the keys tried for a hidden recipient gpg does not tell which are locked.
	if !g.Agent && (v.locked || r.KeyID == 0) && g.Passphrases != nil {
		passphrases, err := g.Passphrases(ctx)
		if err != nil {
			return s, err
		}
		for _, p := range passphrases {
			if s, v, err = g.session(ctx, r, &p); err != nil || s.Key != nil {
				return s, err
			}
			if v.pin {
				break // a few wrong ones lock a smartcard for good
			}
		}
	}
	err = fmt.Errorf("%w (GnuPG: %s)", chain.ErrNoKey, v.text)
	if !g.Agent || v.absent { // whom the agent asks may think better of it
		if g.refused == nil {
			g.refused = make(map[uint64]error)
		}
		g.refused[r.KeyID] = err
	}
	return pgp.Session{}, err
}

// verdict tells why there is no session key.
type verdict struct {
	locked bool // the key is there, and its passphrase is wrong or missing
	absent bool // there is no such key
	pin    bool // it is on a smartcard, which refused the PIN
	text   string
}

// session runs gpg on a packet.
func (g *GPG) session(ctx context.Context, r pgp.Recipient, secret *string) (pgp.Session, verdict, error) {
	in := append(pgp.AppendLength([]byte{0xc0 | pgp.TagPKESK}, int64(len(r.Body))), r.Body...)
	const dummy = 40
	in = append(in, 0xc0|pgp.TagProtected, 1+dummy, 1)
	in = append(in, make([]byte, dummy)...)
	rand.Read(in[len(in)-dummy:])
	args := []string{"--status-fd", "1", "--output", "/dev/null", "--show-session-key", "--decrypt"}
	switch {
	case g.Agent:
	case secret == nil: // what needs none, or what the agent remembers
		args = append([]string{"--pinentry-mode", "error"}, args...)
	default:
		args = append([]string{"--pinentry-mode", "loopback"}, args...)
	}
	out, err := g.run(ctx, in, secret, args...)
	if err != nil {
		return pgp.Session{}, verdict{}, err
	}
	return readStatus(out)
}

// Numbers of libgpg-error.
const (
	gpgNoSecretKey = 17
)

// readStatus finds the session key in gpg's status lines.
func readStatus(out result) (pgp.Session, verdict, error) {
	v := verdict{text: "no secret key", absent: true}
	for line := range strings.Lines(string(out.out)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "[GNUPG:]" {
			continue
		}
		switch f[1] {
		case "SESSION_KEY":
			if len(f) < 3 {
				continue
			}
			algo, key, _ := strings.Cut(f[2], ":")
			n, err := strconv.ParseUint(algo, 10, 8)
			if err != nil {
				return pgp.Session{}, v, fmt.Errorf("%w: a session key that is no number", ErrFailed)
			}
			b, err := hex.DecodeString(key)
			if err != nil {
				return pgp.Session{}, v, fmt.Errorf("%w: a session key that is no number", ErrFailed)
			}
			return pgp.Session{Cipher: byte(n), Key: b}, verdict{}, nil
		case "ERROR", "FAILURE":
			if len(f) < 4 || f[2] != "pkdecrypt_failed" {
				continue
			}
			if code, err := strconv.ParseUint(f[3], 10, 32); err == nil && code&0xffff != gpgNoSecretKey {
				v.locked, v.absent, v.pin = true, false, code&0xffff == gpgBadPIN
			}
		}
	}
	if v.locked || !strings.Contains(out.noise, "No secret key") {
		v.text = reason(out.noise)
	}
	return pgp.Session{}, v, nil
}

// reason returns the message that says why.
func reason(noise string) string {
	for line := range strings.Lines(noise) {
		if _, text, ok := strings.Cut(line, "public key decryption failed: "); ok {
			switch text = strings.TrimSpace(text); text {
			case "Inappropriate ioctl for device", "No pinentry": // nobody can be asked
				return "its passphrase is missing"
			}
			return text
		}
	}
	return result{noise: noise}.say()
}
