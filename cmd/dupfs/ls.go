package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
)

func lsCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "ls",
		Usage:     "list a directory or file of the archive at a time",
		ArgsUsage: "URL [PATH]",
		Description: `dupfs ls -l --time 3D URL home/letters
dupfs ls --recursive --json URL | jq .path`,
		Flags: slices.Concat(archiveFlags(), []cli.Flag{
			timeFlag(), jsonFlag(), longFlag(), humanFlag(),
			&cli.BoolFlag{Name: "recursive", Aliases: []string{"R"}, Usage: "with everything below"},
			colorFlag(), currentTimeFlag(),
		}),
		Action: func(c *cli.Context) error { return runLs(c.Context, e, c) },
	}
}

func longFlag() cli.Flag {
	return &cli.BoolFlag{Name: "long", Aliases: []string{"l"}, Usage: "with type, mode, owner, size and time"}
}

func humanFlag() cli.Flag {
	return &cli.BoolFlag{Name: "human-readable", Aliases: []string{"H"}, Usage: "with --long: sizes as people read them"}
}

func runLs(ctx context.Context, e *environ, c *cli.Context) error {
	url, p, err := urlAndPath(c)
	if err != nil {
		return err
	}
	a, err := e.open(ctx, c, url)
	if err != nil {
		return err
	}
	defer a.Close()
	tree, point, err := a.tree(ctx, c)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(e.stdout)
	show, err := e.lister(c, out, "")
	if err != nil {
		return err
	}
	err = list(ctx, tree, p, c.Bool("recursive"), show)
	if errors.Is(err, fs.ErrNotExist) {
		err = notInArchive(p, point)
	}
	return errors.Join(err, out.Flush())
}

// list shows an entry, or what is in a directory.
func list(ctx context.Context, t chain.Tree, p chain.Path, deep bool, show func(chain.Node) error) error {
	n, err := lookup(ctx, t, p)
	switch {
	case err != nil:
		return err
	case n.Type != chain.Dir || deep:
		return walkNode(ctx, t, n, deep, show)
	}
	return children(ctx, t, n, show)
}

// lister returns what writes a node as the options say, with the time of its
// point unless that is "".
func (e *environ) lister(c *cli.Context, w io.Writer, point string) (func(chain.Node) error, error) {
	paint, err := e.painter(c)
	if err != nil {
		return nil, err
	}
	before := ""
	if point != "" {
		before = point + "  "
	}
	switch {
	case c.Bool("json"):
		enc := encoder(w)
		return func(n chain.Node) error {
			l := listingOf(n)
			l.Point = point
			return enc.Encode(l)
		}, nil
	case c.Bool("long"):
		human := c.Bool("human-readable")
		return func(n chain.Node) error { return longLine(w, before, n, human, paint) }, nil
	}
	return func(n chain.Node) error {
		_, err := fmt.Fprintln(w, before+paintedPath(n, paint))
		return err
	}, nil
}

// paintedPath writes a path for a terminal, its last component in the colour of
// what it is.
func paintedPath(n chain.Node, paint func(paint, string) string) string {
	dir, name := "", n.Path.String()
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		dir, name = name[:i+1], name[i+1:]
	}
	p := plainPaint
	switch {
	case n.Type == chain.Dir:
		p = dirPaint
	case n.Type == chain.Symlink:
		p = linkPaint
	case n.Type != chain.File:
		p = nodePaint
	case n.Mode&0o111 != 0:
		p = execPaint
	}
	return paint(dimPaint, printable(dir)) + paint(p, printable(name))
}

// encoder returns what writes one JSON object a line.
func encoder(w io.Writer) *json.Encoder {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc
}

// longLine writes a node as ls -l does, with what is before it on the line.
func longLine(w io.Writer, before string, n chain.Node, human bool, paint func(paint, string) string) error {
	what := fmt.Sprintf("%12d", n.Size)
	switch {
	case n.Type == chain.CharDevice || n.Type == chain.BlockDevice:
		what = fmt.Sprintf("%12s", fmt.Sprintf("%d, %d", n.Major, n.Minor))
	case n.Type != chain.File:
		what = fmt.Sprintf("%12s", "-")
	case n.Size < 0: // damaged beyond knowing it
		what = fmt.Sprintf("%12s", "?")
	case human:
		what = fmt.Sprintf("%12s", size(n.Size))
	}
	target := ""
	if n.Type == chain.Symlink {
		target = " -> " + printable(n.Link)
	}
	_, err := fmt.Fprintf(w, "%s%s %-8s %-8s %s %s %s%s\n", before, modeText(n.Entry), owner(n.User, n.UID), owner(n.Group, n.GID),
		what, listingTime(n.Mtime), paintedPath(n, paint), target)
	return err
}

