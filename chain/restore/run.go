package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"dupfs/chain"
)

// run is the state of one restore.
type run struct {
	forest chain.Forest
	tree   chain.Tree
	o      Options
	owners *owners
	extra  *buffers
	links  *links
	tasks  chan task

	mounts mounts
	prefix string // of temporary names
	serial atomic.Int64

	files, dirs, others, bytes, failed, warnings atomic.Int64
	warnMu                                       sync.Mutex // serializes o.Warn and o.Begin
}

// task is an entry that is not a directory, to be restored into dir.
type task struct {
	dir  *dir
	node chain.Node
	name string
	path chain.Path
}

// Run restores path of a tree to target: the content of a directory goes into
// target, which gets the directory's attributes; anything else becomes target.
// Missing parents of target are made.
//
// A path that the tree does not have is fs.ErrNotExist, a target in the way
// ErrExists. An entry that cannot be restored is reported and counted, and the
// rest goes on: look at Report.Failed. When Run returns nil, what was restored is
// on the disk, and would survive a loss of power. A full or read-only file system and the
// end of ctx stop the run with an error; the report says what was done.
func Run(ctx context.Context, f chain.Forest, t chain.Tree, path chain.Path, target string, o Options) (*Report, error) {
	r := newRun(f, t, o)
	n, err := lookup(ctx, t, path)
	switch {
	case err != nil:
	case n.Type == chain.Dir:
		err = r.intoDir(ctx, n, path, filepath.Clean(target))
	default:
		err = r.asFile(ctx, n, path, filepath.Clean(target))
	}
	return &Report{
		Files: r.files.Load(), Dirs: r.dirs.Load(), Others: r.others.Load(), Bytes: r.bytes.Load(),
		Failed: r.failed.Load(), Warnings: r.warnings.Load(),
	}, err
}

// newRun returns a run that has done nothing.
func newRun(f chain.Forest, t chain.Tree, o Options) *run {
	o.Workers = workers(o.Workers)
	if o.Progress == nil {
		o.Progress = new(Progress)
	}
	return &run{
		forest: f, tree: t, o: o, owners: newOwners(o.NumericOwner), extra: newBuffers(),
		tasks:  make(chan task, 2*o.Workers),
		prefix: fmt.Sprintf(".dupfs-restore-%016x", rand.Uint64()),
	}
}

// tempName returns a name that nothing has.
func (r *run) tempName() string { return fmt.Sprintf("%s.%d", r.prefix, r.serial.Add(1)) }

// asFile restores n, which is no directory, as target.
func (r *run) asFile(ctx context.Context, n chain.Node, path chain.Path, target string) error {
	name := filepath.Base(target)
	if checkName(name) != nil {
		return fmt.Errorf("%s: %w", target, ErrExists)
	}
	parent, err := openParent(filepath.Dir(target))
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	if err := r.clearTarget(parent, name, target); err != nil {
		return err
	}
	d := &dir{fd: parent, keep: true}
	d.refs.Store(1)
	n.LinkGroup = 0
	if err := r.restore(ctx, newStreamer(r.extra), task{d, n, name, path}); err != nil {
		return err
	}
	if r.o.NoSync {
		return nil
	}
	return syncDisk(parent)
}

// clearTarget checks that a file may be made at target, name in parent. An
// empty directory there makes room.
func (r *run) clearTarget(parent int, name, target string) error {
	var st unix.Stat_t
	err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil
	case err != nil:
		return &fs.PathError{Op: "stat", Path: target, Err: err}
	case st.Mode&unix.S_IFMT != unix.S_IFDIR && r.o.Force:
		return nil
	case st.Mode&unix.S_IFMT == unix.S_IFDIR && unix.Unlinkat(parent, name, unix.AT_REMOVEDIR) == nil:
		return nil
	}
	return fmt.Errorf("%s: %w", target, ErrExists)
}

