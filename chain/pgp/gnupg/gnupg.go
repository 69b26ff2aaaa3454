// Package gnupg uses the keys of the user's GnuPG: public keys are exported,
// and whatever takes a secret key is done by gpg and gpg-agent, so that
// secret keys, which may be on a smartcard, stay where they are.
//
// GnuPG 2.1 or newer is needed. No secret is ever an argument of a program or
// in its environment.
package gnupg

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"dupfs/chain/pgp"
)

// GPG is the user's GnuPG. Its fields must not change once it is in use. Safe
// for concurrent use.
type GPG struct {
	Binary  string   // "": gpg in PATH
	Options []string // for gpg, such as --homedir and its directory
	// Agent leaves the passphrases of secret keys to gpg-agent, which may ask
	// its user. Otherwise Passphrases are tried.
	Agent bool
	// Passphrases returns what unlocks secret keys to decrypt with. It is
	// called only once GnuPG wants one. nil: none.
	Passphrases func(ctx context.Context) ([]string, error)
	// Environ is the environment of the programs. nil: that of this process.
	Environ []string

	mu      sync.Mutex // one secret key operation at a time: each may ask
	refused map[uint64]error
}

// ErrMissing says that GnuPG is not installed.
var ErrMissing = errors.New("GnuPG is needed, and is not installed")

// ErrOld says that GnuPG is one of before 2.1, which has no agent that keeps
// all secret keys.
var ErrOld = errors.New("it is too old: GnuPG 2.1 or newer is needed")

// ErrFailed says that GnuPG could not do what it was asked to.
var ErrFailed = errors.New("GnuPG failed")

func (g *GPG) binary() string {
	if g.Binary == "" {
		return "gpg"
	}
	return g.Binary
}

const (
	// maxOutput bounds what gpg prints: an exported key ring, 64 MiB.
	maxOutput = 64 << 20
	// maxNoise bounds what is kept of its messages.
	maxNoise = 16 << 10
)

// result is what a run of gpg gave.
type result struct {
	out   []byte
	noise string // its messages
	err   error  // of the process
}

// run runs gpg. secret is what it reads from the descriptor that
// --passphrase-fd names; nil: none. An error is that it could not be run.
func (g *GPG) run(ctx context.Context, stdin []byte, secret *string, args ...string) (result, error) {
	all := []string{"--batch", "--no-tty", "--no-secmem-warning"}
	all = append(all, g.Options...)
	cmd := exec.CommandContext(ctx, g.binary())
	cmd.WaitDelay = 5 * time.Second
	if secret != nil {
		r, w, err := os.Pipe()
		if err != nil {
			return result{}, err
		}
		defer r.Close()
		// A pipe holds more than any passphrase that is read from a file.
		go func() {
			defer w.Close()
			_, _ = io.WriteString(w, *secret+"\n") // gpg says what it lacks
		}()
		cmd.ExtraFiles = []*os.File{r}
		all = append(all, "--passphrase-fd", "3")
	}
	cmd.Args = append([]string{cmd.Args[0]}, append(all, args...)...)
	cmd.Env = g.environ()
	cmd.Stdin = bytes.NewReader(stdin)
	out, noise := &limited{max: maxOutput}, &limited{max: maxNoise}
	cmd.Stdout, cmd.Stderr = out, noise
	err := cmd.Run()
	if ctx.Err() != nil {
		return result{}, ctx.Err()
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return result{}, fmt.Errorf("%w (%s)", ErrMissing, g.binary())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return result{}, fmt.Errorf("%s: %w", g.binary(), err)
	}
	text := noise.b.String()
	if err != nil && (strings.Contains(text, `nvalid option "--pinentry-mode"`) || strings.Contains(text, `nvalid option "--with-keygrip"`)) {
		return result{}, fmt.Errorf("%s: %w", g.binary(), ErrOld)
	}
	return result{out.b.Bytes(), text, err}, nil
}

// limited keeps the beginning of what is written.
type limited struct {
	b   bytes.Buffer
	max int
}

func (l *limited) Write(p []byte) (int, error) {
	l.b.Write(p[:min(len(p), l.max-l.b.Len())])
	return len(p), nil
}

