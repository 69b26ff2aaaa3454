package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/urfave/cli/v2"

	"dupfs/backends"
	"dupfs/chain"
	"dupfs/chain/manifest"
	"dupfs/chain/restore"
	"dupfs/chain/selection"
)

func restoreCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "restore",
		Usage:     "write the archive, or a path in it, as it was at a time into DIR",
		ArgsUsage: "URL DIR",
		Description: `dupfs restore URL /srv/restored
dupfs restore --time 3D --path-to-restore home/letters URL ./letters
dupfs restore --salvage --time 3D URL ./found      # of an increment that lost its base, or where only volumes are left`,
		Flags: slices.Concat(archiveFlags(), ownerFlags(), []cli.Flag{timeFlag(), pathFlag(), forceFlag(), renameFlag(), dryRunFlag(), currentTimeFlag(),
			&cli.BoolFlag{Name: "salvage", Usage: "restore what there is also of a backup that builds on one that is missing, or has no manifest"},
			&cli.BoolFlag{Name: "no-sync", Usage: "do not wait until everything is on the disk"}}),
		Action: func(c *cli.Context) error { return runRestore(c.Context, e, c) },
	}
}

func runRestore(ctx context.Context, e *environ, c *cli.Context) error {
	args, err := positionals(c, 2, 2, "URL DIR")
	if err != nil {
		return err
	}
	p, err := archivePath(c.String("path-to-restore"))
	if err != nil {
		return err
	}
	if slices.ContainsFunc(selectionFlags(nil), func(f cli.Flag) bool { return f.Names()[0] != "null-separator" && c.IsSet(f.Names()[0]) }) {
		e.warnAs(message{
			level:  levelWarning,
			format: "Command line warning: Selection options --exclude/--include\ncurrently work only when backing up,not restoring.",
		}, "--include and --exclude mean nothing for a restore: everything is restored; see --path-to-restore")
	}
	if err := freeTarget(args[1]); err != nil && !c.Bool("force") {
		return err
	}
	a, err := e.openSaying(ctx, c, args[0])
	if err != nil {
		return err
	}
	defer a.Close()
	tree, point, err := a.tree(ctx, c)
	if err != nil && point.Orphan && !a.salvage && ctx.Err() == nil {
		return fail(exitDamaged, err, "--salvage restores the files that it holds itself; an older --time may have all")
	}
	if err != nil {
		return err
	}
	if err := a.confirm(ctx, c, point); err != nil {
		return err
	}
	if _, err := lookup(ctx, tree, p); isMissing(err) {
		return notInArchive(p, point)
	}
	if tree, err = rename(ctx, c, tree, p); err != nil {
		return err
	}
	if c.Bool("dry-run") {
		return a.requiredVolumes(ctx, point, p)
	}
	cold, err := a.warnArchived(ctx, c, p, false)
	if err != nil {
		return err
	}
	var flaky atomic.Bool // the store failed, which is no damage
	counts := &restore.Progress{}
	size := e.count(ctx, false, func(ctx context.Context) (int64, error) { return treeSize(ctx, tree, p) })
	defer size.stop()
	stop := e.follow("restore", func() progress { return progress{done: counts.Bytes.Load(), total: size.sum.Load()} })
	volumes := e.countVolumes(a.volumesAt(point), counts, size)
	report, err := restore.Run(ctx, a.snapshot, tree, p, args[1], restore.Options{
		Force:        c.Bool("force"),
		NumericOwner: c.Bool("numeric-owner"),
		NoOwner:      c.Bool("no-restore-ownership"),
		NoSync:       c.Bool("no-sync"),
		Progress:     counts,
		Warn: func(p chain.Path, err error) {
			if errors.Is(err, backends.ErrTransient) {
				flaky.Store(true)
			}
			e.unrestored(p, err)
		},
		Begin: e.restoring(p),
	})
	stop()
	volumes(err == nil)
	switch {
	case err != nil:
		return err
	case point.Orphan:
		return fail(exitDamaged, fmt.Errorf("%s has what the backup of %s holds itself: %s not restored, and what did not change with it is not there",
			args[1], stamp(point.Time), pluralWas(report.Failed)), "the warnings above name those of which it holds the changes only")
	case point.Unsure:
		missing := ""
		if report.Failed > 0 {
			missing = ", and " + pluralWas(report.Failed) + " not restored"
		}
		return fail(exitDamaged, fmt.Errorf("%s has what is left of the backup of %s: nothing shows that this is all of it%s", args[1], stamp(point.Time), missing),
			"compare it with what you expect; --verbosity info names volumes that could not be read")
	case report.Failed > 0 && flaky.Load():
		return fail(exitBackend, fmt.Errorf("%s not restored, as the store failed; the rest is in %s", pluralWas(report.Failed), args[1]),
			"try again later with --force, or see --timeout and --num-retries")
	case report.Failed > 0 && cold > 0:
		return fail(exitBackend, fmt.Errorf("%s not restored, the rest is in %s", pluralWas(report.Failed), args[1]), a.rehydrateHint(c, p))
	case report.Failed > 0:
		return fail(exitDamaged, fmt.Errorf("%s not restored, the rest is in %s", pluralWas(report.Failed), args[1]),
			"the warnings above name it; an older or newer --time may have it intact")
	case report.Warnings > 0:
		return fail(exitIncomplete, fmt.Errorf("everything was restored, but %s could not be set", plural(report.Warnings, "attribute")),
			"the warnings above name them; owners need root, or --no-restore-ownership")
	}
	a.healedHint()
	return nil
}

