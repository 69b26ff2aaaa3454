package main

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
)

func indexCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "index",
		Usage:     "learn all of an archive that another program wrote, so that it is instant from then on",
		ArgsUsage: "URL",
		Flags:     slices.Concat(archiveFlags(), []cli.Flag{currentTimeFlag()}),
		Action:    func(c *cli.Context) error { return runIndex(c.Context, e, c) },
	}
}

// runIndex asks for the exact size of everything at every point: what is not
// known yet is learned by that, volume by volume.
func runIndex(ctx context.Context, e *environ, c *cli.Context) error {
	args, err := positionals(c, 1, 1, "URL")
	if err != nil {
		return err
	}
	a, err := e.open(ctx, c, args[0])
	if err != nil {
		return err
	}
	defer a.Close()
	points, err := a.points(ctx)
	if err != nil {
		return err
	}
	var entries atomic.Int64
	stop := e.follow("index", func() progress { return progress{done: entries.Load()} })
	defer stop()
	for _, p := range points {
		t, err := a.treeAt(ctx, p)
		if err != nil {
			return err
		}
		if err := walk(ctx, t, chain.Root, true, func(chain.Node) error { entries.Add(1); return nil }); err != nil {
			return fmt.Errorf("the backup of %s: %w", stamp(p.Time), err)
		}
	}
	_, err = fmt.Fprintf(e.stdout, "%s of %s known\n", plural(int64(len(points)), "point"), a.shown)
	return err
}
