package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
	"dupfs/chain/snapshot"
)

// errSkip keeps walk out of a directory.
var errSkip = fs.SkipDir

// walk calls fn for the entry at path p and, if deep, everything below it, in
// path order. The nodes have their Path. fn may return errSkip for a
// directory.
func walk(ctx context.Context, t chain.Tree, p chain.Path, deep bool, fn func(chain.Node) error) error {
	n, err := lookup(ctx, t, p)
	if err != nil {
		return err
	}
	return walkNode(ctx, t, n, deep, fn)
}

// lookup returns the node at a path.
func lookup(ctx context.Context, t chain.Tree, p chain.Path) (chain.Node, error) {
	n, err := snapshot.Resolve(ctx, t, p)
	if err != nil {
		return n, err
	}
	n.Path = p
	return n, nil
}

func walkNode(ctx context.Context, t chain.Tree, n chain.Node, deep bool, fn func(chain.Node) error) error {
	return walkBelow(ctx, t, n, deep, 0, fn)
}

func walkBelow(ctx context.Context, t chain.Tree, n chain.Node, deep bool, depth int, fn func(chain.Node) error) error {
	switch err := fn(n); {
	case err == errSkip:
		return nil
	case err != nil:
		return err
	case n.Type != chain.Dir || !deep:
		return nil
	}
	if depth == chain.MaxDepth { // some entries of each directory on the way are held
		return tooDeep(n)
	}
	return children(ctx, t, n, func(c chain.Node) error {
		return walkBelow(ctx, t, c, deep, depth+1, fn)
	})
}

// tooDeep is the error of a walk that is not followed any further.
func tooDeep(n chain.Node) error {
	return fail(exitUser, fmt.Errorf("%.80s…: more than %d directories deep", n.Path, chain.MaxDepth),
		"`dupfs ls -R URL PATH` shows what is below a directory in it")
}

// childPage is how many children of a directory are held at a time.
const childPage = 256

// children calls fn for each child of a directory, with its Path. fn may read
// the child's own children: it is called between reads, not in one.
func children(ctx context.Context, t chain.Tree, dir chain.Node, fn func(chain.Node) error) error {
	return pages(ctx, t, dir, true, fn)
}

// pages is children with or without exact sizes.
func pages(ctx context.Context, t chain.Tree, dir chain.Node, exact bool, fn func(chain.Node) error) error {
	for after := ""; ; {
		page, err := somePage(ctx, t, dir, after, exact)
		if err != nil {
			return err
		}
		for _, c := range page {
			c.Path = dir.Path.Join(c.Name)
			if err := fn(c); err != nil {
				return err
			}
		}
		if len(page) < childPage {
			return nil
		}
		after = page[len(page)-1].Name
	}
}

// somePage returns the children of a directory after a name, childPage of them
// at most.
func somePage(ctx context.Context, t chain.Tree, dir chain.Node, after string, exact bool) ([]chain.Node, error) {
	var page []chain.Node
	err := t.ReadDir(ctx, dir.Dir, after, exact, func(n chain.Node) error {
		if page = append(page, n); len(page) == childPage {
			return errPageFull
		}
		return nil
	})
	if errors.Is(err, errPageFull) {
		err = nil
	}
	return page, err
}

// errPageFull ends a read of a directory for the moment.
var errPageFull = errors.New("page full")

// archivePath reads a path as typed.
func archivePath(s string) (chain.Path, error) {
	p, ok := chain.ParsePath(s)
	if !ok {
		return "", usagef("%q is no path in an archive: they are relative to its root and hold no \"..\"", s)
	}
	return p, nil
}

// urlAndPath returns the arguments of a command that takes URL [PATH]; without a
// path that of everything.
func urlAndPath(c *cli.Context) (url string, p chain.Path, err error) {
	args, err := positionals(c, 1, 2, "URL [PATH]")
	if err != nil {
		return "", "", err
	}
	p, err = archivePath(slices.Concat(args, []string{""})[1])
	return args[0], p, err
}

// notInArchive gives a missing path duplicity's status.
func notInArchive(p chain.Path, point chain.Point) error {
	err := worded(fmt.Errorf("%s not found in the backup of %s", p, stamp(point.Time)), "", "%s not found in archive - no files restored.", p)
	return fail(exitNoPath, err,
		"`dupfs history URL PATH` shows when it was there")
}

// relative returns p, which lies at or below top, as seen from there.
func relative(top, p chain.Path) chain.Path {
	if top == chain.Root {
		return p
	}
	rel, _ := chain.ParsePath(strings.TrimPrefix(p.String(), top.String()+"/"))
	if p == top {
		rel = chain.Root
	}
	return rel
}
