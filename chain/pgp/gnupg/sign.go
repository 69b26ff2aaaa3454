package gnupg

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"dupfs/chain/pgp"
)

// ErrNoSigningKey says that there is no secret key to sign with, or that it
// stays locked.
var ErrNoSigningKey = errors.New("no usable signing key")

// SignOptions say how a key signs.
type SignOptions struct {
	// ID names the key: hexadecimal digits. The very key is used if it may
	// sign, else the newest that may and belongs to it.
	ID string
	// Passphrases are tried on the key, in their order, unless GPG.Agent is
	// set. More is called once they, or the lack of them, did not do; nil:
	// there is nobody to ask.
	Passphrases []string
	More        func(ctx context.Context) (string, error)
	Now         func() time.Time
}

// signer signs by gpg-agent.
type signer struct {
	g    *GPG
	ctx  context.Context
	o    SignOptions
	grip string
	id   string
	all  []string // passphrases to try
}

// Signer returns a Signer whose secret key is with gpg-agent. It signs
// something to see that it can: whoever must type a passphrase does it now. ctx
// bounds all that it does. ErrNoSigningKey if the key cannot be used.
func (g *GPG) Signer(ctx context.Context, o SignOptions) (pgp.Signer, error) {
	key, err := g.signingKey(ctx, o.ID)
	if err != nil {
		return nil, err
	}
	file, err := g.Export(ctx, key.fingerprint)
	if err != nil {
		return nil, err
	}
	public, err := pgp.PublicKey(file, key.fingerprint)
	if err != nil {
		return nil, err
	}
	s := &signer{g: g, ctx: ctx, o: o, grip: key.grip, id: key.id, all: o.Passphrases}
	d := &pgp.DigestSigner{Public: public, SignDigest: s.sign, Now: o.Now}
	if _, err := d.Sign(d.Hash().New()); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNoSigningKey, o.ID, err)
	}
	return d, nil
}

// signingKey chooses the secret key.
func (g *GPG) signingKey(ctx context.Context, id string) (listed, error) {
	if err := checkID(id); err != nil {
		return listed{}, err
	}
	keys, r, err := g.list(ctx, "--list-secret-keys", id)
	if err != nil {
		return listed{}, err
	}
	var best listed
	for _, k := range keys {
		if !strings.Contains(k.caps, "s") || k.absent || k.grip == "" || strings.ContainsAny(k.validity, "deirn") {
			continue
		}
		if strings.HasSuffix(k.fingerprint, strings.ToUpper(strings.TrimPrefix(id, "0x"))) {
			return k, nil
		}
		if best.grip == "" || k.created > best.created {
			best = k
		}
	}
	switch {
	case best.grip != "":
		return best, nil
	case len(keys) > 0:
		return best, fmt.Errorf("%w: %s is expired, revoked, or may not sign", ErrNoSigningKey, id)
	}
	return best, fmt.Errorf("%w: %s: %s", ErrNoSigningKey, id, r.say())
}

// sign has a digest signed.
func (s *signer) sign(digest []byte, h crypto.Hash) ([][]byte, error) {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	tries := make([]*string, 0, len(s.all)+1)
	for i := range s.all {
		tries = append(tries, &s.all[i])
	}
	if len(tries) == 0 || s.g.Agent {
		tries = []*string{nil}
	}
	var last error
	for _, p := range tries {
		out, err := s.signOnce(digest, h, p)
		var refused *agentError
		if err == nil {
			if p != nil {
				s.all = []string{*p} // for the next files
			}
			return out, nil
		}
		if last = err; !errors.As(err, &refused) || !refused.passphrase() {
			return nil, err
		}
	}
	if s.g.Agent || s.o.More == nil {
		return nil, last
	}
	p, err := s.o.More(s.ctx)
	if err != nil && len(s.all) > 0 {
		return nil, fmt.Errorf("%w, and %w", last, err)
	}
	if err != nil {
		return nil, err
	}
	s.all, s.o.More = []string{p}, nil
	return s.signOnce(digest, h, &p)
}

