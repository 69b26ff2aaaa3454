package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
	"dupfs/chain/audit"
	"dupfs/chain/restore"
)

// auditFlags say what verify looks at, beside one point.
func auditFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "level", Usage: "how deep `LEVEL` to look: list (what is there, and sizes), hashes (and what the store says of the contents, without a download), volumes (every stored file, hashes and signatures) or files (every file of a point)"},
		&cli.StringFlag{Name: "sample", Usage: "with --level volumes: only `SHARE` (2% or 500M) of it, what was not looked at for longest"},
		&cli.BoolFlag{Name: "all-points", Usage: "every version of every file, at all points"},
	}
}

// audits reports whether verify is asked for more than one point.
func audits(c *cli.Context) bool {
	return c.String("level") != "" && c.String("level") != "files" || c.String("sample") != "" || c.Bool("all-points")
}

// runAudit carries out verify for an archive as a whole.
func runAudit(ctx context.Context, e *environ, c *cli.Context) error {
	args, err := positionals(c, 1, 1, "URL")
	if err != nil {
		return err
	}
	level := c.String("level")
	switch {
	case c.Bool("all-points") && (level == "list" || level == "hashes" || level == "volumes" || c.String("sample") != ""):
		return usagef("--all-points looks at files, not at --level %s or a --sample", level)
	case c.String("time") != "" || c.String("path-to-restore") != "" || c.Bool("compare-data"):
		return usagef("--level and --all-points look at the whole archive: leave --time, --path-to-restore and --compare-data out")
	case c.Bool("all-points"):
		return verifyAllPoints(ctx, e, c, args[0])
	case level != "list" && level != "hashes" && level != "volumes" && level != "":
		return usagef("--level is list, hashes, volumes or files, not %q", level)
	case (level == "list" || level == "hashes") && c.String("sample") != "":
		return usagef("--sample is for --level volumes")
	}
	a, err := e.openStore(ctx, c, args[0])
	if err != nil {
		return err
	}
	defer a.Close()
	a.audited = true
	files, found, err := a.auditList(ctx)
	if err != nil {
		return err
	}
	bad := len(found)
	var unsure int64
	switch level {
	case "list":
		e.verified(c, verifyLine{Files: int64(len(files)), Flaws: int64(bad)},
			"Verify complete: %s listed, %s found.", plural(int64(len(files)), "file"), plural(int64(bad), "flaw"))
	case "hashes":
		bad, unsure, err = a.auditHashes(ctx, c, files, bad)
	default:
		bad, err = a.auditFiles(ctx, c, files, found)
	}
	switch {
	case err != nil:
		return err
	case bad > 0:
		return fail(exitDamaged, errors.New("something in the archive is damaged or missing"), "`dupfs doctor --deep URL` says what can be done")
	case unsure > 0:
		return fail(exitIncomplete, fmt.Errorf("of %s the store, or the archive, has no checksum to compare", plural(unsure, "file")),
			"`dupfs verify --level volumes URL` reads them; then it is known here what the store says of them")
	}
	return nil
}

// auditHashes compares what the store says of the contents of files with what
// the archive does, or with what the store said when they were read last. bad is
// what is wrong already. Only what is in doubt after that is read.
func (a *archive) auditHashes(ctx context.Context, c *cli.Context, files []audit.File, bad int) (_ int, unsure int64, err error) {
	e := a.env
	led, err := a.ledger()
	if err != nil {
		return bad, 0, err
	}
	var same, read int64
	for _, f := range files {
		if f.Kind == chain.ManifestFile || f.Kind == chain.IndexFile {
			read++ // for the list, to its end
			continue
		}
		verdict, err := led.Compare(ctx, a.store, f)
		if err == nil && verdict == audit.Differs {
			err = chain.Corrupt(f.File, "the store says that its content is not what was stored")
		}
		if err == nil && verdict == audit.Suspect {
			if err = audit.Check(ctx, a.store, f, a.dir); err == nil {
				led.Note(f, e.now())
				read++
			}
		}
		var corrupt *chain.CorruptError
		switch {
		case errors.As(err, &corrupt) || errors.Is(err, fs.ErrNotExist):
			e.warn("%s", findingText(audit.Finding{Set: f.Set, File: f.File, Err: err}))
			led.Note(f, time.Time{})
			bad++
		case err != nil:
			return bad, unsure, errors.Join(fmt.Errorf("%s: %w", f.File, err), led.Save(files))
		case verdict == audit.Same:
			same++
		case verdict == audit.Unsure:
			unsure++
		}
	}
	if err := led.Save(files); err != nil {
		return bad, unsure, err
	}
	e.verified(c, verifyLine{Files: int64(len(files)), Flaws: int64(bad), Compared: same, Uncompared: unsure, Fetched: a.store.Counts().Fetched},
		"Verify complete: %s compared by the store's checksums, %s read, %s could not be compared, %s found.",
		plural(same, "file"), plural(read, "file"), plural(unsure, "file"), plural(int64(bad), "flaw"))
	return bad, unsure, nil
}

