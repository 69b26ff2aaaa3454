package backends

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"time"
)

// RetryOptions say how patient to be. The zero value is duplicity's: five
// tries, waits of up to 30 seconds, 30 seconds of silence.
type RetryOptions struct {
	Tries int // of one operation, the first included; 0 means 5

	// Delay is the longest wait after the first failed try; it doubles with
	// each try up to MaxDelay. The wait itself is random between half of
	// that and all of it, so that many clients do not return at once. What
	// the store asks for by a RetryAfter is waited for up to five minutes.
	Delay    time.Duration // 0 means one second
	MaxDelay time.Duration // 0 means 30 seconds

	// Timeout is how long a body may deliver nothing before the try counts
	// as failed. Operations whose progress cannot be seen from here (a
	// listing, the server's work after an upload) get ten times as long:
	// the drivers watch their connections themselves. 0 means 30 seconds.
	Timeout time.Duration

	// Notify, if set, is told of each failed try that could be repeated.
	// It is called from many goroutines.
	Notify func(Attempt)
}

// Attempt is one failed try.
type Attempt struct {
	Op   string // "list", "get", "put", "delete", "query", "settier"
	Name string // of the file; "" for a listing
	N    int    // number of the try, from 1
	Err  error
	Wait time.Duration // until the next one; 0 if this was the last
	Last bool
}

const (
	maxRetryAfter = 5 * time.Minute
	// goodProgress is how much a body must have delivered for its next
	// failure to count as a first one.
	goodProgress = 1 << 20
	// hidden is how many timeouts an operation gets that shows no progress.
	hidden = 10
)

// Retry returns b with its failures repeated as o says. Only what is
// ErrTransient is tried again, and a body that breaks off goes on from where
// it broke; a file that is replaced at that very moment may then be read as a
// mixture, so readers check what they read. A Put rewinds its reader to where
// it was. PutNew compares what is stored with its own content when an earlier
// try may have succeeded without telling, and Delete then takes a missing file
// for its own success.
func Retry(b Backend, o RetryOptions) Backend {
	return Expose(&retrier{inner{b}, o.defaults()}, b)
}

// Try runs one step of a driver's operation, such as sending a part of a large
// file, until it succeeds, fails for good, or was tried o.Tries times. What it
// has tried enough, Retry does not try again. f is given a context that ends
// after ten of o.Timeout.
func Try(ctx context.Context, o RetryOptions, op, name string, f func(ctx context.Context) error) error {
	r := &retrier{o: o.defaults()}
	return r.try(ctx, op, name, hidden*r.o.Timeout, func(ctx context.Context, _ func(), _ bool) error { return f(ctx) })
}

func (o RetryOptions) defaults() RetryOptions {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	if o.Tries <= 0 {
		o.Tries = 5
	}
	def(&o.Delay, time.Second)
	def(&o.MaxDelay, 30*time.Second)
	def(&o.Timeout, 30*time.Second)
	return o
}

// gaveUp is an error of class ErrTransient that was tried often enough.
type gaveUp struct {
	err   error
	tries int
}

func (g *gaveUp) Error() string {
	if g.tries == 1 {
		return g.err.Error()
	}
	return fmt.Sprintf("%v (tried %d times)", g.err, g.tries)
}

// Unwrap hides io.ErrUnexpectedEOF: to who decodes a file it means that the
// file is cut short, which a connection that broke off does not show.
func (g *gaveUp) Unwrap() error {
	if errors.Is(g.err, io.ErrUnexpectedEOF) {
		return ErrTransient
	}
	return g.err
}

type retrier struct {
	inner
	o RetryOptions
}

var errStalled = errors.New("nothing came")

// stalled tells apart a try that was given up for its silence from one that
// failed by itself, or that the caller ended.
func stalled(ctx context.Context, op, name string, err error, after time.Duration) error {
	if err != nil && context.Cause(ctx) == errStalled {
		return describe(op, name, fmt.Errorf("%w: no answer for %v", ErrTransient, after))
	}
	return err
}

func transient(err error) bool {
	var g *gaveUp
	if errors.As(err, &g) {
		return false
	}
	return errors.Is(err, ErrTransient) || errors.Is(err, io.ErrUnexpectedEOF)
}

// try runs f until it succeeds, fails for good, or has been tried enough.
// f is told whether an earlier try may have been carried out. beat must be
// called when something moves.
func (r *retrier) try(ctx context.Context, op, name string, quiet time.Duration, f func(ctx context.Context, beat func(), again bool) error) error {
	for n := 1; ; n++ {
		if err := ctx.Err(); err != nil {
			return describe(op, name, context.Cause(ctx))
		}
		err := r.once(ctx, op, name, quiet, func(ctx context.Context, beat func()) error { return f(ctx, beat, n > 1) })
		if err == nil {
			return nil
		}
		if err := r.pause(ctx, op, name, n, err); err != nil {
			return err
		}
	}
}

