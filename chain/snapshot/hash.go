package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"sync"

	"golang.org/x/sync/errgroup"

	"dupfs/chain"
	"dupfs/chain/index"
)

const (
	// hashBatch is how many versions are looked at before what was learned of
	// them is kept.
	hashBatch = 512
	// hashBuffer is how much of a file is read at a time.
	hashBuffer = 1 << 20
	// hashWorkers is how many files are hashed at a time.
	hashWorkers = 4
)

// hashAll hashes the content of all files up to the set ord that have no hash
// yet. Each byte of them is in a chunk that was hashed when its volume was
// verified; only what the deltas make of them nobody has seen.
func (l *line) hashAll(ctx context.Context, c *index.Catalog, ord int) error {
	for after := int64(0); ; {
		files, next, err := c.Unhashed(ctx, ord, after, hashBatch)
		if err != nil {
			return err
		}
		for _, f := range files {
			l.a.progress().Expected.Add(f.Size)
		}
		hashes, err := l.hashFiles(ctx, c, files)
		if err == nil {
			err = c.SetHashes(ctx, hashes)
		}
		if err != nil || next == 0 {
			return err
		}
		after = next
	}
}

// hashFiles returns the hashes of those files that can be read.
func (l *line) hashFiles(ctx context.Context, c *index.Catalog, files []index.Unhashed) (map[int64][32]byte, error) {
	var mu sync.Mutex
	hashes := map[int64][32]byte{}
	buffers := sync.Pool{New: func() any { return new([hashBuffer]byte) }}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(hashWorkers)
	for _, f := range files {
		g.Go(func() error {
			buf := buffers.Get().(*[hashBuffer]byte)
			defer buffers.Put(buf)
			hash, err := l.hashFile(gctx, c, f, buf[:])
			var corrupt *chain.CorruptError
			if errors.As(err, &corrupt) {
				l.a.progress().Damaged.Add(1)
				l.a.note("set %s: %v", l.set(index.OrdOf(f.Version)).Times(), err)
				return nil
			}
			if err != nil {
				return err
			}
			mu.Lock()
			hashes[f.Version] = hash
			mu.Unlock()
			return nil
		})
	}
	return hashes, g.Wait()
}

// hashFile hashes the content of a file.
func (l *line) hashFile(ctx context.Context, c *index.Catalog, f index.Unhashed, buf []byte) (hash [32]byte, err error) {
	content := &content{l, f.Version, f.Size}
	sum := sha256.New()
	for off := int64(0); off < f.Size; {
		p := buf[:min(int64(len(buf)), f.Size-off)]
		ext, found, err := content.extents(ctx, c, off, int64(len(p)))
		if err != nil {
			return hash, err
		}
		if found == 0 {
			return hash, content.corrupt(ctx, c, errShort)
		}
		n, err := content.fetch(ctx, c, p[:found], ext)
		if err != nil {
			return hash, err
		}
		sum.Write(p[:n])
		off += int64(n)
		l.a.progress().Bytes.Add(int64(n))
	}
	sum.Sum(hash[:0])
	return hash, nil
}
