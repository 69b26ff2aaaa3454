package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
	"dupfs/chain/manifest"
)

func collectionStatusCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "collection-status",
		Usage:     "show the chains as duplicity does",
		ArgsUsage: "URL",
		Flags: slices.Concat(archiveFlags(), []cli.Flag{
			&cli.StringFlag{Name: "file-changed", Usage: "show in which sets the file at `PATH` changed"},
			&cli.StringFlag{Name: "show-changes-in-set", Usage: "show which files changed in set `N`, 0 being the newest and -1 the oldest"},
			currentTimeFlag(),
		}),
		Action: func(c *cli.Context) error { return runCollectionStatus(c.Context, e, c) },
	}
}

func runCollectionStatus(ctx context.Context, e *environ, c *cli.Context) error {
	args, err := positionals(c, 1, 1, "URL")
	if err != nil {
		return err
	}
	a, err := e.openStore(ctx, c, args[0])
	if err != nil {
		return err
	}
	defer a.Close()
	col, err := a.collect(ctx)
	if err != nil {
		return err
	}
	a.announce(col, false)
	_, active := primary(col)
	switch {
	case c.IsSet("show-changes-in-set"):
		return a.showChanges(ctx, active, c.String("show-changes-in-set"))
	case c.String("file-changed") != "":
		return a.showFile(ctx, active, strings.TrimRight(c.String("file-changed"), "/"))
	}
	e.say(a.collectionReport(col, true))
	return nil
}

// changes calls fn for each file of the list that a set's manifest has, the i-th
// one; from 0 again if the manifest was healed meanwhile.
func (a *archive) changes(ctx context.Context, s *chain.Set, fn func(i int, c manifest.Change)) error {
	return ofFile(s.Manifest.File, a.store.ReadThrough(ctx, *s.Manifest, func(r io.Reader) error {
		i := 0
		return manifest.ParseFileList(r, func(c manifest.Change) error {
			fn(i, c)
			i++
			return nil
		})
	}))
}

// showChanges shows the files that changed in one set.
func (a *archive) showChanges(ctx context.Context, active *chain.Chain, number string) error {
	n, err := strconv.Atoi(number)
	if err != nil {
		return usagef("--show-changes-in-set: %q is no number of a set", number)
	}
	m := message{level: levelStatus, code: 3, force: true}
	if active != nil {
		if n < 0 {
			n += len(active.Sets)
		}
		if n < 0 || n >= len(active.Sets) {
			return fail(exitException, fmt.Errorf("--show-changes-in-set: the newest chain has no set %s, only 0 to %d", number, len(active.Sets)-1),
				"`dupfs collection-status URL` lists them")
		}
		set := active.Sets[len(active.Sets)-1-n]
		width := len("File:")
		var list []manifest.Change
		err := a.changes(ctx, set, func(i int, c manifest.Change) {
			list = append(list[:i], c)
			width = max(width, len(c.Path.String()))
		})
		if err != nil {
			return err
		}
		m.format = dashes + "\n Backup set time: %s\nTotal number of changes: %d\n" + fmt.Sprintf("%-*s  %20s", width, "File:", "Type of file change:")
		m.args = []any{asctime(set.End), len(list)}
		for _, c := range list {
			m.format += "\n%s%s  %20s"
			m.args = append(m.args, name(c.Path.String()), strings.Repeat(" ", width-len(c.Path.String())), c.Kind)
		}
		m.format += "\n" + dashes
	}
	a.env.say(m)
	return nil
}

// showFile shows the sets in which one file changed.
func (a *archive) showFile(ctx context.Context, active *chain.Chain, file string) error {
	m := message{level: levelStatus, code: 3, force: true}
	if active != nil {
		found, rows := 0, ""
		for _, s := range active.Sets {
			kind := ""
			if err := a.changes(ctx, s, func(_ int, c manifest.Change) {
				if c.Path.String() == file {
					kind = strings.ToUpper(c.Kind[:1]) + c.Kind[1:]
				}
			}); err != nil {
				return err
			}
			if kind != "" {
				found++
				rows += fmt.Sprintf("\n%20s   %30s  %20s", setKind(s), asctime(s.End), kind)
			}
		}
		m.format = dashes + "\nFile: %s\nTotal number of backup: %d\n%20s   %30s  %20s%s\n" + dashes
		m.args = []any{name(file), found, "Type of backup set:", "Time:", "Type of file change:", rows}
	}
	a.env.say(m)
	return nil
}

