package backendtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"

	"dupfs/backends"
)

// Kind is what goes wrong.
type Kind int

const (
	// Fail: the operation is not done and returns the fault's error.
	Fail Kind = iota
	// Lost: the operation is done, but returns the error all the same, as
	// when a connection breaks before the answer came.
	Lost
	// Cut: the body that is read ends at byte At, with io.EOF as if it were
	// complete.
	Cut
	// Break: the body that is read fails with the error at byte At; a Put
	// reads At bytes of its source and fails, storing nothing.
	Break
	// Stall: nothing comes until the context ends; of a body, from byte At on.
	Stall
	// Wrong: byte At of the body that is read has its lowest bit flipped.
	Wrong
	// Stale: a listing is as it was at the listing before, or empty if there
	// was none.
	Stale
)

// Fault is one thing that goes wrong, some time.
type Fault struct {
	Op    string // of which operation; "" means any
	Name  string // of which file; "" means any
	Nth   int    // the first matching call that fails, from 1; 0 means 1
	Count int    // how many calls fail; 0 means 1, less than 0 all
	Kind  Kind
	At    int64 // byte of the body, counted from where it was opened
	Err   error // nil means one that is backends.ErrTransient

	seen int
}

// Faulty is a backend that fails as told. Like Count it has all optional
// interfaces.
type Faulty struct {
	b      backends.Backend
	mu     sync.Mutex
	faults []*Fault
	rnd    *rand.Rand
	rate   float64
	hits   int
	last   []backends.File
}

// NewFaulty returns b with faults; of several that match the first is taken.
func NewFaulty(b backends.Backend, faults ...Fault) *Faulty {
	f := &Faulty{b: b}
	f.Add(faults...)
	return f
}

// NewRandom returns b with a part of all operations (rate, 0 to 1) failing in
// any way that a reader can notice by itself: Fail, Lost, Break. The same seed
// gives the same faults for the same sequence of calls.
func NewRandom(b backends.Backend, seed uint64, rate float64) *Faulty {
	return &Faulty{b: b, rnd: rand.New(rand.NewPCG(seed, 0)), rate: rate}
}

// Add adds faults.
func (f *Faulty) Add(faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range faults {
		f.faults = append(f.faults, &x)
	}
}

// Clear ends all faults.
func (f *Faulty) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults, f.rnd = nil, nil
}

// Hits is how many calls failed so far.
func (f *Faulty) Hits() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hits
}

// next returns what is to go wrong in a call, or nil.
func (f *Faulty) next(op, name string) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.faults {
		if x.Op != "" && x.Op != op || x.Name != "" && x.Name != name {
			continue
		}
		x.seen++
		first, count := max(x.Nth, 1), x.Count
		if count == 0 {
			count = 1
		}
		if x.seen >= first && (count < 0 || x.seen < first+count) {
			f.hits++
			return x.ready(op, name)
		}
	}
	if f.rnd == nil || f.rnd.Float64() >= f.rate {
		return nil
	}
	f.hits++
	x := Fault{Kind: []Kind{Fail, Lost, Break}[f.rnd.IntN(3)], At: f.rnd.Int64N(100_000)}
	return x.ready(op, name)
}

func (x *Fault) ready(op, name string) *Fault {
	y := *x
	if y.Err == nil {
		y.Err = fmt.Errorf("%w: made to fail", backends.ErrTransient)
	}
	y.Err = fmt.Errorf("%s %s: %w", op, name, y.Err)
	return &y
}

// do runs an operation without a body.
func (f *Faulty) do(ctx context.Context, op, name string, run func() error) error {
	x := f.next(op, name)
	if x == nil || x.Kind == Cut || x.Kind == Wrong || x.Kind == Stale {
		return run()
	}
	switch x.Kind {
	case Lost:
		if err := run(); err != nil {
			return err
		}
	case Stall:
		<-ctx.Done()
		return fmt.Errorf("%s %s: %w", op, name, ctx.Err())
	}
	return x.Err
}

