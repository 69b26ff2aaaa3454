package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
	"dupfs/chain/audit"
	"dupfs/chain/manifest"
	"dupfs/chain/repair"
)

func doctorCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "doctor",
		Usage:     "say what is there, what is wrong and what can be done; with --repair do the safe part",
		ArgsUsage: "URL",
		Description: `dupfs doctor URL                 the listing, manifests, indexes and signatures
dupfs doctor --deep URL          and every volume
dupfs doctor --repair URL        makes lost manifests, signatures and indexes anew from what is left

Nothing is deleted or replaced. What cannot be repaired stays as useful as it is:
restore and mount give every file that is intact and name the others.`,
		Flags: slices.Concat(archiveFlags(), []cli.Flag{jsonFlag(), currentTimeFlag(),
			&cli.BoolFlag{Name: "deep", Usage: "read all volumes, too"},
			&cli.BoolFlag{Name: "repair", Usage: "make lost manifests, signatures and indexes anew"},
		}),
		Action: func(c *cli.Context) error { return runDoctor(c.Context, e, c) },
	}
}

// ailment is something that is wrong with an archive.
type ailment struct {
	Set    string `json:"set,omitempty"` // end time
	File   string `json:"file,omitempty"`
	Wrong  string `json:"wrong"`
	Advice string `json:"advice"`
	// Grave says that something stored may be lost.
	Grave bool `json:"grave"`

	repair func(context.Context) error // nil: nothing can be done here
}

func runDoctor(ctx context.Context, e *environ, c *cli.Context) error {
	args, err := positionals(c, 1, 1, "URL")
	if err != nil {
		return err
	}
	a, err := e.openStore(ctx, c, args[0])
	if err != nil {
		return err
	}
	defer a.Close()
	found, err := a.examine(ctx, c)
	if err != nil {
		return err
	}
	if c.Bool("repair") {
		if found, err = a.treat(ctx, c, found); err != nil {
			return err
		}
	}
	if err := e.printAilments(c, found); err != nil {
		return err
	}
	if slices.ContainsFunc(found, func(x ailment) bool { return x.Grave }) {
		return fail(exitDamaged, errors.New("something in the archive is damaged or missing"), "")
	}
	return nil
}

// printAilments tells what was found.
func (e *environ) printAilments(c *cli.Context, found []ailment) error {
	if c.Bool("json") {
		enc := json.NewEncoder(e.stdout)
		for _, x := range found {
			if err := enc.Encode(x); err != nil {
				return err
			}
		}
		return nil
	}
	for _, x := range found {
		fmt.Fprintf(e.stdout, "%s\n    %s\n", printable(x.Wrong), printable(x.Advice))
	}
	if len(found) == 0 {
		fmt.Fprintln(e.stdout, "Nothing is wrong.")
	}
	return nil
}

// treat repairs what can be and examines the archive again, as long as that
// helps: a set whose base came back may have an ailment of its own.
func (a *archive) treat(ctx context.Context, c *cli.Context, found []ailment) ([]ailment, error) {
	failed := map[string]error{}
	for {
		done := false
		for _, x := range found {
			if x.repair == nil || failed[x.Wrong] != nil {
				continue
			}
			if err := x.repair(ctx); err != nil {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				failed[x.Wrong] = err
				continue
			}
			fmt.Fprintf(a.env.stdout, "repaired: %s\n", printable(x.Wrong))
			done = true
			break
		}
		var err error
		if found, err = a.examine(ctx, c); err != nil {
			return nil, err
		}
		if !done {
			break
		}
	}
	for i := range found {
		if err := failed[found[i].Wrong]; err != nil {
			found[i].Advice = fmt.Sprintf("it could not be repaired: %v", err)
		}
	}
	return found, nil
}

// examine looks at the archive.
func (a *archive) examine(ctx context.Context, c *cli.Context) ([]ailment, error) {
	stored, unknown, err := a.store.ListAll(ctx)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(stored) == 0 {
		return nil, fmt.Errorf("%s: %w", a.shown, errNoBackups)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.shown, err)
	}
	col := chain.Collect(stored)
	x := &examiner{archive: a, c: c, col: col}
	x.stray(ctx)
	if err := x.complete(ctx); err != nil {
		return nil, err
	}
	if !c.Bool("json") {
		fmt.Fprintf(a.env.stdout, "%s: %s of %s, %s in all", a.shown, plural(int64(len(col.Chains)), "chain"),
			plural(int64(len(completeSets(col))), "set"), size(totalSize(stored)))
		if len(unknown) > 0 {
			fmt.Fprintf(a.env.stdout, ", and %s of other programs", plural(int64(len(unknown)), "file"))
		}
		fmt.Fprintln(a.env.stdout)
	}
	return x.found, nil
}

