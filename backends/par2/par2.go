// Package par2 wraps a store so that damaged files in it can be made whole
// again: beside each file it keeps recovery files of the Parity Volume Set
// format, NAME.par2 and NAME.volN+M.par2, as duplicity's wrapper of that
// name does. The program par2 makes and uses them.
//
// A file is stored first and its recovery files after it; they are removed
// before it. So whatever ends in between leaves a file that is whole, if
// perhaps unprotected, and no recovery files of what is not there. Listings
// hide recovery files.
//
// Temporary space of one Put: the file and its recovery files. Of one Heal:
// twice the file, and its recovery files. par2 runs once at a time, with some
// 64 MiB of memory beside its tables.
package par2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"sync"
	"time"

	"dupfs/backends"
)

// Options of the recovery files that are made. The zero value is ready to use.
type Options struct {
	Redundancy int      // percent of a file that can be made anew, 1 to 100; 0 means 10
	Volumes    int      // recovery files beside NAME.par2; 0 means 1
	Args       []string // further options of par2 create
	Program    string   // "" means par2
	TempDir    string   // "" means the system's
}

// backend is a store with recovery files.
type backend struct {
	b backends.Backend
	o Options

	running chan struct{} // one token for the one par2 at work

	mu     sync.Mutex
	listed bool
	files  map[string]bool       // names of files, as listed or stored
	known  map[string]recoveries // by the name of the file
	mine   map[string]bool       // names that this process has stored, which a listing may not have yet
}

// recoveries are the recovery files of one file: name and size.
type recoveries map[string]int64

// New returns b with recovery files. It has those optional interfaces that b
// has, and a Healer.
func New(b backends.Backend, o Options) backends.Backend {
	if o.Redundancy <= 0 {
		o.Redundancy = 10
	}
	if o.Volumes <= 0 {
		o.Volumes = 1
	}
	if o.Program == "" {
		o.Program = "par2"
	}
	w := &backend{b: b, o: o, running: make(chan struct{}, 1)}
	w.files, w.known, w.mine = map[string]bool{}, map[string]recoveries{}, map[string]bool{}
	return backends.Expose(w, b)
}

var recoveryName = regexp.MustCompile(`(?s)^(.+?)(\.vol[0-9]+\+[0-9]+)?\.par2$`)

// fileOf returns the file that a recovery file is of, "" for any other file.
func fileOf(name string) string {
	if m := recoveryName.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	return ""
}

// Healer returns b.
func (b *backend) Healer() backends.Healer { return b }

// Doubtful implements backends.Doubtful.
func (b *backend) Doubtful() bool { return !backends.Excludes(b.b) }

// Close closes the store.
func (b *backend) Close() error { return backends.Close(b.b) }

// List returns all files but recovery files.
func (b *backend) List(ctx context.Context) ([]backends.File, error) {
	all, err := b.b.List(ctx)
	if err != nil {
		return nil, err
	}
	files := make([]backends.File, 0, len(all))
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listed = true
	known := b.known
	b.files, b.known = map[string]bool{}, map[string]recoveries{}
	for name := range b.mine {
		b.files[name] = true
		for n, size := range known[name] {
			b.note(name, n, size)
		}
	}
	for _, f := range all {
		if of := fileOf(f.Name); of != "" {
			b.note(of, f.Name, f.Size)
			continue
		}
		b.files[f.Name] = true
		files = append(files, f)
	}
	return files, nil
}

// note remembers a recovery file. The lock is held.
func (b *backend) note(of, name string, size int64) {
	if b.known[of] == nil {
		b.known[of] = recoveries{}
	}
	b.known[of][name] = size
}

// load lists the store if nobody has.
func (b *backend) load(ctx context.Context) error {
	b.mu.Lock()
	listed := b.listed
	b.mu.Unlock()
	if listed {
		return nil
	}
	if _, err := b.List(ctx); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// recoveryOf returns the names of a file's recovery files, NAME.par2 first.
func (b *backend) recoveryOf(ctx context.Context, name string) ([]string, error) {
	if err := b.load(ctx); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	names := make([]string, 0, len(b.known[name]))
	for n := range b.known[name] {
		names = append(names, n)
	}
	slices.SortFunc(names, shorter)
	return names, nil
}

// Recovery tells of all recovery files.
func (b *backend) Recovery(ctx context.Context) (map[string]backends.Recovery, error) {
	if err := b.load(ctx); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make(map[string]backends.Recovery, len(b.known))
	for name, files := range b.known {
		r := backends.Recovery{Files: len(files), Lost: !b.files[name]}
		for _, size := range files {
			r.Bytes += max(size, 0)
		}
		all[name] = r
	}
	return all, nil
}

// Open reads a range of a file.
func (b *backend) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	return b.b.Open(ctx, name, off, n)
}

// Stat tells of one file.
func (b *backend) Stat(ctx context.Context, name string) (backends.File, error) {
	if s, ok := b.b.(backends.Stater); ok {
		return s.Stat(ctx, name)
	}
	return backends.File{}, errors.ErrUnsupported
}

