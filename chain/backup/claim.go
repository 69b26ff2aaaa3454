package backup

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"dupfs/chain"
	"dupfs/chain/store"
)

// Two sets that end in the same second have the same names. Where the store
// keeps two writers of one name apart, one of the runs ends at its first file.
// Elsewhere a run stores a claim before its first file: an object with the
// second and a random token in its name. Then it looks, and if anybody else is
// in that second, takes its claim back and tries a later one. Of two runs at
// least the one that stored its claim last sees the other; if both do, both
// leave. The claim stays until the run ends, so that what a listing has shown
// too late is seen by alone, before the set exists.

const (
	maxClaims = 20 // seconds that are tried
	// claimLooks is how often a run looks for its own claim, and how often
	// whether another one is taken back: listings can be behind.
	claimLooks = 6
	claimPause = 500 * time.Millisecond
)

// errTaken says that somebody else is in that second.
var errTaken = errors.New("another backup has the same second")

// begin gets the set a second of its own, and begins the journal.
func (r *run) begin(ctx context.Context, st *store.Store) error {
	if in := r.o.Resume; in != nil {
		r.token = in.claim
		if err := r.openJournal(); err != nil || r.token == "" {
			return err
		}
		return r.putClaim(ctx, st) // which a run that failed has taken back
	}
	if st.Excludes() {
		return r.openJournal()
	}
	for range maxClaims {
		var token [8]byte
		rand.Read(token[:]) // never fails
		r.token = hex.EncodeToString(token[:])
		if err := r.openJournal(); err != nil {
			return err
		}
		before, err := r.tryClaim(ctx, st)
		if !errors.Is(err, errTaken) {
			return err
		}
		if err := r.deleteClaim(ctx, st); err != nil {
			return err
		}
		r.journal.close() // another one takes its place
		r.name.End = r.name.End.Add(time.Duration(1+before) * time.Second)
		if r.name.Full {
			r.name.Start = r.name.End
		}
	}
	return fmt.Errorf("%d seconds in turn: %w", maxClaims, ErrRival)
}

// tryClaim stores the claim and looks who else is in that second: errTaken, and
// how many of them come before this run, so that runs which meet part.
func (r *run) tryClaim(ctx context.Context, st *store.Store) (before int, err error) {
	if err := r.putClaim(ctx, st); err != nil {
		return 0, err
	}
	for look := 1; ; look++ {
		files, err := st.List(ctx)
		if err != nil {
			return 0, fmt.Errorf("a look for other backups: %w", err)
		}
		own, taken := false, false
		before = 0
		for _, f := range files {
			switch {
			case !f.End.Equal(r.name.End):
			case f.Kind != chain.ClaimFile:
				taken = true
			case f.Token == r.token:
				own = true
			default:
				taken = true
				if f.Token < r.token {
					before++
				}
			}
		}
		if taken {
			return before, errTaken
		}
		if own || look == claimLooks {
			return 0, nil
		}
		if err := pause(ctx, claimPause); err != nil {
			return 0, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// claimName returns the name of a claim.
func claimName(st *store.Store, end time.Time, token string) chain.Name {
	n := chain.Name{Kind: chain.ClaimFile, Full: true, Start: end, End: end, Token: token}
	n.File = st.Prefixes().Format(n)
	return n
}

func (r *run) putClaim(ctx context.Context, st *store.Store) error {
	name := claimName(st, r.name.End, r.token).File
	text := "A backup by dupfs takes this second. It removes this when it ends; else cleanup does.\n"
	if err := st.Backend().Put(ctx, name, strings.NewReader(text)); err != nil {
		return fmt.Errorf("claim: %w", err)
	}
	return nil
}

func (r *run) deleteClaim(ctx context.Context, st *store.Store) error {
	err := st.Delete(ctx, chain.Stored{Name: claimName(st, r.name.End, r.token)})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("claim: %w", err)
	}
	return nil
}

// unclaim removes the claim of a run that ends. What is left of it harms
// nobody: the second is over, and cleanup removes it.
func (r *run) unclaim(ctx context.Context, st *store.Store) {
	if r.token == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unclaimTimeout)
	defer cancel()
	_ = r.deleteClaim(ctx, st)
}

// unclaimTimeout bounds how long a run that has ended tries to remove its claim.
const unclaimTimeout = 30 * time.Second

// claimed reports whether another claim to this second is among the files.
func (s *setWriter) claimed(files []chain.Stored) (string, bool) {
	if s.token == "" {
		return "", false
	}
	for _, f := range files {
		if f.Kind == chain.ClaimFile && f.End.Equal(s.name.End) && f.Token != s.token {
			return f.File, true
		}
	}
	return "", false
}

// uncontested waits for other claims to this second to be taken back, which a
// run does at once if it has seen this one's, and returns a listing without
// them. One that stays is of a run that has not seen this one.
func (s *setWriter) uncontested(ctx context.Context) ([]chain.Stored, error) {
	for look := 1; ; look++ {
		files, err := s.st.List(ctx)
		if err != nil {
			return nil, err
		}
		name, taken := s.claimed(files)
		if !taken {
			return files, nil
		}
		if look == claimLooks {
			s.started = nil // whose they are cannot be told
			return nil, fmt.Errorf("%s: %w", name, ErrRival)
		}
		if err := pause(ctx, claimPause); err != nil {
			return nil, err
		}
	}
}
