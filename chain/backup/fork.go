package backup

import (
	"io"
	"sync/atomic"
)

// fork is a reader that gives what is read to a writer as well, on a goroutine
// of its own. Close it.
type fork struct {
	r     io.Reader
	full  chan []byte
	empty chan []byte
	done  chan error
	stuck atomic.Bool // the writer failed: close tells how
}

const (
	// forkLen is how much is handed over at a time, forkAhead how often the
	// reader may be ahead of the writer.
	forkLen   = 128 << 10
	forkAhead = 4
)

func newFork(r io.Reader, w io.Writer) *fork {
	f := &fork{
		r:     r,
		full:  make(chan []byte, forkAhead),
		empty: make(chan []byte, forkAhead),
		done:  make(chan error, 1),
	}
	for range forkAhead {
		f.empty <- nil
	}
	go func() {
		var err error
		for b := range f.full {
			if err == nil {
				if _, err = w.Write(b); err != nil {
					f.stuck.Store(true)
				}
			}
			f.empty <- b[:0]
		}
		f.done <- err
	}()
	return f
}

// Read implements io.Reader. When the writer has failed the content ends.
func (f *fork) Read(p []byte) (int, error) {
	if f.stuck.Load() {
		return 0, io.EOF
	}
	n, err := f.r.Read(p[:min(len(p), forkLen)])
	if n > 0 {
		b := <-f.empty
		if b == nil {
			b = make([]byte, 0, forkLen)
		}
		f.full <- append(b, p[:n]...)
	}
	return n, err
}

// close waits for the writer and returns its error.
func (f *fork) close() error {
	close(f.full)
	return <-f.done
}
