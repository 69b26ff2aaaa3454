package store

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"

	"dupfs/backends"
	"dupfs/chain"
)

// Sums are hashes of a stored file as stores tell them: see backends.File.
type Sums struct {
	MD5 [md5.Size]byte
	// Parts is the MD5 of the MD5s of its N parts of PartSize bytes, if it was
	// long enough to be stored in parts; else N is 0.
	Parts    [md5.Size]byte
	PartSize int64
	N        int64
}

// String returns what the store that the sums were made for tells of the file.
func (s *Sums) String() string {
	if s.N > 0 {
		return fmt.Sprintf("%x-%d", s.Parts, s.N)
	}
	return hex.EncodeToString(s.MD5[:])
}

// summer makes Sums of what is written. Memory: 16 bytes for each part.
type summer struct {
	whole, part hash.Hash
	size, left  int64 // of a part, and what it still lacks
	parts       []byte
}

func newSummer(partSize int64) *summer {
	return &summer{whole: md5.New(), part: md5.New(), size: partSize, left: partSize}
}

// Write implements io.Writer. It does not fail.
func (s *summer) Write(p []byte) (int, error) {
	n := len(p)
	s.whole.Write(p)
	for s.size > 0 && len(p) > 0 {
		k := min(s.left, int64(len(p)))
		s.part.Write(p[:k])
		p = p[k:]
		if s.left -= k; s.left == 0 {
			s.endPart()
		}
	}
	return n, nil
}

func (s *summer) endPart() {
	s.parts = s.part.Sum(s.parts)
	s.part.Reset()
	s.left = s.size
}

// sums returns the sums of all that was written.
func (s *summer) sums() *Sums {
	out := &Sums{}
	s.whole.Sum(out.MD5[:0])
	parts := s.parts
	if s.size > 0 && s.left < s.size {
		parts = s.part.Sum(parts)
	}
	if n := len(parts) / md5.Size; n > 1 {
		out.Parts, out.PartSize, out.N = md5.Sum(parts), s.size, int64(n)
	}
	return out
}

// Sum returns what the newest listing says of a stored file's content, in the
// form of backends.File; "" if the store does not tell.
func (s *Store) Sum(file string) string {
	s.tierMu.Lock()
	defer s.tierMu.Unlock()
	return s.sums[file]
}

// AskSum asks the store itself for what Sum returns of a listing: it knows better
// then, if it knows at all.
func (s *Store) AskSum(ctx context.Context, f chain.Stored) (string, error) {
	b, ok := s.backend.(backends.Stater)
	if !ok {
		return "", nil
	}
	s.counts.requests.Add(1)
	info, err := b.Stat(ctx, f.File)
	if errors.Is(err, errors.ErrUnsupported) {
		return "", nil
	}
	return info.Sum, err
}
