package fusefs

import (
	"context"
	"sync"

	"dupfs/chain"
)

// ahead hands the kernel small files before it asks for them. What one request
// for a file of a few KiB costs is mostly the way there and back; programs that
// read many of them do so in the order of their listing, and their bytes lie
// side by side in the archive, so that whoever decoded one has the next.
//
// Files are numbered as they are listed. Once two were read in a row, a batch of
// those that follow is put into the page cache; the first one beyond it that
// the kernel asks for leads to the next batch, twice as large. Its memory is
// fixed, and what fails is met again by whoever reads the file.
type ahead struct {
	store func(id uint64, data []byte) // into the page cache; nil: not possible
	open  func(ctx context.Context, version uint64) (chain.Content, error)
	work  chan batch
	done  chan struct{} // closed when nothing will be handed over any more

	mu    sync.Mutex
	files [maxListed]listed // by number, modulo
	next  uint64            // number of the next file that is listed
	slots [maxListed]uint64 // number of a file, by its id
	begin uint64            // number of the file whose reading led to the last batch
	end   uint64            // number of the last file of it
	sizes int64             // of the last batch, in bytes
}

// listed is a small file of a listing.
type listed struct {
	id   uint64
	size int64
}

// batch is a range of numbers, with its end.
type batch struct{ from, to uint64 }

const (
	// maxListed is how many files are remembered, 24 bytes each.
	maxListed = 1 << 13
	// maxSmall is the size of the files that are handed over, in bytes.
	maxSmall = 64 << 10
	// firstBatch and maxBatch are the bytes of a batch.
	firstBatch, maxBatch = 32 << 10, 512 << 10
	// maxSkip is how many files a program may leave out of a sequence.
	maxSkip = 8
	// firstNumber is so large that no sequence can seem to have led to it.
	firstNumber = maxSkip + 2
)

// slot returns the place of an id in slots.
func (a *ahead) slot(id uint64) *uint64 { return &a.slots[(id*0x9e3779b97f4a7c15)>>(64-13)] }

// list notes that a File was listed.
func (a *ahead) list(id uint64, size int64) {
	if a.store == nil || size <= 0 || size > maxSmall {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next = max(a.next, firstNumber)
	a.files[a.next%maxListed] = listed{id, size}
	*a.slot(id) = a.next
	a.next++
}

// read notes that the kernel asked for a file, and begins to hand over those
// that follow if it is one of a sequence.
func (a *ahead) read(id uint64) {
	if a.store == nil {
		return
	}
	if b := a.plan(id); b.from < b.to {
		select {
		case a.work <- b:
		default: // the last one is still under way
		}
	}
}

// plan returns what shall be handed over now that a file is read.
func (a *ahead) plan(id uint64) (b batch) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := *a.slot(id)
	if n >= a.next || a.files[n%maxListed].id != id || a.begin <= n && n <= a.end {
		return b
	}
	if n < a.end || n > a.end+1+maxSkip {
		a.begin, a.end, a.sizes = n, n, 0
		return b
	}
	a.sizes = min(max(2*a.sizes, firstBatch), maxBatch)
	b = batch{n + 1, n + 1}
	for left := a.sizes; b.to < a.next; b.to++ {
		if left -= a.files[b.to%maxListed].size; left < 0 {
			break
		}
	}
	a.begin, a.end = n, b.to-1
	return b
}

// start begins to work until ctx ends; wait waits for that.
func (a *ahead) start(ctx context.Context) {
	a.work, a.done = make(chan batch, 1), make(chan struct{})
	go func() {
		defer close(a.done)
		buf := make([]byte, maxSmall)
		for {
			select {
			case b := <-a.work:
				for n := b.from; n < b.to && ctx.Err() == nil; n++ {
					a.hand(ctx, n, buf)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
}

// hand hands one file over.
func (a *ahead) hand(ctx context.Context, n uint64, buf []byte) {
	a.mu.Lock()
	file, known := a.files[n%maxListed], n+maxListed >= a.next
	a.mu.Unlock()
	if !known {
		return
	}
	c, err := a.open(ctx, splitVersion(file.id))
	if err != nil || c.Size() != file.size {
		return
	}
	if k, _ := c.ReadAt(ctx, buf[:file.size], 0); int64(k) == file.size {
		a.store(file.id, buf[:k])
	}
}

// wait returns once nothing is handed over any more.
func (a *ahead) wait() {
	if a.done != nil {
		<-a.done
	}
}
