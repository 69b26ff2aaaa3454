package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"dupfs/backends"
	"dupfs/chain"
	"dupfs/chain/backup"
	"dupfs/chain/repair"
	"dupfs/chain/selection"
	"dupfs/chain/snapshot"
)

// journal returns where the journal of a backup is.
func (a *archive) journal() string { return filepath.Join(a.dir, "journal") }

// owner says how sets are written: one that was interrupted is only gone on
// with in the same way.
func (a *archive) owner(c *cli.Context) string {
	p := a.store.Prefixes()
	o := a.openpgp
	return strings.Join([]string{layer(c).String(), p.All, p.Archive, p.Manifest, p.Signature, o.sign,
		strings.Join(o.to, ","), strings.Join(o.hidden, ",")}, "\x00")
}

// goOn finishes the backup that was interrupted, if there is one and it fits to
// what is asked for; else it removes what that left. It reports whether a set
// came of it: then what is asked for is what has changed since.
func (a *archive) goOn(ctx context.Context, c *cli.Context, verb, src string, sel *selection.Selection) (bool, error) {
	in, err := a.readJournal(a.journal())
	if in == nil && (err != nil || !c.Bool("resume-from-store")) {
		return false, err
	}
	files, err := a.store.List(ctx)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("%s: %w", a.shown, err)
	}
	rebuilt := in == nil
	if rebuilt {
		if done, err := a.onlyManifest(ctx, c, verb, src, files); done || err != nil {
			return done, err
		}
		if in, err = a.rebuildJournal(ctx, c, verb, src, files); in == nil {
			return false, err
		}
	}
	base, err := a.fits(ctx, c, in, verb, src, files)
	if err == nil {
		err = a.finish(ctx, c, in, src, sel, base)
		for errors.Is(err, backup.ErrMoved) && in.Back() {
			if err = in.Ready(ctx, a.store, files); err == nil {
				err = a.finish(ctx, c, in, src, sel, base)
			}
		}
	}
	var not unfitError
	switch {
	case errors.Is(err, backup.ErrComplete):
		return true, in.Forget()
	case errors.As(err, &not):
		a.env.warn("the backup of %s, which was interrupted, is not gone on with: %v", stamp(in.Set.End), not.error)
		if rebuilt { // it is not this machine's to remove
			return false, in.Forget()
		}
		return false, a.discard(ctx, in, files)
	}
	return err == nil, err
}

// onlyManifest stores the manifest of the newest set if nothing but that is
// missing of it, which what is stored after its volumes shows.
func (a *archive) onlyManifest(ctx context.Context, c *cli.Context, verb, src string, files []chain.Stored) (bool, error) {
	col := chain.Collect(files)
	if len(col.Incomplete) == 0 {
		return false, nil
	}
	s := col.Incomplete[len(col.Incomplete)-1]
	if s.Sigtar == nil || !continues(col, s) {
		return false, nil
	}
	if !s.Full { // its source must be that of the chain
		if base, err := a.incrementOn(ctx, c, verb, src); base == nil || err != nil {
			return false, err
		}
	}
	err := repair.Manifest(ctx, a.store, s, shortHostname(), selection.Source(src))
	if err != nil && ctx.Err() == nil {
		a.env.warn("the backup of %s has no manifest, and gets none: %v", stamp(s.End), err)
		a.env.hint("`dupfs doctor URL` says what can be done")
		return false, nil
	}
	if err == nil && a.snapshot != nil {
		err = a.snapshot.Refresh(ctx)
	}
	return err == nil, err
}

// incrementOn returns what an increment builds on; nil if a full backup is asked
// for, or due.
func (a *archive) incrementOn(ctx context.Context, c *cli.Context, verb, src string) (*snapshot.Base, error) {
	if _, err := a.points(ctx); err != nil {
		return nil, err
	}
	if full, err := a.wantsFull(c, verb); err != nil || full {
		return nil, err
	}
	return a.base(ctx, c, "incremental", src)
}

// shortHostname is the name of this machine as manifests have it; "" if it has
// none.
func shortHostname() string {
	h, _ := os.Hostname() // as if it were not known
	h, _, _ = strings.Cut(h, ".")
	return h
}

