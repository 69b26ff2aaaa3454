package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
)

func diffCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "show what changed between two times: + added, - deleted, M modified",
		ArgsUsage: "URL TIME1 TIME2 [PATH]",
		Description: `dupfs diff URL 1W now etc     exit status 1 if anything differs
dupfs diff -u URL 1W now etc  the lines that changed, as patch -p1 reads them`,
		Flags: slices.Concat(archiveFlags(), []cli.Flag{
			&cli.BoolFlag{Name: "unified", Aliases: []string{"u"}, Usage: "the lines that changed"},
			jsonFlag(), colorFlag(), currentTimeFlag(),
		}),
		Action: func(c *cli.Context) error { return runDiff(c.Context, e, c) },
	}
}

func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// difference is one line of a diff.
type difference struct {
	Change string `json:"change"` // added, deleted, modified
	Path   string `json:"path"`
	B64    string `json:"path_b64,omitempty"`
	Diff   string `json:"diff,omitempty"` // with --unified, unless it is not UTF-8
	Binary bool   `json:"binary,omitempty"`

	old, new *chain.Node
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
		if c.Bool("unified") { // else no content is shown
			if err := a.confirm(ctx, c, point); err != nil {
				return err
			}
		}
	}
	out := bufio.NewWriter(e.stdout)
	w := &differenceWriter{env: e, out: out, json: c.Bool("json"), forest: a.snapshot, unified: c.Bool("unified")}
	if w.paint, err = e.painter(c); err != nil {
		return err
	}
	d := &differ{old: trees[0], new: trees[1], show: func(d difference) error { return w.show(ctx, d) }}
	if err := errors.Join(d.at(ctx, p), out.Flush()); err != nil {
		return err
	}
	switch {
	case w.failed != nil:
		status, hint := classify(w.failed)
		return fail(status, fmt.Errorf("%s not compared", pluralWas(w.count)), hint)
	case d.found:
		return fail(exitGeneric, errSaid, "")
	}
	return nil
}

// differenceWriter writes differences as the options say.
type differenceWriter struct {
	env           *environ
	out           io.Writer
	forest        chain.Forest
	paint         func(paint, string) string
	json, unified bool

	count  int64 // files that could not be read
	failed error // why the first could not
}

func (w *differenceWriter) show(ctx context.Context, d difference) error {
	if w.unified {
		return w.contents(ctx, d)
	}
	return w.name(d)
}

// name writes what happened to a path.
func (w *differenceWriter) name(d difference) error {
	if w.json {
		return encoder(w.out).Encode(d)
	}
	mark := map[string]string{
		"added": w.paint(goodPaint, "+"), "deleted": w.paint(badPaint, "-"), "modified": w.paint(midPaint, "M"),
	}
	_, err := fmt.Fprintf(w.out, "%s %s\n", mark[d.Change], printable(d.Path))
	return err
}

// contents writes the lines that changed. What cannot be read is told, and the
// rest goes on.
func (w *differenceWriter) contents(ctx context.Context, d difference) error {
	var text bytes.Buffer
	u := &unified{forest: w.forest, out: w.out, paint: w.paint, screen: w.env.screen}
	if w.json {
		u.out, u.paint, u.screen = &text, func(_ paint, s string) string { return s }, false
	}
	var lost *readError
	err := u.show(ctx, d.old, d.new)
	if err != nil && ctx.Err() == nil && errors.As(err, &lost) {
		w.env.warn("%s: %v", d.Path, err)
		w.count++
		if w.failed == nil {
			w.failed = err
		}
		err = nil
	}
	if err != nil || !w.json {
		return err
	}
	if d.Diff = text.String(); !utf8.ValidString(d.Diff) {
		d.Diff, d.Binary = "", true
	}
	return w.name(d)
}

// differ compares two trees.
type differ struct {
	old, new chain.Tree
	show     func(difference) error
	found    bool
}

// tell writes one difference between two entries of a path, one of which may
// be nil.
func (d *differ) tell(change string, old, new *chain.Node) error {
	d.found = true
	n := new
	if n == nil {
		n = old
	}
	p := n.Path.String()
	return d.show(difference{Change: change, Path: p, B64: bytesIfOdd(p), old: old, new: new})
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
	return walkNode(ctx, t, n, true, func(n chain.Node) error {
		if change == "added" {
			return d.tell(change, nil, &n)
		}
		return d.tell(change, &n, nil)
	})
}

// both compares two entries of one path, and goes on below.
func (d *differ) both(ctx context.Context, old, new chain.Node) error {
	if changed(old, new) {
		if err := d.tell("modified", &old, &new); err != nil {
			return err
		}
	}
	if old.Type != chain.Dir || new.Type != chain.Dir {
		return d.below(ctx, old, new)
	}
	return d.merge(ctx, &cursor{t: d.old, dir: old}, &cursor{t: d.new, dir: new})
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

// cursor goes through the children of a directory, a page at a time.
type cursor struct {
	t    chain.Tree
	dir  chain.Node
	page []chain.Node
	last string // name of the last child of the page
	done bool   // there is no page after it
}

// peek returns the next child with its Path, nil at the end.
func (c *cursor) peek(ctx context.Context) (*chain.Node, error) {
	if len(c.page) == 0 && !c.done {
		page, err := somePage(ctx, c.t, c.dir, c.last, true)
		if err != nil {
			return nil, err
		}
		if c.page, c.done = page, len(page) < childPage; len(page) > 0 {
			c.last = page[len(page)-1].Name
		}
	}
	if len(c.page) == 0 {
		return nil, nil
	}
	c.page[0].Path = c.dir.Path.Join(c.page[0].Name)
	return &c.page[0], nil
}

func (c *cursor) advance() { c.page = c.page[1:] }

// merge goes through the children of two directories side by side.
func (d *differ) merge(ctx context.Context, left, right *cursor) error {
	for {
		l, err := left.peek(ctx)
		if err != nil {
			return err
		}
		r, err := right.peek(ctx)
		switch {
		case err != nil:
		case l == nil && r == nil:
			return nil
		case r == nil || l != nil && l.Name < r.Name:
			left.advance()
			err = d.all(ctx, d.old, *l, "deleted")
		case l == nil || r.Name < l.Name:
			right.advance()
			err = d.all(ctx, d.new, *r, "added")
		default:
			left.advance()
			right.advance()
			err = d.both(ctx, *l, *r)
		}
		if err != nil {
			return err
		}
	}
}
