package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// errPassphraseEOF is what duplicity calls EOFError: somebody must type a
// passphrase and nobody is there.
var errPassphraseEOF = errors.New("a passphrase is needed, but PASSPHRASE is not set and there is nobody to ask")

// passphrase returns what the archive is encrypted with: PASSPHRASE, where
// set but empty counts as set, the first line of --passphrase-file, or what
// is typed. For a new archive it is typed twice.
func (e *environ) passphrase(file string, twice bool) (string, error) {
	if p, ok := e.lookup("PASSPHRASE"); ok {
		return p, nil
	}
	if file != "" {
		return passphraseFile(file)
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
			fmt.Fprintln(e.stderr, "First and second passphrases do not match!  Please try again.")
		case first == "":
			fmt.Fprintln(e.stderr, "Cannot use empty passphrase with symmetric encryption!  Please try again.")
		default:
			return first, nil
		}
		if first, err = e.ask("GnuPG passphrase for decryption: "); err != nil {
			return "", err
		}
	}
}

// passphraseFile reads the first line of a file.
func passphraseFile(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("--passphrase-file: %w", err)
	}
	defer f.Close()
	line, err := bufio.NewReader(io.LimitReader(f, 64<<10)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("--passphrase-file: %w", err)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// ask reads a secret from the terminal without echo, or a line of standard
// input where there is none.
func (e *environ) ask(prompt string) (string, error) {
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