// rebuildJournal makes the journal of the newest backup that was interrupted from
// what is stored of it. nil: there is none, or none to go on with.
func (a *archive) rebuildJournal(ctx context.Context, c *cli.Context, verb, src string, files []chain.Stored) (*backup.Interrupted, error) {
	col := chain.Collect(files)
	s := lastUnfinished(col)
	if s == nil {
		return nil, nil
	}
	abs, err := filepath.Abs(src)
	if err != nil {
		return nil, err
	}
	o := backup.RebuildOptions{Source: abs, Owner: a.owner(c), MaxBlock: c.Int("max-blocksize"), TempDir: c.String("tempdir")}
	if !s.Full {
		base, err := a.incrementOn(ctx, c, verb, src)
		if base == nil || err != nil {
			return nil, err
		}
		on := &baseAdapter{base}
		o.Base, o.Content = on, on.content
	}
	a.env.tell("Reading what is stored of the backup of %s, which was interrupted: %s, %s.", stamp(s.End), plural(int64(len(s.Volumes)), "volume"), size(storedSize(s.Volumes)))
	err = backup.Rebuild(ctx, a.store, s, col.Claims, a.journal(), o)
	if errors.Is(err, backup.ErrNotRebuilt) {
		a.env.warn("the backup of %s, which was interrupted, is not gone on with: %v", stamp(s.End), err)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the backup of %s, which was interrupted, cannot be gone on with: %w", stamp(s.End), err)
	}
	return a.readJournal(a.journal())
}

// lastUnfinished returns the newest set of which there are only volumes, nil if
// there is none after the last backup. One with signatures or an index, or that
// others build on, was whole and has lost its manifest: that is for doctor.
func lastUnfinished(col *chain.Collection) *chain.Set {
	for _, s := range slices.Backward(col.Incomplete) {
		builtOn := slices.ContainsFunc(slices.Concat(col.Orphaned, col.Incomplete), func(o *chain.Set) bool { return !o.Full && o.Start.Equal(s.End) })
		if continues(col, s) && !builtOn && s.Sigtar == nil && s.Index == nil && len(s.Volumes) > 0 && s.Volumes[0].Volume == 1 {
			return s
		}
	}
	return nil
}

// continues reports whether a set without a manifest would be the newest one with
// it: it is a full one, or an increment on the newest, and none is newer.
func continues(col *chain.Collection, s *chain.Set) bool {
	base := col.Base()
	if !s.Full && (len(base) == 0 || !base[len(base)-1].End.Equal(s.Start)) {
		return false
	}
	return !slices.ContainsFunc(col.Chains, func(ch *chain.Chain) bool { return !ch.End().Before(s.End) })
}

func storedSize(files []chain.Stored) (n int64) {
	for _, f := range files {
		n += max(f.Size, 0)
	}
	return n
}

// hintUnfinished tells, before a backup is begun, of one of dupfs to go on with,
// of which nothing is known here.
func (a *archive) hintUnfinished(ctx context.Context, c *cli.Context) {
	if a.snapshot == nil || c.Bool("resume-from-store") {
		return
	}
	s := lastUnfinished(a.snapshot.Collection())
	if s == nil {
		return
	}
	if _, err := a.store.Trailer(ctx, s.Volumes[0]); err != nil {
		return // of duplicity, or not to be read now
	}
	a.env.hint(fmt.Sprintf("the backup of %s did not finish, and left %s, %s: if it runs nowhere any more, --resume-from-store reads them and goes on with it",
		stamp(s.End), plural(int64(len(s.Volumes)), "volume"), size(storedSize(s.Volumes))))
}

// readJournal reads a journal; nil if there is none, or none that means
// anything, which is removed.
func (a *archive) readJournal(path string) (*backup.Interrupted, error) {
	in, err := backup.ReadJournal(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		a.env.note(fmt.Sprintf("what an interrupted run left cannot be gone on with: %v", err))
		return nil, os.Remove(path)
	}
	return in, nil
}

