package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
	"dupfs/chain/backup"
	"dupfs/chain/pgp"
	"dupfs/chain/selection"
	"dupfs/chain/snapshot"
	"dupfs/chain/when"
)

func backupCommand(e *environ, name, usage string) *cli.Command {
	rules := &ruleList{env: e}
	return &cli.Command{
		Name:      name,
		Usage:     usage,
		ArgsUsage: "SOURCE URL",
		Description: `export PASSPHRASE=...
dupfs backup --exclude '**/.cache' ~ file:///mnt/disk/home
dupfs backup --full-if-older-than 1M /etc swift://servers/web1`,
		Flags: slices.Concat(archiveFlags(), selectionFlags(rules), []cli.Flag{
			&cli.Int64Flag{Name: "volsize", Value: 200, Usage: "size of volumes in `MiB`"},
			&cli.IntFlag{Name: "full-if-n-inc", Hidden: true, Usage: "make it a full backup if the last one has `N` increments"},
			&cli.StringFlag{Name: "full-if-older-than", Usage: "make it a full backup if the last one is older than `TIME`"},
			&cli.BoolFlag{Name: "copy-links", Usage: "store what symbolic links lead to, in their place"},
			&cli.StringFlag{Name: "files-from", Usage: "back up only what `FILE` lists: paths in SOURCE, a line each; of a directory only itself"},
			&cli.BoolFlag{Name: "allow-source-mismatch", Usage: "go on though the chain is of another host or directory"},
			&cli.BoolFlag{Name: "resume-from-store", Usage: "go on with a backup that was interrupted on another machine, or whose journal is lost: its volumes are read"},
			&cli.BoolFlag{Name: "skip-if-no-change", Usage: "write no increment if nothing has changed"},
			&cli.BoolFlag{Name: "jsonstat", Usage: "show the statistics in JSON, too, and store them beside the backup"},
			&cli.BoolFlag{Name: "no-print-statistics", Usage: "leave the statistics out"},
			&cli.BoolFlag{Name: "no-files-changed", Usage: "leave the list of changed files out of the manifest"},
			&cli.IntFlag{Name: "max-blocksize", Hidden: true, Usage: "longest block of a signature, in `BYTES`"},
			&cli.IntFlag{Name: "concurrency", Value: 1, Usage: "volumes uploaded at a time"},
			&cli.BoolFlag{Name: "progress", Usage: "say how far it is, in duplicity's manner, also where there is no terminal"},
			&cli.IntFlag{Name: "progress-rate", Value: 3, Usage: "say so every `SECONDS`"},
			dryRunFlag(), currentTimeFlag(),
		}),
		Action: func(c *cli.Context) error {
			if err := rules.check(); err != nil {
				return err
			}
			return runBackup(c.Context, e, c, name, rules)
		},
	}
}

// selectionFlags all add to one list, because their order among each other
// matters.
func selectionFlags(rules *ruleList) []cli.Flag {
	list := func(name, usage string, kind selection.Kind, include bool, aliases ...string) cli.Flag {
		return &cli.GenericFlag{Name: name, Aliases: aliases, Usage: usage, Value: &ruleFlag{list: rules, kind: kind, include: include}}
	}
	alone := func(name, usage string, kind selection.Kind) cli.Flag {
		return placedSwitch(name, usage, func() { rules.add(selection.Rule{Kind: kind}) })
	}
	filter := func(name, usage string, set func()) cli.Flag {
		return placedSwitch(name, usage, func() {
			set()
			rules.filters, rules.trailing = append(rules.filters, "--"+name), "--"+name
		})
	}
	mode := func(name, usage string, kind selection.Kind) cli.Flag {
		return filter(name, usage, func() { rules.mode = kind })
	}
	return []cli.Flag{
		list("include", "`PATTERN` of what is backed up", selection.Glob, true),
		list("exclude", "`PATTERN` of what is not; the first that matches decides", selection.Glob, false),
		list("include-regexp", "regular `EXPRESSION`", selection.Regexp, true),
		list("exclude-regexp", "regular `EXPRESSION`", selection.Regexp, false),
		list("include-filelist", "`FILE` of patterns", selection.Filelist, true, "include-globbing-filelist"),
		list("exclude-filelist", "`FILE` of patterns", selection.Filelist, false, "exclude-globbing-filelist"),
		list("exclude-if-present", "leave directories out that have an entry called `NAME`", selection.IfPresent, false),
		list("exclude-older-than", "leave files out that were changed before `TIME`", selection.OlderThan, false),
		alone("exclude-device-files", "leave devices out", selection.DeviceFiles),
		alone("exclude-other-filesystems", "stay on the source's file system", selection.OtherFilesystems),
		mode("filter-globbing", "patterns that follow are shell patterns, as without this", selection.Glob),
		mode("filter-literal", "patterns that follow are paths in which no character is special", selection.Literal),
		mode("filter-regexp", "patterns that follow are regular expressions", selection.Regexp),
		filter("filter-ignorecase", "case does not matter in what follows", func() { rules.fold = true }),
		filter("filter-strictcase", "case matters in what follows, as without this", func() { rules.fold = false }),
		&cli.BoolFlag{Name: "null-separator", Usage: "lines of file lists end in NUL"},
	}
}

