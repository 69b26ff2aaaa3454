package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"dupfs/backends/all"
	"dupfs/chain"
	"dupfs/chain/backup"
	"dupfs/chain/manifest"
)

func statusCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "status",
		Usage:     "show the chains, sets and volumes of the archive, and what is wrong with them",
		ArgsUsage: "URL",
		Flags: slices.Concat(archiveFlags(), []cli.Flag{
			jsonFlag(), colorFlag(),
			&cli.BoolFlag{Name: "tiers", Usage: "bytes and files in each access tier"},
			currentTimeFlag(),
		}),
		Action: func(c *cli.Context) error { return runStatus(c.Context, e, c) },
	}
}

// setStatus is a set as status shows it.
type setStatus struct {
	Type    string   `json:"type"`
	Time    string   `json:"time"`
	Chain   int      `json:"chain"` // from 1; 0: in none
	Volumes int      `json:"volumes"`
	Bytes   int64    `json:"bytes"`
	Layer   string   `json:"layer"`
	Index   bool     `json:"index"`
	State   string   `json:"state"` // ok, damaged, incomplete, orphaned, replaced
	Wrong   []string `json:"wrong,omitempty"`

	Recovery int64 `json:"recovery_bytes,omitempty"` // of recovery files
}

func runStatus(ctx context.Context, e *environ, c *cli.Context) error {
	args, err := positionals(c, 1, 1, "URL")
	if err != nil {
		return err
	}
	a, err := e.openStore(ctx, c, args[0])
	if err != nil {
		return err
	}
	defer a.Close()
	if c.Bool("tiers") {
		return a.printTiers(ctx, c.Bool("json"))
	}
	files, unknown, err := a.store.ListAll(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", a.shown, errNoBackups)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", a.shown, err)
	}
	col := chain.Collect(files)
	if len(col.Chains)+len(col.Orphaned)+len(col.Incomplete) == 0 {
		return fmt.Errorf("%s: %w", a.shown, errNoBackups)
	}
	a.audited = true
	sets := a.setStatuses(ctx, col)
	if c.Bool("json") {
		return printStatusJSON(e.stdout, sets)
	}
	colour, err := e.painter(c)
	if err != nil {
		return err
	}
	printStatus(e.stdout, colour, a, col, sets, unknown)
	if led, err := a.ledger(); err == nil {
		if cov := led.Coverage(storedOf(completeSets(col))); cov.Bytes > 0 {
			fmt.Fprintf(e.stdout, "\n%s\n", coverageText(cov))
		}
	}
	return damageStatus(sets)
}

// damageStatus makes what is wrong with an archive an exit status.
func damageStatus(sets []setStatus) error {
	for _, s := range sets {
		if s.State == "damaged" {
			return fail(exitDamaged, errors.New("something in the archive is damaged or missing"), "the lines above name it")
		}
	}
	return nil
}

// setStatuses looks at every set: its manifest against the listing.
func (a *archive) setStatuses(ctx context.Context, col *chain.Collection) []setStatus {
	var out []setStatus
	seen := map[*chain.Set]bool{}
	for i, ch := range col.Chains {
		for _, s := range ch.Sets {
			seen[s] = true
			out = append(out, a.setStatus(ctx, s, i+1, "ok"))
		}
	}
	for _, l := range col.Lines {
		for _, s := range l.Sets {
			if !seen[s] {
				seen[s] = true
				out = append(out, a.setStatus(ctx, s, 0, "replaced"))
			}
		}
	}
	for _, s := range col.Orphaned {
		if !seen[s] {
			st := a.setStatus(ctx, s, 0, "orphaned")
			st.Wrong = append(st.Wrong, "the set it builds on is missing: "+chain.FormatTime(s.Start))
			out = append(out, st)
		}
	}
	for _, s := range col.Incomplete {
		st := a.setStatus(ctx, s, 0, "incomplete")
		st.Wrong = append(st.Wrong, "no manifest: the backup that wrote it did not finish, or it was lost"+a.unfinished(col, s))
		out = append(out, st)
	}
	return out
}

// unfinished says how a set without a manifest can get one.
func (a *archive) unfinished(col *chain.Collection, s *chain.Set) string {
	for _, j := range []struct{ path, next string }{{a.journal(), "backup"}, {a.compactJournal(), "dupfs compact"}} {
		if in, err := backup.ReadJournal(j.path); err == nil && in.Set.Times() == s.Times() && len(in.Kept) > 0 {
			return "; the next " + j.next + " from this machine goes on with it"
		}
	}
	if s == lastUnfinished(col) {
		return "; `dupfs backup --resume-from-store` goes on with one of dupfs, `dupfs cleanup URL` removes it"
	}
	return "; `dupfs cleanup URL` removes it"
}