// listing is an entry as --json writes it. Names that are not UTF-8 have
// their bytes in path_b64, others do not need it.
type listing struct {
	Point     string            `json:"point,omitempty"` // with find --all-points
	Path      string            `json:"path"`
	PathB64   string            `json:"path_b64,omitempty"`
	Type      string            `json:"type"`
	Mode      string            `json:"mode"`
	UID       uint32            `json:"uid"`
	GID       uint32            `json:"gid"`
	User      string            `json:"user,omitempty"`
	Group     string            `json:"group,omitempty"`
	Mtime     string            `json:"mtime"`
	Size      *int64            `json:"size,omitempty"`
	Target    *string           `json:"target,omitempty"`
	TargetB64 string            `json:"target_b64,omitempty"`
	Rdev      *[2]uint32        `json:"rdev,omitempty"`
	Nlink     uint32            `json:"nlink,omitempty"`
	SHA256    string            `json:"sha256,omitempty"`
	Xattrs    map[string]string `json:"xattrs,omitempty"`
}

// listingOf returns what --json writes of a node.
func listingOf(n chain.Node) listing {
	l := listing{
		Path: n.Path.String(), Type: n.Type.String(), Mode: fmt.Sprintf("%04o", n.Mode),
		UID: n.UID, GID: n.GID, User: n.User, Group: n.Group,
		Mtime: n.Mtime.Time().Format(time.RFC3339Nano),
	}
	l.PathB64 = bytesIfOdd(l.Path)
	switch n.Type {
	case chain.File:
		l.Size, l.Nlink = &n.Size, n.Nlink
		if n.HasHash {
			l.SHA256 = hex.EncodeToString(n.Hash[:])
		}
	case chain.Symlink:
		l.Target, l.TargetB64 = &n.Link, bytesIfOdd(n.Link)
	case chain.CharDevice, chain.BlockDevice:
		l.Rdev = &[2]uint32{n.Major, n.Minor}
	}
	for _, x := range n.Xattrs {
		if l.Xattrs == nil {
			l.Xattrs = map[string]string{}
		}
		l.Xattrs[x.Name] = base64.StdEncoding.EncodeToString(x.Value)
	}
	return l
}

// bytesIfOdd returns the bytes of a name that is not UTF-8, in base 64.
func bytesIfOdd(s string) string {
	if utf8.ValidString(s) {
		return ""
	}
	return base64.StdEncoding.EncodeToString([]byte(s))
}

func listFilesCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "list-current-files",
		Usage:     "list all entries as duplicity does",
		ArgsUsage: "URL",
		Flags:     slices.Concat(archiveFlags(), []cli.Flag{timeFlag(), currentTimeFlag()}),
		Action:    func(c *cli.Context) error { return runListFiles(c.Context, e, c) },
	}
}

func runListFiles(ctx context.Context, e *environ, c *cli.Context) error {
	args, err := positionals(c, 1, 1, "URL")
	if err != nil {
		return err
	}
	a, err := e.openSaying(ctx, c, args[0])
	if err != nil {
		return err
	}
	defer a.Close()
	tree, _, err := a.tree(ctx, c)
	if err != nil {
		return err
	}
	defer e.machine.hold()()
	out := bufio.NewWriter(e.stdout)
	err = walkNames(ctx, tree, func(n chain.Node) error {
		at, p := n.Mtime.Time(), n.Path.String()
		m := message{
			level: levelInfo, code: infoListed, force: true,
			extra:  chain.FormatTime(at) + " " + logName(p) + " " + typeWord(n.Type),
			format: "%s %s", args: []any{asctime(at), name(p)},
		}
		e.machine.write(&m)
		e.put(out, m.level, m.line())
		return nil
	})
	return errors.Join(err, out.Flush())
}

// typeWord is what duplicity calls a type.
func typeWord(t chain.Type) string {
	switch t {
	case chain.Dir:
		return "dir"
	case chain.Symlink:
		return "sym"
	case chain.Fifo:
		return "fifo"
	case chain.CharDevice:
		return "chr"
	case chain.BlockDevice:
		return "blk"
	}
	return "reg"
}

// walkNames is walk over everything, but leaves sizes unknown rather than
// read volumes for them.
func walkNames(ctx context.Context, t chain.Tree, fn func(chain.Node) error) error {
	root, err := t.Root(ctx)
	if err != nil {
		return err
	}
	root.Path = chain.Root
	return namesBelow(ctx, t, root, 0, fn)
}

func namesBelow(ctx context.Context, t chain.Tree, n chain.Node, depth int, fn func(chain.Node) error) error {
	if err := fn(n); err != nil || n.Type != chain.Dir {
		return err
	}
	if depth == chain.MaxDepth {
		return tooDeep(n)
	}
	return pages(ctx, t, n, false, func(c chain.Node) error { return namesBelow(ctx, t, c, depth+1, fn) })
}
