package store

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"dupfs/chain"
	"dupfs/chain/volume"
)

// maxCopies bounds the decoded copies of stored files that can only be read in
// order, in bytes of temporary space. One copy is kept however large it is.
const maxCopies = 2 << 30

// copies are the decoded copies of such files. A copy is made when the first
// range of its file is read, by decoding the file to its end, and again if it
// had to make room for others. It is encrypted with a key that only this
// process has, in a file without a name, so that nothing is left behind and no
// plaintext reaches the disk.
type copies struct {
	mu     sync.Mutex
	all    map[string]*localCopy
	budget int64
	used   int64
	tick   int64
}

// localCopy is a copy, or one being made.
type localCopy struct {
	done  chan struct{} // closed once the rest is set
	file  *os.File
	block cipher.Block
	size  int64
	err   error

	users   int
	dropped bool  // and closed by its last user
	last    int64 // when it was used last, in ticks
}

// readCopy reads a range of the plaintext of a file whose Layout is Ordered.
func (s *Store) readCopy(ctx context.Context, f *File, off, n int64) ([]byte, error) {
	id := f.id()
	c, mine := s.copies.use(id)
	defer s.copies.release(id, c)
	if mine {
		s.makeCopy(ctx, f, c)
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if c.err != nil {
		return nil, c.err
	}
	if off+n > c.size {
		return nil, chain.Corrupt(f.File(), fmt.Sprintf("ends before byte %d", off+n))
	}
	b := make([]byte, n)
	if _, err := c.file.ReadAt(b, off); err != nil {
		return nil, fmt.Errorf("temporary copy of %s: %w", f.File(), err)
	}
	c.crypt(b, off)
	return b, nil
}

// makeCopy decodes and verifies a file.
func (s *Store) makeCopy(ctx context.Context, f *File, c *localCopy) {
	c.err = errors.New("the copy was given up")
	defer close(c.done)
	c.err = s.decodeCopy(ctx, f, c)
	if c.err != nil && c.file != nil {
		c.file.Close()
		c.file = nil
	}
	s.copies.grown(c)
}

func (s *Store) decodeCopy(ctx context.Context, f *File, c *localCopy) (err error) {
	key := make([]byte, 32)
	rand.Read(key)
	if c.block, err = aes.NewCipher(key); err != nil {
		return err
	}
	if c.file, err = s.temp(); err != nil {
		return err
	}
	body, err := s.whole(ctx, f.Stored)
	if err != nil {
		return err
	}
	defer body.Close()
	r, err := volume.NewReader(ctx, body, f.Layer, s.opts.Keys, f.File())
	if err != nil {
		return err
	}
	defer r.Close()
	for b := make([]byte, 256<<10); ; {
		n, err := r.Read(b)
		c.crypt(b[:n], c.size)
		if _, werr := c.file.Write(b[:n]); werr != nil {
			return fmt.Errorf("temporary copy of %s: %w", f.File(), werr)
		}
		c.size += int64(n)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// crypt encrypts or decrypts what lies at an offset.
func (c *localCopy) crypt(b []byte, off int64) {
	var iv [aes.BlockSize]byte
	binary.BigEndian.PutUint64(iv[8:], uint64(off)/aes.BlockSize)
	stream := cipher.NewCTR(c.block, iv[:])
	var skip [aes.BlockSize]byte
	stream.XORKeyStream(skip[:off%aes.BlockSize], skip[:off%aes.BlockSize])
	stream.XORKeyStream(b, b)
}

// use returns the copy of a file, and whether the caller has to make it. It
// must be released.
func (c *copies) use(id string) (l *localCopy, mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l = c.all[id]; l == nil {
		l, mine = &localCopy{done: make(chan struct{})}, true
		if c.all == nil {
			c.all = map[string]*localCopy{}
		}
		c.all[id] = l
	}
	l.users++
	c.tick++
	l.last = c.tick
	return l, mine
}

// ready returns the copy of a file if it was made, else nil. It must be
// released.
func (c *copies) ready(id string) *localCopy {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.all[id]
	if l == nil || !l.ended() || l.file == nil {
		return nil
	}
	l.users++
	c.tick++
	l.last = c.tick
	return l
}

// size returns the size of a copy, else that given.
func (c *copies) size(id string, other int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.all[id]; l != nil && l.ended() && l.file != nil {
		return l.size
	}
	return other
}

// drop forgets a copy. Who uses it may go on.
func (c *copies) drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.all[id]
	if l == nil || !l.ended() || l.file == nil {
		return
	}
	delete(c.all, id)
	c.used -= l.size
	if l.dropped = true; l.users == 0 {
		l.file.Close()
	}
}

// release ends a use. A copy that failed is forgotten.
func (c *copies) release(id string, l *localCopy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.users--
	if l.ended() && l.file == nil && c.all[id] == l {
		delete(c.all, id)
	}
	if l.dropped && l.users == 0 {
		l.file.Close()
	}
	c.shrink()
}

// ended reports whether the copy was made, or that failed.
func (l *localCopy) ended() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// grown counts a copy that was made.
func (c *copies) grown(l *localCopy) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.file != nil {
		c.used += l.size
	}
}

// shrink drops the copies that were not used for the longest time, as long as
// there are too many. The lock is held.
func (c *copies) shrink() {
	for c.used > c.budget && len(c.all) > 1 {
		oldest := ""
		for id, l := range c.all {
			if l.users == 0 && l.file != nil && (oldest == "" || l.last < c.all[oldest].last) {
				oldest = id
			}
		}
		if oldest == "" {
			return
		}
		l := c.all[oldest]
		c.used -= l.size
		delete(c.all, oldest)
		l.file.Close()
	}
}

// close drops all copies. None may be in use.
func (c *copies) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.all {
		if l.file != nil {
			l.file.Close()
		}
	}
	c.all, c.used = nil, 0
}