// discard removes what an interrupted run left.
func (a *archive) discard(ctx context.Context, in *backup.Interrupted, files []chain.Stored) error {
	err := in.Discard(ctx, a.store, files)
	if err == nil && a.snapshot != nil {
		err = a.snapshot.Refresh(ctx) // its second is free again
	}
	return err
}

// unfitError is why an interrupted backup cannot be gone on with.
type unfitError struct{ error }

func (e unfitError) Unwrap() error { return e.error }

func unfit(format string, args ...any) error { return unfitError{fmt.Errorf(format, args...)} }

// fits checks that an interrupted backup can be gone on with, and returns what
// it is built on.
func (a *archive) fits(ctx context.Context, c *cli.Context, in *backup.Interrupted, verb, src string, files []chain.Stored) (*snapshot.Base, error) {
	abs, err := filepath.Abs(src)
	if err != nil {
		return nil, err
	}
	if _, err := a.points(ctx); err != nil && !errors.Is(err, errNoBackups) {
		return nil, err
	}
	switch old, err := a.wantsFull(c, verb); {
	case err != nil:
		return nil, err
	case in.Source != abs:
		return nil, unfit("it was of %s", in.Source)
	case in.Owner != a.owner(c):
		return nil, unfit("it was written with other keys or options")
	case old && !in.Set.Full:
		return nil, unfit("a full backup is due")
	}
	if err := in.Ready(ctx, a.store, files); errors.Is(err, backup.ErrComplete) {
		return nil, err
	} else if err != nil {
		return nil, unfitError{err}
	}
	if !a.newest().Before(in.Set.End) {
		return nil, unfit("there is a newer backup")
	}
	if err := a.opensKept(ctx, c, in); err != nil {
		return nil, err
	}
	if in.Set.Full {
		return nil, a.oneSecret(ctx, c, false)
	}
	sets := a.snapshot.Collection().Base()
	if len(sets) == 0 || !sets[len(sets)-1].End.Equal(in.Set.Start) {
		return nil, unfit("the backup that it builds on is not the newest any more")
	}
	return a.base(ctx, c, "incremental", src)
}

// wantsFull reports whether a full backup is asked for, or is due.
func (a *archive) wantsFull(c *cli.Context, verb string) (bool, error) {
	if verb == "full" || verb == "incremental" || len(a.chains()) == 0 {
		return verb == "full", nil
	}
	return a.tooOld(c)
}

// opensKept makes sure that the passphrase in hand opens what the interrupted
// backup stored: a set has one.
func (a *archive) opensKept(ctx context.Context, c *cli.Context, in *backup.Interrupted) error {
	if in.Layer != chain.OpenPGP || a.openpgp.public() {
		return nil
	}
	first := in.Kept[0]
	_, err := a.store.Trailer(ctx, first)
	if err == nil {
		err = a.samePassphrase(ctx, c, first)
	}
	if err != nil && !errors.Is(err, backends.ErrArchived) { // which nothing can open for now
		return fmt.Errorf("the backup of %s was interrupted, and cannot be gone on with: %w", stamp(in.Set.End), err)
	}
	return nil
}

// finish completes an interrupted backup.
func (a *archive) finish(ctx context.Context, c *cli.Context, in *backup.Interrupted, src string, sel *selection.Selection, base *snapshot.Base) error {
	a.env.tell("Going on with the backup of %s, which was interrupted: %s there.", stamp(in.Set.End), plural(int64(len(in.Kept)), "volume"))
	stats, err := a.backup(ctx, c, src, sel, base, in, false)
	if errors.Is(err, backup.ErrJournal) || errors.Is(err, backup.ErrMoved) {
		return unfitError{err}
	}
	if err != nil {
		return backupError(err, stats)
	}
	a.env.tellStatistics(c, stats)
	return a.snapshot.Refresh(ctx)
}

// keptError is the error of a backup that another run can go on with.
type keptError struct {
	error
	volumes int
}

func (e *keptError) Unwrap() error { return e.error }

// kept says that nothing of what was uploaded is lost.
func (e *keptError) kept() string {
	return fmt.Sprintf("%s stored so far: the next run goes on from there", plural(int64(e.volumes), "volume"))
}
