// Package mem is a backend in memory, for tests. It has every optional
// interface, and access tiers that behave as Azure's.
package mem

import (
	"bytes"
	"context"
	"crypto/md5"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"dupfs/backends"
)

// Backend keeps files in memory. Use New.
type Backend struct {
	mu    sync.Mutex
	files map[string]file
	tier  string
}

// file is immutable but for its tier: its data are never written again.
type file struct {
	data   []byte
	mtime  time.Time
	tier   string
	target string // tier on the way to which it is rehydrated; "" if it is not
}

// New returns an empty backend.
func New() *Backend { return &Backend{files: map[string]file{}} }

// PutTier makes files stored from now on begin in a tier.
func (b *Backend) PutTier(tier string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tier = tier
}

// FinishRehydration ends, with success, all rehydrations that are under way.
func (b *Backend) FinishRehydration() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for name, f := range b.files {
		if f.target != "" {
			f.tier, f.target = f.target, ""
			b.files[name] = f
		}
	}
}

const archive = "Archive"

func (f file) info(name string) backends.File {
	return backends.File{
		Name: name, Size: int64(len(f.data)), ModTime: f.mtime, Tier: f.tier, Sum: fmt.Sprintf("%x", md5.Sum(f.data)),
		Archived: f.tier == archive, Rehydrating: f.target != "",
	}
}

// List returns all files.
func (b *Backend) List(ctx context.Context) ([]backends.File, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	list := make([]backends.File, 0, len(b.files))
	for name, f := range b.files {
		list = append(list, f.info(name))
	}
	return list, nil
}

func (b *Backend) get(ctx context.Context, op, name string) (file, error) {
	if err := ctx.Err(); err != nil {
		return file{}, fmt.Errorf("%s %s: %w", op, name, err)
	}
	f, ok := b.files[name]
	if !ok {
		return file{}, fmt.Errorf("%s %s: %w", op, name, fs.ErrNotExist)
	}
	return f, nil
}

// Stat tells of one file.
func (b *Backend) Stat(ctx context.Context, name string) (backends.File, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, err := b.get(ctx, "query", name)
	if err != nil {
		return backends.File{}, err
	}
	return f.info(name), nil
}

// Open reads a range of a file.
func (b *Backend) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, err := b.get(ctx, "get", name)
	if err != nil {
		return nil, err
	}
	if off < 0 {
		return nil, fmt.Errorf("get %s: negative offset %d", name, off)
	}
	if f.tier == archive {
		return nil, fmt.Errorf("get %s: %w", name, backends.ErrArchived)
	}
	data := f.data[min(off, int64(len(f.data))):]
	if n >= 0 {
		data = data[:min(n, int64(len(data)))]
	}
	return io.NopCloser(&ctxReader{ctx, name, bytes.NewReader(data)}), nil
}

type ctxReader struct {
	ctx  context.Context // of the Open whose body this is
	name string
	r    io.Reader
}

func (r *ctxReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, fmt.Errorf("get %s: %w", r.name, err)
	}
	return r.r.Read(p)
}

// Put stores a file.
func (b *Backend) Put(ctx context.Context, name string, r io.ReadSeeker) error {
	return b.put(ctx, name, r, false)
}

// PutNew stores a file if the name is free.
func (b *Backend) PutNew(ctx context.Context, name string, r io.ReadSeeker) error {
	return b.put(ctx, name, r, true)
}

func (b *Backend) put(ctx context.Context, name string, r io.Reader, isNew bool) error {
	var buf bytes.Buffer
	for err := error(nil); err != io.EOF; {
		if err = ctx.Err(); err == nil {
			_, err = io.CopyN(&buf, r, 32<<10)
		}
		if err != nil && err != io.EOF {
			return fmt.Errorf("put %s: %w", name, err)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old, taken := b.files[name]
	switch {
	case isNew && taken:
		return fmt.Errorf("put %s: %w", name, fs.ErrExist)
	case old.tier == archive:
		return fmt.Errorf("put %s: %w", name, backends.ErrArchived)
	}
	b.files[name] = file{data: buf.Bytes(), mtime: time.Now(), tier: b.tier}
	return nil
}

// Delete removes a file.
func (b *Backend) Delete(ctx context.Context, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.get(ctx, "delete", name); err != nil {
		return err
	}
	delete(b.files, name)
	return nil
}

// SetTier moves a file to a tier; out of "Archive" only once
// FinishRehydration was called.
func (b *Backend) SetTier(ctx context.Context, name, tier, _ string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	f, err := b.get(ctx, "settier", name)
	if err != nil {
		return err
	}
	if f.tier == archive && tier != archive {
		f.target = tier
	} else {
		f.tier, f.target = tier, ""
	}
	b.files[name] = f
	return nil
}
