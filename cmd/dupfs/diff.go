package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
)

func diffCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:        "diff",
		Usage:       "show what changed between two times: + added, - deleted, M modified",
		ArgsUsage:   "URL TIME1 TIME2 [PATH]",
		Description: "dupfs diff URL 1W now etc     exit status 1 if anything differs",
		Flags:       slices.Concat(archiveFlags(), []cli.Flag{jsonFlag(), currentTimeFlag()}),
		Action:      func(c *cli.Context) error { return runDiff(c.Context, e, c) },
	}
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// difference is one line of a diff.
type difference struct {
	Change string `json:"change"` // added, deleted, modified
	Path   string `json:"path"`
	B64    string `json:"path_b64,omitempty"`
}

func runDiff(ctx context.Context, e *environ, c *cli.Context) error {
	args, err := positionals(c, 3, 4, "URL TIME1 TIME2 [PATH]")
	if err != nil {
		return err
	}
	p, err := archivePath(slices.Concat(args, []string{""})[3])
	if err != nil {
		return err
	}
	a, err := e.open(ctx, c, args[0])
	if err != nil {
		return err
	}
	defer a.Close()
	var trees [2]chain.Tree
	for i, expr := range args[1:3] {
		point, err := a.pointAt(ctx, c, expr)
		if err != nil {
			return err
		}
		if trees[i], err = a.treeAt(ctx, point); err != nil {
			return err
		}
	}
	out := bufio.NewWriter(e.stdout)
	d := &differ{old: trees[0], new: trees[1], show: differenceWriter(c, out)}
	if err := errors.Join(d.at(ctx, p), out.Flush()); err != nil {
		return err
	}
	if d.found {
		return fail(exitGeneric, errSaid, "")
	}
	return nil
}

// differenceWriter returns what writes a line.
func differenceWriter(c *cli.Context, w io.Writer) func(difference) error {
	if c.Bool("json") {
		enc := json.NewEncoder(w)
		return func(d difference) error { return enc.Encode(d) }
	}
	letter := map[string]string{"added": "+", "deleted": "-", "modified": "M"}
	return func(d difference) error {
		_, err := fmt.Fprintf(w, "%s %s\n", letter[d.Change], printable(d.Path))
		return err
	}
}

// differ compares two trees.
type differ struct {
	old, new chain.Tree
	show     func(difference) error
	found    bool
}

// tell writes one difference.
func (d *differ) tell(change string, p chain.Path) error {
	d.found = true
	return d.show(difference{change, p.String(), bytesIfOdd(p.String())})
}

// at compares what is at one path in both trees.
func (d *differ) at(ctx context.Context, p chain.Path) error {
	old, err1 := lookup(ctx, d.old, p)
	new, err2 := lookup(ctx, d.new, p)
	switch {
	case isMissing(err1) && isMissing(err2):
		return fail(exitNoPath, fmt.Errorf("%s is in neither of the two backups", p), "")
	case isMissing(err1):
		return d.all(ctx, d.new, new, "added")
	case isMissing(err2):
		return d.all(ctx, d.old, old, "deleted")
	}
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	return d.both(ctx, old, new)
}

// all tells of an entry and what is below it.
func (d *differ) all(ctx context.Context, t chain.Tree, n chain.Node, change string) error {
	return walkNode(ctx, t, n, true, func(n chain.Node) error { return d.tell(change, n.Path) })
}

// both compares two entries of one path, and goes on below.
func (d *differ) both(ctx context.Context, old, new chain.Node) error {
	if changed(old, new) {
		if err := d.tell("modified", new.Path); err != nil {
			return err
		}
	}
	if old.Type != chain.Dir || new.Type != chain.Dir {
		return d.below(ctx, old, new)
	}
	left, err := childList(ctx, d.old, old)
	if err != nil {
		return err
	}
	right, err := childList(ctx, d.new, new)
	if err != nil {
		return err
	}
	return d.merge(ctx, left, right)
}

// below tells of what went with a directory that became something else, or
// came with one.
func (d *differ) below(ctx context.Context, old, new chain.Node) error {
	for _, side := range []struct {
		t      chain.Tree
		n      chain.Node
		change string
	}{{d.old, old, "deleted"}, {d.new, new, "added"}} {
		if side.n.Type != chain.Dir {
			continue
		}
		err := children(ctx, side.t, side.n, func(c chain.Node) error { return d.all(ctx, side.t, c, side.change) })
		if err != nil {
			return err
		}
	}
	return nil
}

// childList returns the children of a directory; memory grows with one
// directory.
func childList(ctx context.Context, t chain.Tree, dir chain.Node) (list []chain.Node, err error) {
	err = children(ctx, t, dir, func(c chain.Node) error {
		list = append(list, c)
		return nil
	})
	return list, err
}

// merge goes through two sorted lists of children side by side.
func (d *differ) merge(ctx context.Context, left, right []chain.Node) error {
	for len(left) > 0 || len(right) > 0 {
		var err error
		switch {
		case len(right) == 0 || len(left) > 0 && left[0].Name < right[0].Name:
			err = d.all(ctx, d.old, left[0], "deleted")
			left = left[1:]
		case len(left) == 0 || right[0].Name < left[0].Name:
			err = d.all(ctx, d.new, right[0], "added")
			right = right[1:]
		default:
			err = d.both(ctx, left[0], right[0])
			left, right = left[1:], right[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}
