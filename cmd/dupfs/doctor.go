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

With par2+URL, --repair also writes healed files in the place of damaged ones, once
they are verified, and makes recovery files where there are none. Nothing else is
deleted or replaced. What cannot be repaired stays as useful as it is:
restore and mount give every file that is intact and name the others.`,
		Flags: slices.Concat(archiveFlags(), []cli.Flag{jsonFlag(), currentTimeFlag(),
			&cli.BoolFlag{Name: "deep", Usage: "read all volumes, too"},
			&cli.BoolFlag{Name: "repair", Usage: "make lost manifests, signatures and indexes anew; with par2+URL, write back what was healed"},
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
	apart  bool                        // the repair changes nothing about other ailments
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
	a.audited = true
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
		seen := "Nothing is wrong."
		if !c.Bool("deep") {
			seen = "Nothing is wrong, as far as is seen without reading volumes (--deep)."
		}
		fmt.Fprintln(e.stdout, seen)
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
			if done = true; !x.apart {
				break
			}
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
	unknown, loose := recoveryNames(unknown)
	x := &examiner{archive: a, c: c, col: col, loose: map[string]bool{}}
	for _, n := range loose {
		x.loose[n] = true
	}
	x.stray(ctx)
	x.recoveryFiles(loose)
	if err := x.complete(ctx); err != nil {
		return nil, err
	}
	if !c.Bool("json") {
		fmt.Fprintf(a.env.stdout, "%s: %s of %s, %s in all", a.shown, plural(int64(len(col.Chains)), "chain"),
			plural(int64(len(completeSets(col))), "set"), size(totalSize(stored)))
		for _, s := range completeSets(col) {
			for _, f := range s.Files() {
				x.recovery += a.store.Recovery(f.File).Bytes
			}
		}
		if x.recovery > 0 {
			fmt.Fprintf(a.env.stdout, ", with recovery files of %s", size(x.recovery))
		}
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

	loose    map[string]bool // recovery files, where the URL is without par2+
	recovery int64           // bytes of recovery files
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
	for _, f := range x.store.LostOf(s) {
		if f.Kind == chain.ManifestFile {
			x.add(ailment{Set: stamp(s.End), File: f.File, Grave: true,
				Wrong:  fmt.Sprintf("the backup of %s has no manifest, but there are recovery files of it", stamp(s.End)),
				Advice: "if it was not removed on purpose, `dupfs doctor --repair URL` makes the manifest whole",
				repair: func(ctx context.Context) error { return x.store.PutBack(ctx, f, nil) }})
			return
		}
	}
	for _, other := range x.col.Orphaned {
		if s.Sigtar == nil && s.Index == nil && other.Start.Equal(s.End) {
			x.add(ailment{Set: stamp(s.End), Grave: true,
				Wrong: fmt.Sprintf("of the backup of %s only volumes are left, and that of %s builds on it", stamp(s.End), stamp(other.End)),
				Advice: "do not clean up: look for its manifest in copies of the archive, and in the local caches of the machines that wrote to it. " +
					"`dupfs restore --salvage URL DIR` restores what the volumes hold"})
			return
		}
	}
	if s.Sigtar == nil && s.Index == nil {
		x.add(ailment{Set: stamp(s.End), Wrong: fmt.Sprintf("the backup of %s did not finish", stamp(s.End)),
			Advice: "nothing builds on it; `dupfs restore --salvage URL DIR` restores what its volumes hold; " + x.goneOn(s) + "`dupfs cleanup --force URL` removes what is left of it"})
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

// goneOn says how an unfinished set can become a whole one.
func (x *examiner) goneOn(s *chain.Set) string {
	if s != lastUnfinished(x.col) {
		return ""
	}
	return "`dupfs backup --resume-from-store SOURCE URL` goes on with one of dupfs; "
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
	case errors.Is(f.Err, audit.ErrHealable):
		a.Advice = "nothing is lost so far: `dupfs doctor --deep --repair URL` writes the healed file in its place"
		a.repair, a.apart = func(ctx context.Context) error { return x.putBack(ctx, f) }, true
	case x.loose[f.File+".par2"]:
		a.Advice = "there are recovery files of it: " + par2Hint(x.archive)
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

// putBack writes a healed file in the place of the damaged one.
func (x *examiner) putBack(ctx context.Context, f audit.Finding) error {
	n, sum, err := x.storedFile(ctx, f.Set, f.File)
	if err != nil {
		return err
	}
	return x.store.PutBack(ctx, n, sum)
}

// storedFile returns a file of a set, and of a volume its SHA-1, as far as the
// manifest has it.
func (x *examiner) storedFile(ctx context.Context, s *chain.Set, file string) (chain.Stored, []byte, error) {
	for _, n := range s.Files() {
		if n.File != file {
			continue
		}
		if n.Kind != chain.VolumeFile {
			return n, nil, nil
		}
		m, err := x.manifest(ctx, s)
		if err != nil {
			return n, nil, err
		}
		for _, v := range m.Volumes {
			if v.Number == n.Volume && v.HasSHA1 {
				return n, v.SHA1[:], nil
			}
		}
		return n, nil, nil
	}
	return chain.Stored{}, nil, fmt.Errorf("%s: %w", file, fs.ErrNotExist)
}

// recoveryFiles looks at what is there to heal with; loose are recovery files
// that the URL, being without par2+, does not use.
func (x *examiner) recoveryFiles(loose []string) {
	if len(loose) > 0 {
		x.add(ailment{Wrong: plural(int64(len(loose)), "recovery file") + " of par2, which this URL does not use",
			Advice: par2Hint(x.archive)})
	}
	if x.store.Healer() == nil {
		return
	}
	type bare struct {
		set *chain.Set
		f   chain.Stored
	}
	var without []bare
	for _, s := range completeSets(x.col) {
		for _, f := range s.Files() {
			if f.Size != 0 && !x.store.CanHeal(f.File) {
				without = append(without, bare{s, f})
			}
		}
	}
	if len(without) > 0 {
		var bytes int64
		for _, w := range without {
			bytes += max(w.f.Size, 0)
		}
		x.add(ailment{File: without[0].f.File,
			Wrong:  fmt.Sprintf("%s, such as %s, %s recovery files", plural(int64(len(without)), "file"), without[0].f.File, haveNo(len(without))),
			Advice: fmt.Sprintf("`dupfs doctor --repair URL` reads them (%s) and makes recovery files", size(bytes)),
			repair: func(ctx context.Context) error {
				for _, w := range without {
					n, sum, err := x.storedFile(ctx, w.set, w.f.File)
					if err == nil {
						err = x.store.Protect(ctx, n, sum)
					}
					if err != nil {
						return err
					}
				}
				return nil
			}})
	}
	left := slices.DeleteFunc(x.store.Leftovers(), func(f chain.Stored) bool {
		return slices.ContainsFunc(x.col.Incomplete, func(s *chain.Set) bool { return slices.Contains(x.store.LostOf(s), f) })
	})
	if len(left) > 0 {
		x.add(ailment{File: left[0].File,
			Wrong:  fmt.Sprintf("there are recovery files of %s not there, such as %s", countOf(int64(len(left)), "file that is", "files that are"), left[0].File),
			Advice: "if its backup was removed they are of no use; `dupfs cleanup --force URL` removes them"})
	}
}

func haveNo(n int) string {
	if n == 1 {
		return "has no"
	}
	return "have no"
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
