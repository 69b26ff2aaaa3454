package sftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"dupfs/backends"
)

// login holds what proves who we are, for one host.
type login struct {
	s *settings
	t target
	o Options

	once     sync.Once // asks for a password at most once
	password string
	asked    error
	skipped  []string // keys that could not be used, and why
}

// secret returns the password from the URL or the environment, or asks.
func (l *login) secret(ctx context.Context) (string, error) {
	if l.o.HasPassword {
		return l.o.Password, nil
	}
	l.once.Do(func() {
		if l.o.AskPassword == nil {
			l.asked = errors.New("no password is known")
			return
		}
		l.password, l.asked = l.o.AskPassword(ctx, fmt.Sprintf("Password for '%s@%s': ", l.t.user, l.t.host))
	})
	return l.password, l.asked
}

// methods returns the ways to log in, and what to release afterwards.
func (l *login) methods(ctx context.Context) ([]ssh.AuthMethod, func()) {
	release := func() {}
	var signers []ssh.Signer
	files := l.keys(ctx)
	if sock := l.agentSocket(); sock != "" {
		if c, err := net.Dial("unix", sock); err == nil {
			release = func() { c.Close() }
			signers = l.agentKeys(agent.NewClient(c))
		}
	}
	signers = append(signers, files...)
	var m []ssh.AuthMethod
	if len(signers) > 0 {
		m = append(m, ssh.PublicKeys(signers...))
	}
	if l.o.HasPassword || l.o.AskPassword != nil {
		m = append(m, ssh.KeyboardInteractive(func(_, _ string, questions []string, echo []bool) ([]string, error) {
			answers := make([]string, len(questions))
			for i := range questions {
				if echo[i] {
					return nil, errors.New("the server asks for more than a password")
				}
				p, err := l.secret(ctx)
				if err != nil {
					return nil, err
				}
				answers[i] = p
			}
			return answers, nil
		}), ssh.PasswordCallback(func() (string, error) { return l.secret(ctx) }))
	}
	return m, release
}

func (l *login) agentSocket() string {
	switch a := l.s.get("IdentityAgent"); a {
	case "":
	case "none":
		return ""
	case "SSH_AUTH_SOCK":
	default:
		if v, ok := strings.CutPrefix(a, "$"); ok {
			return l.o.Getenv(v)
		}
		return l.s.expand(a)
	}
	return l.o.Getenv("SSH_AUTH_SOCK")
}

// agentKeys returns the keys of the agent; with IdentitiesOnly those of them
// whose public half is in a configured file.
func (l *login) agentKeys(a agent.Agent) []ssh.Signer {
	all, err := a.Signers()
	if err != nil {
		l.skipped = append(l.skipped, "the agent does not answer")
		return nil
	}
	if !l.s.yes("IdentitiesOnly") {
		return all
	}
	var some []ssh.Signer
	for _, f := range l.s.all("IdentityFile") {
		text, err := os.ReadFile(l.s.expand(strings.TrimSuffix(f, ".pub")) + ".pub")
		if err != nil {
			continue
		}
		pub, _, _, _, err := ssh.ParseAuthorizedKey(text)
		if err != nil {
			continue
		}
		for _, s := range all {
			if bytes.Equal(s.PublicKey().Marshal(), pub.Marshal()) {
				some = append(some, s)
			}
		}
	}
	return some
}

// keys reads the identity files that were configured, or the usual ones.
func (l *login) keys(ctx context.Context) []ssh.Signer {
	files := l.s.all("IdentityFile")
	usual := len(files) == 0
	if usual {
		files = []string{"~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"}
	}
	var signers []ssh.Signer
	for _, f := range files {
		path := l.t.tokens(l.s.expand(f))
		s, err := l.key(ctx, path)
		if err != nil {
			if !usual || !errors.Is(err, fs.ErrNotExist) {
				l.skipped = append(l.skipped, fmt.Sprintf("%s: %v", path, err))
			}
			continue
		}
		if c := certificate(path, s); c != nil {
			signers = append(signers, c)
		}
		signers = append(signers, s)
	}
	return signers
}

func (l *login) key(ctx context.Context, path string) (ssh.Signer, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	if !errors.As(err, &locked) {
		return s, err
	}
	pass := l.o.Password
	if !l.o.HasPassword {
		if l.o.AskPassword == nil {
			return nil, errors.New("it has a passphrase, and there is nobody to ask")
		}
		if pass, err = l.o.AskPassword(ctx, fmt.Sprintf("Passphrase for key '%s': ", path)); err != nil {
			return nil, err
		}
	}
	if s, err = ssh.ParsePrivateKeyWithPassphrase(text, []byte(pass)); err != nil {
		return nil, errors.New("the passphrase is wrong")
	}
	return s, nil
}

