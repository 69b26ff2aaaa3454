package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
	"dupfs/chain/restore"
	"dupfs/internal/scratch"
)

func drillCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "drill",
		Usage:     "restore a random sample of files at random points to a scratch directory, and compare it",
		ArgsUsage: "URL",
		Description: `dupfs drill sftp://backup@host/archive || mail -s 'backup drill failed' root

A backup is worth what can be restored of it. Each run restores other files, really
to disk, and compares what came out with the hashes and facts in the archive. The
newest point always takes part.`,
		Flags: slices.Concat(archiveFlags(), []cli.Flag{currentTimeFlag(),
			&cli.IntFlag{Name: "files", Value: 20, Usage: "restore `N` files of each point"},
			&cli.IntFlag{Name: "points", Value: 3, Usage: "at `N` points"},
			&cli.StringFlag{Name: "max-bytes", Value: "1G", Usage: "restore at most `BYTES` in all"},
			&cli.Uint64Flag{Name: "seed", Usage: "choose as a run that told its `SEED` did"},
		}),
		Action: func(c *cli.Context) error { return runDrill(c.Context, e, c) },
	}
}

func runDrill(ctx context.Context, e *environ, c *cli.Context) error {
	args, err := positionals(c, 1, 1, "URL")
	if err != nil {
		return err
	}
	if c.Int("files") < 1 || c.Int("points") < 1 {
		return usagef("--files and --points are at least 1")
	}
	budget, err := byteCount(c, "max-bytes")
	if err != nil {
		return err
	}
	a, err := e.open(ctx, c, args[0])
	if err != nil {
		return err
	}
	defer a.Close()
	seed := c.Uint64("seed")
	if !c.IsSet("seed") {
		seed = new(maphash.Hash).Sum64()
	}
	d := &drill{archive: a, c: c, random: rand.New(rand.NewPCG(seed, 0)), budget: budget}
	err = d.run(ctx)
	fmt.Fprintf(e.stdout, "Drill with --seed %d: %s, %s, restored of %s; %s failed.\n", seed,
		plural(d.files, "file"), size(d.bytes.Load()), plural(d.points, "point"), plural(d.failed, "file"))
	switch {
	case err != nil:
		return err
	case d.failed > 0:
		return fail(exitDamaged, errors.New("the drill failed: not everything could be restored as it was"), "the warnings above name it; `dupfs doctor --deep URL` says what can be done")
	}
	return nil
}

// drill is the state of one drill.
type drill struct {
	*archive
	c      *cli.Context
	random *rand.Rand
	budget int64 // bytes that may still be restored
	dir    string

	files, points, failed int64
	bytes                 atomic.Int64
}

// run restores samples at random points, the newest one among them.
func (d *drill) run(ctx context.Context) (err error) {
	points, err := d.archive.points(ctx)
	if err != nil {
		return err
	}
	work, err := scratch.New(d.c.String("tempdir"), "dupfs-drill-")
	if err != nil {
		return err
	}
	d.dir = work.Path
	defer func() { err = errors.Join(err, work.Close()) }()
	stop := d.env.follow("drill", func() progress { return progress{done: d.bytes.Load()} })
	defer stop()
	last := len(points) - 1
	order := append([]int{last}, d.random.Perm(last)...)
	for _, i := range order[:min(len(order), d.c.Int("points"))] {
		if err := d.point(ctx, points[i]); err != nil {
			return err
		}
	}
	return nil
}

// point restores a sample of one point.
func (d *drill) point(ctx context.Context, p chain.Point) error {
	d.points++
	tree, err := d.treeAt(ctx, p)
	if err == nil {
		var sample []chain.Node
		if sample, err = d.sample(ctx, tree); err == nil {
			for _, n := range sample {
				if err := d.file(ctx, tree, p, n); err != nil {
					return err
				}
			}
			return nil
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	d.warnFailed(p, ".", err)
	return nil
}

func (d *drill) warnFailed(p chain.Point, what string, err error) {
	d.failed++
	d.env.warn("%s at %s: %v", what, stamp(p.Time), err)
}

// sample chooses files of a tree, each with the same chance, but none that is
// larger than what may still be restored.
func (d *drill) sample(ctx context.Context, tree chain.Tree) ([]chain.Node, error) {
	var chosen []chain.Node
	seen := 0
	err := walk(ctx, tree, chain.Root, true, func(n chain.Node) error {
		if n.Type != chain.File || n.Size > d.budget {
			return ctx.Err()
		}
		seen++
		if len(chosen) < d.c.Int("files") {
			chosen = append(chosen, n)
		} else if k := d.random.IntN(seen); k < len(chosen) {
			chosen[k] = n
		}
		return ctx.Err()
	})
	return chosen, err
}

// file restores one file and compares what is on disk then.
func (d *drill) file(ctx context.Context, tree chain.Tree, p chain.Point, n chain.Node) error {
	if n.Size > d.budget {
		return nil
	}
	d.budget -= max(n.Size, 0)
	d.files++
	out := filepath.Join(d.dir, "file")
	var why error
	report, err := restore.Run(ctx, d.snapshot, tree, n.Path, out, restore.Options{
		NoOwner: true, Warn: func(_ chain.Path, err error) { why = errors.Join(why, err) },
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil && report.Failed > 0:
		err = why
	case err == nil:
		err = onDisk(out, n)
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) { // which says nothing of the archive
		return fmt.Errorf("the drill cannot go on in the temporary directory: %s: %w", d.dir, err)
	}
	if err != nil {
		d.warnFailed(p, n.Path.String(), err)
	}
	d.bytes.Add(max(n.Size, 0))
	return os.RemoveAll(out)
}

// onDisk compares a restored file with what the archive says of it.
func onDisk(name string, n chain.Node) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	want := time.Unix(n.Mtime.Sec, int64(n.Mtime.Nsec))
	switch {
	case info.Size() != n.Size:
		return fmt.Errorf("restored with %d bytes instead of %d", info.Size(), n.Size)
	case !info.ModTime().Equal(want):
		return fmt.Errorf("restored with the time %v instead of %v", info.ModTime(), want)
	case !n.HasHash:
		return nil // every byte was checked on the way, against the volumes' hashes
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if [32]byte(sum.Sum(nil)) != n.Hash {
		return errors.New("restored with another content")
	}
	return nil
}
