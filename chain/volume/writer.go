package volume

import (
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"runtime"
	"sync"

	"dupfs/chain"
	"dupfs/chain/pgp"
)

// Writer writes a stored file. Use: Write, then Close; Abort to give up. Not
// safe for concurrent use.
//
// It deflates chunks in parallel and holds, for each of Options.Workers, two
// chunks and their deflated form, and a few MiB beside them.
type Writer struct {
	layer chain.Layer
	opts  Options

	cur   *job // being filled; nil: none
	cut   bool // it ends before the next byte
	off   int64
	count int // chunks submitted

	free  chan *job // room for as many chunks as may be under way
	made  int       // jobs in existence
	work  chan *job
	order chan *job
	group sync.WaitGroup // workers
	seal  sync.WaitGroup // the sealer

	mu    sync.Mutex
	cond  sync.Cond
	sizes []chunkSize // of all chunks submitted; stored is 0 until it is known
	fail  error       // of the output

	// The first chunks, for StoredSize.
	known                   int
	knownStored, knownPlain int64

	out    *output
	sealer sealer
	closed bool
}

// job is a chunk on its way.
type job struct {
	index  int
	ending ending
	plain  []byte
	framed []byte // plain with the literal packet's lengths
	stored []byte // what becomes of it
	done   chan struct{}
}

// ending tells how a chunk ends the literal packet.
type ending uint8

const (
	goesOn ending = iota // in pieces; more follows
	small                // one piece, with the trailer behind the chunk
	last                 // the last piece, and the end of the deflate stream
)

// sealer turns chunks into the stored file. Its methods are called in order.
type sealer interface {
	// encode makes j.stored of j.plain. It is called in any order, by
	// several workers at once, each with its own encoder.
	encode(e *encoder, j *job)
	// chunk writes j.stored.
	chunk(j *job) error
	// finish writes what comes after the chunks. It sets the parts of the
	// Layout that depend on the layer.
	finish(l *Layout, sizes []chunkSize, plainSize int64) error
	// overhead is the size of the stored file without its chunks, for a
	// given number of them and their bytes.
	overhead(chunks int, stored int64) int64
}

// NewWriter returns a Writer to w. enc is for chain.OpenPGP only.
func NewWriter(w io.Writer, layer chain.Layer, enc *pgp.Encrypter, o Options) (*Writer, error) {
	if o.Chunk == 0 {
		o.Chunk = defaultChunk
	}
	if o.Level == 0 {
		o.Level = 6
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.pieceBits == 0 {
		o.pieceBits = defaultPieceBits
	}
	if o.Chunk < minChunk || o.Chunk > maxChunk {
		return nil, fmt.Errorf("chunks of %d bytes: not between %d and %d", o.Chunk, minChunk, maxChunk)
	}
	if o.Level < 1 || o.Level > 9 {
		return nil, fmt.Errorf("compression level %d: not between 1 and 9", o.Level)
	}
	if layer == chain.Plain {
		o.Chunk = plainChunk
	}
	x := &Writer{layer: layer, opts: o, out: newOutput(w)}
	x.cond.L = &x.mu
	var err error
	switch layer {
	case chain.OpenPGP:
		x.sealer, err = newPGPSealer(x.out, enc, o)
	case chain.Gzip:
		x.sealer = &gzipSealer{out: x.out, opts: o}
	case chain.Plain:
		x.sealer = &plainSealer{out: x.out}
	default:
		err = fmt.Errorf("layer %d", layer)
	}
	if err != nil {
		x.out.close()
		return nil, err
	}
	x.start()
	return x, nil
}

// start starts the workers and the sealer.
func (w *Writer) start() {
	room := 2*w.opts.Workers + 1
	w.free = make(chan *job, room)
	w.work = make(chan *job, room)
	w.order = make(chan *job, room)
	for range w.opts.Workers {
		w.group.Go(func() {
			e := &encoder{level: w.opts.Level}
			for j := range w.work {
				w.sealer.encode(e, j)
				w.note(j)
				j.done <- struct{}{}
			}
		})
	}
	w.seal.Go(func() {
		for j := range w.order {
			<-j.done
			if w.failed() == nil {
				if err := w.sealer.chunk(j); err != nil {
					w.setFailed(err)
				}
			}
			w.free <- j
		}
	})
}

// note records what became of a chunk.
func (w *Writer) note(j *job) {
	stored := j.stored
	if w.layer == chain.Plain {
		stored = j.plain
	}
	sum := sha256.Sum256(stored)
	w.mu.Lock()
	s := &w.sizes[j.index]
	s.stored = int64(len(stored))
	copy(s.hash[:], sum[:])
	w.mu.Unlock()
	w.cond.Broadcast()
}

func (w *Writer) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fail
}

func (w *Writer) setFailed(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fail == nil {
		w.fail = err
	}
}

var errClosed = errors.New("the stored file is closed")

// Write adds plaintext.
func (w *Writer) Write(p []byte) (int, error) {
	if w.closed {
		return 0, errClosed
	}
	n := 0
	for len(p) > 0 {
		if w.cur == nil {
			if err := w.failed(); err != nil {
				return n, err
			}
			w.cur = w.job()
		}
		if room := w.room(); room == 0 || w.cut {
			w.submit(goesOn)
		} else {
			k := min(room, len(p))
			w.cur.plain = append(w.cur.plain, p[:k]...)
			p = p[k:]
			n += k
			w.off += int64(k)
		}
	}
	return n, nil
}

