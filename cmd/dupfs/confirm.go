package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/scrypt"

	"dupfs/chain"
)

// A catalog holds the keys of the files it knows, so nothing that is read
// through it needs the passphrase any more. One that is given must be right
// nevertheless: whoever types it to see whether it still opens the archive, or
// a front end that tests it, is told.

// confirm makes sure that one of the passphrases that are given, if any are,
// opens the chain of a point. It costs reading the head of a manifest and
// deriving a key once for a passphrase and a chain, then some 20 ms. In
// duplicity's place it asks if none is given: scripts wait for the prompt.
func (a *archive) confirm(ctx context.Context, c *cli.Context, point chain.Point) error {
	given, err := a.env.passphrases(c)
	if err != nil {
		return err
	}
	asks := a.env.duplicity && !c.Bool("no-encryption") && a.openpgp.asks()
	if len(given) == 0 && !asks {
		return nil
	}
	set, start := a.setAt(point)
	if set == nil || set.Manifest == nil || set.Manifest.Layer != chain.OpenPGP {
		return nil
	}
	known := a.confirmed()
	for _, p := range given {
		if known.has(p, start) {
			return nil
		}
	}
	body, err := a.store.OpenStored(ctx, set.Manifest.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // who needs it will say so
	}
	if err != nil {
		return err
	}
	defer body.Close()
	p, ok, err := a.keys.Confirm(ctx, bufio.NewReader(body), set.Manifest.File)
	switch {
	case err != nil:
		return keyTrouble(err) // damage is met again
	case ok && !known.has(p, start):
		known.add(p, start)
	}
	return nil
}

// setAt returns the set that made a point, and the start of its chain.
func (a *archive) setAt(point chain.Point) (*chain.Set, string) {
	for _, l := range a.snapshot.Collection().Lines {
		for _, s := range l.Sets {
			if s.End.Equal(point.Time) {
				return s, chain.FormatTime(l.Sets[0].End)
			}
		}
	}
	return nil, ""
}

// confirmations are passphrases that were seen to open chains: a line for
// each, of a salt, the passphrase's scrypt hash with it, and the start of the
// chain. A guess costs an attacker who has read the file as much as one at the
// archive itself does; it lies beside keys that open the archive, as 0600.
type confirmations struct {
	path   string
	salt   []byte
	lines  []string
	hashes map[string]string // by passphrase
}

const (
	confirmSaltLen  = 16
	maxConfirmed    = 64
	confirmFileSize = 64 << 10
)

// confirmed reads what was confirmed before; what cannot be read was not.
func (a *archive) confirmed() *confirmations {
	k := &confirmations{path: filepath.Join(a.dir, "confirmed"), hashes: map[string]string{}}
	text, err := os.ReadFile(k.path)
	if err != nil || len(text) > confirmFileSize {
		text = nil
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		salt, err := hex.DecodeString(f[0])
		if err != nil || len(salt) != confirmSaltLen || k.salt != nil && !bytes.Equal(salt, k.salt) {
			continue
		}
		k.salt, k.lines = salt, append(k.lines, strings.Join(f, " "))
	}
	return k
}

// has reports whether a passphrase was seen to open the chain of that start.
func (k *confirmations) has(passphrase, start string) bool {
	found := false
	for _, l := range k.lines {
		if strings.HasSuffix(l, " "+start) && subtle.ConstantTimeCompare([]byte(l), []byte(k.line(passphrase, start))) == 1 {
			found = true
		}
	}
	return found
}

// add notes that a passphrase opens a chain. Failing costs the next run time,
// no more.
func (k *confirmations) add(passphrase, start string) {
	if k.salt == nil {
		k.salt = make([]byte, confirmSaltLen)
		rand.Read(k.salt)
	}
	k.lines = append(k.lines, k.line(passphrase, start))
	if len(k.lines) > maxConfirmed {
		k.lines = k.lines[len(k.lines)-maxConfirmed:]
	}
	f, err := os.CreateTemp(filepath.Dir(k.path), "confirmed-*") // 0600
	if err != nil {
		return
	}
	_, err = fmt.Fprintln(f, strings.Join(k.lines, "\n"))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), k.path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
}

// line is how a passphrase and a chain stand in the file. The hash takes 8
// MiB and some 20 ms, which is no cheaper to guess at than OpenPGP's.
func (k *confirmations) line(passphrase, start string) string {
	hash, ok := k.hashes[passphrase]
	if !ok {
		sum, err := scrypt.Key([]byte(passphrase), k.salt, 1<<13, 8, 1, 32)
		if err != nil {
			return ""
		}
		hash = hex.EncodeToString(sum)
		k.hashes[passphrase] = hash
	}
	return hex.EncodeToString(k.salt) + " " + hash + " " + start
}
