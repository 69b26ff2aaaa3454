// Package file stores archives in a local directory, durably: what Put has
// returned for is on the disk, name and content, and a crash at any moment
// leaves the old file or the new one.
package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"dupfs/backends"
)

const (
	// tempPrefix begins the names of files that are not complete. No archive
	// file begins so, and duplicity takes no notice of it.
	tempPrefix = ".dupfs-tmp-"
	// staleAfter is the age, without a byte written, at which such a file is
	// what a crash left over.
	staleAfter = 24 * time.Hour
	// piece is how much is copied between two looks at the context.
	piece = 1 << 20
)

// Backend is a directory. It implements backends.Backend, Stater and Exclusive.
type Backend struct {
	dir   string
	clean sync.Once
}

// Open returns the directory as a backend. It need not exist: the first Put
// makes it, with its parents; reading makes nothing.
func Open(dir string) (*Backend, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return &Backend{dir: abs}, nil
}

// path returns where a file lies, if its name can be one in a directory.
func (b *Backend) path(op, name string) (string, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || strings.HasPrefix(name, tempPrefix) {
		return "", fmt.Errorf("%s %q: not a name for a file in a directory", op, name)
	}
	return filepath.Join(b.dir, name), nil
}

// fail says what was done to which file, and sorts the failure.
func fail(op, name string, err error) error {
	if err == nil {
		return nil
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		err = fmt.Errorf("%w: %w", backends.ErrNoSpace, err)
	case errors.Is(err, syscall.ESTALE), errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, syscall.EAGAIN):
		err = fmt.Errorf("%w: %w", backends.ErrTransient, err)
	}
	if name == "" {
		return fmt.Errorf("%s: %w", op, err)
	}
	return fmt.Errorf("%s %s: %w", op, name, err)
}

// List returns the files of the directory, links followed; sub-directories
// and incomplete files are left out. A missing directory lists as empty.
func (b *Backend) List(ctx context.Context) ([]backends.File, error) {
	var files []backends.File
	err := b.each(ctx, func(e fs.DirEntry) error {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			return nil
		}
		f, err := b.stat(e.Name())
		if err == nil {
			files = append(files, f)
		} else if !errors.Is(err, fs.ErrNotExist) { // removed meanwhile, or not a file
			return err
		}
		return nil
	})
	if err != nil {
		return nil, fail("list", "", err)
	}
	return files, nil
}

func (b *Backend) each(ctx context.Context, f func(fs.DirEntry) error) error {
	d, err := os.Open(b.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	defer d.Close()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		some, err := d.ReadDir(1000)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range some {
			if err := f(e); err != nil {
				return err
			}
		}
	}
}

func (b *Backend) stat(name string) (backends.File, error) {
	fi, err := os.Stat(filepath.Join(b.dir, name))
	if err != nil {
		return backends.File{}, err
	}
	if !fi.Mode().IsRegular() {
		return backends.File{}, &fs.PathError{Op: "stat", Path: filepath.Join(b.dir, name), Err: fs.ErrNotExist}
	}
	return backends.File{Name: name, Size: fi.Size(), ModTime: fi.ModTime()}, nil
}

// Stat tells of one file.
func (b *Backend) Stat(ctx context.Context, name string) (backends.File, error) {
	_, err := b.path("query", name)
	if err != nil {
		return backends.File{}, err
	}
	if err := ctx.Err(); err != nil {
		return backends.File{}, fail("query", name, err)
	}
	f, err := b.stat(name)
	return f, fail("query", name, err)
}

// Open reads a range of a file.
func (b *Backend) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	path, err := b.path("get", name)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fail("get", name, err)
	}
	if off < 0 {
		return nil, fail("get", name, fmt.Errorf("negative offset %d", off))
	}
	// A FIFO of that name must not block.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fail("get", name, err)
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err == nil && off > 0 {
		_, err = f.Seek(off, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, fail("get", name, err)
	}
	left := max(fi.Size()-off, 0)
	if n >= 0 {
		left = min(left, n)
	}
	return &body{ctx: ctx, name: name, f: f, left: left}, nil
}

// body is an open range; it lives as long as the call whose context it keeps.
type body struct {
	ctx  context.Context
	name string
	f    *os.File
	left int64
}

func (r *body) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, fail("get", r.name, err)
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	n, err := r.f.Read(p[:min(int64(len(p)), r.left, piece)])
	r.left -= int64(n)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF // it got shorter while it was read
	}
	return n, fail("get", r.name, err)
}

func (r *body) Close() error { return r.f.Close() }

// Put stores a file: temporary name, fsync, rename, fsync of the directory.
// The file is readable by its owner only.
func (b *Backend) Put(ctx context.Context, name string, r io.ReadSeeker) error {
	return b.put(ctx, name, r, os.Rename)
}

// PutNew is Put for a name that must be free.
func (b *Backend) PutNew(ctx context.Context, name string, r io.ReadSeeker) error {
	return b.put(ctx, name, r, renameNew)
}

func (b *Backend) put(ctx context.Context, name string, r io.Reader, rename func(from, to string) error) error {
	path, err := b.path("put", name)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fail("put", name, err)
	}
	if err := makeDir(b.dir); err != nil {
		return fail("put", name, err)
	}
	b.clean.Do(func() { b.removeStale(ctx) })
	temp, err := b.write(ctx, r)
	if err != nil {
		return fail("put", name, err)
	}
	if err := rename(temp, path); err != nil {
		os.Remove(temp)
		return fail("put", name, err)
	}
	return fail("put", name, syncDir(b.dir))
}

// write returns the name of a new temporary file with all of r, on disk.
func (b *Backend) write(ctx context.Context, r io.Reader) (name string, err error) {
	f, err := os.CreateTemp(b.dir, tempPrefix+"*")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	for err == nil {
		if err = ctx.Err(); err != nil {
			return "", err
		}
		_, err = io.CopyN(f, r, piece)
	}
	if err != io.EOF {
		return "", err
	}
	if err = f.Sync(); err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

// renameNew renames only onto a free name. File systems that cannot (NFS) can
// make a second link, which also fails if the name is taken.
func renameNew(from, to string) error {
	if able, err := renameExclusive(from, to); able {
		return wrapPath("rename", to, err)
	}
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}

func wrapPath(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}

// Delete removes a file, on disk, too.
func (b *Backend) Delete(ctx context.Context, name string) error {
	path, err := b.path("delete", name)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fail("delete", name, err)
	}
	if err := wrapPath("unlink", path, syscall.Unlink(path)); err != nil {
		return fail("delete", name, err)
	}
	return fail("delete", name, syncDir(b.dir))
}

// removeStale removes what crashed writers left. Failures do not matter.
func (b *Backend) removeStale(ctx context.Context) {
	b.each(ctx, func(e fs.DirEntry) error {
		if !strings.HasPrefix(e.Name(), tempPrefix) {
			return nil
		}
		if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() && time.Since(fi.ModTime()) > staleAfter {
			os.Remove(filepath.Join(b.dir, e.Name()))
		}
		return nil
	})
}

// makeDir makes a directory and its parents, each on disk before the next.
func makeDir(dir string) error {
	fi, err := os.Stat(dir)
	if err == nil {
		if !fi.IsDir() {
			return wrapPath("mkdir", dir, syscall.ENOTDIR)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if parent == dir {
		return err
	}
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// syncDir makes names durable. Some file systems have no fsync for
// directories and say so; theirs is as durable as it gets. A directory that
// may be written but not read cannot be opened for it.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}