// requiredVolumes says which volumes a restore of a path reads.
func (a *archive) requiredVolumes(ctx context.Context, point chain.Point, p chain.Path) error {
	var files names
	for _, s := range a.setsAt(point) {
		m, err := a.manifest(ctx, s)
		if err != nil {
			return err
		}
		for _, v := range s.Volumes {
			if slices.ContainsFunc(m.Volumes, func(row manifest.Volume) bool { return row.Number == v.Volume && row.MayHold(p) }) {
				files = append(files, "\t"+v.File)
			}
		}
	}
	a.env.say(message{level: levelNotice, format: "Required volumes to restore:\n%s", args: []any{files}})
	return nil
}

// freeTarget returns an error if something stands where a restore is to go. An
// empty directory may: what is not free later on the restore finds itself.
func freeTarget(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return nil
	}
	if info.IsDir() {
		f, err := os.Open(dir)
		if err != nil {
			return nil
		}
		defer f.Close()
		if _, err := f.Readdirnames(1); err != nil {
			return nil
		}
	}
	return fmt.Errorf("%s: %w", dir, restore.ErrExists)
}

func verifyCommand(e *environ) *cli.Command {
	rules := &ruleList{env: e}
	return &cli.Command{
		Name:      "verify",
		Usage:     "read everything at a time, checking every byte; with --compare-data compare it with DIR",
		ArgsUsage: "URL [DIR]",
		Description: `dupfs verify --compare-data URL ~/documents
dupfs verify --level hashes URL                  # each night, where the store has checksums
dupfs verify --level volumes --sample 2% URL     # each night: all of it in seven weeks
dupfs verify --all-points URL                    # every version of every file`,
		Flags: slices.Concat(archiveFlags(), auditFlags(), selectionFlags(rules), []cli.Flag{
			timeFlag(), pathFlag(),
			&cli.BoolFlag{Name: "compare-data", Usage: "compare entries, attributes and contents with DIR"},
			jsonFlag(), currentTimeFlag(),
		}),
		Action: func(c *cli.Context) error {
			if err := rules.check(); err != nil {
				return err
			}
			return runVerify(c.Context, e, c, rules)
		},
	}
}

