package chaintest

import (
	"context"
	"crypto/sha256"
	"io"
	"os"
	"time"

	"dupfs/chain"
)

// Mtime is the modification time of Items that say nothing else.
var Mtime = chain.Time{Sec: 1700000000, Nsec: 123456789}

// Item is an entry of a tree literal.
type Item struct {
	chain.Entry
	// Content is that of a File; nil is none.
	Content chain.Content
	// Name, if it is not "", stands in the place of Path's last component. It
	// may be what no sane archive holds: "..", "a/b", "".
	Name string
}

// With returns it after fn changed its entry.
func (it Item) With(fn func(e *chain.Entry)) Item {
	fn(&it.Entry)
	return it
}

// As returns it under a name that may be hostile.
func (it Item) As(name string) Item {
	it.Name = name
	return it
}

// item returns an entry that belongs to the user who runs the test.
func item(path string, t chain.Type, mode uint32) Item {
	return Item{Entry: chain.Entry{
		Path: chain.Path(path), Type: t, Mode: mode,
		UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Mtime: Mtime,
	}}
}

// File returns a file of mode 0644 with its SHA-256 known.
func File(path, content string) Item {
	it := item(path, chain.File, 0o644)
	it.Size = int64(len(content))
	it.Content = Bytes(content)
	it.Hash, it.HasHash = sha256.Sum256([]byte(content)), true
	return it
}

// Big returns a file with any content, and no hash.
func Big(path string, c chain.Content) Item {
	it := item(path, chain.File, 0o644)
	it.Size, it.Content = c.Size(), c
	return it
}

// Sparse returns a file of size bytes with the pieces at their offsets, which
// must be in order, and holes elsewhere.
func Sparse(path string, size int64, pieces ...Piece) Item {
	it := Big(path, sparse{size, pieces})
	it.Data = []chain.Extent{}
	for _, p := range pieces {
		it.Data = append(it.Data, chain.Extent{Off: p.Off, Len: int64(len(p.Data))})
	}
	return it
}

// Dir returns a directory of mode 0755.
func Dir(path string) Item { return item(path, chain.Dir, 0o755) }

// Link returns a symlink.
func Link(path, target string) Item {
	it := item(path, chain.Symlink, 0o777)
	it.Link = target
	return it
}

// Fifo returns a fifo of mode 0600.
func Fifo(path string) Item { return item(path, chain.Fifo, 0o600) }

// Device returns a character or block device of mode 0600.
func Device(path string, t chain.Type, major, minor uint32) Item {
	it := item(path, t, 0o600)
	it.Major, it.Minor = major, minor
	return it
}

// Bytes is a Content.
type Bytes string

// Size returns the length.
func (b Bytes) Size() int64 { return int64(len(b)) }

// ReadAt reads.
func (b Bytes) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Piece is a run of data of a sparse file.
type Piece struct {
	Off  int64
	Data string
}

// sparse is a Content of pieces and zeros.
type sparse struct {
	size   int64
	pieces []Piece
}

func (s sparse) Size() int64 { return s.size }

func (s sparse) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	n := int(max(0, min(int64(len(p)), s.size-off)))
	clear(p[:n])
	for _, q := range s.pieces {
		if d := q.Off - off; d >= 0 && d < int64(n) {
			copy(p[d:n], q.Data)
		} else if d < 0 && -d < int64(len(q.Data)) {
			copy(p[:n], q.Data[-d:])
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Faulty is a Content that fails with Err for every read that touches Off, or
// that is not ended at Off when it begins before.
type Faulty struct {
	chain.Content
	Off int64
	Err error
}

// ReadAt reads what lies before Off.
func (f Faulty) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if off+int64(len(p)) <= f.Off {
		return f.Content.ReadAt(ctx, p, off)
	}
	if off >= f.Off {
		return 0, f.Err
	}
	n, err := f.Content.ReadAt(ctx, p[:f.Off-off], off)
	if err == nil {
		err = f.Err
	}
	return n, err
}

// Slow is a Content that waits before each read.
type Slow struct {
	chain.Content
	Delay time.Duration
}

// ReadAt waits, or until ctx is done, and reads.
func (s Slow) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	select {
	case <-time.After(s.Delay):
	case <-ctx.Done():
	}
	return s.Content.ReadAt(ctx, p, off)
}