// What the agent would say if it were left to ask in vain.
var (
	errNoPassphrase  = &agentError{gpgNoPassphrase, "the passphrase of the key is missing"}
	errBadPassphrase = &agentError{gpgBadPassphrase, "bad passphrase"}
)

// signOnce has a digest signed, with a passphrase if one is wanted.
func (s *signer) signOnce(digest []byte, h crypto.Hash, passphrase *string) ([][]byte, error) {
	a, err := s.g.dial(s.ctx)
	if err != nil {
		return nil, err
	}
	defer a.close()
	asked := 0
	a.inquire = func(keyword, _ string) ([]byte, error) {
		if keyword != "PASSPHRASE" && keyword != "NEEDPIN" {
			return nil, nil
		}
		if passphrase == nil {
			return nil, errNoPassphrase
		}
		if asked++; asked > 1 { // it was wrong
			return nil, errBadPassphrase
		}
		return []byte(*passphrase), nil
	}
	names := map[crypto.Hash]string{crypto.SHA256: "sha256", crypto.SHA384: "sha384", crypto.SHA512: "sha512"}
	for _, c := range append(s.options(),
		"SIGKEY "+s.grip,
		"SETKEYDESC "+strings.ReplaceAll("Please enter the passphrase of the OpenPGP key "+s.id+" that signs a backup.", " ", "+"),
		fmt.Sprintf("SETHASH --hash=%s %X", names[h], digest)) {
		if _, err := a.do(c); err != nil {
			return nil, err
		}
	}
	answer, err := a.do("PKSIGN")
	if err != nil {
		return nil, err
	}
	return signatureNumbers(answer)
}

// options are those of a connection: where the agent may ask, or that it asks
// us.
func (s *signer) options() []string {
	if !s.g.Agent {
		return []string{"OPTION pinentry-mode=loopback"}
	}
	var out []string
	env := map[string]string{}
	for _, v := range s.g.environ() {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	tty := env["GPG_TTY"]
	if tty == "" {
		if name, err := os.Readlink("/proc/self/fd/0"); err == nil && strings.HasPrefix(name, "/dev/") {
			tty = name
		}
	}
	for _, o := range [][2]string{{"ttyname", tty}, {"ttytype", env["TERM"]}, {"display", env["DISPLAY"]}, {"lc-ctype", os.Getenv("LANG")}} {
		if o[1] != "" && !strings.ContainsAny(o[1], "\r\n") {
			out = append(out, "OPTION "+o[0]+"="+o[1])
		}
	}
	return out
}

// errAnswer says that the agent's answer is not a signature.
var errAnswer = errors.New("gpg-agent: its answer is no signature")

// signatureNumbers returns the numbers of (sig-val (algo (name value)...)), in
// canonical form, in the order that OpenPGP has them: r before s.
func signatureNumbers(b []byte) ([][]byte, error) {
	const head = "(7:sig-val("
	rest, ok := bytes.CutPrefix(b, []byte(head))
	if !ok {
		return nil, errAnswer
	}
	if _, rest, ok = atom(rest); !ok {
		return nil, errAnswer
	}
	var numbers [][]byte
	for len(rest) > 0 && rest[0] == '(' {
		var name, value []byte
		if name, rest, ok = atom(rest[1:]); !ok {
			return nil, errAnswer
		}
		if value, rest, ok = atom(rest); !ok || len(rest) == 0 || rest[0] != ')' {
			return nil, errAnswer
		}
		rest = rest[1:]
		if n := string(name); n == "r" || n == "s" {
			numbers = append(numbers, value)
		}
	}
	if len(numbers) == 0 || !bytes.HasPrefix(rest, []byte("))")) {
		return nil, errAnswer
	}
	return numbers, nil
}

// atom reads a length, a colon and that many bytes.
func atom(b []byte) (value, rest []byte, ok bool) {
	i := bytes.IndexByte(b, ':')
	if i < 1 || i > 5 {
		return nil, nil, false
	}
	n, err := strconv.ParseUint(string(b[:i]), 10, 16)
	if err != nil || uint64(len(b)-i-1) < n {
		return nil, nil, false
	}
	return b[i+1 : i+1+int(n)], b[i+1+int(n):], true
}