func runVerify(ctx context.Context, e *environ, c *cli.Context, rules *ruleList) error {
	if audits(c) {
		return runAudit(ctx, e, c)
	}
	args, err := positionals(c, 1, 2, "URL [DIR]")
	if err != nil {
		return err
	}
	p, err := archivePath(c.String("path-to-restore"))
	if err != nil {
		return err
	}
	dir := slices.Concat(args, []string{""})[1]
	if dir != "" {
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			err := worded(fmt.Errorf("verify directory %s does not exist", dir), "", "Verify directory %s does not exist", dir)
			return fail(exitNoVerifyDir, err, "name the directory to compare with")
		}
	} else if c.Bool("compare-data") {
		return usagef("--compare-data needs the DIR to compare with")
	}
	skip, err := skipUnselected(c, dir, p, rules)
	if err != nil {
		return err
	}
	a, err := e.openSaying(ctx, c, args[0])
	if err != nil {
		return err
	}
	defer a.Close()
	tree, point, err := a.tree(ctx, c)
	if err != nil {
		return err
	}
	if err := a.confirm(ctx, c, point); err != nil {
		return err
	}
	if _, err := lookup(ctx, tree, p); isMissing(err) {
		return notInArchive(p, point)
	}
	if _, err := a.warnArchived(ctx, c, p, false); err != nil {
		return err
	}
	counts := &restore.Progress{}
	size := e.count(ctx, false, func(ctx context.Context) (int64, error) { return treeSize(ctx, tree, p) })
	defer size.stop()
	stop := e.follow("verify", func() progress { return progress{done: counts.Bytes.Load(), total: size.sum.Load()} })
	volumes := e.countVolumes(a.volumesAt(point), counts, size)
	report, err := restore.Verify(ctx, a.snapshot, tree, p, dir, restore.VerifyOptions{
		CompareData: c.Bool("compare-data"),
		Progress:    counts,
		Skip:        skip,
		Differ: func(p chain.Path, text string) {
			e.verified(c, verifyLine{Type: "difference", Path: p.String(), PathB64: bytesIfOdd(p.String()), Text: text}, "Difference found: %s", name(text))
		},
		Warn: func(p chain.Path, err error) {
			e.unrestored(p, err)
			if c.Bool("json") {
				e.verified(c, verifyLine{Type: "damage", Path: p.String(), PathB64: bytesIfOdd(p.String()), Text: err.Error()}, "")
			}
		},
	})
	stop()
	volumes(err == nil)
	if err != nil {
		return err
	}
	e.verified(c, verifyLine{Files: report.Compared, Bytes: report.Bytes, Differences: report.Differences, Flaws: report.Failed},
		"Verify complete: %s compared, %s found.", plural(report.Compared, "file"), plural(report.Differences, "difference"))
	switch {
	case report.Failed > 0:
		return fail(exitDamaged, fmt.Errorf("%s damaged", pluralWas(report.Failed)), "the warnings above name it")
	case report.Differences > 0:
		return fail(exitGeneric, errSaid, "")
	}
	return a.healedFlaws()
}

// skipUnselected returns what tells the entries of a directory that the rules
// leave out: for verify, as for duplicity, they are not there. Nil: none is. top
// is what of the archive is compared with the directory.
func skipUnselected(c *cli.Context, dir string, top chain.Path, rules *ruleList) (func(chain.Path, chain.Type) bool, error) {
	if dir == "" {
		return nil, nil
	}
	sel, err := selectionOf(c, dir, rules)
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	root := device(info)
	return func(p chain.Path, _ chain.Type) bool {
		rel := relative(top, p)
		return rel != chain.Root && !selected(sel, dir, rel, root)
	}, nil
}

// selected reports whether a backup of dir would have an entry. One that is
// only looked through counts if something in it is selected.
func selected(sel *selection.Selection, dir string, p chain.Path, root uint64) bool {
	name := filepath.Join(dir, p.String())
	info, err := os.Lstat(name)
	if err != nil {
		return true // it is compared, and is missing
	}
	switch sel.Judge(p, facts(name, info, root)) {
	case selection.Include:
		return true
	case selection.Exclude:
		return false
	}
	list, _ := os.ReadDir(name) // what cannot be read has nothing that is selected
	return slices.ContainsFunc(list, func(d fs.DirEntry) bool { return selected(sel, dir, p.Join(d.Name()), root) })
}

// verifyLine is what verify --json writes: a difference, something damaged, and
// at the end what was found in all.
type verifyLine struct {
	Type        string `json:"type"` // difference, damage, summary
	Path        string `json:"path,omitempty"`
	PathB64     string `json:"path_b64,omitempty"`
	Text        string `json:"text,omitempty"`
	Files       int64  `json:"files,omitempty"`
	Points      int64  `json:"points,omitempty"`
	Bytes       int64  `json:"bytes,omitempty"`
	Differences int64  `json:"differences,omitempty"`
	Flaws       int64  `json:"flaws,omitempty"`
	// By --level hashes: files whose checksums of the store were compared, that
	// could not be, and bytes that were fetched for it.
	Compared   int64 `json:"compared,omitempty"`
	Uncompared int64 `json:"uncompared,omitempty"`
	Fetched    int64 `json:"fetched,omitempty"`
}

// verified tells of something that verify found, as text or as JSON.
func (e *environ) verified(c *cli.Context, l verifyLine, format string, args ...any) {
	if !c.Bool("json") {
		e.tell(format, args...)
		return
	}
	if l.Type == "" {
		l.Type = "summary"
	}
	e.outMu.Lock()
	defer e.outMu.Unlock()
	e.clearBar()
	_ = encoder(e.stdout).Encode(l) // as the text: who does not listen misses it
}