func totalSize(files []chain.Stored) (sum int64) {
	for _, f := range files {
		sum += max(f.Size, 0)
	}
	return sum
}

// examiner collects what is wrong.
type examiner struct {
	*archive
	c     *cli.Context
	col   *chain.Collection
	found []ailment
}

func (x *examiner) add(a ailment) { x.found = append(x.found, a) }

// stray looks at what is in no chain.
func (x *examiner) stray(ctx context.Context) {
	for _, s := range x.col.Incomplete {
		x.incomplete(s)
	}
	for _, s := range x.col.Orphaned {
		x.add(ailment{Set: stamp(s.End), Grave: true,
			Wrong: fmt.Sprintf("the backup of %s builds on that of %s, which is missing or has no manifest%s", stamp(s.End), stamp(s.Start), x.holds(ctx, s)),
			Advice: "keep it: it is whole again once the other one is; copies of the archive may have that. " +
				"`dupfs restore --salvage --time " + stamp(s.End) + " URL DIR` restores the files that it holds itself"})
	}
	for _, f := range slices.Concat(x.col.LooseSigtars, x.col.LooseIndexes) {
		if slices.ContainsFunc(x.col.Orphaned, func(s *chain.Set) bool { return s.Start.Equal(f.End) }) {
			x.add(ailment{File: f.File, Wrong: f.File + " is what is left of a backup that others build on",
				Advice: "keep it: the rest may turn up in a copy of the archive"})
			continue
		}
		x.add(ailment{File: f.File, Wrong: f.File + " belongs to no set",
			Advice: "harmless; `dupfs cleanup --force URL` removes it"})
	}
	for _, s := range completeSets(x.col) {
		for _, f := range s.Duplicates {
			x.add(ailment{File: f.File, Set: stamp(s.End), Wrong: f.File + " claims the place of another file",
				Advice: "harmless as long as the other one is intact: compare them before you remove one"})
		}
	}
}

// holds says what a set that lost its base holds itself.
func (x *examiner) holds(ctx context.Context, s *chain.Set) string {
	r, err := x.store.Open(ctx, *s.Manifest)
	if err != nil {
		return ""
	}
	count := map[string]int64{}
	err = manifest.ParseFileList(r, func(c manifest.Change) error {
		count[c.Kind]++
		return nil
	})
	if err = errors.Join(err, r.Close()); err != nil || len(count) == 0 {
		return ""
	}
	return fmt.Sprintf("; it holds %s that came with it, and what changed in %d others", plural(count["new"], "file"), count["changed"])
}

// incomplete looks at a set without a manifest.
func (x *examiner) incomplete(s *chain.Set) {
	for _, other := range x.col.Orphaned {
		if s.Sigtar == nil && s.Index == nil && other.Start.Equal(s.End) {
			x.add(ailment{Set: stamp(s.End), Grave: true,
				Wrong:  fmt.Sprintf("of the backup of %s only volumes are left, and that of %s builds on it", stamp(s.End), stamp(other.End)),
				Advice: "do not clean up: look for its manifest in copies of the archive, and in the local caches of the machines that wrote to it"})
			return
		}
	}
	if s.Sigtar == nil && s.Index == nil {
		x.add(ailment{Set: stamp(s.End), Wrong: fmt.Sprintf("the backup of %s did not finish", stamp(s.End)),
			Advice: "nothing builds on it; `dupfs cleanup --force URL` removes what is left of it"})
		return
	}
	x.add(ailment{Set: stamp(s.End), Grave: true,
		Wrong:  fmt.Sprintf("the backup of %s has no manifest, but what is stored after all volumes, so it may be whole", stamp(s.End)),
		Advice: "do not clean up: `dupfs doctor --repair URL` reads its volumes and makes the manifest anew",
		repair: func(ctx context.Context) error {
			host, dir := x.sourceOf(ctx, s)
			return repair.Manifest(ctx, x.store, s, host, dir)
		}})
}

