package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/urfave/cli/v2"
)

func indexCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "index",
		Usage:     "learn all of an archive that another program wrote, so that it is instant from then on",
		ArgsUsage: "URL",
		Description: `dupfs index sftp://backup@host/archive
dupfs index --upload sftp://backup@host/archive

Volumes are read once, verified, and what they hold is kept in the local cache.
With --upload it is also put beside the archive, encrypted as that is, so that
every machine gains from it. Other programs do not mind these small files.`,
		Flags: slices.Concat(archiveFlags(), []cli.Flag{currentTimeFlag(),
			&cli.BoolFlag{Name: "upload", Usage: "put what was learned beside the archive, for other machines"},
		}),
		Action: func(c *cli.Context) error { return runIndex(c.Context, e, c) },
	}
}

// runIndex reads what is not known yet, volume by volume.
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
	if c.Bool("upload") {
		unlock, err := a.lock()
		if err != nil {
			return err
		}
		defer unlock()
	}
	count := a.snapshot.Progress()
	stop := e.follow("index", func() progress {
		return progress{done: count.Bytes.Load(), total: count.Expected.Load()}
	})
	err = a.snapshot.LearnAll(ctx)
	if err == nil && c.Bool("upload") {
		err = a.snapshot.Upload(ctx)
	}
	stop()
	if err != nil {
		return err
	}
	points, err := a.points(ctx) // with what was found damaged
	if err != nil {
		return err
	}
	for _, p := range points {
		if p.Damage != "" {
			e.warn("the backup of %s is damaged: %s", stamp(p.Time), p.Damage)
		}
	}
	if c.Bool("upload") {
		fmt.Fprintf(e.stdout, "%s stored\n", plural(count.Indexes.Load(), "index file"))
	}
	fmt.Fprintf(e.stdout, "%s of %s known\n", plural(int64(len(points)), "point"), a.shown)
	if n := count.Damaged.Load(); n > 0 {
		return fail(exitDamaged, fmt.Errorf("%s cannot be read whole", plural(n, "file")), "`dupfs verify URL` names them")
	}
	return nil
}