// ruleList is the selection as the command line gives it, in order.
type ruleList struct {
	env   *environ
	rules []selection.Rule
	err   error // a list could not be read
	// How the next patterns are read: duplicity's --filter- options.
	mode     selection.Kind // Glob, Literal or Regexp
	fold     bool
	filters  []string // the options that said so
	trailing string   // the last one, if nothing has followed it yet
}

// add appends a rule.
func (l *ruleList) add(r selection.Rule) { l.rules, l.trailing = append(l.rules, r), "" }

// check returns what was wrong with the options. As for duplicity, a --filter-
// option without effect is a mistake.
func (l *ruleList) check() error {
	if l.err != nil {
		return l.err
	}
	if l.trailing != "" {
		err := worded(fmt.Errorf("%s has no effect: no pattern follows it", l.trailing), "",
			"The last file selection option is the filter option %s, which will have no\neffect as there are no subsequent file selection options. Exiting because\nthis probably isn't what you meant.", l.trailing)
		return fail(exitTrailingFilter, err, "it is for the patterns behind it: move it in front of them")
	}
	special := func(f string) bool { return f != "--filter-globbing" && f != "--filter-strictcase" }
	if len(l.filters) > 0 && !slices.ContainsFunc(l.filters, special) {
		all := slices.Compact(slices.Sorted(slices.Values(l.filters)))
		err := worded(fmt.Errorf("%s has no effect: patterns are read so anyway", strings.Join(all, ", ")), "",
			"Only these filter mode options were specified:\n    %s\nCase sensitive globbing is the default behaviour and so this has no effect.\nExiting because this probably isn't what you meant.", strings.Join(all, ", "))
		return fail(exitRedundantFilter, err, "leave it out, or say before it where patterns are read otherwise")
	}
	return nil
}

// ruleFlag adds one kind of rule to a list.
type ruleFlag struct {
	list    *ruleList
	kind    selection.Kind
	include bool
}

func (f *ruleFlag) String() string { return "" }

// Set implements flag.Value.
func (f *ruleFlag) Set(value string) error {
	r := selection.Rule{Kind: f.kind, Include: f.include, Pattern: value}
	switch f.kind {
	case selection.Glob:
		r.Kind, r.Fold = f.list.mode, f.list.fold
	case selection.Regexp:
		r.Fold = f.list.fold
	case selection.Filelist:
		text, err := os.ReadFile(value)
		if err != nil {
			if value == "" { // an alias is being made the same
				return err
			}
			// Whatever is returned here would become a mere text.
			f.list.err = fail(exitFilelist, fmt.Errorf("file list: %w", err), "name a file that is there")
			return nil
		}
		r.List, r.Lines, r.Fold = strings.NewReader(string(text)), f.list.mode, f.list.fold
	case selection.OlderThan:
		t, err := when.Parse(value, f.list.env.now(), time.Local)
		if err != nil {
			return err
		}
		r.Time = t.Unix()
	}
	f.list.add(r)
	return nil
}

// placed is an option without a value that means something for those that
// follow it.
type placed struct{ *cli.GenericFlag }

