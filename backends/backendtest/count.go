package backendtest

import (
	"context"
	"errors"
	"io"
	"sync"

	"dupfs/backends"
)

// Ops are the operations that Count and Faulty tell apart.
const (
	List    = "list"
	Get     = "get"
	Put     = "put"
	PutNew  = "putnew"
	Delete  = "delete"
	Stat    = "query"
	SetTier = "settier"
)

// Tally is what one operation was asked.
type Tally struct {
	Calls int
	Bytes int64 // of bodies, as far as they were read
}

// Count counts the requests and bytes of each operation. It has all optional
// interfaces; those that the backend lacks fail with errors.ErrUnsupported.
type Count struct {
	b  backends.Backend
	mu sync.Mutex
	m  map[string]Tally
	f  map[string]Tally // by operation and name: "get a.gpg"
}

// NewCount returns a counter around b.
func NewCount(b backends.Backend) *Count {
	return &Count{b: b, m: map[string]Tally{}, f: map[string]Tally{}}
}

// Of returns the tally of one operation.
func (c *Count) Of(op string) Tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m[op]
}

// File returns the tally of one operation on one file.
func (c *Count) File(op, name string) Tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.f[op+" "+name]
}

// Total returns all requests, and all bytes read and written.
func (c *Count) Total() (sum Tally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.m {
		sum.Calls += t.Calls
		sum.Bytes += t.Bytes
	}
	return sum
}

// Reset forgets all that was counted.
func (c *Count) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.m)
	clear(c.f)
}

func (c *Count) add(op, name string, calls int, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range []struct {
		m map[string]Tally
		k string
	}{{c.m, op}, {c.f, op + " " + name}} {
		t := e.m[e.k]
		t.Calls += calls
		t.Bytes += bytes
		e.m[e.k] = t
	}
}

// List implements backends.Backend.
func (c *Count) List(ctx context.Context) ([]backends.File, error) {
	c.add(List, "", 1, 0)
	return c.b.List(ctx)
}

// Open implements backends.Backend.
func (c *Count) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	c.add(Get, name, 1, 0)
	r, err := c.b.Open(ctx, name, off, n)
	if err != nil {
		return nil, err
	}
	return &counted{r, r, func(n int) { c.add(Get, name, 0, int64(n)) }}, nil
}

type counted struct {
	io.Reader
	io.Closer
	add func(int)
}

func (r *counted) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.add(n)
	return n, err
}

func (c *Count) counted(op, name string, r io.ReadSeeker) io.ReadSeeker {
	c.add(op, name, 1, 0)
	return struct {
		io.Reader
		io.Seeker
	}{&counted{r, nil, func(n int) { c.add(op, name, 0, int64(n)) }}, r}
}

// Put implements backends.Backend.
func (c *Count) Put(ctx context.Context, name string, r io.ReadSeeker) error {
	return c.b.Put(ctx, name, c.counted(Put, name, r))
}

// Delete implements backends.Backend.
func (c *Count) Delete(ctx context.Context, name string) error {
	c.add(Delete, name, 1, 0)
	return c.b.Delete(ctx, name)
}

// Stat implements backends.Stater.
func (c *Count) Stat(ctx context.Context, name string) (backends.File, error) {
	c.add(Stat, name, 1, 0)
	if b, ok := c.b.(backends.Stater); ok {
		return b.Stat(ctx, name)
	}
	return backends.File{}, errors.ErrUnsupported
}

// PutNew implements backends.Exclusive.
func (c *Count) PutNew(ctx context.Context, name string, r io.ReadSeeker) error {
	if b, ok := c.b.(backends.Exclusive); ok {
		return b.PutNew(ctx, name, c.counted(PutNew, name, r))
	}
	return errors.ErrUnsupported
}

// SetTier implements backends.Tierer.
func (c *Count) SetTier(ctx context.Context, name, tier, priority string) error {
	c.add(SetTier, name, 1, 0)
	if b, ok := c.b.(backends.Tierer); ok {
		return b.SetTier(ctx, name, tier, priority)
	}
	return errors.ErrUnsupported
}

// Close closes the backend.
func (c *Count) Close() error { return backends.Close(c.b) }
