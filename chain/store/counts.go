package store

import (
	"context"
	"io"
	"sync/atomic"
)

// Counts says what a Store has asked of its backend and of its caches since it
// was made.
type Counts struct {
	Requests   int64 `json:"requests"`      // reads and listings; tries that were repeated count once
	Fetched    int64 `json:"bytes_fetched"` // stored bytes that came
	MemoryHits int64 `json:"memory_hits"`   // chunks found in memory
	DiskHits   int64 `json:"disk_hits"`     // chunks found in the disk cache
	Misses     int64 `json:"misses"`        // chunks that were fetched
	Memory     int64 `json:"memory_bytes"`  // of decoded chunks in memory now
	Disk       int64 `json:"disk_bytes"`    // of the disk cache now, as far as is known
}

// counters are what Counts is made from.
type counters struct{ requests, fetched, asked, disk, misses atomic.Int64 }

// Counts returns the counters. It asks nobody.
func (s *Store) Counts() Counts {
	c := Counts{
		Requests: s.counts.requests.Load(), Fetched: s.counts.fetched.Load(),
		DiskHits: s.counts.disk.Load(), Misses: s.counts.misses.Load(), Memory: s.blocks.Used(),
	}
	c.MemoryHits = max(0, s.counts.asked.Load()-c.DiskHits-c.Misses)
	if s.opts.Disk != nil {
		c.Disk = s.opts.Disk.Used()
	}
	return c
}

// openFile opens a range of a stored file: of its healed copy if there is one,
// else at the backend, and counts it.
func (s *Store) openFile(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if c := s.copyOf(name, off, n); c != nil {
		return c, nil
	}
	s.counts.requests.Add(1)
	body, err := s.backend.Open(ctx, name, off, n)
	if err != nil {
		return nil, err
	}
	return &counted{body, &s.counts.fetched}, nil
}

// counted counts the bytes that are read.
type counted struct {
	io.ReadCloser
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// Holds reports whether chunk k of f is in a cache, so that reading it fetches
// nothing. It asks the backend for nothing, either.
func (s *Store) Holds(f *File, k int) bool {
	id := f.id()
	return s.blocks.Has(blockKey{file: id, chunk: k}) || !f.Layout.Ordered && s.opts.Disk.Has(diskKey(id, f.Layout.Chunk(k)))
}

// Tier returns the access tier of a stored file as the newest listing had it;
// "" if the store has none.
func (s *Store) Tier(file string) string {
	s.tierMu.Lock()
	defer s.tierMu.Unlock()
	return s.tiers[file]
}
