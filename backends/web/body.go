package web

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"dupfs/backends"
)

// Drain reads a little of what is left of a body and closes it, so that the
// connection can be used again if that costs no more than a new one.
func Drain(resp *http.Response) {
	io.CopyN(io.Discard, resp.Body, 16<<10)
	resp.Body.Close()
}

// Remaining returns how many bytes follow the position of r, which stays.
func Remaining(r io.Seeker) (int64, error) {
	pos, err := r.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	end, err := r.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	_, err = r.Seek(pos, io.SeekStart)
	return max(end-pos, 0), err
}

// Range returns the value of the header Range for n bytes from off, n < 0
// meaning all that follow; "" when that is the whole file. n must not be 0:
// HTTP has no empty range.
func Range(off, n int64) string {
	switch {
	case n < 0 && off == 0:
		return ""
	case n < 0:
		return fmt.Sprintf("bytes=%d-", off)
	}
	return fmt.Sprintf("bytes=%d-%d", off, off+n-1)
}

// Body returns the body of a response to a request for the range (off, n),
// made with Range, for Backend.Open. It knows what servers do: 206 with the
// range, 200 with the whole file although a range was asked (the bytes before
// off are then skipped), and 416 for a range that begins at or behind the end
// (an empty body). The body fails with backends.ErrTransient if it ends before
// the length that the server announced. Any other status is returned as Error
// does, with op "get". Whatever it returns, the response's body is taken care of.
func Body(ctx context.Context, name string, resp *http.Response, off, n int64) (io.ReadCloser, error) {
	switch resp.StatusCode {
	case http.StatusRequestedRangeNotSatisfiable:
		Drain(resp)
		return io.NopCloser(strings.NewReader("")), nil
	case http.StatusPartialContent:
		return partial(ctx, name, resp, off, n)
	case http.StatusOK:
		b := NewBody(ctx, name, resp.Body, resp.ContentLength)
		if off > 0 {
			if _, err := io.CopyN(io.Discard, b, off); err == io.EOF {
				b.Close()
				return io.NopCloser(strings.NewReader("")), nil
			} else if err != nil {
				b.Close()
				return nil, err
			}
		}
		if n >= 0 {
			return &struct {
				io.Reader
				io.Closer
			}{io.LimitReader(b, n), b}, nil
		}
		return b, nil
	}
	return nil, Error("get", name, resp)
}

func partial(ctx context.Context, name string, resp *http.Response, off, n int64) (io.ReadCloser, error) {
	cr := resp.Header.Get("Content-Range")
	if _, total, ok := strings.Cut(cr, "/"); ok {
		// Some answer 206 and nothing where 416 would be right.
		if t, err := strconv.ParseInt(total, 10, 64); err == nil && t <= off {
			Drain(resp)
			return io.NopCloser(strings.NewReader("")), nil
		}
	}
	var first, last int64
	if _, err := fmt.Sscanf(cr, "bytes %d-%d", &first, &last); err != nil || first != off || last < first || n >= 0 && last-first >= n {
		resp.Body.Close()
		return nil, Wrap("get", name, fmt.Errorf("asked for %q, the server sent the range %s", Range(off, n), strconv.Quote(line(cr))))
	}
	return NewBody(ctx, name, resp.Body, last-first+1), nil
}

// NewBody returns a reader of a body of want bytes (want < 0: not known) that
// fails with backends.ErrTransient if it ends early, and with an error if it
// is longer. Failures of the connection are classified as by Net.
func NewBody(ctx context.Context, name string, r io.ReadCloser, want int64) io.ReadCloser {
	return &body{ctx: ctx, name: name, r: r, left: want, known: want >= 0}
}

// body counts down what is still to come. The context is that of the request
// whose body it is; it is only asked why the body broke off.
type body struct {
	ctx   context.Context
	name  string
	r     io.ReadCloser
	left  int64
	known bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.known {
		if b.left -= int64(n); b.left < 0 {
			return 0, Wrap("get", b.name, fmt.Errorf("the server sent more than the length it announced"))
		}
	}
	switch {
	case err == nil:
		return n, nil
	case err == io.EOF && b.known && b.left > 0:
		err = fmt.Errorf("%w: %d bytes are missing at the end: %w", backends.ErrTransient, b.left, io.ErrUnexpectedEOF)
	case err == io.EOF:
		return n, io.EOF
	default:
		err = Net(b.ctx, err)
	}
	return n, Wrap("get", b.name, err)
}

func (b *body) Close() error { return b.r.Close() }
