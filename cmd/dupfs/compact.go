package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
	"dupfs/chain/backup"
	"dupfs/chain/restore"
	"dupfs/chain/snapshot"
)

func compactCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "compact",
		Usage:     "make a new full set of the newest backup, from what is stored, and verify it; the source is not needed",
		ArgsUsage: "URL",
		Description: `dupfs compact sftp://backup@host/archive
dupfs remove-all-but-n-full 1 --force sftp://backup@host/archive     # if the older points may go

A chain that only ever grows is as weak as its weakest set, and nothing of it can be
removed. compact begins a new chain with a full set that holds what the newest backup
holds; the next increment builds on it. Nothing old is removed.`,
		Flags: slices.Concat(archiveFlags(), []cli.Flag{
			&cli.Int64Flag{Name: "volsize", Value: 200, Usage: "size of volumes in `MiB`"},
			&cli.IntFlag{Name: "concurrency", Value: 1, Usage: "volumes uploaded at a time"},
			dryRunFlag(), currentTimeFlag(),
		}),
		Action: func(c *cli.Context) error { return runCompact(c.Context, e, c) },
	}
}

func runCompact(ctx context.Context, e *environ, c *cli.Context) error {
	args, err := positionals(c, 1, 1, "URL")
	if err != nil {
		return err
	}
	a, err := e.open(ctx, c, args[0])
	if err != nil {
		return err
	}
	defer a.Close()
	old, base, err := a.toCompact(ctx)
	if err != nil || base == nil {
		return err
	}
	sets := base.Chain().Sets
	if c.Bool("dry-run") {
		fmt.Fprintf(e.stdout, "would make %s, %s, into a full set\n", plural(int64(len(sets)), "set"), size(storedBytes(sets)))
		return nil
	}
	if err := a.oneSecret(ctx, c, false); err != nil {
		return err
	}
	unlock, err := a.lock()
	if err != nil {
		return err
	}
	defer unlock()
	stats, err := a.compact(ctx, c, old, base)
	if err != nil {
		return backupError(err, stats)
	}
	if err := a.sameAsBefore(ctx, old); err != nil {
		return a.withdraw(ctx, stats.Set, err)
	}
	fmt.Fprintf(e.stdout, "%s, %s, made into a full set of %s, verified; its time is %s\n", plural(int64(len(sets)), "set"),
		size(storedBytes(sets)), size(stats.DestinationSize), stamp(stats.Set.End))
	fmt.Fprintln(e.stdout, "the older chain stays until it is removed, for example with dupfs remove-all-but-n-full 1 --force URL")
	return nil
}

// toCompact returns the newest point and its sets; no base if they are one full
// set already.
func (a *archive) toCompact(ctx context.Context) (chain.Point, *snapshot.Base, error) {
	points, err := a.points(ctx)
	if err != nil {
		return chain.Point{}, nil, err
	}
	newest := points[len(points)-1]
	base, err := a.snapshot.Base(ctx)
	if err != nil {
		return newest, nil, fmt.Errorf("the newest backup: %w", err)
	}
	sets := base.Chain().Sets
	switch {
	case newest.Damage != "":
		return newest, nil, fail(exitDamaged, fmt.Errorf("the newest backup is damaged: %s", newest.Damage), "make a full backup of the source: dupfs full SOURCE URL")
	case !sets[len(sets)-1].End.Equal(newest.Time):
		return newest, nil, fail(exitDamaged, fmt.Errorf("the backup of %s is not one to build on", stamp(newest.Time)), "`dupfs status URL` says why")
	case len(sets) == 1:
		fmt.Fprintln(a.env.stdout, "the newest backup is a full set already, nothing to do")
		return newest, nil, nil
	}
	return newest, base, nil
}

func storedBytes(sets []*chain.Set) (sum int64) {
	for _, s := range sets {
		for _, f := range s.Files() {
			sum += max(f.Size, 0)
		}
	}
	return sum
}

