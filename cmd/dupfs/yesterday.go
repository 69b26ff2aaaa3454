package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
	"dupfs/chain/restore"
)

func yesterdayCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "yesterday",
		Usage:     "write FILE, which is backed up, as it was yesterday to standard output",
		ArgsUsage: "[URL] FILE",
		Description: `dupfs yesterday letter.txt            as it was a day ago
dupfs yesterday -t 1W letter.txt       a week ago
dupfs yesterday -d letter.txt          what changed since: diff -u
dupfs yesterday -o old letters         restored, also a directory
The archive is the one in the configuration whose source FILE lies in, or that
of DUPFS_URL.`,
		Flags: slices.Concat(archiveFlags(), ownerFlags(), []cli.Flag{
			&cli.StringFlag{Name: "time", Aliases: []string{"restore-time", "t"}, Value: "1D", Usage: "the newest backup not after `TIME`"},
			&cli.BoolFlag{Name: "diff", Aliases: []string{"d"}, Usage: "show what changed since then; exit status 1 if anything did"},
			outputFlag(), forceFlag(), colorFlag(), currentTimeFlag(),
		}),
		Action: func(c *cli.Context) error { return runYesterday(c.Context, e, c) },
	}
}

func runYesterday(ctx context.Context, e *environ, c *cli.Context) error {
	args, err := positionals(c, 2, 2, "[URL] FILE")
	if err != nil {
		return err
	}
	a, err := e.open(ctx, c, args[0])
	if err != nil {
		return err
	}
	defer a.Close()
	p, err := a.livePath(ctx, args[1])
	if err != nil {
		return err
	}
	tree, point, err := a.tree(ctx, c)
	if err != nil {
		return err
	}
	e.note(fmt.Sprintf("%s as of %s", args[1], stamp(point.Time)))
	switch target := c.String("output"); {
	case c.Bool("diff"):
		err = a.diffSince(ctx, c, tree, p, args[1])
	case target != "":
		err = a.restoreTo(ctx, c, tree, p, target)
	default:
		if err = catFile(ctx, e.stdout, a.snapshot, tree, p); err != nil && !isMissing(err) {
			err = fmt.Errorf("%s: %w", p, err)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fail(exitNoPath, fmt.Errorf("%s was not there in the backup of %s", args[1], stamp(point.Time)), "`dupfs history "+printable(args[1])+"` shows when it was")
	}
	return err
}

// diffSince compares a file as it was with the live one.
func (a *archive) diffSince(ctx context.Context, c *cli.Context, tree chain.Tree, p chain.Path, file string) error {
	old, err := lookup(ctx, tree, p)
	if err != nil {
		return err
	}
	new, err := liveNode(file, p)
	if err != nil {
		return err
	}
	if new != nil { // owners by number are not worth a line here
		new.UID, new.GID = old.UID, old.GID
	}
	if old.Type == chain.Dir {
		return usagef("%s is a directory: `dupfs diff -u URL 1D now PATH` compares backups, `dupfs verify --compare-data` a backup with it", file)
	}
	out := bufio.NewWriter(a.env.stdout)
	counter := &countWriter{w: out}
	u := &unified{forest: liveForest{a.snapshot, file}, out: counter, screen: a.env.screen}
	if u.paint, err = a.env.painter(c); err != nil {
		return err
	}
	same := false
	if new != nil && old.Type == new.Type && old.Type == chain.File {
		old.HasHash = false
		if same, err = u.sameContent(ctx, &old, new); err != nil {
			return err
		}
	}
	if !same {
		err = u.show(ctx, &old, new)
	}
	if err := errors.Join(err, out.Flush()); err != nil {
		return err
	}
	if counter.n > 0 {
		return fail(exitGeneric, errSaid, "")
	}
	return nil
}

// countWriter counts what is written.
type countWriter struct {
	w *bufio.Writer
	n int64
}

func (w *countWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.n += int64(n)
	return n, err
}

// restoreTo restores a path under another name.
func (a *archive) restoreTo(ctx context.Context, c *cli.Context, tree chain.Tree, p chain.Path, target string) error {
	report, err := restore.Run(ctx, a.snapshot, tree, p, target, restore.Options{
		Force: c.Bool("force"), NumericOwner: c.Bool("numeric-owner"), NoOwner: c.Bool("no-restore-ownership"),
		Warn: func(p chain.Path, err error) { a.env.warn("%s: %v", p, err) },
	})
	switch {
	case err != nil:
		return err
	case report.Failed > 0:
		return fail(exitDamaged, fmt.Errorf("%s not restored", pluralWas(report.Failed)), "the warnings above name it")
	case report.Warnings > 0:
		return fail(exitIncomplete, fmt.Errorf("everything was restored, but %s could not be set", plural(report.Warnings, "attribute")),
			"the warnings above name them; owners need root, or --no-restore-ownership")
	}
	return nil
}