// placedSwitch returns an option that does something where it stands.
func placedSwitch(name, usage string, do func()) cli.Flag {
	return placed{&cli.GenericFlag{Name: name, Usage: usage, Value: placedValue(do)}}
}

func (placed) TakesValue() bool { return false }
func (f placed) String() string { return cli.FlagStringer(f) }

// placedValue implements flag.Value and is set by an option without a value.
type placedValue func()

func (placedValue) String() string   { return "" }
func (placedValue) IsBoolFlag() bool { return true }

// Set implements flag.Value.
func (do placedValue) Set(string) error {
	do()
	return nil
}

// selectionOf returns the selection for a source.
func selectionOf(c *cli.Context, src string, list *ruleList) (*selection.Selection, error) {
	rules := slices.Clone(list.rules)
	for i := range rules {
		rules[i].Null = c.Bool("null-separator")
	}
	s, err := selection.New(src, rules)
	if err != nil {
		return nil, fail(selectionStatus(err), selectionWords(err, src, rules), "the first pattern that matches decides; what none matches is included")
	}
	return s, nil
}

// Duplicity's exit statuses for --filter- options without effect, and for a bad
// --files-from.
const (
	exitRedundantFilter = 70
	exitTrailingFilter  = 71
	exitAbsolutePath    = 72
	exitEmptyList       = 73
)

// filesFrom reads the list of --files-from, nil if there is none.
func filesFrom(c *cli.Context) (*backup.Listed, error) {
	file := c.String("files-from")
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fail(exitFilelist, worded(fmt.Errorf("--files-from: %w", err), "", "Error opening file %s", file), "name a file of paths, a line each")
	}
	end := "\n"
	if c.Bool("null-separator") {
		end = "\x00"
	}
	var paths []chain.Path
	for _, line := range strings.Split(string(text), end) {
		switch p, ok := chain.ParsePath(line); {
		case line == "":
		case strings.HasPrefix(line, "/"):
			return nil, fail(exitAbsolutePath, fmt.Errorf("--files-from: %q is an absolute path", line), "paths are relative to SOURCE")
		case !ok:
			return nil, fail(exitAbsolutePath, fmt.Errorf("--files-from: %q is no path in SOURCE", line), "paths are relative to SOURCE, and hold no \"..\"")
		default:
			paths = append(paths, p)
		}
	}
	if len(paths) == 0 {
		return nil, fail(exitEmptyList, fmt.Errorf("--files-from: %s lists nothing", file), "name a file of paths, a line each")
	}
	return backup.NewListed(paths), nil
}

// selectionStatus returns duplicity's exit status for a bad rule.
func selectionStatus(err error) int {
	switch {
	case errors.Is(err, selection.ErrOutside):
		return 14
	case errors.Is(err, selection.ErrGlob):
		return 15
	case errors.Is(err, selection.ErrRedundant):
		return 16
	}
	return exitUsage
}

func runBackup(ctx context.Context, e *environ, c *cli.Context, verb string, rules *ruleList) error {
	args, err := positionals(c, 2, 2, "SOURCE URL")
	if err != nil {
		return err
	}
	src, url := args[0], args[1]
	if isURL(src) {
		return usagef("%s: the first argument is the directory to back up, not a URL", src)
	}
	if _, err := os.Stat(src); err != nil {
		err = worded(fmt.Errorf("source: %w", err), "", "Backup source directory %s does not exist.", src)
		return fail(exitNoSource, err, "name a directory that is there")
	}
	sel, err := selectionOf(c, src, rules)
	if err != nil {
		return err
	}
	if err := frugal(c); err != nil {
		return err
	}
	a, err := e.openStore(ctx, c, url)
	if err != nil {
		return err
	}
	defer a.Close()
	resumed := false
	if !c.Bool("dry-run") {
		unlock, err := a.lock()
		if err != nil {
			return err
		}
		defer unlock()
		if a.openpgp.public() { // else a passphrase would be asked for twice
			if err := a.store.Ready(); err != nil {
				return backupError(err, nil)
			}
		}
		if resumed, err = a.goOn(ctx, c, verb, src, sel); err != nil {
			return err
		}
	}
	if resumed && verb == "full" {
		verb = "backup" // the full set is there; what follows is what has changed since it was begun
	}
	base, err := a.base(ctx, c, verb, src)
	if err != nil {
		return err
	}
	a.hintUnfinished(ctx, c)
	stats, err := a.backup(ctx, c, src, sel, base, nil, resumed || base != nil && c.Bool("skip-if-no-change"))
	if err != nil {
		return backupError(err, stats)
	}
	var on []*chain.Set
	if base != nil {
		on = base.Chain().Sets
	}
	if err := a.putJSONStat(ctx, c, src, on, stats); err != nil {
		return err
	}
	e.tellStatistics(c, stats)
	if stats.Errors > 0 {
		return fail(exitIncomplete, fmt.Errorf("the backup was made, but %s not stored as it should be",
			pluralWas(stats.Errors)), "the warnings above name it; the next run tries again")
	}
	return nil
}

