package backends

import (
	"context"
	"io"

	"golang.org/x/time/rate"
)

// Limit returns b with its transfers held to bytes a second; a nil limiter
// does not limit. It counts what is read from the reader of Put, so it does
// not suit a driver that reads the content twice, for a checksum first: the
// drivers that speak over a network take the limiters for their connections
// instead. The burst of a limiter must not be 0.
func Limit(b Backend, upload, download *rate.Limiter) Backend {
	if upload == nil && download == nil {
		return b
	}
	return Expose(&limited{inner{b}, upload, download}, b)
}

type limited struct {
	inner
	upload, download *rate.Limiter
}

func (l *limited) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	r, err := l.inner.Open(ctx, name, off, n)
	if err != nil || l.download == nil {
		return r, err
	}
	return &struct {
		io.Reader
		io.Closer
	}{&slow{ctx, r, l.download}, r}, nil
}

func (l *limited) Put(ctx context.Context, name string, r io.ReadSeeker) error {
	return l.inner.Put(ctx, name, l.slow(ctx, r))
}

func (l *limited) PutNew(ctx context.Context, name string, r io.ReadSeeker) error {
	return l.inner.PutNew(ctx, name, l.slow(ctx, r))
}

func (l *limited) slow(ctx context.Context, r io.ReadSeeker) io.ReadSeeker {
	if l.upload == nil {
		return r
	}
	return struct {
		io.Reader
		io.Seeker
	}{&slow{ctx, r, l.upload}, r}
}

// slow lives as long as one call of its wrapper, whose context it keeps.
type slow struct {
	ctx context.Context
	r   io.Reader
	l   *rate.Limiter
}

func (s *slow) Read(p []byte) (int, error) {
	n, err := s.r.Read(p[:min(len(p), s.l.Burst())])
	if n > 0 {
		if werr := s.l.WaitN(s.ctx, n); werr != nil {
			return 0, werr
		}
	}
	return n, err
}
