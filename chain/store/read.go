package store

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sync/semaphore"

	"dupfs/chain"
	"dupfs/chain/volume"
)

// File is a stored file whose layout is known: its ranges can be read.
type File struct {
	chain.Stored
	Layout *volume.Layout
}

// id names the content of a file in the caches: another file of the same name
// has another one.
func (f *File) id() string {
	return fmt.Sprintf("%s %d %s", f.File(), f.Size, hex.EncodeToString(f.Layout.SHA1[:]))
}

// File returns the name as stored.
func (f *File) File() string { return f.Stored.File }

// blockKey names a decoded chunk.
type blockKey struct {
	file  string
	chunk int
	start bool // only its start
}

const (
	// MaxGet bounds one ranged request, in stored bytes.
	MaxGet = 4 << 20
	// maxInFlight bounds the stored bytes on their way, of all requests.
	maxInFlight = 32 << 20
	// maxAhead bounds what is read ahead of a sequential reader, in bytes of
	// plaintext of one volume.
	maxAhead = 8 << 20
)

// fetches knows the requests under way and how each volume is being read.
type fetches struct {
	mu      sync.Mutex
	closed  bool // nothing new is begun
	pending map[blockKey]*get
	streams map[string]*stream
	flight  *semaphore.Weighted
}

func (f *fetches) init() {
	f.pending = make(map[blockKey]*get)
	f.streams = make(map[string]*stream)
	f.flight = semaphore.NewWeighted(maxInFlight)
}

// get is one ranged request for neighbouring chunks of a file.
type get struct {
	last      int           // chunk
	base, end int64         // storedOff of data[0], and behind its end
	done      chan struct{} // closed once data and err are set
	data      []byte
	err       error
}

// stream follows the reads of one volume, to see whether they are sequential.
type stream struct {
	next   int // chunk after the highest one read lately
	streak int // how many chunks were read in a row
	ahead  int // chunks below this one were asked for ahead
}

// ReadAt reads plaintext of a stored file at plainOff, as io.ReaderAt does.
// Every byte is verified before it is returned. Chunks that are cached cost
// nothing; neighbours that are missing are fetched in one request, and when
// the file is read in order, some of what follows as well.
func (s *Store) ReadAt(ctx context.Context, f *File, p []byte, plainOff int64) (int, error) {
	if plainOff < 0 {
		return 0, fmt.Errorf("%s: negative offset", f.File())
	}
	var eof error
	if left := f.Layout.PlainSize - plainOff; int64(len(p)) > left {
		p, eof = p[:max(left, 0)], io.EOF
	}
	if len(p) == 0 {
		return 0, eof
	}
	id := f.id()
	first, last := f.Layout.Find(plainOff), f.Layout.Find(plainOff+int64(len(p))-1)
	to, jump := s.ahead(f, id, first, last)
	if to > first {
		s.ask(f, id, first, to)
	}
	if jump && first == last && s.opts.Near {
		if n, err := s.readStart(ctx, f, id, first, p, plainOff); n > 0 || err != nil {
			return n, cmp.Or(err, eof)
		}
	}
	n := 0
	for k := first; k <= last; k++ {
		block, err := s.block(ctx, f, id, k)
		if err != nil {
			return n, err
		}
		from := plainOff + int64(n) - f.Layout.Chunk(k).PlainOff
		if from < 0 || from >= int64(len(block)) {
			return n, chain.Corrupt(f.File(), fmt.Sprintf("chunk %d is shorter than its table says", k))
		}
		n += copy(p[n:], block[from:])
	}
	if n < len(p) {
		return n, chain.Corrupt(f.File(), fmt.Sprintf("chunk %d is shorter than its table says", last))
	}
	return n, eof
}

// readStart reads out of chunk k if no more than three quarters of it must be
// decoded for that, and it is not decoded yet; else it returns 0. The read must
// not go beyond the chunk.
func (s *Store) readStart(ctx context.Context, f *File, id string, k int, p []byte, plainOff int64) (int, error) {
	c := f.Layout.Chunk(k)
	from := plainOff - c.PlainOff
	need := from + int64(len(p))
	if !f.Layout.Own || need > c.PlainLen/4*3 || s.blocks.Has(blockKey{file: id, chunk: k}) {
		return 0, nil
	}
	s.counts.asked.Add(1)
	block, err := s.blocks.Get(ctx, blockKey{file: id, chunk: k, start: true}, func(ctx context.Context) ([]byte, error) {
		return s.fill(ctx, f, id, k, need)
	})
	if err != nil || int64(len(block)) < need { // another reader needed less: now all of it
		return 0, err
	}
	return copy(p, block[from:]), nil
}