// compact writes the new set.
func (a *archive) compact(ctx context.Context, c *cli.Context, old chain.Point, base *snapshot.Base) (*backup.Stats, error) {
	e := a.env
	tree, err := a.treeAt(ctx, old)
	if err != nil {
		return nil, err
	}
	sets := base.Chain().Sets
	m, err := a.manifest(ctx, sets[len(sets)-1])
	if err != nil {
		return nil, err
	}
	known, err := newKnownSpool(c.String("tempdir"))
	if err != nil {
		return nil, err
	}
	defer known.close()
	p := &backup.Progress{}
	from := backup.Origin{Forest: a.snapshot, Tree: tree, Base: &baseAdapter{base}}
	size := e.count(ctx, func(ctx context.Context) (int64, error) { return treeSize(ctx, tree, chain.Root) })
	defer size.stop()
	stop := e.follow("compact", func() progress { return backupProgress(p, true, size) })
	stats, err := backup.Compact(ctx, from, a.store, backup.Options{
		Now: old.Time, Last: a.newest(), Layer: layer(c), Hostname: m.Hostname, Localdir: m.Localdir,
		VolSize: c.Int64("volsize") << 20, Uploads: c.Int("concurrency"), Memory: backupMemory, TempDir: c.String("tempdir"),
		Progress: p, Notice: func(n backup.Notice) { e.backupNotice("", n) }, OnKnown: known.add, OnIndex: a.extend,
	})
	stop()
	if err == nil {
		a.learn(ctx, known, stats.IndexErr)
	}
	return stats, err
}

// sameAsBefore reads all of the newest point from its new set and compares it
// with the old point.
func (a *archive) sameAsBefore(ctx context.Context, old chain.Point) error {
	if err := a.snapshot.Refresh(ctx); err != nil {
		return err
	}
	points, err := a.points(ctx)
	if err != nil {
		return err
	}
	made := points[len(points)-1]
	before, err := a.treeAt(ctx, old)
	if err != nil {
		return err
	}
	after, err := a.treeAt(ctx, made)
	if err != nil {
		return err
	}
	if err := sameTrees(ctx, before, after); err != nil {
		return err
	}
	counts := &restore.Progress{}
	stop := a.env.follow("verify", func() progress { return progress{done: counts.Bytes.Load()} })
	report, err := restore.Verify(ctx, a.snapshot, after, chain.Root, "", restore.VerifyOptions{
		Progress: counts, Warn: func(p chain.Path, err error) { a.env.warn("%s: %v", p, err) },
	})
	stop()
	if err == nil && report.Failed > 0 {
		err = fmt.Errorf("%s not as it was written", pluralWas(report.Failed))
	}
	return err
}

// sameTrees compares the entries of two points.
func sameTrees(ctx context.Context, before, after chain.Tree) error {
	a, err := lookup(ctx, before, chain.Root)
	if err != nil {
		return err
	}
	b, err := lookup(ctx, after, chain.Root)
	if err != nil {
		return err
	}
	return sameNodes(ctx, before, after, a, b)
}

func sameNodes(ctx context.Context, before, after chain.Tree, a, b chain.Node) error {
	if !sameEntry(a, b) {
		return chain.Corrupt(a.Path.String(), "is not as it was in the set before")
	}
	if a.Type != chain.Dir {
		return nil
	}
	for from := ""; ; {
		olds, err := somePage(ctx, before, a, from, true)
		if err != nil {
			return err
		}
		news, err := somePage(ctx, after, b, from, true)
		if err != nil {
			return err
		}
		if len(olds) != len(news) {
			return chain.Corrupt(a.Path.String(), "does not hold what it held in the set before")
		}
		for i := range olds {
			if err := sameNodes(ctx, before, after, olds[i], news[i]); err != nil {
				return err
			}
		}
		if len(olds) < childPage {
			return nil
		}
		from = olds[len(olds)-1].Name
	}
}

// sameEntry compares all that is kept of an entry.
func sameEntry(a, b chain.Node) bool {
	facts := func(n chain.Node) string {
		e := n.Entry
		return fmt.Sprint(n.Name, e.Type, e.Mode, e.UID, e.GID, e.User, e.Group, e.Mtime, e.Size, e.Link, e.Major, e.Minor, e.LinkGroup, e.Data)
	}
	return facts(a) == facts(b) && (!a.HasHash || !b.HasHash || a.Hash == b.Hash) &&
		slices.EqualFunc(a.Xattrs, b.Xattrs, func(x, y chain.Xattr) bool { return x.Name == y.Name && bytes.Equal(x.Value, y.Value) })
}

// withdraw removes a new set that is not what it should be, the manifest first,
// so that nothing is ever built on it.
func (a *archive) withdraw(ctx context.Context, s *chain.Set, why error) error {
	ctx = context.WithoutCancel(ctx)
	for _, f := range s.Files() {
		if err := a.store.Delete(ctx, f); err != nil {
			why = errors.Join(why, fmt.Errorf("%s could not be removed again: %w", f.File, err))
		}
	}
	return fail(exitDamaged, fmt.Errorf("the new set is not what it should be and was removed, the archive is as before: %w", why),
		"`dupfs verify URL` tells whether the archive is sound")
}