// List implements backends.Backend.
func (f *Faulty) List(ctx context.Context) (files []backends.File, err error) {
	x := f.next(List, "")
	if x != nil && x.Kind == Stall {
		<-ctx.Done()
		return nil, fmt.Errorf("list: %w", ctx.Err())
	}
	if x != nil && (x.Kind == Fail || x.Kind == Lost || x.Kind == Break) {
		return nil, x.Err
	}
	if files, err = f.b.List(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.last
	f.last = files
	if x != nil && x.Kind == Stale {
		f.last = old
		return append([]backends.File(nil), old...), nil
	}
	return files, nil
}

// Open implements backends.Backend.
func (f *Faulty) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	x := f.next(Get, name)
	if x != nil && (x.Kind == Fail || x.Kind == Lost) {
		return nil, x.Err
	}
	r, err := f.b.Open(ctx, name, off, n)
	if err != nil || x == nil || x.Kind == Stale {
		return r, err
	}
	return &faultyBody{ctx, r, x, 0}, nil
}

// faultyBody is a body with a fault at a byte. The context is that of its Open.
type faultyBody struct {
	ctx context.Context
	io.ReadCloser
	x   *Fault
	pos int64
}

func (b *faultyBody) Read(p []byte) (int, error) {
	left := b.x.At - b.pos
	if left > 0 {
		p = p[:min(int64(len(p)), left)]
	}
	if left == 0 {
		switch b.x.Kind {
		case Cut:
			return 0, io.EOF
		case Break:
			return 0, b.x.Err
		case Stall:
			<-b.ctx.Done()
			return 0, b.ctx.Err()
		}
		p = p[:min(len(p), 1)]
	}
	n, err := b.ReadCloser.Read(p)
	if left == 0 && n > 0 && b.x.Kind == Wrong {
		p[0] ^= 1
	}
	b.pos += int64(n)
	return n, err
}

func (f *Faulty) put(ctx context.Context, op, name string, r io.ReadSeeker, run func() error) error {
	x := f.next(op, name)
	if x == nil || x.Kind == Cut || x.Kind == Wrong || x.Kind == Stale {
		return run()
	}
	switch x.Kind {
	case Lost:
		if err := run(); err != nil {
			return err
		}
	case Break, Stall:
		if _, err := io.CopyN(io.Discard, r, x.At); err != nil && err != io.EOF {
			return err
		}
		if x.Kind == Stall {
			<-ctx.Done()
			return fmt.Errorf("%s %s: %w", op, name, ctx.Err())
		}
	}
	return x.Err
}

// Put implements backends.Backend.
func (f *Faulty) Put(ctx context.Context, name string, r io.ReadSeeker) error {
	return f.put(ctx, Put, name, r, func() error { return f.b.Put(ctx, name, r) })
}

// PutNew implements backends.Exclusive.
func (f *Faulty) PutNew(ctx context.Context, name string, r io.ReadSeeker) error {
	b, ok := f.b.(backends.Exclusive)
	if !ok {
		return errors.ErrUnsupported
	}
	return f.put(ctx, PutNew, name, r, func() error { return b.PutNew(ctx, name, r) })
}

// Delete implements backends.Backend.
func (f *Faulty) Delete(ctx context.Context, name string) error {
	return f.do(ctx, Delete, name, func() error { return f.b.Delete(ctx, name) })
}

// Stat implements backends.Stater. A stale one does not know the file.
func (f *Faulty) Stat(ctx context.Context, name string) (file backends.File, err error) {
	b, ok := f.b.(backends.Stater)
	if !ok {
		return file, errors.ErrUnsupported
	}
	err = f.do(ctx, Stat, name, func() error {
		file, err = b.Stat(ctx, name)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		file = backends.File{}
	}
	return file, err
}

// SetTier implements backends.Tierer.
func (f *Faulty) SetTier(ctx context.Context, name, tier, priority string) error {
	b, ok := f.b.(backends.Tierer)
	if !ok {
		return errors.ErrUnsupported
	}
	return f.do(ctx, SetTier, name, func() error { return b.SetTier(ctx, name, tier, priority) })
}

// Close closes the backend.
func (f *Faulty) Close() error { return backends.Close(f.b) }