// intoDir restores what is in n into the directory target.
func (r *run) intoDir(ctx context.Context, n chain.Node, path chain.Path, target string) error {
	fd, err := openTarget(target, r.o.Force)
	if err != nil {
		return err
	}
	top := &dir{fd: fd, node: n, path: path}
	top.refs.Store(1) // held until everything is done
	defer r.mounts.close()
	if err := r.mounts.note(fd); err != nil {
		r.release(top)
		return err
	}
	r.links = newLinks(fd, r.prefix+".links")

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for range r.o.Workers {
		wg.Go(func() { r.work(ctx, cancel) })
	}
	top.refs.Add(1)
	if err := r.walk(ctx, top, map[uint64]bool{}); err != nil {
		cancel(err)
	}
	close(r.tasks)
	wg.Wait()
	err = errors.Join(context.Cause(ctx), r.links.close())
	r.release(top)
	if err == nil && !r.o.NoSync {
		err = r.mounts.sync()
	}
	return err
}

// work restores entries until there are no more. The first fatal error, or
// the end of ctx, ends the run; then it lets go of what is still queued.
func (r *run) work(ctx context.Context, cancel context.CancelCauseFunc) {
	s := newStreamer(r.extra)
	for t := range r.tasks {
		if ctx.Err() == nil {
			r.begin(t.path, t.node.Type)
			if err := r.restore(ctx, s, t); err != nil {
				cancel(err)
			}
		}
		r.release(t.dir)
	}
}

// walk restores the children of d and lets go of d. above has the numbers of
// d's ancestors.
func (r *run) walk(ctx context.Context, d *dir, above map[uint64]bool) error {
	defer r.release(d)
	above[d.node.Dir] = true
	defer delete(above, d.node.Dir)
	p := pager{tree: r.tree, dir: d.node.Dir}
	for {
		n, ok, err := p.Next(ctx)
		if err != nil {
			return r.fail(ctx, d.path, err)
		}
		if !ok {
			return nil
		}
		if err := r.child(ctx, d, n, above); err != nil {
			return err
		}
	}
}

// child restores a directory and what is in it, or hands n to a worker.
func (r *run) child(ctx context.Context, d *dir, n chain.Node, above map[uint64]bool) error {
	path := d.path.Join(n.Name)
	if err := checkName(n.Name); err != nil {
		return r.fail(ctx, path, err)
	}
	if n.Type != chain.Dir {
		d.refs.Add(1)
		select {
		case r.tasks <- task{d, n, n.Name, path}:
			return nil
		case <-ctx.Done():
			r.release(d)
			return context.Cause(ctx)
		}
	}
	switch {
	case above[n.Dir]:
		return r.fail(ctx, path, errors.New("directory lies within itself"))
	case len(above) >= chain.MaxDepth:
		return r.fail(ctx, path, errors.New("directory lies too deep"))
	}
	r.begin(path, n.Type)
	fd, err := makeDir(d.fd, n.Name, r.o.Force)
	if err != nil {
		return r.fail(ctx, path, err)
	}
	k := &dir{fd: fd, node: n, path: path}
	k.refs.Store(1)
	if r.o.Force {
		if err := r.mounts.note(fd); err != nil {
			r.release(k)
			return r.fail(ctx, path, err)
		}
	}
	return r.walk(ctx, k, above)
}

// fail reports an entry that was not restored. It returns an error if that
// must end the run.
func (r *run) fail(ctx context.Context, path chain.Path, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.failed.Add(1)
	r.o.Progress.Entries.Add(1)
	r.warn(path, err)
	for _, stop := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS} {
		if errors.Is(err, stop) {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// warn tells the caller.
func (r *run) warn(path chain.Path, err error) {
	if r.o.Warn == nil {
		return
	}
	r.warnMu.Lock()
	defer r.warnMu.Unlock()
	r.o.Warn(path, err)
}

// begin tells the caller what is restored next.
func (r *run) begin(path chain.Path, t chain.Type) {
	if r.o.Begin == nil {
		return
	}
	r.warnMu.Lock()
	defer r.warnMu.Unlock()
	r.o.Begin(path, t)
}

// attrs reports attributes of an entry that could not be set.
func (r *run) attrs(path chain.Path, errs []*AttrError) {
	for _, err := range errs {
		r.warnings.Add(1)
		r.warn(path, err)
	}
}
