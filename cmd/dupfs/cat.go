package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
)

func catCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:        "cat",
		Usage:       "write files of the archive to standard output",
		ArgsUsage:   "URL PATH...",
		Description: "dupfs cat --time 2W URL etc/fstab",
		Flags:       slices.Concat(archiveFlags(), []cli.Flag{timeFlag(), currentTimeFlag()}),
		Action:      func(c *cli.Context) error { return runCat(c.Context, e, c) },
	}
}

func runCat(ctx context.Context, e *environ, c *cli.Context) error {
	args, err := positionals(c, 2, 1<<20, "URL PATH...")
	if err != nil {
		return err
	}
	a, err := e.open(ctx, c, args[0])
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
	for _, arg := range args[1:] {
		p, err := archivePath(arg)
		if err != nil {
			return err
		}
		err = catFile(ctx, e.stdout, a.snapshot, tree, p)
		if errors.Is(err, fs.ErrNotExist) {
			return notInArchive(p, point)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}

// catChunk is what is read at a time, in bytes.
const catChunk = 1 << 20

// catFile writes the content of one file.
func catFile(ctx context.Context, w io.Writer, f chain.Forest, t chain.Tree, p chain.Path) error {
	n, err := lookup(ctx, t, p)
	if err != nil {
		return err
	}
	if n.Type != chain.File {
		return fail(exitGeneric, fmt.Errorf("is a %s, not a file", n.Type), "`dupfs ls` lists directories, `dupfs restore` restores them")
	}
	content, err := f.OpenVersion(ctx, n.Version)
	if err != nil {
		return err
	}
	buf := make([]byte, catChunk)
	for off := int64(0); off < content.Size(); {
		got, err := content.ReadAt(ctx, buf, off)
		if _, werr := w.Write(buf[:got]); werr != nil {
			return werr
		}
		off += int64(got)
		switch {
		case err == io.EOF && off < content.Size():
			return chain.Corrupt(string(p), fmt.Sprintf("ends at byte %d of %d", off, content.Size()))
		case err != nil && err != io.EOF:
			return err
		}
	}
	return nil
}
