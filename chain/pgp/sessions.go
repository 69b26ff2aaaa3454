package pgp

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
)

// A SessionCache remembers session keys of public-key encryption. Opening one
// takes a secret key: a smartcard that wants to be touched, a process, or
// somebody who types. What it returns is tried on the data before it is used.
type SessionCache interface {
	// Session returns the session key that the hash belongs to.
	Session(hash [sha256.Size]byte) (Session, bool)
	// Remember keeps one.
	Remember(hash [sha256.Size]byte, s Session) error
}

// cached returns the session key of a packet of tag 1, if it is known.
func (k *Keys) cached(body []byte) (Session, bool) {
	hash := sha256.Sum256(body)
	k.knownMu.Lock()
	s, ok := k.known[hash]
	k.knownMu.Unlock()
	if !ok && k.Cache != nil {
		s, ok = k.Cache.Session(hash)
	}
	return s, ok
}

// keep remembers the session key of a packet of tag 1.
func (k *Keys) keep(body []byte, s Session) error {
	hash := sha256.Sum256(body)
	k.knownMu.Lock()
	if k.known == nil || len(k.known) >= maxKnown {
		k.known = make(map[[sha256.Size]byte]Session)
	}
	k.known[hash] = s
	k.knownMu.Unlock()
	if k.Cache == nil {
		return nil
	}
	return k.Cache.Remember(hash, s)
}

// maxKnown bounds the session keys that are remembered: one a stored file.
const maxKnown = 1 << 16

// SessionFile is a SessionCache in a file that several processes may use at a
// time. Each line is a hash, the number of the cipher, and the key. Like the
// catalogs beside it, it opens the archive: its mode is 0600. Safe for
// concurrent use.
type SessionFile struct {
	path string
	mu   sync.Mutex
	all  map[[sha256.Size]byte]Session
}

// OpenSessionFile reads a file, which need not exist.
func OpenSessionFile(path string) (*SessionFile, error) {
	s := &SessionFile{path: path, all: make(map[[sha256.Size]byte]Session)}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("session keys: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() && len(s.all) < maxKnown {
		// A line that was cut short costs no more than its key.
		if hash, session, ok := parseSessionLine(lines.Text()); ok {
			s.all[hash] = session
		}
	}
	return s, nil
}

// parseSessionLine parses a line of a SessionFile.
func parseSessionLine(line string) (hash [sha256.Size]byte, s Session, ok bool) {
	fields := strings.Fields(line)
	if len(fields) != 3 || len(fields[1]) > 3 {
		return hash, s, false
	}
	sum, err := hex.DecodeString(fields[0])
	if err != nil || len(sum) != len(hash) {
		return hash, s, false
	}
	var cipher byte
	if _, err := fmt.Sscan(fields[1], &cipher); err != nil {
		return hash, s, false
	}
	key, err := hex.DecodeString(fields[2])
	s = Session{cipher, key}
	return [sha256.Size]byte(sum), s, err == nil && s.valid()
}

// Session implements SessionCache.
func (f *SessionFile) Session(hash [sha256.Size]byte) (Session, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.all[hash]
	return s, ok
}

// Remember implements SessionCache.
func (f *SessionFile) Remember(hash [sha256.Size]byte, s Session) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.all[hash]; ok || len(f.all) >= maxKnown {
		return nil
	}
	out, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("session keys: %w", err)
	}
	// In one write, so that lines of several processes do not mix.
	_, err = fmt.Fprintf(out, "%x %d %x\n", hash, s.Cipher, s.Key)
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("session keys: %w", err)
	}
	f.all[hash] = s
	return nil
}
