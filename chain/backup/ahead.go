package backup

import (
	"context"
	"iter"
)

// aheadBatch is how many entries of the base are handed over at a time; three
// batches are ahead of the walk.
const aheadBatch = 128

// ahead reads the base on a goroutine of its own, ahead of the walk: the file
// system and the catalog take about as long. next returns the entries, and
// false after the last one or an error. Call stop in the end; it waits.
func ahead(ctx context.Context, walk func(context.Context) iter.Seq2[*BaseEntry, error]) (next func() (*BaseEntry, error, bool), stop func()) {
	type batch struct {
		entries []*BaseEntry
		err     error
	}
	ctx, cancel := context.WithCancel(ctx)
	batches := make(chan batch, 2)
	go func() {
		defer close(batches)
		var b batch
		for e, err := range walk(ctx) {
			if b.err = err; err != nil {
				break
			}
			if b.entries = append(b.entries, e); len(b.entries) == aheadBatch {
				if give(ctx, batches, b) != nil {
					return
				}
				b = batch{}
			}
		}
		_ = give(ctx, batches, b) // nobody waits for it if ctx has ended
	}()
	var b batch
	next = func() (*BaseEntry, error, bool) {
		for len(b.entries) == 0 {
			if b.err != nil {
				err := b.err
				b.err = nil
				return nil, err, true
			}
			var ok bool
			if b, ok = <-batches; !ok {
				return nil, context.Cause(ctx), ctx.Err() != nil
			}
		}
		e := b.entries[0]
		b.entries = b.entries[1:]
		return e, nil, true
	}
	stop = func() {
		cancel()
		for range batches {
		}
	}
	return next, stop
}