// environ returns the environment for GnuPG: messages in English, and no
// secrets of ours.
func (g *GPG) environ() []string {
	env := g.Environ
	if env == nil {
		env = os.Environ()
	}
	out := make([]string, 0, len(env)+1)
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case strings.HasSuffix(name, "PASSPHRASE"), strings.HasSuffix(name, "PASSWORD"),
			strings.HasPrefix(name, "LC_"), name == "LANGUAGE":
		default:
			out = append(out, v)
		}
	}
	return append(out, "LC_ALL=C")
}

// say returns gpg's last message, for errors.
func (r result) say() string {
	lines := strings.Split(strings.TrimSpace(r.noise), "\n")
	text := strings.TrimPrefix(lines[len(lines)-1], "gpg: ")
	switch {
	case text == "" && r.err != nil:
		text = "gpg: " + r.err.Error()
	case text == "":
		text = "no message"
	}
	return text
}

// Export returns the public keys that GnuPG finds for an id: whatever gpg
// understands. pgp.ErrNoPublicKey if there is none.
func (g *GPG) Export(ctx context.Context, id string) ([]byte, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	r, err := g.run(ctx, nil, nil, "--export", "--", strings.TrimSuffix(id, "!"))
	if err != nil {
		return nil, err
	}
	if r.err != nil || len(r.out) == 0 {
		text := r.say()
		if strings.Contains(text, "nothing exported") {
			text = "GnuPG has none of that name"
		}
		return nil, fmt.Errorf("%w: key %s: %s", pgp.ErrNoPublicKey, id, text)
	}
	return r.out, nil
}

func checkID(id string) error {
	if id == "" || strings.ContainsAny(id, "\x00\n\r") {
		return fmt.Errorf("%w: %q is no name of a key", pgp.ErrNoPublicKey, id)
	}
	return nil
}

// Trusted reports whether GnuPG takes the keys of an id for those of whom they
// name, as far as it knows. It is no question for key ids and fingerprints: who
// gives one has chosen the key.
func (g *GPG) Trusted(ctx context.Context, id string) (bool, error) {
	if pgp.IsHexID(id) {
		return true, nil
	}
	for i, o := range g.Options {
		if o == "--always-trust" || o == "--trust-model=always" || o == "--trust-model" && i+1 < len(g.Options) && g.Options[i+1] == "always" {
			return true, nil
		}
	}
	if err := checkID(id); err != nil {
		return false, err
	}
	keys, _, err := g.list(ctx, "--list-keys", id)
	if err != nil {
		return false, err
	}
	for _, k := range keys {
		if !k.sub && !strings.ContainsAny(k.validity, "fmu") {
			return false, nil
		}
	}
	return len(keys) > 0, nil
}

// Disabled reports whether the user has disabled a key of that id in GnuPG:
// nothing is encrypted to it then, but it still decrypts and signs.
func (g *GPG) Disabled(ctx context.Context, id string) (bool, error) {
	if err := checkID(id); err != nil {
		return false, err
	}
	keys, _, err := g.list(ctx, "--list-keys", id)
	return slices.ContainsFunc(keys, func(k listed) bool { return strings.Contains(k.caps, "D") }), err
}

// listed is a key in a listing.
type listed struct {
	sub         bool
	validity    string
	id          string // 16 hexadecimal digits
	created     string
	caps        string // lower case: of this key itself; D: it is disabled
	fingerprint string
	grip        string
	absent      bool // the secret key is not here
}

// list lists keys.
func (g *GPG) list(ctx context.Context, what, id string) ([]listed, result, error) {
	r, err := g.run(ctx, nil, nil, "--with-colons", "--fixed-list-mode", "--with-keygrip", what, "--", strings.TrimSuffix(id, "!"))
	if err != nil {
		return nil, r, err
	}
	var keys []listed
	lines := bufio.NewScanner(bytes.NewReader(r.out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		f := strings.Split(lines.Text(), ":")
		if len(f) < 10 {
			continue
		}
		switch f[0] {
		case "pub", "sub", "sec", "ssb":
			k := listed{sub: f[0] == "sub" || f[0] == "ssb", validity: f[1], id: f[4], created: f[5]}
			if len(f) > 11 {
				k.caps = f[11]
			}
			k.absent = len(f) > 14 && f[14] == "#"
			keys = append(keys, k)
		case "fpr", "grp":
			if len(keys) == 0 {
				continue
			}
			k := &keys[len(keys)-1]
			if f[0] == "fpr" && k.fingerprint == "" {
				k.fingerprint = f[9]
			} else if f[0] == "grp" {
				k.grip = f[9]
			}
		}
	}
	return keys, r, lines.Err()
}