func (r *retrier) once(parent context.Context, op, name string, quiet time.Duration, f func(ctx context.Context, beat func()) error) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	t := time.AfterFunc(quiet, func() { cancel(errStalled) })
	defer t.Stop()
	err := f(ctx, func() { t.Reset(quiet) })
	return stalled(ctx, op, name, err, quiet)
}

// pause waits before the next try, or returns the error with which to give up.
func (r *retrier) pause(ctx context.Context, op, name string, n int, err error) error {
	if ctx.Err() != nil {
		return describe(op, name, context.Cause(ctx))
	}
	if !transient(err) {
		return err
	}
	a := Attempt{Op: op, Name: name, N: n, Err: err, Last: n >= r.o.Tries}
	if !a.Last {
		a.Wait = r.wait(n, err)
	}
	if r.o.Notify != nil {
		r.o.Notify(a)
	}
	if a.Last {
		return &gaveUp{err, n}
	}
	t := time.NewTimer(a.Wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return describe(op, name, context.Cause(ctx))
	}
}

func (r *retrier) wait(n int, err error) time.Duration {
	d := r.o.MaxDelay
	if n < 30 && r.o.Delay<<(n-1) < d {
		d = r.o.Delay << (n - 1)
	}
	d = d/2 + rand.N(d/2+1)
	var ra RetryAfter
	if errors.As(err, &ra) {
		d = max(d, min(ra.RetryAfter(), maxRetryAfter))
	}
	return d
}

func describe(op, name string, err error) error {
	if name == "" {
		return fmt.Errorf("%s: %w", op, err)
	}
	return fmt.Errorf("%s %s: %w", op, name, err)
}

func (r *retrier) List(ctx context.Context) (files []File, err error) {
	err = r.try(ctx, "list", "", hidden*r.o.Timeout, func(ctx context.Context, _ func(), _ bool) (err error) {
		files, err = r.inner.List(ctx)
		return err
	})
	return files, err
}

func (r *retrier) Stat(ctx context.Context, name string) (f File, err error) {
	err = r.try(ctx, "query", name, hidden*r.o.Timeout, func(ctx context.Context, _ func(), _ bool) (err error) {
		f, err = r.inner.Stat(ctx, name)
		return err
	})
	return f, err
}

func (r *retrier) SetTier(ctx context.Context, name, tier, priority string) error {
	return r.try(ctx, "settier", name, hidden*r.o.Timeout, func(ctx context.Context, _ func(), _ bool) error {
		return r.inner.SetTier(ctx, name, tier, priority)
	})
}