// auditList compares the archive with its manifests and indexes, and tells what
// is wrong.
func (a *archive) auditList(ctx context.Context) (files []audit.File, found []audit.Finding, err error) {
	stored, err := a.store.List(ctx)
	if err == nil && len(stored) == 0 || errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s: %w", a.shown, errNoBackups)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", a.shown, err)
	}
	col := chain.Collect(stored)
	files, found, err = audit.List(ctx, a.store, completeSets(col))
	for _, s := range col.Incomplete {
		for _, f := range a.store.LostOf(s) {
			if f.Kind == chain.ManifestFile {
				found = append(found, audit.Finding{Set: s, File: f.File, Err: errLostManifest})
			}
		}
	}
	if err == nil && len(files)+len(found) == 0 {
		err = fmt.Errorf("%s: %w", a.shown, errNoBackups)
	}
	for _, f := range found {
		a.env.warn("%s", findingText(f))
	}
	return files, found, err
}

var errLostManifest = errors.New("it is missing; its recovery files may make it whole, if it was not removed on purpose")

// findingText says what is wrong.
func findingText(f audit.Finding) string {
	text := f.Err.Error()
	if f.File != "" && !strings.Contains(text, f.File) {
		text = f.File + ": " + text
	}
	return "the backup of " + stamp(f.Set.End) + ": " + text
}

// completeSets returns the sets that have a manifest, each once.
func completeSets(col *chain.Collection) []*chain.Set {
	var sets []*chain.Set
	seen := map[*chain.Set]bool{}
	add := func(list []*chain.Set) {
		for _, s := range list {
			if !seen[s] && s.Manifest != nil {
				seen[s] = true
				sets = append(sets, s)
			}
		}
	}
	for _, ch := range col.Chains {
		add(ch.Sets)
	}
	for _, l := range col.Lines {
		add(l.Sets)
	}
	add(col.Orphaned)
	return sets
}

// ledger is the memory of what was verified.
func (a *archive) ledger() (*audit.Ledger, error) {
	return audit.OpenLedger(filepath.Join(a.dir, "verified"))
}

// share reads a part of a whole: 2% or a number of bytes.
func share(text string, whole int64) (int64, error) {
	if text == "" {
		return whole, nil
	}
	if p, ok := strings.CutSuffix(text, "%"); ok {
		f, err := strconv.ParseFloat(p, 64)
		if err != nil || f <= 0 || f > 100 {
			return 0, usagef("--sample: %q is no share such as 2%%", text)
		}
		return int64(f / 100 * float64(whole)), nil
	}
	n, err := parseBytes(text)
	if err != nil {
		return 0, usagef("--sample: %v", err)
	}
	return n, nil
}

