package web

import (
	"context"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// conn fails when nothing moves in either direction for the timeout, and
// keeps to the rate limits. A byte written also gives the peer new time to
// answer, so that a pending read does not end a long upload.
type conn struct {
	net.Conn
	timeout          time.Duration
	upload, download *rate.Limiter

	closing context.Context // ends the waits of the limiters
	stop    context.CancelFunc

	mu          sync.Mutex
	read, write time.Time // deadlines that the user of the connection set; they go first
}

// Watch returns c with the timeout and limits of o, as Dialer's connections
// have. c must have deadlines.
func Watch(c net.Conn, o Options) net.Conn {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	return watch(c, o)
}

func watch(c net.Conn, o Options) *conn {
	ctx, stop := context.WithCancel(context.Background())
	return &conn{Conn: c, timeout: o.Timeout, upload: o.Upload, download: o.Download, closing: ctx, stop: stop}
}

// extend gives the connection its timeout anew.
func (c *conn) extend() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := time.Now().Add(c.timeout)
	if err := c.Conn.SetReadDeadline(earlier(c.read, t)); err != nil {
		return err
	}
	return c.Conn.SetWriteDeadline(earlier(c.write, t))
}

func earlier(set, t time.Time) time.Time {
	if !set.IsZero() && set.Before(t) {
		return set
	}
	return t
}

func (c *conn) Read(p []byte) (int, error) {
	if c.download != nil {
		p = p[:min(len(p), c.download.Burst())]
	}
	if err := c.extend(); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	if c.download != nil && n > 0 {
		if werr := c.download.WaitN(c.closing, n); werr != nil && err == nil {
			err = net.ErrClosed
		}
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	done := 0
	for {
		q := p[done:]
		if c.upload != nil {
			q = q[:min(len(q), c.upload.Burst())]
			if err := c.upload.WaitN(c.closing, len(q)); err != nil {
				return done, net.ErrClosed
			}
		} else {
			q = q[:min(len(q), 64<<10)] // so that a slow line shows progress
		}
		if err := c.extend(); err != nil {
			return done, err
		}
		n, err := c.Conn.Write(q)
		done += n
		if err != nil || done == len(p) {
			return done, err
		}
	}
}

func (c *conn) Close() error {
	c.stop()
	return c.Conn.Close()
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = t
	return c.Conn.SetReadDeadline(t)
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write = t
	return c.Conn.SetWriteDeadline(t)
}

func (c *conn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}
