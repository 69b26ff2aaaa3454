package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/urfave/cli/v2"

	"dupfs/backends"
	"dupfs/chain"
	"dupfs/chain/restore"
)

func tarCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "tar",
		Usage:     "write the archive, or a path in it, as it was at a time to standard output, as a tar stream",
		ArgsUsage: "URL [PATH]",
		Description: `dupfs tar --time 3D URL home/letters | tar -x --xattrs --acls
dupfs tar URL | ssh host tar -x -C /srv --numeric-owner --xattrs --xattrs-include='*' --acls
The format is pax, with times in nanoseconds, attributes, ACLs, hard links and
holes. Names begin with ./ and are the paths in the archive.`,
		Flags: slices.Concat(archiveFlags(), []cli.Flag{
			timeFlag(), outputFlag(), forceFlag(), currentTimeFlag(),
		}),
		Action: func(c *cli.Context) error { return runTar(c.Context, e, c) },
	}
}

func outputFlag() cli.Flag {
	return &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `FILE`, not to standard output; it appears when it is whole"}
}

func runTar(ctx context.Context, e *environ, c *cli.Context) error {
	url, p, err := urlAndPath(c)
	if err != nil {
		return err
	}
	out, err := e.output(c, true)
	if err != nil {
		return err
	}
	defer out.abort()
	a, err := e.open(ctx, c, url)
	if err != nil {
		return err
	}
	defer a.Close()
	tree, point, err := a.tree(ctx, c)
	if err != nil {
		return err
	}
	if err := a.confirm(ctx, c, point); err != nil {
		return err
	}
	if _, err := lookup(ctx, tree, p); isMissing(err) {
		return notInArchive(p, point)
	}
	cold, err := a.warnArchived(ctx, c, p, false)
	if err != nil {
		return err
	}
	var flaky atomic.Bool // the store failed, which is no damage
	counts := &restore.Progress{}
	size := e.count(ctx, false, func(ctx context.Context) (int64, error) { return treeSize(ctx, tree, p) })
	defer size.stop()
	stop := e.follow("tar", func() progress { return progress{done: counts.Bytes.Load(), total: size.sum.Load()} })
	w := bufio.NewWriterSize(out, 256<<10)
	report, err := restore.Tar(ctx, a.snapshot, tree, p, w, restore.TarOptions{
		Progress: counts,
		Warn: func(p chain.Path, err error) {
			if errors.Is(err, backends.ErrTransient) {
				flaky.Store(true)
			}
			e.warn("%s: %v", p, err)
		},
	})
	stop()
	if err := errors.Join(err, w.Flush()); err != nil {
		return err
	}
	if err := out.commit(); err != nil {
		return err
	}
	if report.Failed == 0 {
		return nil
	}
	err = fmt.Errorf("%s not, or not wholly, in the tar stream", pluralWas(report.Failed))
	switch {
	case flaky.Load():
		return fail(exitBackend, err, "the store failed: try again later, or see --timeout and --num-retries")
	case cold > 0:
		return fail(exitBackend, err, a.rehydrateHint(c, p))
	}
	return fail(exitDamaged, err, "the warnings above name it; an older or newer --time may have it intact")
}

// output is where a command writes content: standard output, or a file that
// appears when it is whole.
type output struct {
	io.Writer
	file   *os.File // under a temporary name; nil: standard output
	name   string
	force  bool
	closed bool
}

// output returns what --output names. What is binary is not written to a
// terminal.
func (e *environ) output(c *cli.Context, binary bool) (*output, error) {
	name := c.String("output")
	if name == "" || name == "-" {
		if binary && e.screen {
			return nil, &usageError{text: "a tar stream is nothing for a terminal", hint: "give --output FILE, or pipe it on: dupfs tar URL | tar -t"}
		}
		return &output{Writer: e.stdout}, nil
	}
	if _, err := os.Lstat(name); err == nil && !c.Bool("force") {
		return nil, fail(exitTarget, fmt.Errorf("%s: %w", name, restore.ErrExists), "name another file, or give --force to replace this one")
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".dupfs-output-*") // mode 0600: it holds files of any mode
	if err != nil {
		return nil, fmt.Errorf("--output: %w", err)
	}
	return &output{Writer: f, file: f, name: name, force: c.Bool("force")}, nil
}

// commit gives the file its name.
func (o *output) commit() error {
	if o.file == nil {
		return nil
	}
	o.closed = true
	err := o.file.Close()
	switch {
	case err != nil:
	case o.force:
		err = os.Rename(o.file.Name(), o.name)
	default:
		err = os.Link(o.file.Name(), o.name) // not over what came meanwhile
		if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, fs.ErrPermission) {
			err = os.Rename(o.file.Name(), o.name)
		}
	}
	os.Remove(o.file.Name()) // renamed, it is not there
	return err
}

// abort removes the file unless it was committed.
func (o *output) abort() {
	if o.file != nil && !o.closed {
		o.file.Close()
		os.Remove(o.file.Name())
	}
}