// setKind is what reports call a set.
func setKind(s *chain.Set) string {
	if s.Full {
		return "Full"
	}
	return "Incremental"
}

// collect lists the archive. What is not there is an empty one.
func (a *archive) collect(ctx context.Context) (*chain.Collection, error) {
	files, err := a.store.List(ctx)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", a.shown, err)
	}
	return chain.Collect(files), nil
}

// announce says what each of duplicity's commands says of an archive before it
// begins. synced says that the command is one that looks at duplicity's local
// cache; ours is always in step.
func (a *archive) announce(col *chain.Collection, synced bool) {
	e := a.env
	a.told = col
	a.warnLeftovers(col)
	if synced {
		e.tell("Local and Remote metadata are synchronized, no sync needed.")
	}
	last := "none"
	if n := len(col.Chains); n > 0 {
		last = asctime(col.Chains[n-1].Start())
	}
	e.tell("Last full backup date: %s", last)
	e.say(a.collectionReport(col, false))
}

// Codes of warnings.
const (
	warnOrphanedSig = 2
	warnUnmatched   = 4
	warnIncomplete  = 5
	warnOrphaned    = 6
	warnUnreadable  = 10
	warnNoSigs      = 11
	warnUnrestored  = 12
)

// warnLeftovers warns of what belongs to no chain. Front ends run cleanup when
// they hear of it.
func (a *archive) warnLeftovers(col *chain.Collection) {
	e := a.env
	warn := func(code int, format string, args ...any) {
		e.say(message{level: levelWarning, code: code, format: format, args: args})
	}
	if sigs := orphanedSigs(col); len(sigs) > 0 {
		warn(warnOrphanedSig, several(len(sigs), "Warning, found the following remote orphaned signature file:",
			"Warning, found the following remote orphaned signature files:")+"\n%s", sigs)
	}
	if _, active := primary(col); active == nil && slices.ContainsFunc(sigtars(col), func(s *chain.Stored) bool { return s.Full }) {
		warn(warnUnmatched, "Warning, found signatures but no corresponding backup files")
	}
	if len(col.Incomplete) > 0 {
		warn(warnIncomplete, "Warning, found incomplete backup sets, probably left from aborted session")
	}
	var sets names
	for _, s := range col.Orphaned {
		var files []string
		for _, f := range s.Files() {
			if f.Kind == chain.VolumeFile || f.Kind == chain.ManifestFile {
				files = append(files, f.File)
			}
		}
		sets = append(sets, "["+strings.Join(files, ", ")+"]")
	}
	if len(sets) > 0 {
		warn(warnOrphaned, several(len(sets), "Warning, found the following orphaned backup file:",
			"Warning, found the following orphaned backup files:")+"\n%s", sets)
	}
}

// sigtars returns all there are, by their times.
func sigtars(col *chain.Collection) (list []*chain.Stored) {
	add := func(sets []*chain.Set) {
		for _, s := range sets {
			if s.Sigtar != nil {
				list = append(list, s.Sigtar)
			}
		}
	}
	for _, ch := range col.Chains {
		add(ch.Sets)
	}
	add(col.Orphaned)
	add(col.Incomplete)
	for i := range col.LooseSigtars {
		list = append(list, &col.LooseSigtars[i])
	}
	slices.SortStableFunc(list, func(a, b *chain.Stored) int { return a.End.Compare(b.End) })
	return list
}

// orphanedSigs returns the sigtars that build on one that is missing.
func orphanedSigs(col *chain.Collection) (orphans names) {
	ends := map[int64]bool{}
	for _, s := range sigtars(col) {
		if s.Full || ends[s.Start.Unix()] {
			ends[s.End.Unix()] = true
		} else {
			orphans = append(orphans, s.File)
		}
	}
	return orphans
}

