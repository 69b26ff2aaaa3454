package main

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"dupfs/chain"
	"dupfs/chain/selection"
)

// expected is the sum of sizes that a long work will come to, counted beside it
// for the progress bar and the log. It is 0 until it is known.
type expected struct {
	sum    atomic.Int64
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// count runs a counter beside the work, if it is wanted or somebody looks at it. A counter
// that fails leaves the total unknown: what it met the work meets itself.
func (e *environ) count(ctx context.Context, wanted bool, counter func(context.Context) (int64, error)) *expected {
	t := &expected{}
	ctx, t.cancel = context.WithCancel(ctx)
	if wanted || e.terminal || e.machine.on() {
		t.done.Go(func() {
			if n, err := counter(ctx); err == nil {
				t.sum.Store(n)
			}
		})
	}
	return t
}

// stop ends the counting.
func (t *expected) stop() {
	t.cancel()
	t.done.Wait()
}

// sourceSize returns the size of all files of a source that are selected.
func sourceSize(ctx context.Context, src string, sel *selection.Selection) (sum int64, err error) {
	top, err := os.Lstat(src)
	if err != nil {
		return 0, err
	}
	root := device(top)
	err = filepath.WalkDir(src, func(name string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return nil // the backup warns of it
		}
		info, err := d.Info()
		p, ok := chain.ParsePath(strings.TrimPrefix(name, src))
		if err != nil || !ok {
			return nil
		}
		if sel.Judge(p, facts(name, info, root)) == selection.Exclude {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if info.Mode().IsRegular() {
			sum += info.Size()
		}
		return nil
	})
	return sum, err
}

// facts returns what the rules look at.
func facts(name string, info fs.FileInfo, root uint64) selection.Facts {
	f := selection.Facts{Mtime: info.ModTime().Unix()}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		f.Type = chain.File
	case mode.IsDir():
		f.Type = chain.Dir
	case mode&fs.ModeSymlink != 0:
		f.Type = chain.Symlink
	case mode&fs.ModeNamedPipe != 0:
		f.Type = chain.Fifo
	case mode&fs.ModeCharDevice != 0:
		f.Type = chain.CharDevice
	case mode&fs.ModeDevice != 0:
		f.Type = chain.BlockDevice
	}
	f.OtherFS = device(info) != root
	f.Holds = func(entry string) bool {
		_, err := os.Lstat(filepath.Join(name, entry))
		return err == nil
	}
	return f
}

// device returns the number of the file system that a file is on.
func device(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Dev)
	}
	return 0
}

// treeSize returns the size of all files at a path and below, as far as it is
// known without reading volumes.
func treeSize(ctx context.Context, t chain.Tree, p chain.Path) (sum int64, err error) {
	n, err := lookup(ctx, t, p)
	if err != nil {
		return 0, err
	}
	err = namesBelow(ctx, t, n, 0, func(n chain.Node) error {
		sum += max(n.Size, 0)
		return ctx.Err()
	})
	return sum, err
}