func (r *retrier) Delete(ctx context.Context, name string) error {
	return r.try(ctx, "delete", name, hidden*r.o.Timeout, func(ctx context.Context, _ func(), again bool) error {
		err := r.inner.Delete(ctx, name)
		if again && errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

func (r *retrier) Put(ctx context.Context, name string, src io.ReadSeeker) error {
	return r.put(ctx, name, src, func(ctx context.Context, src io.ReadSeeker, _ bool) error {
		return r.inner.Put(ctx, name, src)
	})
}

func (r *retrier) PutNew(ctx context.Context, name string, src io.ReadSeeker) error {
	return r.put(ctx, name, src, func(ctx context.Context, src io.ReadSeeker, again bool) error {
		start, err := src.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		err = r.inner.PutNew(ctx, name, src)
		if !again || !errors.Is(err, fs.ErrExist) {
			return err
		}
		if _, serr := src.Seek(start, io.SeekStart); serr != nil {
			return serr
		}
		same, cerr := r.holds(ctx, name, src)
		if cerr != nil {
			return cerr
		}
		if same {
			return nil
		}
		return err
	})
}

func (r *retrier) put(ctx context.Context, name string, src io.ReadSeeker, f func(ctx context.Context, src io.ReadSeeker, again bool) error) error {
	start, err := src.Seek(0, io.SeekCurrent)
	if err != nil {
		return describe("put", name, err)
	}
	return r.try(ctx, "put", name, hidden*r.o.Timeout, func(ctx context.Context, beat func(), again bool) error {
		if again {
			if _, err := src.Seek(start, io.SeekStart); err != nil {
				return describe("put", name, err)
			}
		}
		return f(ctx, beating(src, beat), again)
	})
}

// holds reports whether the stored file is what src holds from here on.
func (r *retrier) holds(ctx context.Context, name string, src io.Reader) (bool, error) {
	stored, err := r.inner.Open(ctx, name, 0, -1)
	if err != nil {
		return false, err
	}
	defer stored.Close()
	a, b := make([]byte, 32<<10), make([]byte, 32<<10)
	for {
		n, aerr := io.ReadFull(src, a)
		m, berr := io.ReadFull(stored, b)
		switch {
		case aerr != nil && aerr != io.EOF && aerr != io.ErrUnexpectedEOF:
			return false, aerr
		case berr != nil && berr != io.EOF && berr != io.ErrUnexpectedEOF:
			return false, berr
		case !bytes.Equal(a[:n], b[:m]):
			return false, nil
		case aerr != nil: // and so the other, at the same place
			return true, nil
		}
	}
}

// beating returns src, calling beat whenever it is read. It keeps ReadAt,
// which lets a driver send parts in parallel.
func beating(src io.ReadSeeker, beat func()) io.ReadSeeker {
	b := &beatReader{src, beat}
	if at, ok := src.(io.ReaderAt); ok {
		return &beatReaderAt{b, at}
	}
	return b
}

type beatReader struct {
	io.ReadSeeker
	beat func()
}

func (b *beatReader) Read(p []byte) (int, error) {
	b.beat()
	return b.ReadSeeker.Read(p)
}

type beatReaderAt struct {
	*beatReader
	at io.ReaderAt
}

func (b *beatReaderAt) ReadAt(p []byte, off int64) (int, error) {
	b.beat()
	return b.at.ReadAt(p, off)
}

func (r *retrier) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	b := &retryBody{r: r, ctx: ctx, name: name, off: off, n: n}
	if err := b.open(); err != nil {
		return nil, err
	}
	return b, nil
}

// retryBody is the body of one Open. It keeps the context of that call, as it
// may have to open the file again in the middle of it. off and n are what is
// still to be read.
type retryBody struct {
	r      *retrier
	ctx    context.Context
	name   string
	off, n int64

	body   io.ReadCloser // nil: to be opened again
	tryCtx context.Context
	stop   context.CancelCauseFunc // ends tryCtx
	failed int                     // tries in a row without good progress
	moved  int64                   // bytes since the last failure
	err    error                   // what every further Read returns
}

// open requests what is still to be read, trying until that works.
func (b *retryBody) open() error {
	for {
		if b.ctx.Err() != nil {
			return describe("get", b.name, context.Cause(b.ctx))
		}
		ctx, cancel := context.WithCancelCause(b.ctx)
		t := time.AfterFunc(b.r.o.Timeout, func() { cancel(errStalled) })
		body, err := b.r.inner.Open(ctx, b.name, b.off, b.n)
		if !t.Stop() && err == nil { // too late: the context of the body has ended
			body.Close()
			err = errStalled
		}
		if err == nil {
			b.body, b.stop, b.tryCtx = body, cancel, ctx
			return nil
		}
		err = stalled(ctx, "get", b.name, err, b.r.o.Timeout)
		cancel(nil)
		b.failed++
		if err := b.r.pause(b.ctx, "get", b.name, b.failed, err); err != nil {
			return err
		}
	}
}

func (b *retryBody) Read(p []byte) (int, error) {
	for b.err == nil {
		if b.body == nil {
			if b.err = b.open(); b.err != nil {
				break
			}
		}
		n, err := b.read(p)
		if err != nil {
			err = b.recover(err)
		}
		if n > 0 || err != nil || len(p) == 0 {
			b.err = err
			return n, err
		}
	}
	return 0, b.err
}

// read is one Read of the body there is.
func (b *retryBody) read(p []byte) (int, error) {
	stop := b.stop
	t := time.AfterFunc(b.r.o.Timeout, func() { stop(errStalled) })
	n, err := b.body.Read(p)
	t.Stop()
	b.off += int64(n)
	if b.n >= 0 {
		b.n -= int64(n)
	}
	if b.moved += int64(n); b.moved >= goodProgress {
		b.failed = 0
	}
	return n, err
}

// recover looks at what a Read of the body returned. After a failure that may
// pass it drops the body and waits; nil means that it is to be opened again.
func (b *retryBody) recover(err error) error {
	if err == io.EOF {
		return err
	}
	err = stalled(b.tryCtx, "get", b.name, err, b.r.o.Timeout)
	b.drop()
	if b.n == 0 {
		return io.EOF // it broke behind what was wanted
	}
	b.moved = 0
	b.failed++
	return b.r.pause(b.ctx, "get", b.name, b.failed, err)
}

func (b *retryBody) drop() error {
	if b.body == nil {
		return nil
	}
	err := b.body.Close()
	b.stop(nil)
	b.body = nil
	return err
}

func (b *retryBody) Close() error {
	if b.err == nil {
		b.err = fs.ErrClosed
	}
	return b.drop()
}
