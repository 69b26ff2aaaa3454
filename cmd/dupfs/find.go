package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
)

func findCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "find",
		Usage:     "find entries by name; a pattern with a slash is matched against the whole path",
		ArgsUsage: "URL PATTERN",
		Description: `dupfs find URL '*.odt'
dupfs find --all-points URL 'letter*'    also what is gone since
Exit status 1 if nothing was found.`,
		Flags: slices.Concat(archiveFlags(), []cli.Flag{
			timeFlag(), jsonFlag(), longFlag(), humanFlag(),
			&cli.BoolFlag{Name: "all-points", Usage: "at every time there is a backup of"},
			colorFlag(), currentTimeFlag(),
		}),
		Action: func(c *cli.Context) error { return runFind(c.Context, e, c) },
	}
}

// matcherOf returns whether a path matches a shell pattern.
func matcherOf(pattern string) (func(chain.Path) bool, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, usagef("pattern %q: %v", pattern, err)
	}
	whole := strings.Contains(pattern, "/")
	return func(p chain.Path) bool {
		name := p.Base()
		if whole {
			name = string(p)
		}
		ok, _ := path.Match(pattern, name) // the pattern was checked
		return ok
	}, nil
}

func runFind(ctx context.Context, e *environ, c *cli.Context) error {
	args, err := positionals(c, 2, 2, "URL PATTERN")
	if err != nil {
		return err
	}
	matches, err := matcherOf(args[1])
	if err != nil {
		return err
	}
	a, err := e.open(ctx, c, args[0])
	if err != nil {
		return err
	}
	defer a.Close()
	points, err := a.findPoints(ctx, c)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(e.stdout)
	found := false
	for _, p := range points {
		t, err := a.treeAt(ctx, p)
		if err != nil {
			return err
		}
		at := ""
		if c.Bool("all-points") {
			at = stamp(p.Time)
		}
		show, err := e.lister(c, out, at)
		if err != nil {
			return err
		}
		err = walk(ctx, t, chain.Root, true, func(n chain.Node) error {
			if !matches(n.Path) {
				return nil
			}
			found = true
			return show(n)
		})
		if err != nil {
			return errors.Join(err, out.Flush())
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if !found {
		return fail(exitGeneric, errSaid, "") // as grep: nothing found is 1
	}
	return nil
}

// findPoints returns the points to look at.
func (a *archive) findPoints(ctx context.Context, c *cli.Context) ([]chain.Point, error) {
	if c.Bool("all-points") {
		return a.points(ctx)
	}
	p, err := a.pointAt(ctx, c, c.String("time"))
	return []chain.Point{p}, err
}

func historyCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "history",
		Usage:     "show every version of a path: when it came, changed and went",
		ArgsUsage: "URL PATH",
		Description: `dupfs history URL letters/landlord.odt
dupfs history ./landlord.odt    a live file: the archive is the one in the
configuration whose source it lies in, or that of DUPFS_URL`,
		Flags:  slices.Concat(archiveFlags(), []cli.Flag{jsonFlag(), colorFlag(), currentTimeFlag()}),
		Action: func(c *cli.Context) error { return runHistory(c.Context, e, c) },
	}
}

// event is one line of a history.
type event struct {
	Time   string   `json:"time"`
	Change string   `json:"change"` // new, changed, deleted
	Entry  *listing `json:"entry,omitempty"`
	node   chain.Node
}

func runHistory(ctx context.Context, e *environ, c *cli.Context) error {
	args, err := positionals(c, 2, 2, "URL PATH")
	if err != nil {
		return err
	}
	a, err := e.open(ctx, c, args[0])
	if err != nil {
		return err
	}
	defer a.Close()
	p, err := a.pathArgument(ctx, args[1])
	if err != nil {
		return err
	}
	events, err := a.history(ctx, p)
	if err != nil {
		return err
	}
	if len(events) == 0 {
		return fail(exitNoPath, fmt.Errorf("%s was never in the archive", p), "`dupfs find --all-points URL PATTERN` finds by name")
	}
	colour, err := e.painter(c)
	if err != nil {
		return err
	}
	enc := encoder(e.stdout)
	colours := map[string]paint{"new": goodPaint, "changed": midPaint, "deleted": badPaint}
	for _, ev := range events {
		change := colour(colours[ev.Change], fmt.Sprintf("%-8s", ev.Change))
		switch {
		case c.Bool("json"):
			err = enc.Encode(ev)
		case ev.Entry == nil:
			_, err = fmt.Fprintf(e.stdout, "%s  %s\n", ev.Time, change)
		default:
			_, err = fmt.Fprintf(e.stdout, "%s  %s %s %12d %s\n", ev.Time, change, modeText(ev.node.Entry), ev.node.Size, listingTime(ev.node.Mtime))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// pathArgument reads a path in the archive, or one of the live file system.
func (a *archive) pathArgument(ctx context.Context, arg string) (chain.Path, error) {
	if a.env.live {
		return a.livePath(ctx, arg)
	}
	return archivePath(arg)
}

// history looks a path up at every point and keeps what changed.
func (a *archive) history(ctx context.Context, p chain.Path) ([]event, error) {
	points, err := a.points(ctx)
	if err != nil {
		return nil, err
	}
	var events []event
	var last *chain.Node
	for _, at := range points {
		t, err := a.treeAt(ctx, at)
		if err != nil {
			a.env.warn("%v", err)
			continue
		}
		n, err := lookup(ctx, t, p)
		switch {
		case isMissing(err) && last == nil:
		case isMissing(err):
			events, last = append(events, event{Time: stamp(at.Time), Change: "deleted"}), nil
		case err != nil:
			return nil, err
		case last == nil:
			events, last = append(events, eventOf(at, "new", n)), &n
		case changed(*last, n):
			events, last = append(events, eventOf(at, "changed", n)), &n
		}
	}
	return events, nil
}

func eventOf(at chain.Point, change string, n chain.Node) event {
	l := listingOf(n)
	return event{stamp(at.Time), change, &l, n}
}

// changed reports whether two nodes of one path differ. A new full backup
// makes new versions of what stayed the same.
func changed(a, b chain.Node) bool {
	if a.Version == b.Version && a.Version != 0 {
		return false
	}
	if a.Type != b.Type || a.Mode != b.Mode || a.UID != b.UID || a.GID != b.GID || a.Size != b.Size || a.Link != b.Link {
		return true
	}
	if a.HasHash && b.HasHash && a.Hash != b.Hash {
		return true
	}
	return a.Type != chain.Symlink && a.Mtime != b.Mtime
}
