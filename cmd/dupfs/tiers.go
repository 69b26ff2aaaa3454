package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"dupfs/backends"
	"dupfs/chain"
	"dupfs/chain/manifest"
)

// tierStatus is a line of what lies in which access tier.
type tierStatus struct {
	Tier  string `json:"tier"` // "" for none
	What  string `json:"what"` // volumes, metadata, recovery
	Files int64  `json:"files"`
	Bytes int64  `json:"bytes"`
}

// printTiers shows what lies in which access tier.
func (a *archive) printTiers(ctx context.Context, asJSON bool) error {
	files, err := a.store.Backend().List(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", a.shown, err)
	}
	var recovery map[string]backends.Recovery
	if h := a.store.Healer(); h != nil {
		if recovery, err = h.Recovery(ctx); err != nil {
			return fmt.Errorf("%s: %w", a.shown, err)
		}
	}
	tiers := map[string]*tierStatus{}
	add := func(tier, what string, files, bytes int64) {
		key := fmt.Sprintf("%-12s %-8s", orNone(tier), what)
		if tiers[key] == nil {
			tiers[key] = &tierStatus{Tier: tier, What: what}
		}
		tiers[key].Files += files
		tiers[key].Bytes += max(bytes, 0)
	}
	for _, f := range files {
		n, ok := chain.ParseName(f.Name, a.store.Prefixes())
		if !ok {
			continue
		}
		what := "metadata"
		if n.Kind == chain.VolumeFile {
			what = "volumes"
		}
		add(f.Tier, what, 1, f.Size)
		if r := recovery[f.Name]; r.Files > 0 { // they are where their file is
			add(f.Tier, "recovery", int64(r.Files), r.Bytes)
		}
	}
	keys := make([]string, 0, len(tiers))
	for k := range tiers {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		if asJSON {
			if err := encoder(a.env.stdout).Encode(tiers[k]); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(a.env.stdout, "%s %10s in %s\n", k, size(tiers[k].Bytes), plural(tiers[k].Files, "file"))
	}
	return nil
}

func orNone(tier string) string {
	if tier == "" {
		return "(no tier)"
	}
	return tier
}

func rehydrateCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "rehydrate",
		Usage:     "ask the store to make archived volumes readable: those that PATH at a time may need",
		ArgsUsage: "URL [PATH]",
		Flags: slices.Concat(archiveFlags(), []cli.Flag{
			timeFlag(),
			&cli.StringFlag{Name: "priority", Value: "Standard", Usage: "`PRIORITY` Standard or High"},
			&cli.StringFlag{Name: "tier", Value: "Hot", Usage: "`TIER` to bring them to: Hot, Cool or Cold"},
			&cli.BoolFlag{Name: "wait", Usage: "return only when all are readable"},
			dryRunFlag(), currentTimeFlag(),
		}),
		Action: func(c *cli.Context) error { return runRehydrate(c.Context, e, c) },
	}
}

func runRehydrate(ctx context.Context, e *environ, c *cli.Context) error {
	url, p, err := urlAndPath(c)
	if err != nil {
		return err
	}
	a, err := e.open(ctx, c, url)
	if err != nil {
		return err
	}
	defer a.Close()
	tierer, ok := a.store.Backend().(backends.Tierer)
	if !ok {
		return a.noTiers()
	}
	wanted, err := a.volumesFor(ctx, c, p)
	if err != nil {
		return err
	}
	cold, err := a.archived(ctx, wanted)
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stdout, "%s may be needed, %d of them archived (%s)\n", plural(int64(len(wanted)), "volume"), len(cold), size(total(cold)))
	if c.Bool("dry-run") {
		for _, f := range cold {
			fmt.Fprintln(e.stdout, printable(f.Name))
		}
		return nil
	}
	asked := int64(0)
	for _, f := range cold {
		if f.Rehydrating {
			continue
		}
		err := tierer.SetTier(ctx, f.Name, c.String("tier"), c.String("priority"))
		if errors.Is(err, backends.ErrArchived) { // under way since we looked
			continue
		}
		if err != nil {
			return a.tierError(f.Name, err)
		}
		asked++
	}
	if len(cold) > 0 {
		fmt.Fprintf(e.stdout, "%s asked for, %d on the way already\n", plural(asked, "volume"), int64(len(cold))-asked)
	}
	if !c.Bool("wait") {
		return nil
	}
	return a.awaitRehydration(ctx, wanted)
}

func total(files []backends.File) int64 {
	var n int64
	for _, f := range files {
		n += max(f.Size, 0)
	}
	return n
}

// rehydrationPoll is how often the store is asked how far it is.
const rehydrationPoll = 30 * time.Second

// awaitRehydration returns when none of the files is archived any more.
func (a *archive) awaitRehydration(ctx context.Context, wanted map[string]bool) error {
	wait, last := time.Second, -1
	for {
		cold, err := a.archived(ctx, wanted)
		if err != nil {
			return err
		}
		if len(cold) == 0 {
			fmt.Fprintln(a.env.stdout, "all of them can be read")
			return nil
		}
		if len(cold) != last {
			last = len(cold)
			fmt.Fprintf(a.env.stdout, "%d of %d still archived (%s)\n", len(cold), len(wanted), size(total(cold)))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, rehydrationPoll)
	}
}

// archived returns those of the files, nil for all, that must be rehydrated.
func (a *archive) archived(ctx context.Context, wanted map[string]bool) ([]backends.File, error) {
	files, err := a.store.Backend().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.shown, err)
	}
	return slices.DeleteFunc(files, func(f backends.File) bool {
		return !f.Archived || wanted != nil && !wanted[f.Name]
	}), nil
}

