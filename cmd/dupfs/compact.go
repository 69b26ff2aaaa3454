package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/urfave/cli/v2"

	"dupfs/backends"
	"dupfs/chain"
	"dupfs/chain/backup"
	"dupfs/chain/restore"
	"dupfs/chain/snapshot"
	"dupfs/chain/store"
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
holds; the next increment builds on it. Nothing old is removed. The set exists only
once it has been read back and compared. If it is interrupted, run it again: it goes
on with the volumes that are there.`,
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
	if !c.Bool("dry-run") {
		unlock, err := a.lock()
		if err != nil {
			return err
		}
		defer unlock()
	}
	old, base, err := a.toCompact(ctx)
	if err != nil {
		return err
	}
	if base == nil {
		return a.giveUpCompact(ctx, c)
	}
	sets := base.Chain().Sets
	if c.Bool("dry-run") {
		fmt.Fprintf(e.stdout, "would make %s, %s, into a full set\n", plural(int64(len(sets)), "set"), size(storedBytes(sets)))
		return nil
	}
	if err := a.oneSecret(ctx, c, false); err != nil {
		return err
	}
	stats, err := a.goOnCompact(ctx, c, old, base)
	if err == nil && stats == nil {
		stats, err = a.compact(ctx, c, old, base, nil)
	}
	if err != nil {
		return compactError(err, stats)
	}
	fmt.Fprintf(e.stdout, "%s, %s, made into a full set of %s, verified; its time is %s\n", plural(int64(len(sets)), "set"),
		size(storedBytes(sets)), size(stats.DestinationSize), stamp(stats.Set.End))
	fmt.Fprintln(e.stdout, "the older chain stays until it is removed, for example with dupfs remove-all-but-n-full 1 --force URL")
	return nil
}

// compactError says what a compaction that failed left.
func compactError(err error, stats *backup.Stats) error {
	if errors.Is(err, backup.ErrUnsound) {
		return fail(exitDamaged, fmt.Errorf("the archive is as before: %w", err), "`dupfs verify URL` tells whether the archive is sound")
	}
	return backupError(err, stats)
}

// compactJournal returns where the journal of a compaction is.
func (a *archive) compactJournal() string { return filepath.Join(a.dir, "journal.compact") }

// goOnCompact finishes the compaction that was interrupted, if there is one and
// it fits to what is asked for; else it removes what that left, and returns no
// statistics.
func (a *archive) goOnCompact(ctx context.Context, c *cli.Context, old chain.Point, base *snapshot.Base) (*backup.Stats, error) {
	in, err := a.readJournal(a.compactJournal())
	if in == nil {
		return nil, err
	}
	files, err := a.store.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.shown, err)
	}
	switch {
	case in.Source != backup.Compacted(old.Time) || !in.Set.Full:
		err = unfit("it was of another backup")
	case in.Owner != a.owner(c):
		err = unfit("it was written with other keys or options")
	default:
		err = in.Ready(ctx, a.store, files)
	}
	var stats *backup.Stats
	if err == nil {
		if err := a.opensKept(ctx, c, in); err != nil {
			return nil, err
		}
		stats, err = a.finishCompact(ctx, c, old, base, in)
		for errors.Is(err, backup.ErrMoved) && in.Back() {
			if err = in.Ready(ctx, a.store, files); err == nil {
				stats, err = a.finishCompact(ctx, c, old, base, in)
			}
		}
		if err == nil || !errors.Is(err, backup.ErrJournal) && !errors.Is(err, backup.ErrMoved) {
			return stats, err
		}
	}
	if !errors.Is(err, backup.ErrComplete) {
		a.env.warn("the set of %s, which was interrupted, is not gone on with: %v", stamp(in.Set.End), err)
	}
	return nil, a.discard(ctx, in, files)
}

// finishCompact completes an interrupted compaction.
func (a *archive) finishCompact(ctx context.Context, c *cli.Context, old chain.Point, base *snapshot.Base, in *backup.Interrupted) (*backup.Stats, error) {
	a.env.tell("Going on with the compaction that was interrupted: %s there.", plural(int64(len(in.Kept)), "volume"))
	return a.compact(ctx, c, old, base, in)
}

// giveUpCompact removes what an interrupted compaction left when there is
// nothing to compact any more.
func (a *archive) giveUpCompact(ctx context.Context, c *cli.Context) error {
	if c.Bool("dry-run") {
		return nil
	}
	in, err := a.readJournal(a.compactJournal())
	if in == nil {
		return err
	}
	files, err := a.store.List(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", a.shown, err)
	}
	return a.discard(ctx, in, files)
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

// compact writes the new set, or goes on with in. The set exists only once it
// was read back and compared.
func (a *archive) compact(ctx context.Context, c *cli.Context, old chain.Point, base *snapshot.Base, in *backup.Interrupted) (*backup.Stats, error) {
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
	size := e.count(ctx, false, func(ctx context.Context) (int64, error) { return treeSize(ctx, tree, chain.Root) })
	defer size.stop()
	stop := sync.OnceFunc(e.follow("compact", func() progress { return backupProgress(p, true, size) }))
	stats, err := backup.Compact(ctx, from, a.store, backup.Options{
		Now: old.Time, Last: a.newest(), Taken: a.taken(), Layer: layer(c), Hostname: m.Hostname, Localdir: m.Localdir,
		VolSize: c.Int64("volsize") << 20, Uploads: c.Int("concurrency"), Memory: backupMemory, TempDir: c.String("tempdir"),
		Progress: p, Notice: func(n backup.Notice) { e.backupNotice("", n) }, OnKnown: known.add, OnIndex: a.extend,
		Journal: a.compactJournal(), Owner: a.owner(c), Resume: in,
		Verify: func(ctx context.Context, s *chain.Set, m io.ReaderAt) error {
			stop()
			return a.sameAsBefore(ctx, c, old, s, m)
		},
	})
	stop()
	if stats.JournalErr != nil {
		e.note(fmt.Sprintf("the journal: %v", stats.JournalErr))
	}
	if err == nil {
		a.learn(ctx, known, stats.IndexErr)
	}
	return stats, err
}

// sameAsBefore reads all of a set that does not exist yet, as what has its
// manifest, and compares it with the old point. What is wrong with it is
// backup.ErrUnsound.
func (a *archive) sameAsBefore(ctx context.Context, c *cli.Context, old chain.Point, s *chain.Set, manifest io.ReaderAt) error {
	made, err := a.unborn(ctx, c, s, manifest)
	if err != nil {
		return err
	}
	defer made.Close()
	err = a.compare(ctx, old, made)
	var corrupt *chain.CorruptError
	if errors.As(err, &corrupt) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, backends.ErrArchived) {
		err = fmt.Errorf("%w, and was removed: %w", backup.ErrUnsound, err)
	}
	return err
}

// compare compares the only point of made with the old one, and reads all of it.
func (a *archive) compare(ctx context.Context, old chain.Point, made *archive) error {
	points, err := made.snapshot.Points(ctx)
	if err != nil {
		return err
	}
	if len(points) != 1 || points[0].Damage != "" {
		return chain.Corrupt("the new set", fmt.Sprintf("shows %d backups", len(points)))
	}
	before, err := a.treeAt(ctx, old)
	if err != nil {
		return err
	}
	after, err := made.treeAt(ctx, points[0])
	if err != nil {
		return err
	}
	if err := sameTrees(ctx, before, after); err != nil {
		return err
	}
	counts := &restore.Progress{}
	stop := a.env.follow("verify", func() progress { return progress{done: counts.Bytes.Load()} })
	report, err := restore.Verify(ctx, made.snapshot, after, chain.Root, "", restore.VerifyOptions{
		Progress: counts, Warn: func(p chain.Path, err error) { a.env.warn("%s: %v", p, err) },
	})
	stop()
	if err == nil && report.Failed > 0 {
		err = chain.Corrupt("the new set", pluralWas(report.Failed)+" not as it was written")
	}
	return err
}

// unborn opens an archive of one set, whose manifest is not stored yet. Its
// catalog is beside that of the archive, where the next one removes it if this
// process dies.
func (a *archive) unborn(ctx context.Context, c *cli.Context, s *chain.Set, manifest io.ReaderAt) (*archive, error) {
	o, err := a.env.storeOptions(c, a)
	if err != nil {
		return nil, err
	}
	o.Keys, o.Disk, o.Memory = a.keys, nil, verifyMemory
	made := &archive{url: a.url, shown: a.shown, dir: filepath.Join(a.dir, "verify"), openpgp: a.openpgp, keys: a.keys, env: a.env}
	if err := os.RemoveAll(made.dir); err != nil {
		return nil, err
	}
	if err := os.Mkdir(made.dir, 0o700); err != nil {
		return nil, err
	}
	made.closers = append(made.closers, func() error { return os.RemoveAll(made.dir) })
	made.store = store.New(&oneSet{a.store.Backend(), s, manifest}, o)
	made.closers = append(made.closers, made.store.Close)
	if _, err := made.points(ctx); err != nil {
		return nil, errors.Join(err, made.Close())
	}
	return made, nil
}

// verifyMemory is the budget of decoded chunks when a new set is read back, in
// bytes: it is read in order.
const verifyMemory = 32 << 20

// oneSet is a store that holds one set alone, whose manifest is not stored yet.
type oneSet struct {
	backends.Backend
	set      *chain.Set
	manifest io.ReaderAt
}

// List implements backends.Backend.
func (o *oneSet) List(context.Context) (files []backends.File, err error) {
	for _, f := range o.set.Files() {
		files = append(files, backends.File{Name: f.File, Size: f.Size})
	}
	return files, nil
}

// Open implements backends.Backend.
func (o *oneSet) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if name != o.set.Manifest.File {
		return o.Backend.Open(ctx, name, off, n)
	}
	left := max(o.set.Manifest.Size-off, 0)
	if n >= 0 {
		left = min(n, left)
	}
	return io.NopCloser(io.NewSectionReader(o.manifest, off, left)), nil
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
		for i, c := range olds {
			c.Path = a.Path.Join(c.Name)
			if err := sameNodes(ctx, before, after, c, news[i]); err != nil {
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
