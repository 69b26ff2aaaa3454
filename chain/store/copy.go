package store

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"

	"dupfs/chain"
)

// CopyTo copies a stored file, byte by byte, to the same name in another store.
// sum, if not nil, is its SHA-1: what does not have it is not stored. Temporary
// space of the other store: the file's size.
func (s *Store) CopyTo(ctx context.Context, to *Store, f chain.Stored, sum []byte) error {
	tmp, err := to.temp()
	if err != nil {
		return err
	}
	defer tmp.Close()
	body, err := s.backend.Open(ctx, f.File, 0, -1)
	if err != nil {
		return fmt.Errorf("%s: %w", f.File, err)
	}
	h := sha1.New()
	n, err := io.Copy(io.MultiWriter(tmp, h), body)
	if err = errors.Join(err, body.Close()); err != nil {
		return fmt.Errorf("%s: %w", f.File, err)
	}
	switch {
	case f.Size >= 0 && n != f.Size:
		return chain.Corrupt(f.File, fmt.Sprintf("it has %d bytes, and is listed with %d", n, f.Size))
	case sum != nil && string(h.Sum(nil)) != string(sum):
		return chain.Corrupt(f.File, "its SHA-1 is not that of the manifest")
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := to.backend.Put(ctx, f.File, tmp); err != nil {
		return fmt.Errorf("%s: %w", f.File, err)
	}
	return to.checkSize(ctx, f.File, n)
}
