package store

import (
	"context"
	"io"
	"os"

	"dupfs/chain"
	"dupfs/chain/volume"
)

// Scan is the plaintext of a stored file, whole and in order, and once it was
// read to io.EOF its layout. What was read is kept in the disk cache, so that
// reading ranges afterwards asks the backend for nothing.
type Scan struct {
	*volume.Scanner
	s    *Store
	name chain.Stored
	body io.Closer
	tmp  *os.File // stored bytes, for the disk cache; nil if there is none
	done bool
}

// Scan begins a pass over a stored file. Temporary space: the file's size, if
// there is a disk cache.
func (s *Store) Scan(ctx context.Context, n chain.Stored) (*Scan, error) {
	body, err := s.whole(ctx, n)
	if err != nil {
		return nil, err
	}
	sc := &Scan{s: s, name: n, body: body}
	var r io.Reader = body
	if s.opts.Disk != nil {
		if sc.tmp, err = s.temp(); err != nil {
			body.Close()
			return nil, err
		}
		r = io.TeeReader(body, &forgiving{w: sc.tmp})
	}
	scanner, err := volume.NewScanner(ctx, r, n.Layer, s.opts.Keys, n.File)
	if err != nil {
		sc.Close()
		return nil, err
	}
	sc.Scanner = scanner
	return sc, nil
}

// forgiving writes as long as that works: a full disk only costs the cache.
type forgiving struct {
	w      *os.File
	failed bool
}

func (f *forgiving) Write(p []byte) (int, error) {
	if !f.failed {
		_, err := f.w.Write(p)
		f.failed = err != nil
	}
	return len(p), nil
}

// Read implements io.Reader. At io.EOF everything was verified.
func (sc *Scan) Read(p []byte) (int, error) {
	n, err := sc.Scanner.Read(p)
	if err == io.EOF {
		sc.keep()
	}
	return n, err
}

// WriteTo implements io.WriterTo, as the Scanner within does.
func (sc *Scan) WriteTo(w io.Writer) (int64, error) {
	n, err := sc.Scanner.WriteTo(w)
	if err == nil {
		sc.keep()
	}
	return n, err
}

// keep puts the chunks into the disk cache. They are verified again whenever
// they are read, so that a gap in the temporary file does no harm.
func (sc *Scan) keep() {
	if sc.done {
		return
	}
	sc.done = true
	layout, err := sc.Layout()
	if sc.tmp == nil || err != nil || layout.Ordered {
		return
	}
	f := &File{sc.name, layout}
	id := f.id()
	for k := range layout.Len() {
		c := layout.Chunk(k)
		stored := make([]byte, c.StoredLen)
		if _, err := sc.tmp.ReadAt(stored, c.StoredOff); err != nil {
			return
		}
		sc.s.opts.Disk.Put(diskKey(id, c), stored)
	}
}

// Close ends the pass.
func (sc *Scan) Close() error {
	var err error
	if sc.Scanner != nil {
		err = sc.Scanner.Close()
	}
	if cerr := sc.body.Close(); err == nil {
		err = cerr
	}
	if sc.tmp != nil {
		sc.tmp.Close()
	}
	return err
}
