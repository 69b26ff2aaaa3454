// Package cache holds what was fetched or decoded, within budgets of bytes:
// Blocks in memory, Dir on disk. Keys and values are opaque here, and whoever
// reads from Dir checks what it gets: a disk may have changed it.
package cache

import (
	"context"
	"errors"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Blocks is an LRU cache in memory with a budget in bytes. While a block is
// being made, others who want it wait for it rather than make it again.
// Cached slices are shared: nobody may write to them. Safe for concurrent use.
type Blocks[K comparable] struct {
	mu     sync.Mutex
	lru    *simplelru.LRU[K, []byte]
	budget int64
	used   int64
	fills  map[K]*fill // under way
}

// fill is a block under way. Its context ends when nobody waits any more.
type fill struct {
	done    chan struct{} // closed once data and err are set
	data    []byte
	err     error
	waiting int // guarded by Blocks.mu
	cancel  context.CancelFunc
}

// NewBlocks returns a cache that keeps at most budget bytes of values, beside
// some 200 bytes of bookkeeping for each.
func NewBlocks[K comparable](budget int64) *Blocks[K] {
	b := &Blocks[K]{budget: budget, fills: make(map[K]*fill)}
	lru, err := simplelru.NewLRU(1<<31-1, func(_ K, v []byte) { b.used -= int64(cap(v)) })
	if err != nil {
		panic(err) // only for a size below 1
	}
	b.lru = lru
	return b
}

// Get returns block k, from the cache or by calling fetch, which runs at most
// once at a time for a key, in a goroutine of its own that outlives a caller
// who gives up while others still wait. An error is returned to all who wait
// and is not kept.
func (b *Blocks[K]) Get(ctx context.Context, k K, fetch func(context.Context) ([]byte, error)) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for {
		b.mu.Lock()
		if v, ok := b.lru.Get(k); ok {
			b.mu.Unlock()
			return v, nil
		}
		f := b.join(ctx, k, fetch)
		b.mu.Unlock()

		select {
		case <-f.done:
			b.leave(f)
			// Whoever began the fill may have been cancelled just as we joined.
			if errors.Is(f.err, context.Canceled) && ctx.Err() == nil {
				continue
			}
			return f.data, f.err
		case <-ctx.Done():
			b.leave(f)
			return nil, ctx.Err()
		}
	}
}

// join returns the fill under way for k, or begins it. The lock is held.
func (b *Blocks[K]) join(ctx context.Context, k K, fetch func(context.Context) ([]byte, error)) *fill {
	if f := b.fills[k]; f != nil {
		f.waiting++
		return f
	}
	fctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &fill{done: make(chan struct{}), waiting: 1, cancel: cancel}
	b.fills[k] = f
	go func() {
		defer cancel()
		f.data, f.err = fetch(fctx)
		b.mu.Lock()
		delete(b.fills, k)
		if f.err == nil {
			b.add(k, f.data)
		}
		b.mu.Unlock()
		close(f.done)
	}()
	return f
}

// leave notes that one caller no longer waits.
func (b *Blocks[K]) leave(f *fill) {
	b.mu.Lock()
	f.waiting--
	last := f.waiting == 0
	b.mu.Unlock()
	if last {
		f.cancel()
	}
}

// Put adds a block, or replaces it.
func (b *Blocks[K]) Put(k K, v []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.add(k, v)
}

// add keeps v if it fits into the budget at all. The lock is held.
func (b *Blocks[K]) add(k K, v []byte) {
	b.lru.Remove(k)
	if int64(cap(v)) > b.budget {
		return
	}
	b.lru.Add(k, v)
	b.used += int64(cap(v))
	for b.used > b.budget {
		b.lru.RemoveOldest()
	}
}

// Has reports whether block k is cached or under way, without touching it.
func (b *Blocks[K]) Has(k K) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lru.Contains(k) || b.fills[k] != nil
}

// Peek returns block k if it is cached.
func (b *Blocks[K]) Peek(k K) ([]byte, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lru.Get(k)
}

// Used returns the bytes of all cached blocks, at most the budget.
func (b *Blocks[K]) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}