// tellStatistics shows the statistics of a run, unless nobody wants them.
func (e *environ) tellStatistics(c *cli.Context, stats *backup.Stats) {
	if c.Bool("no-print-statistics") {
		return
	}
	var text strings.Builder
	printStatistics(&text, stats)
	e.say(message{level: levelNotice, force: true, format: "%s", args: []any{strings.TrimSuffix(text.String(), "\n")}})
}

func pluralWas(n int64) string {
	if n == 1 {
		return "1 entry was"
	}
	return fmt.Sprintf("%d entries were", n)
}

// backupError adds to an error of a backup that nothing was lost by it.
func backupError(err error, stats *backup.Stats) error {
	status, hint := classify(err)
	kept := &keptError{err, 0}
	if stats != nil {
		kept.volumes = stats.Kept
	}
	if status == exitInterrupted || errors.Is(err, context.Canceled) {
		return kept
	}
	err = fmt.Errorf("backup failed, what was in the archive before is untouched: %w", err)
	if kept.volumes > 0 {
		hint = strings.TrimPrefix(hint+"; "+kept.kept(), "; ")
	}
	return fail(status, err, hint)
}

// base returns what an increment is built on, nil for a full backup.
func (a *archive) base(ctx context.Context, c *cli.Context, verb, src string) (*snapshot.Base, error) {
	points, err := a.points(ctx)
	if errors.Is(err, errNoBackups) {
		points, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	col := &chain.Collection{}
	if a.snapshot != nil {
		col = a.snapshot.Collection()
	}
	if a.told != col { // a backup that goes on comes here more than once
		a.announce(col, true)
	}
	switch {
	case verb == "full":
		return nil, a.oneSecret(ctx, c, false)
	case len(points) == 0 && verb == "incremental":
		err := worded(fmt.Errorf("%s: there is no backup to build an increment on", a.shown), "",
			"Fatal Error: Unable to start incremental backup.  Old signatures not found and incremental specified")
		return nil, fail(exitNoSigs, err, "make a full one: dupfs full SOURCE URL")
	case len(points) == 0:
		e := a.env
		e.say(message{level: levelWarning, format: "No signatures found, switching to full backup."})
		return nil, nil
	}
	if old, err := a.tooOld(c); err != nil {
		return nil, err
	} else if old && verb != "incremental" {
		a.env.tell("Last full backup is too old, forcing full backup")
		return nil, a.oneSecret(ctx, c, false)
	}
	if err := a.oneSecret(ctx, c, true); err != nil {
		return nil, err
	}
	base, err := a.snapshot.Base(ctx)
	if a.openpgp.public() && errors.Is(err, chain.ErrNoKey) {
		return nil, fail(exitGPG, fmt.Errorf("the last backup cannot be built on: the local catalog does not know it, and %w", err),
			"make a full backup, which needs no secret key: dupfs full SOURCE URL")
	}
	if err != nil {
		return nil, fmt.Errorf("the last backup cannot be built on: %w", err)
	}
	return base, a.sameSource(ctx, c, base, src)
}

// chains returns the chains of the archive, none if it is not there yet.
func (a *archive) chains() []*chain.Chain {
	if a.snapshot == nil {
		return nil
	}
	return a.snapshot.Collection().Chains
}

// oneSecret makes sure, before anything is written to an encrypted archive,
// that the passphrase in hand opens what is there: an archive with two
// passphrases is one that nobody can restore. Who gives several has both.
// Nothing need be opened to encrypt to public keys; an increment to them reads
// what it is built on from the local catalog, or fails.
func (a *archive) oneSecret(ctx context.Context, c *cli.Context, increment bool) error {
	chains := a.chains()
	if layer(c) != chain.OpenPGP || len(chains) == 0 || a.openpgp.public() && !increment {
		return nil
	}
	sets := chains[len(chains)-1].Sets
	m := sets[len(sets)-1].Manifest
	if m == nil || m.Layer != chain.OpenPGP {
		return nil
	}
	err := a.store.ReadThrough(ctx, *m, func(io.Reader) error { return nil })
	switch {
	case err == nil && increment && !a.openpgp.public():
		err = a.samePassphrase(ctx, c, *m)
	case errors.Is(err, pgp.ErrSigner) && !increment:
		return nil // it was opened
	case errors.Is(err, pgp.ErrSigner):
		return fail(exitUnsigned, fmt.Errorf("the last backup cannot be built on: %w", err), "begin a chain that is signed: dupfs full SOURCE URL")
	case a.openpgp.public() && (errors.Is(err, chain.ErrNoKey) || errors.Is(err, chain.ErrNoPassphrase)):
		return nil
	}
	if err != nil {
		return fmt.Errorf("before writing, the passphrase was tried on what is there: %w", err)
	}
	return nil
}

// samePassphrase makes sure that of several passphrases the one that is
// written with opens the chain.
func (a *archive) samePassphrase(ctx context.Context, c *cli.Context, m chain.Stored) error {
	given, err := a.env.passphrases(c)
	if err != nil || len(given) < 2 {
		return err
	}
	body, err := a.store.OpenStored(ctx, m.File)
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = pgp.NewKeys(given[0]).Open(ctx, bufio.NewReader(body), m.File)
	if errors.Is(err, chain.ErrNoKey) {
		return fail(exitGPG, fmt.Errorf("the chain was written with another passphrase than the first one given: %w", err),
			"a chain has one passphrase: give that one first, or begin a new chain with dupfs full")
	}
	return err
}

// tooOld reports whether --full-if-older-than, or --full-if-n-inc, asks for a
// full backup.
func (a *archive) tooOld(c *cli.Context) (bool, error) {
	if n := c.Int("full-if-n-inc"); n > 0 {
		if chains := a.chains(); len(chains[len(chains)-1].Sets) > n {
			return true, nil
		}
	}
	expr := c.String("full-if-older-than")
	if expr == "" {
		return false, nil
	}
	limit, err := a.env.parseTime(c, expr)
	if err != nil {
		return false, err
	}
	chains := a.chains()
	return chains[len(chains)-1].Start().Before(limit), nil
}

// backupMemory bounds the content and signatures that a backup holds ahead of
// the packer, in bytes.
const backupMemory = 64 << 20

const (
	// backupCache is the budget of decoded chunks of a backup, unless one is
	// asked for: it reads old signatures, mostly in order, and nothing twice.
	backupCache = "32M"
	// backupSoft is softMemory of a backup, which has the write side of the
	// catalog, up to 50 MiB that the collector does not see, beside it.
	backupSoft = 160 << 20
)

// frugal keeps a backup within its memory.
func frugal(c *cli.Context) error {
	limitMemory(backupSoft)
	if c.IsSet("memory") {
		return nil
	}
	return c.Set("memory", backupCache)
}

// backup runs the engine and shows how it goes on.
// With in it goes on with an interrupted one; with skipEmpty it
// makes no set if nothing has changed.
func (a *archive) backup(ctx context.Context, c *cli.Context, src string, sel *selection.Selection, base *snapshot.Base, in *backup.Interrupted, skipEmpty bool) (*backup.Stats, error) {
	e := a.env
	if !c.Bool("dry-run") {
		if err := a.store.Ready(); err != nil {
			return nil, err
		}
	}
	known, err := newKnownSpool(c.String("tempdir"))
	if err != nil {
		return nil, err
	}
	defer known.close()
	p := &backup.Progress{}
	o := backup.Options{
		Now: e.clock(c), Last: a.newest(), Taken: a.taken(), Layer: layer(c), Forks: a.forks(),
		Selection: sel, Hostname: shortHostname(), Localdir: selection.Source(src),
		VolSize: c.Int64("volsize") << 20, MaxBlock: c.Int("max-blocksize"), Uploads: c.Int("concurrency"),
		Memory:  backupMemory,
		TempDir: c.String("tempdir"), CopyLinks: c.Bool("copy-links"), DryRun: c.Bool("dry-run"), NoFilesChanged: c.Bool("no-files-changed"),
		Progress: p, OnKnown: known.add, OnIndex: a.extend,
		Journal: a.journal(), Owner: a.owner(c), Resume: in, SkipEmpty: skipEmpty,
	}
	if o.Only, err = filesFrom(c); err != nil {
		return nil, err
	}
	e.follows(c, src, p, &o)
	var on backup.Base
	if base != nil {
		on = &baseAdapter{base}
	}
	size := e.count(ctx, c.Bool("progress"), func(ctx context.Context) (int64, error) { return sourceSize(ctx, src, sel) })
	defer size.stop()
	poll := func() progress { return backupProgress(p, base == nil, size) }
	stop, ticked := func() {}, func(bool) {}
	if c.Bool("progress") {
		ticked = e.ticks(c, p, poll)
	}
	if !c.Bool("progress") || !e.duplicity {
		stop = e.follow("backup", poll)
	}
	stats, err := backup.Run(ctx, src, a.store, on, o)
	stop()
	ticked(err == nil)
	if stats.JournalErr != nil {
		e.warn("no journal could be kept, with which an interrupted backup is gone on with: %v", stats.JournalErr)
	}
	if err == nil && o.DryRun {
		e.progressed(p)
	}
	if err == nil && !o.DryRun {
		a.learn(ctx, known, stats.IndexErr)
	}
	return stats, err
}

// extend puts the new set into the local catalog by its index, so that this
// need not be fetched.
func (a *archive) extend(ctx context.Context, index io.Reader) error {
	if _, err := a.points(ctx); err != nil { // it may not have been there before
		return err
	}
	return a.snapshot.Extend(ctx, index)
}

// learn puts what is known of the source into the local catalog; err is that of
// extend. Without both the next backup is only slower.
func (a *archive) learn(ctx context.Context, known *knownSpool, err error) {
	if err == nil {
		err = a.snapshot.NoteSource(ctx, known.all())
	}
	if err != nil {
		a.env.note(fmt.Sprintf("the local catalog was not brought up to date: %v", err))
	}
}

// newest returns the end time of the newest set of any kind, zero if there is
// none: no two sets may share a second.
func (a *archive) newest() time.Time {
	var t time.Time
	for _, ch := range a.chains() {
		if ch.End().After(t) {
			t = ch.End()
		}
	}
	return t
}

// taken returns the end times of sets that have no manifest.
func (a *archive) taken() (ends []time.Time) {
	if a.snapshot == nil {
		return nil
	}
	for _, s := range a.snapshot.Collection().Incomplete {
		ends = append(ends, s.End)
	}
	return ends
}

// forks returns the end times of all increments.
func (a *archive) forks() (ends []time.Time) {
	if a.snapshot == nil {
		return nil
	}
	for _, l := range a.snapshot.Collection().Lines {
		for _, s := range l.Sets {
			if !s.Full {
				ends = append(ends, s.End)
			}
		}
	}
	return ends
}

// backupProgress is measured in bytes of the source: of contents for a full
// backup, else of what was compared, because most of it is not read.
func backupProgress(p *backup.Progress, full bool, size *expected) progress {
	out := progress{done: p.Bytes.Load(), total: size.sum.Load()}
	if full {
		out.done = p.BytesRead.Load()
	}
	if cur := p.Current.Load(); cur != nil {
		out.text = cur.String()
	}
	return out
}

// sameSource refuses to continue a chain of another host or directory.
func (a *archive) sameSource(ctx context.Context, c *cli.Context, base *snapshot.Base, src string) error {
	if c.Bool("allow-source-mismatch") {
		return nil
	}
	sets := base.Chain().Sets
	m, err := a.manifest(ctx, sets[len(sets)-1])
	if err != nil {
		return err
	}
	host, _ := os.Hostname() // as if it were not known
	if m.Hostname != "" && m.Hostname != host && m.Hostname != shortHostname() {
		return mismatch(exitHost, "host", "name", m.Hostname, host)
	}
	if dir := selection.Source(src); m.Localdir != "" && m.Localdir != dir {
		return mismatch(exitSourceDir, "directory", "", m.Localdir, dir)
	}
	return nil
}

// mismatch says that the chain is of something else.
func mismatch(status int, what, suffix, previous, current string) error {
	err := worded(fmt.Errorf("backup source %s has changed: the last backup is of %s, this is %s", what, previous, current),
		logName(current)+" "+logName(previous), `Fatal Error: Backup source %[1]s has changed.
Current %[1]s%[2]s: %[3]s
Previous %[1]s%[2]s: %[4]s

Aborting because you may have accidentally tried to backup two different data sets to the same remote location, or using the same archive directory.  `+
			`If this is not a mistake, use the --allow-source-mismatch switch to avoid seeing this message`, what, suffix, current, previous)
	return fail(status, err, "is this the right archive? --allow-source-mismatch goes on")
}

// baseAdapter makes the newest point the base of a backup.
type baseAdapter struct{ *snapshot.Base }

// Walk implements backup.Base.
func (b *baseAdapter) Walk(ctx context.Context) iter.Seq2[*backup.BaseEntry, error] {
	return func(yield func(*backup.BaseEntry, error) bool) {
		for s, err := range b.Base.Walk(ctx) {
			if err != nil {
				yield(nil, err)
				return
			}
			out := &backup.BaseEntry{
				Entry: s.Entry, Exact: s.Exact, SigOff: s.SigOff, SigLen: s.SigLen,
				Set: s.Set, Ctime: s.Ctime, Ino: s.Ino, ID: s.ID,
			}
			if !yield(out, nil) {
				return
			}
		}
	}
}

// Signature implements backup.Base.
func (b *baseAdapter) Signature(ctx context.Context, e *backup.BaseEntry) (io.ReadCloser, error) {
	return b.Base.Signature(ctx, &snapshot.BaseEntry{
		Entry: e.Entry, Exact: e.Exact, SigOff: e.SigOff, SigLen: e.SigLen, Set: e.Set, ID: e.ID,
	})
}

// content is the backup.RebuildOptions.Content of the base.
func (b *baseAdapter) content(ctx context.Context, e *backup.BaseEntry) (chain.Content, error) {
	return b.Base.Content(ctx, &snapshot.BaseEntry{ID: e.ID})
}

// printStatistics writes duplicity's block.
func printStatistics(w io.Writer, s *backup.Stats) {
	line := func(key string, n int64) { fmt.Fprintf(w, "%s %d (%s)\n", key, n, size(n)) }
	at := func(key string, t time.Time) {
		fmt.Fprintf(w, "%s %d.%02d (%s)\n", key, t.Unix(), t.Nanosecond()/1e7, asctime(t))
	}
	elapsed := s.EndTime.Sub(s.StartTime).Seconds()
	fmt.Fprintln(w, "--------------[ Backup Statistics ]--------------")
	at("StartTime", s.StartTime)
	at("EndTime", s.EndTime)
	fmt.Fprintf(w, "ElapsedTime %.2f (%.2f seconds)\n", elapsed, elapsed)
	fmt.Fprintln(w, "SourceFiles", s.SourceFiles)
	line("SourceFileSize", s.SourceFileSize)
	fmt.Fprintln(w, "NewFiles", s.NewFiles)
	line("NewFileSize", s.NewFileSize)
	fmt.Fprintln(w, "DeletedFiles", s.DeletedFiles)
	fmt.Fprintln(w, "ChangedFiles", s.ChangedFiles)
	line("ChangedFileSize", s.ChangedFileSize)
	line("ChangedDeltaSize", s.ChangedDeltaSize)
	fmt.Fprintln(w, "DeltaEntries", s.DeltaEntries)
	line("RawDeltaSize", s.RawDeltaSize)
	line("TotalDestinationSizeChange", s.DestinationSize)
	fmt.Fprintln(w, "Errors", s.Errors)
	fmt.Fprintln(w, "-------------------------------------------------")
	fmt.Fprintln(w)
}
