package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
	"dupfs/chain/retention"
)

func removeOlderCommand(e *environ) *cli.Command {
	return removeCommand(e, "remove-older-than", "delete chains that ended before TIME", "TIME URL",
		func(c *cli.Context, arg string, col *chain.Collection) (*retention.Plan, error) {
			t, err := e.parseTime(c, arg)
			if err != nil {
				return nil, err
			}
			return retention.RemoveOlderThan(col, t), nil
		})
}

func removeAllButCommand(e *environ) *cli.Command {
	return removeCommand(e, "remove-all-but-n-full", "keep the newest N full backups with their increments", "N URL",
		func(_ *cli.Context, arg string, col *chain.Collection) (*retention.Plan, error) {
			n, err := countArg(arg)
			return retention.RemoveAllButNFull(col, n), err
		})
}

func removeIncCommand(e *environ) *cli.Command {
	return removeCommand(e, "remove-all-inc-of-but-n-full", "delete the increments of all but the newest N full backups", "N URL",
		func(_ *cli.Context, arg string, col *chain.Collection) (*retention.Plan, error) {
			n, err := countArg(arg)
			return retention.RemoveAllIncOfButNFull(col, n), err
		})
}

func cleanupCommand(e *environ) *cli.Command {
	return removeCommand(e, "cleanup", "delete what interrupted or broken backups left", "URL",
		func(_ *cli.Context, _ string, col *chain.Collection) (*retention.Plan, error) {
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
func removeCommand(e *environ, name, usage, form string, plan func(*cli.Context, string, *chain.Collection) (*retention.Plan, error)) *cli.Command {
	return &cli.Command{
		Name:      name,
		Usage:     usage + "; shows what it would do unless --force is given",
		ArgsUsage: form,
		Flags:     slices.Concat(archiveFlags(), []cli.Flag{
			forceFlag(), dryRunFlag(), currentTimeFlag(),
			&cli.BoolFlag{Name: "ignore-mounts", Usage: "delete also what a mount on this machine shows somebody just now"},
		}),
		Action: func(c *cli.Context) error {
			n := 2
			if name == "cleanup" {
				n = 1
			}
			args, err := positionals(c, n, n, form)
			if err != nil {
				return err
			}
			return runRemove(c.Context, e, c, args, plan)
		},
	}
}

func runRemove(ctx context.Context, e *environ, c *cli.Context, args []string, plan func(*cli.Context, string, *chain.Collection) (*retention.Plan, error)) error {
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
	files, err := a.store.List(ctx)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", a.shown, err)
	}
	p, err := plan(c, args[0], chain.Collect(files))
	if err != nil {
		return err
	}
	for _, w := range p.Warnings {
		e.warn("%s", w)
	}
	e.printPlan(p, c.Command.Name == "cleanup", c.Bool("force"))
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
	if c.Command.Name == "cleanup" { // what its journal tells of is gone
		if err := os.Remove(a.journal()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// printPlan says in duplicity's words what is deleted.
func (e *environ) printPlan(p *retention.Plan, cleanup, force bool) {
	out := e.stdout
	if len(p.Needed) > 0 {
		fmt.Fprintln(out, "There are backup set(s) at time(s):")
		for _, s := range p.Needed {
			fmt.Fprintln(out, asctime(s.End))
		}
		fmt.Fprintln(out, "Which can't be deleted because newer sets depend on them.")
	}
	switch {
	case cleanup && len(p.Delete) == 0:
		fmt.Fprintln(out, "No extraneous files found, nothing deleted in cleanup.")
	case cleanup:
		head, tail := "Found the following files to delete:", "Run duplicity again with the --force option to actually delete."
		if force {
			head, tail = "Deleting these files from backend:", ""
		}
		fmt.Fprintln(out, head)
		for _, f := range p.Delete {
			fmt.Fprintln(out, printable(f.File))
		}
		if tail != "" {
			fmt.Fprintln(out, tail)
		}
	case len(p.Delete) == 0:
		fmt.Fprintln(out, "No old backup sets found, nothing deleted.")
	default:
		e.printChains(p, force)
	}
}

func (e *environ) printChains(p *retention.Plan, force bool) {
	head := "Found old backup chain"
	if force {
		head = "Deleting backup chain"
	}
	s := ""
	if len(p.Chains) > 1 {
		s = "s"
	}
	fmt.Fprintf(e.stdout, "%s%s at the following time%s:\n", head, s, s)
	for _, ch := range p.Chains {
		for _, set := range ch.Sets {
			fmt.Fprintln(e.stdout, asctime(set.End))
		}
	}
	if !force {
		fmt.Fprintln(e.stdout, "Rerun command with --force option to actually delete.")
	}
}
