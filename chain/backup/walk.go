package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"dupfs/chain"
	"dupfs/chain/selection"
)

// visitor is told of the source in path order.
type visitor interface {
	// entry is told of a selected entry. The source is the visitor's; its
	// directory must be held to outlive the call.
	entry(s *source) error
	// keep says that p could not be read: it and all below it stay as they
	// were in the base.
	keep(p chain.Path) error
	// notice passes a notice on.
	notice(n Notice)
}

// walker goes through a source in path order. Its memory is the names of one
// directory for each level.
type walker struct {
	sel     *selection.Selection
	v       visitor
	hooks   *hooks
	root    uint64 // number of the root's file system
	pending []*source
	facts   *facts
	only    *Listed // nil: everything
	follow  bool    // store what links lead to
	above   []inode // with follow: the directories that are open, the root first
}

// inode names a file of this machine.
type inode struct{ dev, ino uint64 }

// walk visits src, which may be a link to a directory or file.
func (w *walker) walk(ctx context.Context, src string) error {
	s, isDir, err := w.open(src)
	if err != nil {
		return err
	}
	defer s.dir.release()
	if err := w.v.entry(s); err != nil || !isDir {
		return err
	}
	w.above = append(w.above, inode{s.dev, s.ino})
	return w.children(ctx, s.dir, chain.Root)
}

// open opens the root.
func (w *walker) open(src string) (*source, bool, error) {
	var st unix.Stat_t
	d, err := openDir(nil, src, true)
	isDir := err == nil
	if errors.Is(err, unix.ENOTDIR) {
		d, err = openRootFile(src)
	}
	if err != nil {
		return nil, false, &fs.PathError{Op: "open", Path: src, Err: err}
	}
	if err := unix.Fstat(d.fd(), &st); err != nil {
		d.release()
		return nil, false, &fs.PathError{Op: "stat", Path: src, Err: err}
	}
	s := &source{dir: d}
	w.facts.fill(s, &st)
	if s.Type != chain.Dir && s.Type != chain.File {
		d.release()
		return nil, false, fmt.Errorf("%s: neither a directory nor a file", src)
	}
	w.root = s.dev
	return s, isDir, nil
}

// openRootFile opens a source that is a single file.
func openRootFile(src string) (*directory, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(src, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, err
	}
	d := &directory{f: os.NewFile(uintptr(fd), src)}
	d.hold()
	return d, nil
}

// children visits what a directory holds. A directory that cannot be listed
// keeps what the base has below it.
func (w *walker) children(ctx context.Context, d *directory, p chain.Path) error {
	names, err := d.names()
	if err != nil {
		w.v.notice(Notice{Unreadable, p, err})
		if err := w.flush(); err != nil {
			return err
		}
		return w.v.keep(p)
	}
	w.hooks.listed(p)
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := w.child(ctx, d, p.Join(name), name); err != nil {
			return err
		}
	}
	return nil
}

// child visits one entry.
func (w *walker) child(ctx context.Context, d *directory, p chain.Path, name string) error {
	if len(p) > chain.MaxPath {
		return w.lost(p, errors.New("its path is too long"))
	}
	if !w.only.wants(p) {
		return nil
	}
	st, err := d.lstat(name)
	if err != nil {
		return w.lost(p, err)
	}
	s := &source{dir: d, name: name}
	s.Path = p
	if w.follow && typeOf(uint32(st.Mode)) == chain.Symlink {
		st, s.follow = w.target(d, name, st)
	}
	verdict := w.judge(d, p, name, &st)
	if verdict == selection.Exclude {
		return nil
	}
	if typeOf(uint32(st.Mode)) == chain.Dir {
		return w.childDir(ctx, s, verdict)
	}
	if typeOf(uint32(st.Mode)) == chain.Symlink {
		if s.Link, err = d.readlink(name); err != nil {
			return w.lost(p, err)
		}
	}
	w.facts.fill(s, &st)
	if s.Type == 0 {
		w.v.notice(Notice{Skipped, p, errors.New("a socket is never stored")})
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	return w.v.entry(s)
}

// target returns what a link leads to and true. One that leads nowhere, or to a
// directory that the walk is in, is stored as a link.
func (w *walker) target(d *directory, name string, link unix.Stat_t) (st unix.Stat_t, follow bool) {
	st, err := d.stat(name)
	if err != nil || slices.Contains(w.above, inode{uint64(st.Dev), st.Ino}) {
		return link, false
	}
	return st, true
}

// childDir visits a directory and what is in it. Its facts are those of the
// directory that is open, should another one have taken its place.
func (w *walker) childDir(ctx context.Context, s *source, verdict selection.Verdict) error {
	if len(w.above) >= chain.MaxDepth {
		return w.lost(s.Path, fmt.Errorf("more than %d directories deep: nobody could restore it", chain.MaxDepth))
	}
	d, err := openDir(s.dir, s.name, s.follow)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return w.closed(s, err)
	}
	if err != nil {
		return w.lost(s.Path, err)
	}
	defer d.release()
	var st unix.Stat_t
	if err := unix.Fstat(d.fd(), &st); err != nil {
		return w.lost(s.Path, err)
	}
	w.facts.fill(s, &st)
	w.above = append(w.above, inode{s.dev, s.ino})
	defer func() { w.above = w.above[:len(w.above)-1] }()
	depth := len(w.pending)
	w.pending = append(w.pending, s)
	if verdict == selection.Include {
		if err := w.flush(); err != nil {
			return err
		}
	}
	err = w.children(ctx, d, s.Path)
	if len(w.pending) > depth { // nothing below it was selected
		w.pending = w.pending[:depth]
	}
	return err
}

// closed visits a directory that may not be read: what is known of it is
// stored, and what the base has below it stays.
func (w *walker) closed(s *source, cause error) error {
	look := s.dir.lstat
	if s.follow {
		look = s.dir.stat
	}
	st, err := look(s.name)
	if err != nil || typeOf(uint32(st.Mode)) != chain.Dir {
		return w.lost(s.Path, cause)
	}
	w.facts.fill(s, &st)
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.v.entry(s); err != nil {
		return err
	}
	w.v.notice(Notice{Unreadable, s.Path, cause})
	return w.v.keep(s.Path)
}

// lost passes on that an entry could not be read. What is selected but cannot
// be read counts as found: scanned directories above it are stored.
func (w *walker) lost(p chain.Path, err error) error {
	w.v.notice(Notice{lostClass(err), p, err})
	if err := w.flush(); err != nil {
		return err
	}
	return w.v.keep(p)
}

// lostClass tells what vanished from what cannot be read.
func lostClass(err error) Class {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return Vanished
	}
	return Unreadable
}

// flush visits the scanned directories above an entry that was found.
func (w *walker) flush() error {
	for _, s := range w.pending {
		if err := w.v.entry(s); err != nil {
			return err
		}
	}
	w.pending = w.pending[:0]
	return nil
}

// judge asks the selection.
func (w *walker) judge(d *directory, p chain.Path, name string, st *unix.Stat_t) selection.Verdict {
	if w.sel == nil {
		return selection.Include
	}
	return w.sel.Judge(p, selection.Facts{
		Type: typeOf(uint32(st.Mode)), Mtime: int64(st.Mtim.Sec), OtherFS: uint64(st.Dev) != w.root,
		Holds: func(child string) bool { return d.holds(name, child) },
	})
}
