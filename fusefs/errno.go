package fusefs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"dupfs/chain"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// errno is the one table from errors to error numbers. It also says whether
// the reason is worth a line in the log.
func errno(err error) (code fuse.Status, log bool) {
	var corrupt *chain.CorruptError
	switch {
	case err == nil:
		return fuse.OK, false
	case errors.As(err, &corrupt):
		return fuse.EIO, true
	case errors.Is(err, context.Canceled):
		return fuse.EINTR, false
	case errors.Is(err, context.DeadlineExceeded):
		return fuse.EIO, true
	case errors.Is(err, fs.ErrNotExist):
		return fuse.ENOENT, false
	}
	return fuse.EIO, true
}

// fail returns the error number of a request for the node id and logs why.
func (f *fileSystem) fail(op string, id uint64, err error) fuse.Status {
	code, log := errno(err)
	if log {
		f.health.note(id, err)
	}
	if log && f.faults.first(fmt.Sprintf("%x %v", id, err)) {
		f.opts.Log("%s %s: %v", op, f.describe(id), err)
	}
	return code
}

// failContent is fail for requests that ask for content: the entry is there,
// so a file that is missing beneath it is a fault.
func (f *fileSystem) failContent(op string, id uint64, err error) fuse.Status {
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%v", err)
	}
	return f.fail(op, id, err)
}

// describe names a node for the log, as well as it can be done at little cost.
func (f *fileSystem) describe(id uint64) string {
	ctx, stop := context.WithTimeout(f.base, shortTime)
	defer stop()
	var n chain.Node
	var err error
	switch {
	case isVersion(id):
		n, err = f.forest.Version(ctx, splitVersion(id))
	case isDir(id):
		n, err = f.node(ctx, id)
	default:
		return fmt.Sprintf("node %d", id)
	}
	switch {
	case err == nil && n.Path != "":
		return fmt.Sprintf("%q", string(n.Path))
	case err == nil && n.Name != "":
		return fmt.Sprintf("%q", n.Name)
	}
	return fmt.Sprintf("node %#x", id)
}

// faults remembers what was logged, so that a damaged file that is read in a
// loop does not fill the log. It keeps at most maxFaults keys and then starts
// afresh. Its zero value is ready.
type faults struct {
	mu   sync.Mutex
	seen map[string]struct{}
}

const maxFaults = 1024

// first reports whether key is new.
func (f *faults) first(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.seen[key]; ok {
		return false
	}
	if f.seen == nil || len(f.seen) >= maxFaults {
		f.seen = make(map[string]struct{})
	}
	f.seen[key] = struct{}{}
	return true
}