func (a *archive) setStatus(ctx context.Context, s *chain.Set, number int, state string) setStatus {
	st := setStatus{Type: "incremental", Time: stamp(s.End), Chain: number, Volumes: len(s.Volumes), Index: s.Index != nil, State: state}
	if s.Full {
		st.Type = "full"
	}
	for _, f := range s.Files() {
		st.Bytes += max(f.Size, 0)
		st.Recovery += a.store.Recovery(f.File).Bytes
		if a.store.Lost(f.File) {
			st.Wrong = append(st.Wrong, f.File+" is missing; its recovery files may make it whole")
		}
		if f.Kind == chain.VolumeFile {
			st.Layer = f.Layer.String()
		}
	}
	if s.Manifest == nil {
		return st
	}
	if m, err := a.manifest(ctx, s); err != nil {
		st.Wrong = append(st.Wrong, err.Error())
	} else {
		for _, gap := range m.Missing(s.Volumes) {
			st.Wrong = append(st.Wrong, gap.String())
		}
	}
	if h, ok := a.store.HealedFile(s.Manifest.File); ok {
		st.Wrong = append(st.Wrong, h.File+": "+h.Reason+"; its recovery files make it whole")
	}
	if s.Sigtar == nil {
		st.Wrong = append(st.Wrong, "no signatures: the next backup cannot build on it without them")
	}
	if len(st.Wrong) > 0 && state == "ok" {
		st.State = "damaged"
	}
	return st
}

// manifest reads the manifest of a set.
func (a *archive) manifest(ctx context.Context, s *chain.Set) (m *manifest.Manifest, err error) {
	err = a.store.ReadThrough(ctx, *s.Manifest, func(r io.Reader) (err error) {
		m, err = manifest.Parse(r)
		return err
	})
	return m, ofFile(s.Manifest.File, err)
}

// ofFile makes an error of what a stored file holds name that.
func ofFile(file string, err error) error {
	var corrupt *chain.CorruptError
	if errors.As(err, &corrupt) && corrupt.Name != file {
		return fmt.Errorf("%s: %w", file, err)
	}
	return err
}

func printStatusJSON(w io.Writer, sets []setStatus) error {
	enc := encoder(w)
	for _, s := range sets {
		if err := enc.Encode(s); err != nil {
			return err
		}
	}
	return damageStatus(sets)
}

func printStatus(w io.Writer, colour func(paint, string) string, a *archive, col *chain.Collection, sets []setStatus, unknown []string) {
	fmt.Fprintf(w, "%s: %s\n", a.shown, plural(int64(len(col.Chains)), "chain"))
	last := -1
	for _, s := range sets {
		if s.Chain != last {
			last = s.Chain
			if last == 0 {
				fmt.Fprintln(w, "\nin no chain:")
			} else {
				ch := col.Chains[last-1]
				fmt.Fprintf(w, "\nchain %d: %s to %s\n", last, stamp(ch.Start()), stamp(ch.End()))
			}
		}
		index := ""
		if !s.Index && s.State == "ok" {
			index = "  (no index: slower at first)"
		}
		fmt.Fprintf(w, "  %s  %-11s  %10s in %-12s %-8s %s%s\n", s.Time, s.Type, size(s.Bytes), plural(int64(s.Volumes), "volume"), s.Layer, colour(statePaint(s.State), s.State), index)
		for _, wrong := range s.Wrong {
			fmt.Fprintf(w, "    %s\n", printable(wrong))
		}
	}
	for _, f := range slices.Concat(col.LooseSigtars, col.LooseIndexes) {
		fmt.Fprintf(w, "  belongs to no set: %s\n", printable(f.File))
	}
	var recovery int64
	for _, s := range sets {
		recovery += s.Recovery
	}
	if recovery > 0 {
		fmt.Fprintf(w, "\nrecovery files: %s\n", size(recovery))
	}
	unknown, loose := recoveryNames(unknown)
	if len(loose) > 0 {
		fmt.Fprintf(w, "\n%s: %s\n", plural(int64(len(loose)), "recovery file"), par2Hint(a))
	}
	if len(unknown) > 0 {
		fmt.Fprintf(w, "\n%s of other programs\n", plural(int64(len(unknown)), "file"))
	}
}

// recoveryNames takes the names of recovery files out of those that mean
// nothing here: the URL was given without par2+.
func recoveryNames(unknown []string) (others, recovery []string) {
	for _, n := range unknown {
		if strings.HasSuffix(n, ".par2") {
			recovery = append(recovery, n)
		} else {
			others = append(others, n)
		}
	}
	return others, recovery
}

// par2Hint says how recovery files are used.
func par2Hint(a *archive) string {
	return "with " + all.Wrapped + a.shown + " they heal what is damaged"
}

// statePaint is the colour of a set's state.
func statePaint(state string) paint {
	switch state {
	case "ok":
		return goodPaint
	case "damaged":
		return badPaint
	}
	return midPaint
}
