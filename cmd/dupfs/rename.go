package main

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
)

func renameFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "rename", Usage: "restore `FROM` TO: two values, paths in the archive; may be repeated"}
}

// renamed is a tree in which some entries have other places.
type renamed struct {
	chain.Tree
	gone  map[uint64]map[string]bool // by the number of a directory: names that are elsewhere
	added map[uint64][]chain.Node    // by the number of a directory: what came, in order of names
}

// rename returns the tree with the entries at other places that --rename gives.
// Paths are as seen from top, as for duplicity. What is moved must be there,
// and so must the directory that it goes to; its new place must be free.
func rename(ctx context.Context, c *cli.Context, t chain.Tree, top chain.Path) (chain.Tree, error) {
	r := &renamed{t, map[uint64]map[string]bool{}, map[uint64][]chain.Node{}}
	for _, pair := range c.StringSlice("rename") {
		from, to, ok := strings.Cut(pair, pairSeparator)
		if !ok {
			return nil, usagef("--rename needs two values")
		}
		if err := r.move(ctx, top, path.Clean(from), path.Clean(to)); err != nil {
			return nil, err
		}
	}
	if len(r.gone) == 0 {
		return t, nil
	}
	return r, nil
}

func (r *renamed) move(ctx context.Context, top chain.Path, from, to string) error {
	var nodes [2]chain.Node // the directories of both
	for i, p := range []string{from, to} {
		place, ok := chain.ParsePath(path.Join(top.String(), p))
		if !ok || place == top || path.IsAbs(p) {
			return usagef("--rename: %q is no path in the archive", p)
		}
		dir, err := lookup(ctx, r.Tree, place.Parent())
		if err != nil {
			return fail(exitNoPath, fmt.Errorf("--rename %s %s: %s is not in the backup", from, to, place.Parent()), "`dupfs ls URL` shows what is there")
		}
		nodes[i] = dir
	}
	n, err := r.Tree.Lookup(ctx, nodes[0].Dir, path.Base(from))
	if err != nil {
		return fail(exitNoPath, fmt.Errorf("--rename %s: it is not in the backup", from), "`dupfs ls URL` shows what is there")
	}
	names := r.gone[nodes[0].Dir]
	if names == nil {
		names = map[string]bool{}
		r.gone[nodes[0].Dir] = names
	}
	names[path.Base(from)] = true
	if _, err := r.Lookup(ctx, nodes[1].Dir, path.Base(to)); err == nil {
		return fail(exitTarget, fmt.Errorf("--rename %s %s: the backup has something there already", from, to), "name another place, or restore with --path-to-restore")
	}
	n.Name = path.Base(to)
	r.added[nodes[1].Dir] = append(r.added[nodes[1].Dir], n)
	slices.SortFunc(r.added[nodes[1].Dir], func(a, b chain.Node) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

// Lookup implements chain.Tree.
func (r *renamed) Lookup(ctx context.Context, dir uint64, name string) (chain.Node, error) {
	for _, n := range r.added[dir] {
		if n.Name == name {
			return n, nil
		}
	}
	if r.gone[dir][name] {
		return chain.Node{}, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return r.Tree.Lookup(ctx, dir, name)
}

// ReadDir implements chain.Tree.
func (r *renamed) ReadDir(ctx context.Context, dir uint64, after string, exact bool, fn func(chain.Node) error) error {
	added := slices.Clone(r.added[dir])
	upTo := func(before func(name string) bool) error {
		for len(added) > 0 && before(added[0].Name) {
			n := added[0]
			added = added[1:]
			if n.Name <= after {
				continue
			}
			if err := fn(n); err != nil {
				return err
			}
		}
		return nil
	}
	err := r.Tree.ReadDir(ctx, dir, after, exact, func(n chain.Node) error {
		if r.gone[dir][n.Name] {
			return nil
		}
		if err := upTo(func(name string) bool { return name < n.Name }); err != nil {
			return err
		}
		return fn(n)
	})
	if err != nil {
		return err
	}
	return upTo(func(string) bool { return true })
}