// warnArchived says which volumes must be rehydrated before all of a path can
// be read at the time that --time gives, and returns how many they are. With
// everywhere, all volumes of the archive count, as in a mount.
func (a *archive) warnArchived(ctx context.Context, c *cli.Context, p chain.Path, everywhere bool) (int, error) {
	if _, ok := a.store.Backend().(backends.Tierer); !ok {
		return 0, nil
	}
	cold, err := a.archived(ctx, nil)
	if err != nil {
		return 0, err
	}
	cold = slices.DeleteFunc(cold, func(f backends.File) bool {
		n, ok := chain.ParseName(f.Name, a.store.Prefixes())
		return !ok || n.Kind != chain.VolumeFile
	})
	if len(cold) > 0 && !everywhere {
		wanted, err := a.volumesFor(ctx, c, p)
		if err != nil {
			return 0, err
		}
		cold = slices.DeleteFunc(cold, func(f backends.File) bool { return !wanted[f.Name] })
	}
	if len(cold) == 0 {
		return 0, nil
	}
	a.env.warn("%s, %s, may be needed and cannot be read, being archived: %s",
		plural(int64(len(cold)), "volume"), size(total(cold)), someNames(cold))
	a.env.hint(a.rehydrateHint(c, p))
	return len(cold), nil
}

// rehydrateHint is the command that asks for what a path needs.
func (a *archive) rehydrateHint(c *cli.Context, p chain.Path) string {
	line := "dupfs rehydrate --wait"
	if t := c.String("time"); t != "" {
		line += " --time " + t
	}
	line += " " + a.shown
	if p != "" {
		line += " " + printable(p.String())
	}
	return "`" + line + "` makes them readable; until then a read of what is in them fails at once"
}

// someNames lists the first few files, by name.
func someNames(files []backends.File) string {
	const most = 3
	var names []string
	onWay := 0
	for _, f := range files {
		names = append(names, f.Name)
		if f.Rehydrating {
			onWay++
		}
	}
	slices.Sort(names)
	text := strings.Join(names[:min(most, len(names))], ", ")
	if len(names) > most {
		text += fmt.Sprintf(" and %d more", len(names)-most)
	}
	if onWay > 0 {
		text += fmt.Sprintf(" (%d on the way)", onWay)
	}
	return text
}

// volumesFor returns the names of the volumes that may hold a path, or
// anything below it, at the time that --time gives.
func (a *archive) volumesFor(ctx context.Context, c *cli.Context, p chain.Path) (map[string]bool, error) {
	point, err := a.pointAt(ctx, c, c.String("time"))
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, l := range a.snapshot.Collection().Lines {
		if l.End().Before(point.Time) || l.Sets[0].End.After(point.Time) {
			continue
		}
		for _, s := range l.Sets {
			if s.End.After(point.Time) {
				break
			}
			if err := a.addVolumes(ctx, wanted, s, p); err != nil {
				return nil, err
			}
		}
	}
	return wanted, nil
}

// addVolumes adds the volumes of one set that may hold p.
func (a *archive) addVolumes(ctx context.Context, wanted map[string]bool, s *chain.Set, p chain.Path) error {
	m, err := a.manifest(ctx, s)
	if err != nil {
		return err
	}
	rows := map[int]manifest.Volume{}
	for _, v := range m.Volumes {
		rows[v.Number] = v
	}
	for _, v := range s.Volumes {
		if row, ok := rows[v.Volume]; !ok || row.MayHold(p) {
			wanted[v.File] = true
		}
	}
	return nil
}

// noTiers is what a command says that is about tiers.
func (a *archive) noTiers() error {
	return fail(exitUser, fmt.Errorf("%s: this store has no access tiers", a.shown), "")
}

// tierError tells a store without tiers from one that refused.
func (a *archive) tierError(name string, err error) error {
	if errors.Is(err, errors.ErrUnsupported) {
		return a.noTiers()
	}
	return fmt.Errorf("%s: %w", name, err)
}

func retierCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "retier",
		Usage:     "move the volumes of the archive to a tier; manifests, signatures and indexes stay where they are",
		ArgsUsage: "URL TIER",
		Flags: slices.Concat(archiveFlags(), []cli.Flag{
			&cli.StringFlag{Name: "older-than", Usage: "only sets older than `TIME`"},
			dryRunFlag(), currentTimeFlag(),
		}),
		Action: func(c *cli.Context) error { return runRetier(c.Context, e, c) },
	}
}

func runRetier(ctx context.Context, e *environ, c *cli.Context) error {
	args, err := positionals(c, 2, 2, "URL TIER")
	if err != nil {
		return err
	}
	limit, err := e.parseTime(c, c.String("older-than"))
	if err != nil {
		return err
	}
	a, err := e.openStore(ctx, c, args[0])
	if err != nil {
		return err
	}
	defer a.Close()
	tierer, ok := a.store.Backend().(backends.Tierer)
	if !ok {
		return a.noTiers()
	}
	files, err := a.store.Backend().List(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", a.shown, err)
	}
	moved := int64(0)
	for _, f := range files {
		n, ok := chain.ParseName(f.Name, a.store.Prefixes())
		if !ok || n.Kind != chain.VolumeFile || !n.End.Before(limit) || strings.EqualFold(f.Tier, args[1]) || f.Rehydrating {
			continue
		}
		moved++
		if c.Bool("dry-run") {
			fmt.Fprintf(e.stdout, "%s: %s to %s\n", printable(f.Name), orNone(f.Tier), args[1])
			continue
		}
		if err := tierer.SetTier(ctx, f.Name, args[1], "Standard"); err != nil {
			return a.tierError(f.Name, err)
		}
	}
	fmt.Fprintf(e.stdout, "%s to %s\n", plural(moved, "volume"), args[1])
	return nil
}