// collectionReport is duplicity's report, which monitors and front ends parse.
func (a *archive) collectionReport(col *chain.Collection, force bool) message {
	var text, data strings.Builder
	a.printCollection(&text, col)
	a.collectionData(&data, col)
	return message{
		level: levelStatus, code: 3, extra: data.String(), force: force,
		format: "%s", args: []any{strings.TrimSuffix(text.String(), "\n")},
	}
}

// primary splits the chains in those that are no longer built on and the one
// that is, nil if there is none.
func primary(col *chain.Collection) (older []*chain.Chain, active *chain.Chain) {
	n := len(col.Chains) - 1
	if n < 0 || col.Base() == nil {
		return col.Chains, nil
	}
	return col.Chains[:n], col.Chains[n]
}

// collectionData writes the lines of data.
func (a *archive) collectionData(w io.Writer, col *chain.Collection) {
	fmt.Fprint(w, "\nbackend BackendWrapper\narchive-dir (. dir)")
	older, active := primary(col)
	for i, ch := range older {
		fmt.Fprintf(w, "\nchain-no-sig %d", i)
		chainData(w, ch)
	}
	if active != nil {
		fmt.Fprint(w, "\nchain-complete")
		chainData(w, active)
	}
	fmt.Fprintf(w, "\norphaned-sets-num %d\nincomplete-sets-num %d", len(col.Orphaned), len(col.Incomplete))
}

func chainData(w io.Writer, ch *chain.Chain) {
	for _, s := range ch.Sets {
		kind, layer := "inc", "noenc"
		if s.Full {
			kind = "full"
		}
		if slices.ContainsFunc(s.Files(), func(f chain.Stored) bool { return f.Layer == chain.OpenPGP }) {
			layer = "enc"
		}
		fmt.Fprintf(w, "\n %s %s %d %s", kind, chain.FormatTime(s.End), len(s.Volumes), layer)
	}
}

const dashes = "-------------------------"

// printCollection writes the text.
func (a *archive) printCollection(w io.Writer, col *chain.Collection) {
	fmt.Fprint(w, "Collection Status\n-----------------\n")
	fmt.Fprintf(w, "Connecting with backend: BackendWrapper\nArchive dir: %s\n\n", a.dir)
	older, active := primary(col)
	fmt.Fprintf(w, several(len(older), "Found %d secondary backup chain.\n", "Found %d secondary backup chains.\n"), len(older))
	for i, ch := range older {
		fmt.Fprintf(w, "Secondary chain %d of %d:\n", i+1, len(older))
		printChain(w, ch)
		fmt.Fprintln(w)
	}
	if active != nil {
		fmt.Fprintf(w, "\nFound primary backup chain with matching signature chain:\n")
		printChain(w, active)
	} else {
		fmt.Fprintf(w, "No backup chains with active signatures found\n")
	}
	orphaned, incomplete := len(col.Orphaned), len(col.Incomplete)
	if orphaned+incomplete == 0 {
		fmt.Fprintln(w, "No orphaned or incomplete backup sets found.")
		return
	}
	fmt.Fprintf(w, several(orphaned, "Also found %d backup set not part of any chain,\n", "Also found %d backup sets not part of any chain,\n"), orphaned)
	fmt.Fprintf(w, several(incomplete, "and %d incomplete backup set.\n", "and %d incomplete backup sets.\n"), incomplete)
	fmt.Fprintln(w, "These may be deleted by running duplicity with the \"cleanup\" command.")
}

func printChain(w io.Writer, ch *chain.Chain) {
	volumes := 0
	for _, s := range ch.Sets {
		volumes += len(s.Volumes)
	}
	fmt.Fprintf(w, "%s\nChain start time: %s\nChain end time: %s\n", dashes, asctime(ch.Start()), asctime(ch.End()))
	fmt.Fprintf(w, "Number of contained backup sets: %d\nTotal number of contained volumes: %d\n", len(ch.Sets), volumes)
	row := func(kind, at, n any) { fmt.Fprintf(w, "%20v   %30v   %15v\n", kind, at, n) }
	row("Type of backup set:", "Time:", "Num volumes:")
	for _, s := range ch.Sets {
		row(setKind(s), asctime(s.End), len(s.Volumes))
	}
	fmt.Fprintln(w, dashes)
}
