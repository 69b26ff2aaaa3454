package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync/atomic"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
	"dupfs/chain/audit"
)

func replicateCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "replicate",
		Usage:     "copy the archive to another place, set by set, verified; what is there already stays",
		ArgsUsage: "URL URL",
		Description: `dupfs replicate file:///mnt/disk/home swift://home
dupfs replicate --time 2026-11-01 URL URL        # only backups up to then

The stored files are copied as they are: with the same passphrase or keys, and no
secret is needed for volumes. A set that is not whole is left out. Run it again after
each backup: it copies what is new.`,
		Flags:  slices.Concat(archiveFlags(), []cli.Flag{timeFlag(), dryRunFlag(), currentTimeFlag()}),
		Action: func(c *cli.Context) error { return runReplicate(c.Context, e, c) },
	}
}

func runReplicate(ctx context.Context, e *environ, c *cli.Context) error {
	args, err := positionals(c, 2, 2, "URL URL")
	if err != nil {
		return err
	}
	if args[0] == args[1] {
		return usagef("replicate: both URLs are the same")
	}
	from, err := e.openStore(ctx, c, args[0])
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := e.openStore(ctx, c, args[1])
	if err != nil {
		return err
	}
	defer to.Close()
	unlock, err := to.lock()
	if err != nil {
		return err
	}
	defer unlock()
	r := &replica{from: from, to: to, dry: c.Bool("dry-run"), there: map[string]int64{}}
	if err := r.list(ctx, c); err != nil {
		return err
	}
	stop := e.follow("replicate", func() progress { return progress{done: r.bytes.Load(), total: r.total.Load()} })
	err = r.run(ctx)
	stop()
	if err != nil {
		return err
	}
	did := "copied"
	if r.dry {
		did = "would be copied"
	}
	fmt.Fprintf(e.stdout, "%s of %s, %s, %s\n", plural(r.files, "file"), plural(r.sets, "set"), size(r.bytes.Load()), did)
	if r.failed > 0 {
		return fail(exitDamaged, fmt.Errorf("%s not whole and left out", pluralSets(r.failed)), "the warnings above name what is wrong; `dupfs doctor --deep URL` says what can be done")
	}
	return nil
}

func pluralSets(n int64) string {
	if n == 1 {
		return "1 set is"
	}
	return fmt.Sprintf("%d sets are", n)
}

// replica is the state of one replication.
type replica struct {
	from, to *archive
	dry      bool
	order    []*chain.Set
	content  map[*chain.Set][]audit.File
	there    map[string]int64 // what the target has, with sizes

	files, sets, failed int64
	bytes, total        atomic.Int64
}

// list finds out what is to be copied.
func (r *replica) list(ctx context.Context, c *cli.Context) error {
	e := r.from.env
	limit, err := e.parseTime(c, c.String("time"))
	if err != nil {
		return err
	}
	stored, err := r.from.store.List(ctx)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(stored) == 0 {
		return fmt.Errorf("%s: %w", r.from.shown, errNoBackups)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", r.from.shown, err)
	}
	have, err := r.to.store.List(ctx)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", r.to.shown, err)
	}
	for _, f := range have {
		r.there[f.File] = f.Size
	}
	var sets []*chain.Set
	for _, s := range completeSets(chain.Collect(stored)) {
		if !s.End.After(limit) {
			sets = append(sets, s)
		}
	}
	slices.SortStableFunc(sets, func(a, b *chain.Set) int { return a.End.Compare(b.End) })
	files, found, err := audit.List(ctx, r.from.store, sets)
	if err != nil {
		return err
	}
	bad := map[*chain.Set]bool{}
	for _, f := range found {
		switch {
		case errors.Is(f.Err, audit.ErrNoSigtar), errors.Is(f.Err, audit.ErrNoIndex):
		case errors.Is(f.Err, audit.ErrHealable): // or it fails when it is copied
		default:
			e.warn("%s", findingText(f))
			bad[f.Set] = true
		}
	}
	r.plan(sets, files, bad)
	return nil
}

// plan leaves out sets that are not whole, and files that are there.
func (r *replica) plan(sets []*chain.Set, files []audit.File, bad map[*chain.Set]bool) {
	r.content = map[*chain.Set][]audit.File{}
	for _, f := range files {
		if size, ok := r.there[f.File]; ok && (size == f.Size || r.from.store.Lost(f.File)) {
			continue
		}
		r.content[f.Set] = append(r.content[f.Set], f)
	}
	for _, s := range sets {
		switch {
		case bad[s]:
			r.failed++
		case len(r.content[s]) > 0:
			r.order = append(r.order, s)
			// The manifest last: with it the set exists.
			slices.SortStableFunc(r.content[s], func(a, b audit.File) int { return cmp.Compare(rank(a), rank(b)) })
			for _, f := range r.content[s] {
				r.total.Add(max(f.Size, 0))
			}
		}
	}
}

func rank(f audit.File) int {
	if f.Kind == chain.ManifestFile {
		return 1
	}
	return 0
}

// run copies set by set, the oldest first, so that whatever is there at any time
// can be restored.
func (r *replica) run(ctx context.Context) error {
	for _, s := range r.order {
		err := r.set(ctx, s)
		var corrupt *chain.CorruptError
		if err != nil && ctx.Err() == nil && (errors.As(err, &corrupt) || errors.Is(err, errOther) || errors.Is(err, fs.ErrNotExist)) {
			r.from.env.warn("the backup of %s: %v", stamp(s.End), err)
			r.failed++
			continue
		}
		if err != nil {
			return err
		}
		r.sets++
	}
	return nil
}

// sound reads signatures before they are copied: of these alone the manifest has
// no hash.
func (r *replica) sound(ctx context.Context, f audit.File) error {
	if f.Kind != chain.SigtarFile {
		return nil
	}
	err := audit.Check(ctx, r.from.store, f, "")
	if errors.Is(err, audit.ErrHealable) {
		return nil // it is healed when it is copied
	}
	return err
}

// errOther says that the target has something else under a name.
var errOther = errors.New("not copied")

func (r *replica) set(ctx context.Context, s *chain.Set) error {
	for _, f := range r.content[s] {
		if size, ok := r.there[f.File]; ok {
			return fmt.Errorf("%w: %s: %s is there with %d bytes, not %d: one of the two is of another archive, or was cut",
				errOther, r.to.shown, f.File, size, f.Size)
		}
		if !r.dry {
			if err := r.sound(ctx, f); err != nil {
				return err
			}
			if err := r.from.store.CopyTo(ctx, r.to.store, f.Stored, f.SHA1); err != nil {
				return err
			}
		}
		r.files++
		r.bytes.Add(max(f.Size, 0))
	}
	return nil
}