// block returns chunk k decoded.
func (s *Store) block(ctx context.Context, f *File, id string, k int) ([]byte, error) {
	s.counts.asked.Add(1)
	return s.blocks.Get(ctx, blockKey{file: id, chunk: k}, func(ctx context.Context) ([]byte, error) {
		return s.fill(ctx, f, id, k, f.Layout.Chunk(k).PlainLen)
	})
}

// diskKey names the stored bytes of a chunk.
func diskKey(id string, c volume.Chunk) string {
	return fmt.Sprintf("%s %d+%d", id, c.StoredOff, c.StoredLen)
}

// OnDisk reports whether the disk cache has chunk k of a file.
func (s *Store) OnDisk(f *File, k int) bool {
	return !f.Layout.Ordered && s.opts.Disk.Has(diskKey(f.id(), f.Layout.Chunk(k)))
}

// begin counts what is about to run among what Close waits for, unless the
// store is closed. Whoever reads may be gone by the time that a fill starts.
func (s *Store) begin() error {
	s.fetches.mu.Lock()
	defer s.fetches.mu.Unlock()
	if s.fetches.closed {
		return fmt.Errorf("the archive was closed: %w", os.ErrClosed)
	}
	s.behind.Add(1)
	return nil
}

// fill makes the first n bytes of chunk k from the disk cache or the backend.
func (s *Store) fill(ctx context.Context, f *File, id string, k int, n int64) ([]byte, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	defer s.behind.Done()
	if f.Layout.Ordered { // nothing of it may be kept in plaintext
		stored, err := s.stored(ctx, f, id, k)
		if err != nil {
			return nil, err
		}
		return s.decodeChunk(ctx, f, k, stored, n)
	}
	key := diskKey(id, f.Layout.Chunk(k))
	if stored, ok := s.opts.Disk.Get(key); ok {
		if block, err := s.decodeChunk(ctx, f, k, stored, n); err == nil {
			s.counts.disk.Add(1)
			return block, nil
		} else if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		s.opts.Disk.Drop(key)
	}
	stored, block, err := s.fetchChunk(ctx, f, id, k, n)
	if err != nil && s.CanHeal(f.File()) {
		if err = s.Heal(ctx, f.File(), err); err == nil {
			stored, block, err = s.fetchChunk(ctx, f, id, k, n)
		}
	}
	if err != nil {
		return nil, err
	}
	s.opts.Disk.Put(key, stored)
	return block, nil
}

// fetchChunk fetches chunk k and decodes its first n bytes.
func (s *Store) fetchChunk(ctx context.Context, f *File, id string, k int, n int64) (stored, block []byte, err error) {
	if stored, err = s.stored(ctx, f, id, k); err != nil {
		return nil, nil, err
	}
	block, err = s.decodeChunk(ctx, f, k, stored, n)
	return stored, block, err
}