// room returns how much fits into the current chunk. The first one of an
// OpenPGP file has the literal packet's header in its piece.
func (w *Writer) room() int {
	n := w.opts.Chunk - len(w.cur.plain)
	if w.layer == chain.OpenPGP && w.count == 0 {
		n -= literalHead
	}
	return n
}

// job returns an empty chunk, waiting for one to be done if there are too many.
func (w *Writer) job() *job {
	if w.made < cap(w.free) {
		w.made++
		return &job{plain: make([]byte, 0, w.opts.Chunk), done: make(chan struct{}, 1)}
	}
	j := <-w.free
	j.plain = j.plain[:0]
	return j
}

// submit hands the current chunk to the workers.
func (w *Writer) submit(e ending) {
	j := w.cur
	w.cur, w.cut = nil, false
	j.index, j.ending = w.count, e
	w.count++
	w.mu.Lock()
	w.sizes = append(w.sizes, chunkSize{plain: int64(len(j.plain))})
	w.mu.Unlock()
	w.order <- j
	w.work <- j
}

// Off returns how much plaintext was written: the plainOff of what comes next.
func (w *Writer) Off() int64 { return w.off }

// CutBefore tells that n bytes follow which are likely to be read together,
// a member of a tar file. The chunk ends here if they fill half a chunk and
// this one is not too short.
func (w *Writer) CutBefore(n int64) {
	if w.closed || w.cur == nil || w.layer == chain.Plain || n < int64(w.opts.Chunk/2) {
		return
	}
	w.cut = len(w.cur.plain) >= max(w.opts.Chunk/4, minChunk)
}

// maxLag is how many of the newest chunks StoredSize only estimates, so that
// it need not wait for them.
const maxLag = 16

// StoredSize estimates the size of the stored file if it ended here. It may
// wait for chunks that are being deflated. It depends on nothing but the
// plaintext and the options that shape chunks, so not on Workers.
func (w *Writer) StoredSize() int64 {
	w.mu.Lock()
	for ; w.known < w.count-min(maxLag, w.count/4); w.known++ {
		s := &w.sizes[w.known]
		for s.stored == 0 {
			w.cond.Wait()
		}
		w.knownStored += s.stored
		w.knownPlain += s.plain
	}
	w.mu.Unlock()
	stored, rest := w.knownStored, w.off-w.knownPlain
	if w.knownPlain > 0 {
		stored += int64(float64(rest) * (float64(stored) / float64(w.knownPlain)))
	} else {
		stored += rest
	}
	return stored + w.sealer.overhead(w.count+1, stored)
}

// Close ends the file and returns its Layout.
func (w *Writer) Close() (*Layout, error) {
	if w.closed {
		return nil, errClosed
	}
	if w.cur == nil && w.count == 0 && w.opts.NoTrailer && w.layer != chain.Plain {
		w.cur = w.job() // an empty one, to carry the packet or member
	}
	if w.cur != nil {
		w.submit(w.lastEnding())
	}
	w.stop()
	err := w.failed()
	l := &Layout{Layer: w.layer, PlainSize: w.off}
	if err == nil {
		err = w.sealer.finish(l, w.sizes, w.off)
	}
	if err2 := w.out.close(); err == nil {
		err = err2
	}
	if err != nil {
		return nil, err
	}
	l.StoredSize = w.out.size
	w.out.sum.Sum(l.SHA1[:0])
	return l, nil
}

// lastEnding tells how the current chunk, the last one, ends.
func (w *Writer) lastEnding() ending {
	switch {
	case w.opts.NoTrailer:
		return last
	case w.count == 0 && len(w.cur.plain)+literalHead < minChunk:
		return small
	}
	return goesOn
}

// stop waits until all chunks are written.
func (w *Writer) stop() {
	w.closed = true
	close(w.work)
	close(w.order)
	w.group.Wait()
	w.seal.Wait()
}

// Abort gives the file up and waits for what still works on it. After Close,
// or a second time, it does nothing.
func (w *Writer) Abort() {
	if w.closed {
		return
	}
	w.setFailed(errClosed)
	w.stop()
	_ = w.out.close() // nobody will read it
}

// output writes and hashes the stored file on a goroutine of its own.
type output struct {
	w    io.Writer
	size int64
	sum  hash.Hash

	cur   []byte
	full  chan []byte
	empty chan []byte
	group sync.WaitGroup
	mu    sync.Mutex
	err   error
}

const outputLen = 1 << 20

func newOutput(w io.Writer) *output {
	o := &output{w: w, sum: sha1.New(), full: make(chan []byte, 1), empty: make(chan []byte, 3)}
	o.empty <- nil
	o.empty <- nil
	o.group.Go(func() {
		for b := range o.full {
			if o.failed() == nil {
				o.sum.Write(b)
				if _, err := o.w.Write(b); err != nil {
					o.mu.Lock()
					o.err = err
					o.mu.Unlock()
				}
			}
			o.empty <- b[:0]
		}
	})
	return o
}

func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// write adds bytes of the stored file.
func (o *output) write(p []byte) error {
	o.size += int64(len(p))
	for len(p) > 0 {
		if o.cur == nil {
			if o.cur = <-o.empty; o.cur == nil {
				o.cur = make([]byte, 0, outputLen)
			}
		}
		n := min(cap(o.cur)-len(o.cur), len(p))
		o.cur = append(o.cur, p[:n]...)
		p = p[n:]
		if len(o.cur) == cap(o.cur) {
			o.full <- o.cur
			o.cur = nil
		}
	}
	return o.failed()
}

// close writes the rest and waits.
func (o *output) close() error {
	if len(o.cur) > 0 {
		o.full <- o.cur
	}
	o.cur = nil
	close(o.full)
	o.group.Wait()
	return o.err
}
