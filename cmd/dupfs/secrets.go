package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"dupfs/chain"
)

// errPassphraseEOF is what duplicity calls EOFError: somebody must type a
// passphrase and nobody is there.
var errPassphraseEOF = errors.New("a passphrase is needed, but PASSPHRASE is not set and there is nobody to ask")

// errSignPassphraseEOF is the same for the signing key.
var errSignPassphraseEOF = errors.New("its passphrase is needed, but SIGN_PASSPHRASE is not set and there is nobody to ask")

// passphrases returns those that are given without anybody being asked: what a
// chain is written with first, then others that open older sets. PASSPHRASE
// counts as given where it is set but empty. Then come the first lines of
// --passphrase-file and of what --password-command prints. systemd's credential
// counts where none of them is given.
func (e *environ) passphrases(c *cli.Context) ([]string, error) {
	var all []string
	if p, ok := e.lookup("PASSPHRASE"); ok {
		all = append(all, p)
	}
	for _, file := range c.StringSlice("passphrase-file") {
		p, err := e.passphraseFile(file)
		if err != nil {
			return nil, fail(exitException, fmt.Errorf("--passphrase-file: %w", err), "its first line must be the passphrase")
		}
		e.warnWide("--passphrase-file", file)
		all = append(all, p)
	}
	if command := c.String("password-command"); command != "" {
		p, err := e.passwordCommand(c.Context, command)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	if len(all) == 0 {
		p, ok, err := e.credential("dupfs.passphrase")
		if ok {
			all = append(all, p)
		}
		return all, err
	}
	return all, nil
}

// signPassphrase returns what unlocks the signing key, if it is given:
// SIGN_PASSPHRASE or systemd's credential.
func (e *environ) signPassphrase() (string, bool, error) {
	if p, ok := e.lookup("SIGN_PASSPHRASE"); ok {
		return p, true, nil
	}
	return e.credential("dupfs.sign-passphrase")
}

// credential returns the first line of a credential that systemd hands to a
// service (LoadCredential=, LoadCredentialEncrypted=, SetCredential=), if there
// is one of that name.
func (e *environ) credential(name string) (string, bool, error) {
	dir := e.getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return "", false, nil
	}
	p, err := e.passphraseFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("credential: %w", err)
	}
	return p, true, nil
}

// warnWide warns, once in a run, of a file with a secret that others may read or
// write. Pipes are as private as whoever made them wanted.
func (e *environ) warnWide(option, file string) {
	info, err := os.Stat(file)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o077 == 0 {
		return
	}
	e.commandMu.Lock()
	defer e.commandMu.Unlock()
	if e.wide[file] {
		return
	}
	if e.wide == nil {
		e.wide = map[string]bool{}
	}
	e.wide[file] = true
	e.warn("%s %s: others than you have rights to it (mode %04o): chmod 600 it", option, file, info.Mode().Perm())
}

// passwordCommandTime bounds a --password-command: somebody may have to unlock
// a keyring, but a backup at night must not wait for that for ever.
const passwordCommandTime = 5 * time.Minute

// passwordCommand runs a command in the shell, once in a run, and returns the
// first line that it prints.
func (e *environ) passwordCommand(ctx context.Context, command string) (string, error) {
	e.commandMu.Lock()
	defer e.commandMu.Unlock()
	if e.commandRan {
		return e.commandText, nil
	}
	limit := e.commandLimit
	if limit == 0 {
		limit = passwordCommandTime
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(limited, "/bin/sh", "-c", command)
	cmd.WaitDelay = time.Second // for what it has started
	out := &head{max: 64 << 10}
	cmd.Stdout, cmd.Stderr = out, e.stderr
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // something that it left running keeps its output open
	}
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case limited.Err() != nil:
		err = fmt.Errorf("it has not ended within %v", limit)
	case err == nil && len(out.text) == 0:
		err = errors.New("it printed nothing")
	}
	if err != nil {
		return "", fail(exitException, fmt.Errorf("--password-command: %w", err), "it must print the passphrase on one line")
	}
	line, _, _ := strings.Cut(string(out.text), "\n")
	e.commandText, e.commandRan = strings.TrimRight(line, "\r"), true
	return e.commandText, nil
}

// head keeps the beginning of what is written, max bytes.
type head struct {
	text []byte
	max  int
}

func (h *head) Write(p []byte) (int, error) {
	h.text = append(h.text, p[:min(len(p), h.max-len(h.text))]...)
	return len(p), nil
}

// passphrase returns what the archive is encrypted with: the first that is
// given, or what is typed. For a new archive it is typed twice.
func (e *environ) passphrase(c *cli.Context, twice bool) (string, error) {
	given, err := e.passphrases(c)
	if err != nil {
		return "", err
	}
	if len(given) > 0 {
		return given[0], nil
	}
	if c.Bool("use-agent") {
		return "", chain.ErrNoPassphrase
	}
	first, err := e.ask("GnuPG passphrase for decryption: ")
	if err != nil || !twice {
		return first, err
	}
	for {
		second, err := e.ask("Retype passphrase for decryption to confirm: ")
		switch {
		case err != nil:
			return "", err
		case first != second:
			e.tryAgain("First and second passphrases do not match!")
		case first == "":
			e.tryAgain("Cannot use empty passphrase with symmetric encryption!")
		default:
			return first, nil
		}
		if first, err = e.ask("GnuPG passphrase for decryption: "); err != nil {
			return "", err
		}
	}
}

// tryAgain says why another passphrase is asked for.
func (e *environ) tryAgain(why string) {
	if e.duplicity { // which says it on its standard output
		e.say(message{level: levelWarning, force: true, format: why + "  Please try again."})
		return
	}
	fmt.Fprintln(e.stderr, why+"  Please try again.")
}

// passphraseFile returns the first line of a file, which is read once in a run:
// it may be a pipe.
func (e *environ) passphraseFile(file string) (string, error) {
	e.commandMu.Lock()
	defer e.commandMu.Unlock()
	if p, ok := e.fileTexts[file]; ok {
		return p, nil
	}
	p, err := firstLine(file)
	if err == nil {
		if e.fileTexts == nil {
			e.fileTexts = map[string]string{}
		}
		e.fileTexts[file] = p
	}
	return p, err
}

// firstLine reads the first line of a file.
func firstLine(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	line, err := bufio.NewReader(io.LimitReader(f, 64<<10)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// askOnce asks for a store's password; a mount in the background, which opens
// the store again, gets the same answer.
func (e *environ) askOnce(prompt string) (string, error) {
	e.typedMu.Lock()
	defer e.typedMu.Unlock()
	if text, ok := e.typed[printable(prompt)]; ok {
		return text, nil
	}
	text, err := e.ask(prompt)
	if err == nil {
		if e.typed == nil {
			e.typed = map[string]string{}
		}
		e.typed[printable(prompt)] = text
	}
	return text, err
}

// ask reads a secret from the terminal without echo, or a line of standard
// input where there is none.
func (e *environ) ask(prompt string) (string, error) {
	if e.parent != nil {
		return e.parent.ask(prompt)
	}
	if tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
		defer tty.Close()
		fmt.Fprint(tty, prompt)
		secret, err := term.ReadPassword(int(tty.Fd()))
		fmt.Fprintln(tty)
		return string(secret), err
	}
	fmt.Fprint(e.stderr, prompt)
	line, err := e.stdin.ReadString('\n')
	fmt.Fprintln(e.stderr)
	if err != nil && line == "" {
		if errors.Is(err, io.EOF) {
			return "", errPassphraseEOF
		}
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}