// certificate returns the key with the certificate that lies beside it.
func certificate(path string, s ssh.Signer) ssh.Signer {
	text, err := os.ReadFile(path + "-cert.pub")
	if err != nil {
		return nil
	}
	pub, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil
	}
	cert, ok := pub.(*ssh.Certificate)
	if !ok {
		return nil
	}
	c, err := ssh.NewCertSigner(cert, s)
	if err != nil {
		return nil
	}
	return c
}

// hostKeys says which host keys are good, and which kinds are known of the
// host, so that the server shows one of those.
func (l *login) hostKeys() (ssh.HostKeyCallback, []string, error) {
	files := l.knownHostsFiles()
	var there []string
	for _, f := range files {
		if _, err := os.Stat(f); err == nil {
			there = append(there, f)
		}
	}
	check, err := knownhosts.New(there...)
	if err != nil {
		return nil, nil, fmt.Errorf("known hosts: %w", err)
	}
	name := l.t.addr()
	if a := l.s.get("HostKeyAlias"); a != "" {
		name = net.JoinHostPort(a, "22")
	}
	strict := strings.ToLower(l.s.get("StrictHostKeyChecking"))
	accept := strict == "no" || strict == "off" || strict == "accept-new"
	callback := func(_ string, _ net.Addr, key ssh.PublicKey) error {
		err := check(name, &net.TCPAddr{IP: net.IPv4zero}, key)
		var ke *knownhosts.KeyError
		switch {
		case err == nil:
			return nil
		case !errors.As(err, &ke):
			return &hostKeyError{fmt.Sprintf("the key of host %s: %v", l.t.host, err)}
		case len(ke.Want) > 0:
			return &hostKeyError{fmt.Sprintf("the key of host %s is not the one in %s line %d: it was changed, or somebody is in between (%s %s)",
				l.t.host, ke.Want[0].Filename, ke.Want[0].Line, key.Type(), ssh.FingerprintSHA256(key))}
		case accept:
			return remember(files, name, key)
		}
		return &hostKeyError{fmt.Sprintf("the key of host %s is not known (%s %s); connect once with ssh to accept it, or use -oStrictHostKeyChecking=accept-new",
			l.t.host, key.Type(), ssh.FingerprintSHA256(key))}
	}
	return callback, algorithms(check, name), nil
}

// hostKeyError is a host that could not prove who it is: never transient.
type hostKeyError struct{ text string }

func (e *hostKeyError) Error() string { return e.text }

func (l *login) knownHostsFiles() (files []string) {
	user := l.s.get("UserKnownHostsFile")
	if user == "" {
		user = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
	}
	global := l.s.get("GlobalKnownHostsFile")
	if global == "" {
		global = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
	}
	for _, f := range strings.Fields(user + " " + global) {
		if !strings.EqualFold(f, "none") {
			files = append(files, l.s.expand(strings.Trim(f, `"`)))
		}
	}
	return files
}

// remember adds a key to the first of the files, if it can be written.
func remember(files []string, name string, key ssh.PublicKey) error {
	if len(files) == 0 || files[0] == os.DevNull {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(files[0]), 0o700); err != nil {
		return nil
	}
	f, err := os.OpenFile(files[0], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil
	}
	_, err = f.WriteString(knownhosts.Line([]string{knownhosts.Normalize(name)}, key) + "\n")
	return errors.Join(err, f.Close())
}

// algorithms returns the host key algorithms for the keys that are known; nil
// if there are none. It asks with a key that nobody has.
func algorithms(check ssh.HostKeyCallback, name string) (algos []string) {
	var ke *knownhosts.KeyError
	if err := check(name, &net.TCPAddr{IP: net.IPv4zero}, nobody{}); !errors.As(err, &ke) {
		return nil
	}
	for _, k := range ke.Want {
		switch t := k.Key.Type(); t {
		case ssh.KeyAlgoRSA:
			algos = append(algos, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		default:
			algos = append(algos, t)
		}
	}
	return algos
}

type nobody struct{}

func (nobody) Type() string                        { return "none" }
func (nobody) Marshal() []byte                     { return []byte("none") }
func (nobody) Verify([]byte, *ssh.Signature) error { return errors.New("nobody signs") }

// refused makes the failure of a login clear.
func (l *login) refused(err error) error {
	var hk *hostKeyError
	if errors.As(err, &hk) {
		return hk
	}
	if !strings.Contains(err.Error(), "unable to authenticate") {
		return err
	}
	text := fmt.Sprintf("%s refused the login of %s", l.t.addr(), l.t.user)
	if len(l.skipped) > 0 {
		text += " (not tried: " + strings.Join(l.skipped, "; ") + ")"
	}
	return fmt.Errorf("%w: %s", backends.ErrAuth, text)
}
