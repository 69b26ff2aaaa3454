package store

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"os"

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
	n, err := s.fetchTo(ctx, tmp, f, sum)
	if err != nil && s.CanHeal(f.File) {
		if err = s.Heal(ctx, f.File, err); err == nil {
			f.Size = -1 // as listed, it is that of what is damaged
			n, err = s.fetchTo(ctx, tmp, f, sum)
		}
	}
	if err != nil {
		return err
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := to.backend.Put(ctx, f.File, tmp); err != nil {
		return fmt.Errorf("%s: %w", f.File, err)
	}
	return to.checkSize(ctx, f.File, n)
}

// fetchTo writes a stored file to tmp, from its beginning, and compares it with
// its listed size and its SHA-1.
func (s *Store) fetchTo(ctx context.Context, tmp *os.File, f chain.Stored, sum []byte) (int64, error) {
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	if err := tmp.Truncate(0); err != nil {
		return 0, err
	}
	body, err := s.openFile(ctx, f.File, 0, -1)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", f.File, err)
	}
	n, err := io.Copy(tmp, body)
	if err = errors.Join(err, body.Close()); err != nil {
		return n, fmt.Errorf("%s: %w", f.File, err)
	}
	if f.Size >= 0 && n != f.Size {
		return n, chain.Corrupt(f.File, fmt.Sprintf("it has %d bytes, and is listed with %d", n, f.Size))
	}
	return n, hasSum(tmp, f.File, sum)
}

// hasSum compares the SHA-1 of a file's content, if one is given, and goes back
// to its beginning.
func hasSum(tmp *os.File, name string, sum []byte) error {
	if _, err := tmp.Seek(0, io.SeekStart); err != nil || sum == nil {
		return err
	}
	h := sha1.New()
	if _, err := io.Copy(h, tmp); err != nil {
		return err
	}
	if string(h.Sum(nil)) != string(sum) {
		return chain.Corrupt(name, "its SHA-1 is not that of the manifest")
	}
	_, err := tmp.Seek(0, io.SeekStart)
	return err
}