// SetTier moves a file and its recovery files to a tier, these first: a file
// that is not in the tier yet is asked for again.
func (b *backend) SetTier(ctx context.Context, name, tier, priority string) error {
	t, ok := b.b.(backends.Tierer)
	if !ok {
		return errors.ErrUnsupported
	}
	names, err := b.recoveryOf(ctx, name)
	if err != nil {
		return err
	}
	for _, n := range append(names, name) {
		if err := t.SetTier(ctx, n, tier, priority); err != nil && (n == name || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
	}
	return nil
}

// Delete removes a file's recovery files, and then the file.
func (b *backend) Delete(ctx context.Context, name string) error {
	if err := b.unprotect(ctx, name, nil); err != nil {
		return err
	}
	err := b.b.Delete(ctx, name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		b.mu.Lock()
		delete(b.files, name)
		delete(b.mine, name)
		b.mu.Unlock()
	}
	return err
}

// unprotect removes the recovery files of a file, but those named in keep.
func (b *backend) unprotect(ctx context.Context, name string, keep recoveries) error {
	names, err := b.recoveryOf(ctx, name)
	if err != nil {
		return err
	}
	for _, n := range names {
		if _, ok := keep[n]; ok {
			continue
		}
		if err := b.b.Delete(ctx, n); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		b.mu.Lock()
		if delete(b.known[name], n); len(b.known[name]) == 0 {
			delete(b.known, name)
		}
		b.mu.Unlock()
	}
	return nil
}

// Put stores a file and its recovery files. Those of a file that it replaces
// are removed before: what they would make of a damaged file is another one.
func (b *backend) Put(ctx context.Context, name string, r io.ReadSeeker) error {
	return b.put(ctx, name, r, func(w *work) error {
		if err := b.unprotect(ctx, name, nil); err != nil {
			return err
		}
		return b.b.Put(ctx, name, w.file)
	})
}

// PutNew stores a file if its name is free, and its recovery files.
func (b *backend) PutNew(ctx context.Context, name string, r io.ReadSeeker) error {
	e, ok := b.b.(backends.Exclusive)
	if !ok {
		return errors.ErrUnsupported
	}
	return b.put(ctx, name, r, func(w *work) error { return e.PutNew(ctx, name, w.file) })
}

func (b *backend) put(ctx context.Context, name string, r io.ReadSeeker, store func(*work) error) error {
	if err := b.load(ctx); err != nil {
		return err
	}
	w, err := b.create(ctx, name, r)
	if err != nil {
		return fmt.Errorf("put %s: %w", name, err)
	}
	defer w.close()
	if err := store(w); err != nil {
		return err
	}
	b.mu.Lock()
	replaced := b.files[name]
	b.files[name], b.mine[name] = true, true
	b.mu.Unlock()
	if err := b.putRecovery(ctx, name, w); err != nil {
		if !replaced {
			b.undo(ctx, name)
		}
		return err
	}
	return nil
}

// undoTimeout bounds the removal of a file that cannot be protected.
const undoTimeout = 30 * time.Second

// undo removes what a Put has stored that failed: all or nothing. If that
// fails, too, a file without recovery files stays.
func (b *backend) undo(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	_ = b.Delete(ctx, name)
}

// putRecovery stores the recovery files of w and removes older ones.
func (b *backend) putRecovery(ctx context.Context, name string, w *work) error {
	made := recoveries{}
	for _, n := range w.recovery {
		f, err := os.Open(w.path(n))
		if err != nil {
			return fmt.Errorf("put %s: %w", n, err)
		}
		made[n] = w.size(n)
		// Known before it is tried: what may be there is removed with the file.
		b.mu.Lock()
		b.note(name, n, made[n])
		b.mu.Unlock()
		err = b.b.Put(ctx, n, f)
		f.Close()
		if err != nil {
			return err
		}
	}
	return b.unprotect(ctx, name, made)
}

// Protect makes the recovery files of a stored file anew.
func (b *backend) Protect(ctx context.Context, name string, r io.ReadSeeker) error {
	if err := b.load(ctx); err != nil {
		return err
	}
	w, err := b.create(ctx, name, r)
	if err != nil {
		return fmt.Errorf("recovery files of %s: %w", name, err)
	}
	defer w.close()
	return b.putRecovery(ctx, name, w)
}

// PutBack stores a healed file.
func (b *backend) PutBack(ctx context.Context, name string, r io.ReadSeeker) error {
	if err := b.b.Put(ctx, name, r); err != nil {
		return err
	}
	b.mu.Lock()
	b.files[name], b.mine[name] = true, true
	b.mu.Unlock()
	return nil
}

// Heal makes a damaged file whole, in temporary space.
func (b *backend) Heal(ctx context.Context, name string) (*os.File, error) {
	names, err := b.recoveryOf(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("recovery files of %s: %w", name, fs.ErrNotExist)
	}
	w, err := b.work(name)
	if err != nil {
		return nil, err
	}
	defer w.close()
	return b.repair(ctx, w, names)
}