// auditFiles reads stored files to their ends; found is what is wrong already.
// It returns how much is wrong in all.
func (a *archive) auditFiles(ctx context.Context, c *cli.Context, files []audit.File, found []audit.Finding) (int, error) {
	e, bad := a.env, len(found)
	led, err := a.ledger()
	if err != nil {
		return bad, err
	}
	budget, err := share(c.String("sample"), led.Coverage(files).Total)
	if err != nil {
		return bad, err
	}
	picked := led.Pick(files, budget)
	var done, total atomic.Int64
	for _, f := range picked {
		total.Add(max(f.Size, 0))
	}
	stop := e.follow("verify", func() progress { return progress{done: done.Load(), total: total.Load()} })
	for _, f := range picked {
		err := audit.Check(ctx, a.store, f, a.dir)
		var corrupt *chain.CorruptError
		switch {
		case err == nil:
			led.Note(f, e.now())
		case errors.As(err, &corrupt) || errors.Is(err, fs.ErrNotExist):
			led.Note(f, time.Time{})
			if now := (audit.Finding{Set: f.Set, File: f.File, Err: err}); !slices.ContainsFunc(found, now.Same) {
				e.warn("%s", findingText(now))
				bad++
			}
		default:
			stop()
			return bad, errors.Join(fmt.Errorf("%s: %w", f.File, err), led.Save(files))
		}
		done.Add(max(f.Size, 0))
	}
	stop()
	if err := led.Save(files); err != nil {
		return bad, err
	}
	e.verified(c, verifyLine{Files: int64(len(picked)), Bytes: total.Load(), Flaws: int64(bad)},
		"Verify complete: %s read, %s, %s found.", plural(int64(len(picked)), "file"), size(total.Load()), plural(int64(bad), "flaw"))
	if !c.Bool("json") {
		fmt.Fprintln(e.stdout, coverageText(led.Coverage(files)))
	}
	return bad, nil
}

// coverageText says how much of an archive was verified.
func coverageText(c audit.Coverage) string {
	if c.Bytes == 0 {
		return "Nothing of it was verified yet."
	}
	return fmt.Sprintf("Verified: %s of %s (%.0f%%), since %s.", size(c.Bytes), size(c.Total), 100*float64(c.Bytes)/float64(max(c.Total, 1)), stamp(c.Oldest))
}

// verifyAllPoints reads every version of every file, at the point that brought it.
func verifyAllPoints(ctx context.Context, e *environ, c *cli.Context, url string) error {
	a, err := e.open(ctx, c, url)
	if err != nil {
		return err
	}
	defer a.Close()
	points, err := a.points(ctx)
	if err != nil {
		return err
	}
	counts := &restore.Progress{}
	stop := e.follow("verify", func() progress { return progress{done: counts.Bytes.Load()} })
	defer stop()
	var files, failed int64
	for _, p := range points {
		tree, err := a.treeAt(ctx, p)
		if err != nil && ctx.Err() == nil {
			e.warn("%v", err)
			failed++
			continue
		}
		if err != nil {
			return err
		}
		brought, err := a.snapshot.Brought(tree)
		if err != nil {
			return err
		}
		rep, err := restore.Verify(ctx, a.snapshot, tree, chain.Root, "", restore.VerifyOptions{
			Progress: counts, Wanted: brought,
			Warn: func(path chain.Path, err error) { e.warn("%s at %s: %v", path, stamp(p.Time), err) },
		})
		if err != nil {
			return err
		}
		files, failed = files+rep.Files, failed+rep.Failed
		if p.Damage != "" && rep.Failed == 0 {
			failed++
		}
	}
	stop()
	e.verified(c, verifyLine{Files: files, Points: int64(len(points)), Bytes: counts.Bytes.Load(), Flaws: failed},
		"Verify complete: %s of %s read, %s found.", plural(files, "version"), plural(int64(len(points)), "point"), plural(failed, "flaw"))
	if err := a.healedFlaws(); err != nil && failed == 0 {
		return err
	}
	if failed > 0 {
		return fail(exitDamaged, fmt.Errorf("%s damaged", pluralWas(failed)), "the warnings above name it; `dupfs doctor --deep URL` says what can be done")
	}
	return nil
}

// healedFlaws is what a verification says that found every file right, but read
// some of them from healed copies; nil if it did not.
func (a *archive) healedFlaws() error {
	n := int64(len(a.store.Healed()))
	if n == 0 {
		return nil
	}
	return fail(exitDamaged, fmt.Errorf("%s damaged in the store, and healed for this from recovery files", countOf(n, "stored file is", "stored files are")),
		"`dupfs doctor --deep --repair "+a.shown+"` writes what was healed back")
}

func countOf(n int64, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// storedOf returns the files of sets as the listing has them.
func storedOf(sets []*chain.Set) (files []audit.File) {
	for _, s := range sets {
		for _, f := range s.Files() {
			files = append(files, audit.File{Stored: f, Set: s})
		}
	}
	return files
}
