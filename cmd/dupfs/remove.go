package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
	"dupfs/chain/retention"
)

// planner says what of a collection is deleted; arg is the first argument.
type planner func(ctx context.Context, a *archive, c *cli.Context, arg string, col *chain.Collection) (*retention.Plan, error)

func removeOlderCommand(e *environ) *cli.Command {
	return removeCommand(e, "remove-older-than", "delete chains that ended before TIME", "TIME URL",
		func(_ context.Context, _ *archive, c *cli.Context, arg string, col *chain.Collection) (*retention.Plan, error) {
			t, err := e.parseTime(c, arg)
			if err != nil {
				return nil, err
			}
			return retention.RemoveOlderThan(col, t), nil
		})
}

func removeAllButCommand(e *environ) *cli.Command {
	return removeCommand(e, "remove-all-but-n-full", "keep the newest N full backups with their increments", "N URL",
		func(_ context.Context, _ *archive, _ *cli.Context, arg string, col *chain.Collection) (*retention.Plan, error) {
			n, err := countArg(arg)
			return retention.RemoveAllButNFull(col, n), err
		})
}

func removeIncCommand(e *environ) *cli.Command {
	return removeCommand(e, "remove-all-inc-of-but-n-full", "delete the increments of all but the newest N full backups", "N URL",
		func(_ context.Context, _ *archive, _ *cli.Context, arg string, col *chain.Collection) (*retention.Plan, error) {
			n, err := countArg(arg)
			return retention.RemoveAllIncOfButNFull(col, n), err
		})
}

func cleanupCommand(e *environ) *cli.Command {
	return removeCommand(e, "cleanup", "delete what interrupted or broken backups left", "URL",
		func(_ context.Context, _ *archive, _ *cli.Context, _ string, col *chain.Collection) (*retention.Plan, error) {
			return retention.Cleanup(col), nil
		})
}

// countArg reads N.
func countArg(arg string) (int, error) {
	n, err := strconv.Atoi(arg)
	if err != nil || n < 1 {
		return 1, usagef("%q is no number of backups: it must be 1 or more", arg)
	}
	return n, nil
}

// removeCommand is a command that deletes what a plan says, or with no
// --force only shows it.
func removeCommand(e *environ, name, usage, form string, plan planner) *cli.Command {
	return &cli.Command{
		Name:      name,
		Usage:     usage + "; shows what it would do unless --force is given",
		ArgsUsage: form,
		Flags: slices.Concat(archiveFlags(), []cli.Flag{
			forceFlag(), dryRunFlag(), currentTimeFlag(),
			&cli.BoolFlag{Name: "ignore-mounts", Usage: "delete also what a mount on this machine shows somebody just now"},
		}),
		Action: func(c *cli.Context) error {
			n := len(strings.Fields(form))
			args, err := positionals(c, n, n, form)
			if err != nil {
				return err
			}
			return runRemove(c.Context, e, c, args, plan)
		},
	}
}

func runRemove(ctx context.Context, e *environ, c *cli.Context, args []string, plan planner) error {
	a, err := e.openStore(ctx, c, args[len(args)-1])
	if err != nil {
		return err
	}
	defer a.Close()
	if c.Bool("force") && !c.Bool("dry-run") {
		unlock, err := a.lock()
		if err != nil {
			return err
		}
		defer unlock()
	}
	col, err := a.collect(ctx)
	if err != nil {
		return err
	}
	p, err := plan(ctx, a, c, args[0], col)
	if err != nil {
		return err
	}
	cleanup := c.Command.Name == "cleanup"
	if cleanup {
		for _, f := range a.store.Leftovers() {
			if f.Kind == chain.ManifestFile {
				e.warn("%s is not there, but recovery files of it: if it was not removed on purpose, `dupfs doctor --repair URL` makes it whole", f.File)
			}
			p.Delete = append(p.Delete, f)
		}
	}
	a.announce(col, cleanup)
	for _, w := range p.Warnings {
		e.warn("%s", w)
	}
	if cleanup {
		e.sayCleanup(p, c.Bool("force"))
	} else {
		e.sayRemoval(p, c.Bool("force"), c.Command.Name == "remove-all-inc-of-but-n-full")
	}
	if !c.Bool("force") || c.Bool("dry-run") {
		return nil
	}
	if !c.Bool("ignore-mounts") {
		if err := a.refuseInUse(p.Delete); err != nil {
			return err
		}
	}
	for _, f := range p.Delete {
		if err := a.store.Delete(ctx, f); err != nil {
			return fmt.Errorf("%s: %w", f.File, err)
		}
	}
	if c.Command.Name == "cleanup" { // what the journals tell of is gone
		for _, journal := range []string{a.journal(), a.compactJournal()} {
			if err := os.Remove(journal); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// sayCleanup says in duplicity's words what is deleted.
func (e *environ) sayCleanup(p *retention.Plan, force bool) {
	var files names
	for _, f := range p.Delete {
		files = append(files, f.File)
	}
	switch n := len(files); {
	case n == 0:
		e.say(message{level: levelWarning, format: "No extraneous files found, nothing deleted in cleanup."})
	case force:
		e.tell(several(n, "Deleting this file from backend:", "Deleting these files from backend:")+"\n%s", files)
	default:
		e.tell(several(n, "Found the following file to delete:", "Found the following files to delete:")+
			"\n%s\nRun duplicity again with the --force option to actually delete.", files)
	}
}

// sayRemoval says in duplicity's words which chains are deleted, or lose their
// increments.
func (e *environ) sayRemoval(p *retention.Plan, force, increments bool) {
	if len(p.Needed) > 0 {
		e.say(message{level: levelWarning, format: "There are backup set(s) at time(s):\n%s\n" +
			"Which can't be deleted because newer sets depend on them.", args: []any{setTimes(p.Needed)}})
	}
	if p.ActiveOld {
		e.say(message{level: levelWarning, format: "Current active backup chain is older than specified time.  " +
			"However, it will not be deleted.  To remove all your backups, manually purge the repository."})
	}
	n := len(p.Chains)
	if n == 0 {
		e.tell("No old backup sets found, nothing deleted.")
		return
	}
	var times []string
	for _, ch := range p.Chains {
		times = append(times, asctime(ch.End()))
	}
	slices.Reverse(times) // the oldest first
	list := strings.Join(times, "\n")
	if !force {
		e.tell(several(n, "Found old backup chain at the following time:", "Found old backup chains at the following times:")+
			"\n%s\nRerun command with --force option to actually delete.", list)
		return
	}
	e.tell(several(n, "Deleting backup chain at time:", "Deleting backup chains at times:")+"\n%s", list)
	for _, what := range []string{"signature", "backup"} {
		what = "Deleting complete " + what + " chain %s"
		if increments {
			what = strings.Replace(strings.Replace(what, "complete", "any incremental", 1), "chain", "chain rooted at", 1)
		}
		for _, ch := range p.Chains {
			e.tell(what, asctime(ch.End()))
		}
	}
}

func setTimes(sets []*chain.Set) string {
	var times []string
	for _, s := range sets {
		times = append(times, asctime(s.End))
	}
	return strings.Join(times, "\n")
}
