package backup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"dupfs/backends"
	"dupfs/backends/mem"
	"dupfs/chain"
)

// claimWorld is a world with a small source and a store that replaces what is
// there.
func claimWorld(t *testing.T) (*world, *mem.Backend) {
	w := newWorld(t, chain.Plain)
	w.tiny()
	w.opts.VolSize, w.opts.PieceSize = 7_000, 1_000
	w.small()
	w.stampDirs()
	store := mem.New()
	w.backend = overwriting{store}
	return w, store
}

// twoChains wants two full sets that are whole, and nothing else.
func (w *world) twoChains(store *mem.Backend) {
	w.t.Helper()
	w.backend = store
	st := w.store()
	files, unknown, err := st.ListAll(w.t.Context())
	must(w.t, err)
	c := chain.Collect(files)
	if len(c.Chains) != 2 || len(c.Incomplete)+len(c.Claims)+len(unknown) > 0 {
		w.t.Fatalf("%d chains, left over: %v %v %v", len(c.Chains), c.Incomplete, c.Claims, unknown)
	}
	for _, ch := range c.Chains {
		plain := w.read(st, *ch.Sets[0].Index)
		w.contents = nil
		w.check(st, ch.Sets[0], plain)
	}
}

// TestClaims lets two full backups begin in the same second at a store that
// cannot keep them apart, the second one at several moments of the first: both
// are made, under two names.
func TestClaims(t *testing.T) {
	for _, word := range []string{"dupfs-claim.", ".vol1.", ".vol3.", ".sigtar", ".manifest"} {
		t.Run(word, func(t *testing.T) {
			t.Parallel()
			w, store := claimWorld(t)
			m := &meeting{Backend: store, word: word}
			m.meet = func() {
				other := *w
				other.backend = overwriting{store}
				_, err := other.run(true)
				must(t, err)
			}
			w.backend = overwriting{m}
			_, err := w.run(true)
			must(t, err)
			w.twoChains(store)
		})
	}
}

// crowded is a store that keeps back the first listings until all runs want
// one: each has stored its claim then.
type crowded struct {
	backends.Backend
	wait *sync.WaitGroup
	once *sync.Once // of this run
}

func (c crowded) List(ctx context.Context) ([]backends.File, error) {
	c.once.Do(func() {
		c.wait.Done()
		c.wait.Wait()
	})
	return c.Backend.List(ctx)
}

// TestClaimsAtOnce lets two runs see each other's claims: they part.
func TestClaimsAtOnce(t *testing.T) {
	w, store := claimWorld(t)
	var all sync.WaitGroup
	all.Add(2)
	errs := make(chan error, 2)
	for range 2 {
		other := *w
		other.backend = crowded{overwriting{store}, &all, new(sync.Once)}
		st, o := other.store(), other.options()
		go func() {
			_, err := Run(t.Context(), other.src, st, nil, o)
			errs <- err
		}()
	}
	must(t, errors.Join(<-errs, <-errs))
	w.twoChains(store)
}

// A claim that is seen only once the set is stored, and stays, is of a run that
// has the same names: then nothing is made of either.
func TestLateClaim(t *testing.T) {
	t.Parallel()
	w, store := claimWorld(t)
	late := "dupfs-claim." + chain.FormatTime(time.Unix(w.now, 0)) + ".ffffffffffffffff"
	m := &meeting{Backend: store, word: ".sigtar"}
	m.meet = func() { must(t, store.Put(t.Context(), late, strings.NewReader("x"))) }
	w.backend = overwriting{m}
	if _, err := w.run(true); !errors.Is(err, ErrRival) || !strings.Contains(err.Error(), late) {
		t.Errorf("%v, want ErrRival because of %s", err, late)
	}
	for name := range contents(t, store) {
		if strings.Contains(name, ".manifest") || strings.HasPrefix(name, "dupfs-claim.") && name != late {
			t.Errorf("%s is there", name)
		}
	}
}

// A run that dies leaves its claim, which goes with what else it left.
func TestClaimOfTheDead(t *testing.T) {
	for left := 1; left < 5; left++ {
		w, store := claimWorld(t)
		journal := filepath.Join(w.dir, "journal")
		w.opts.Journal = journal
		g := &grave{Backend: store, t: t, left: left, after: true, journal: journal}
		w.backend = overwriting{g}
		if _, err := w.run(true); !errors.Is(err, errDead) {
			t.Fatal(err)
		}
		store = storedIn(t, g.store)
		must(t, os.WriteFile(journal, g.notes, 0o600))
		claims := 0
		for name := range contents(t, store) {
			claims += strings.Count(name, "dupfs-claim.")
		}
		if claims != 1 {
			t.Errorf("after %d calls: %d claims", left, claims)
		}
		in, err := ReadJournal(journal)
		must(t, err)
		w.backend = overwriting{store}
		files, err := w.store().List(t.Context())
		must(t, err)
		must(t, in.Discard(t.Context(), w.store(), files))
		if left := contents(t, store); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}