// decodeChunk decodes the first n bytes and verifies; no more at a time than
// there are cores.
func (s *Store) decodeChunk(ctx context.Context, f *File, k int, stored []byte, n int64) ([]byte, error) {
	select {
	case s.decode <- struct{}{}:
		defer func() { <-s.decode }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c := f.Layout.Chunk(k)
	if int64(len(stored)) != c.StoredLen {
		return nil, chain.Corrupt(f.File(), fmt.Sprintf("chunk %d has %d bytes, not %d", k, len(stored), c.StoredLen))
	}
	block, err := f.Layout.DecodeStart(make([]byte, 0, min(n, c.PlainLen)), k, stored, n)
	if err != nil {
		var corrupt *chain.CorruptError
		if errors.As(err, &corrupt) {
			return nil, err
		}
		return nil, chain.Corrupt(f.File(), fmt.Sprintf("chunk %d: %v", k, err))
	}
	return block, nil
}

// stored returns the stored bytes of chunk k, by a request under way or one of
// its own.
func (s *Store) stored(ctx context.Context, f *File, id string, k int) ([]byte, error) {
	s.fetches.mu.Lock()
	g := s.fetches.pending[blockKey{file: id, chunk: k}]
	alone := g == nil
	if alone {
		g = s.register(f, id, k, k)
	}
	s.fetches.mu.Unlock()
	defer s.forget(g, id, k)
	s.counts.misses.Add(1)
	if alone { // whoever waits for this fill need not, so it can be done here
		s.run(g, f)
	}
	select {
	case <-g.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if g.err != nil {
		return nil, g.err
	}
	c := f.Layout.Chunk(k)
	from := c.StoredOff - g.base
	return g.data[from : from+c.StoredLen : from+c.StoredLen], nil
}

// ask begins to decode chunks from..to behind the reader, fetching missing
// neighbours together. What fails is met again by whoever reads it.
func (s *Store) ask(f *File, id string, from, to int) {
	s.fetches.mu.Lock()
	defer s.fetches.mu.Unlock()
	if s.fetches.closed {
		return
	}
	for k := from; k <= to && k < f.Layout.Len(); k++ {
		switch key := (blockKey{file: id, chunk: k}); {
		case s.fetches.pending[key] != nil, s.blocks.Has(key):
		case s.opts.Disk.Has(diskKey(id, f.Layout.Chunk(k))):
			s.behind.Go(func() { _, _ = s.block(s.ctx, f, id, k) })
		default:
			g := s.register(f, id, k, to)
			s.behind.Go(func() { s.run(g, f) })
			for j := k; j <= g.last; j++ {
				s.behind.Go(func() {
					_, _ = s.block(s.ctx, f, id, j)
					s.forget(g, id, j)
				})
			}
			k = g.last
		}
	}
}

// register notes a request for chunk k and those after it up to upTo, as far
// as they are missing too and it stays below MaxGet. The lock is held.
func (s *Store) register(f *File, id string, k, upTo int) *get {
	c := f.Layout.Chunk(k)
	g := &get{last: k, base: c.StoredOff, end: c.StoredOff + c.StoredLen, done: make(chan struct{})}
	s.fetches.pending[blockKey{file: id, chunk: k}] = g
	for j := k + 1; j <= upTo && j < f.Layout.Len(); j++ {
		key, c := blockKey{file: id, chunk: j}, f.Layout.Chunk(j)
		if c.StoredOff+c.StoredLen-g.base > MaxGet || s.fetches.pending[key] != nil ||
			s.blocks.Has(key) || s.opts.Disk.Has(diskKey(id, c)) {
			break
		}
		g.last, g.end = j, max(g.end, c.StoredOff+c.StoredLen)
		s.fetches.pending[key] = g
	}
	return g
}

// forget drops what a request brought for a chunk. It is called when the chunk
// was decoded, not when it came: between the two it must not be fetched again.
func (s *Store) forget(g *get, id string, k int) {
	s.fetches.mu.Lock()
	defer s.fetches.mu.Unlock()
	if key := (blockKey{file: id, chunk: k}); s.fetches.pending[key] == g {
		delete(s.fetches.pending, key)
	}
}

// run carries a request out. It lasts as long as the store, not the reader:
// the backend bounds its time, and what it brings is wanted again.
func (s *Store) run(g *get, f *File) {
	defer close(g.done)
	n := g.end - g.base
	weight := min(n, maxInFlight)
	if g.err = s.fetches.flight.Acquire(s.ctx, weight); g.err != nil {
		return
	}
	defer s.fetches.flight.Release(weight)
	if f.Layout.Ordered {
		g.data, g.err = s.readCopy(s.ctx, f, g.base, n)
		return
	}
	g.data, g.err = s.fetch(s.ctx, f.File(), g.base, n)
}

// maxStreams bounds the volumes whose reading is followed.
const maxStreams = 256

// ahead notes a read of chunks first..last and returns the last chunk to ask
// for: more than was read when the volume is being read in order, twice as
// much each time, up to maxAhead and a quarter of the memory budget. jump says
// that it is not being read in order.
func (s *Store) ahead(f *File, id string, first, last int) (to int, jump bool) {
	s.fetches.mu.Lock()
	defer s.fetches.mu.Unlock()
	st := s.fetches.streams[id]
	if st == nil {
		if len(s.fetches.streams) >= maxStreams {
			clear(s.fetches.streams)
		}
		st = &stream{next: -1}
		s.fetches.streams[id] = st
	}
	to = max(last, st.read(first, last, s.window(f)))
	return to, st.streak == 0
}

// window returns how many chunks of f may be read ahead.
func (s *Store) window(f *File) int {
	n := f.Layout.Len()
	if n == 0 {
		return 0
	}
	each := max(f.Layout.PlainSize/int64(n), 1)
	return int(min(int64(n), min(int64(maxAhead), s.opts.Memory/4)/each))
}

// nearby is how far, in chunks, a read may be from the expected place and
// still belong to the sequence: several files are read side by side.
const nearby = 4

// read notes a read of first..last and returns the last chunk to ask for
// ahead, -1 for none.
func (st *stream) read(first, last, window int) int {
	if first > st.next+nearby || first < st.next-1-nearby || st.next < 0 {
		*st = stream{next: last + 1, ahead: last + 1}
		return -1
	}
	if last < st.next {
		return -1
	}
	st.streak += last + 1 - st.next
	st.next = last + 1
	if st.streak < 2 {
		return -1
	}
	size := min(2*st.streak, window)
	from, to := max(st.ahead, st.next), st.next+size-1
	// In batches, so that a request brings several chunks.
	if to-from+1 < max(size/2, 1) {
		return -1
	}
	st.ahead = to + 1
	return to
}