// sourceOf returns the host and directory that a set is of, as a manifest of a
// set near it tells.
func (x *examiner) sourceOf(ctx context.Context, s *chain.Set) (host, dir string) {
	var best *manifest.Manifest
	for _, other := range completeSets(x.col) {
		if best != nil && other.End.After(s.End) {
			continue
		}
		if m, err := x.manifest(ctx, other); err == nil {
			best = m
		}
	}
	if best == nil {
		return "", ""
	}
	return best.Hostname, best.Localdir
}

// complete looks at the sets that have a manifest.
func (x *examiner) complete(ctx context.Context) error {
	sets := completeSets(x.col)
	files, found, err := audit.List(ctx, x.store, sets)
	if err != nil {
		return err
	}
	bad := map[string]bool{}
	for _, f := range found {
		bad[f.File] = f.File != ""
		x.finding(f)
	}
	led, err := x.ledger()
	if err != nil {
		return err
	}
	for _, f := range files {
		if bad[f.File] || f.Kind == chain.VolumeFile && !x.c.Bool("deep") {
			continue
		}
		err := audit.Check(ctx, x.store, f, x.dir)
		var corrupt *chain.CorruptError
		switch {
		case err == nil:
			led.Note(f, x.env.now())
		case errors.As(err, &corrupt) || errors.Is(err, fs.ErrNotExist):
			x.finding(audit.Finding{Set: f.Set, File: f.File, Err: err})
		default:
			return fmt.Errorf("%s: %w", f.File, err)
		}
	}
	return led.Save(files)
}

// finding says what can be done about something that is wrong with a set.
func (x *examiner) finding(f audit.Finding) {
	a := ailment{Set: stamp(f.Set.End), File: f.File, Wrong: findingText(f), Grave: true}
	name, _ := chain.ParseName(f.File, x.store.Prefixes())
	switch {
	case f.Set.Sigtar == nil && f.File == "" && errors.Is(f.Err, audit.ErrNoSigtar):
		a.Grave = false
		a.Advice = "`dupfs doctor --repair URL` makes them anew from the volumes"
		a.repair = func(ctx context.Context) error { return x.makeSigtar(ctx, f.Set) }
	case errors.Is(f.Err, audit.ErrNoIndex):
		a.Grave = false
		a.Advice = "nothing is lost; `dupfs doctor --repair URL` makes it anew from the volumes"
		a.repair = func(ctx context.Context) error { return x.makeIndex(ctx, f.Set) }
	case name.Kind == chain.SigtarFile:
		a.Advice = "nothing can be restored less for it, but the next increment cannot build on it: move it away and run `dupfs doctor --repair URL`, which makes it anew"
	case name.Kind == chain.IndexFile:
		a.Advice = "nothing is lost, it is read more slowly; move it away and run `dupfs doctor --repair URL`, which makes it anew"
	case name.Kind == chain.ManifestFile:
		a.Advice = "move it away and run `dupfs doctor --repair URL`, which makes it anew; older points are as they were"
	default:
		a.Advice = "`dupfs verify --all-points URL` names the files that are lost; make a full backup now, and look for a copy of the volume"
	}
	x.add(a)
}

// makeIndex makes the index of a set anew.
func (x *examiner) makeIndex(ctx context.Context, s *chain.Set) error {
	if _, err := x.points(ctx); err != nil {
		return err
	}
	if err := x.snapshot.Refresh(ctx); err != nil {
		return err
	}
	return x.snapshot.MakeIndex(ctx, s.Times())
}

// makeSigtar makes the signatures of a set anew.
func (x *examiner) makeSigtar(ctx context.Context, s *chain.Set) error {
	points, err := x.points(ctx)
	if err != nil {
		return err
	}
	m, err := x.manifest(ctx, s)
	if err != nil {
		return err
	}
	for _, p := range points {
		if p.Time.Equal(s.End) {
			tree, err := x.snapshot.Tree(ctx, p.Number)
			if err != nil {
				return err
			}
			return repair.Sigtar(ctx, x.store, s, m, x.snapshot, tree, x.c.String("tempdir"))
		}
	}
	return fmt.Errorf("the backup of %s cannot be read", stamp(s.End))
}
