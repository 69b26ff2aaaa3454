package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"dupfs/backends"
	"dupfs/chain"
	"dupfs/chain/volume"
)

// maxHealed bounds the healed copies that are kept, in bytes of temporary
// space. One is kept however large it is.
const maxHealed = 2 << 30

// Healed is a stored file that is damaged and was read from a copy, made whole
// by what is stored beside it.
type Healed struct {
	File   string
	Reason string // what is wrong with what is stored
}

// healing knows what was healed, and what cannot be. A damaged file is healed
// at most once, as long as its copy need not make room for others.
type healing struct {
	healer backends.Healer // nil if nothing can be healed
	copies copies          // by the name of the file

	mu     sync.Mutex
	all    map[string]backends.Recovery // as of the newest listing
	lost   map[string]bool              // of complete sets, listed by their recovery files alone
	healed map[string]Healed
	failed map[string]error
}

// Healer returns what makes damaged files whole, nil if nothing does.
func (s *Store) Healer() backends.Healer { return s.healing.healer }

// CanHeal reports whether a stored file has recovery files, as far as the
// newest listing tells.
func (s *Store) CanHeal(file string) bool {
	s.healing.mu.Lock()
	defer s.healing.mu.Unlock()
	return s.healing.all[file].Files > 0
}

// Lost reports whether a file that List returns is not there itself, but has
// recovery files.
func (s *Store) Lost(file string) bool {
	s.healing.mu.Lock()
	defer s.healing.mu.Unlock()
	return s.healing.lost[file]
}

// HealedFile tells of a file that was healed when it was read.
func (s *Store) HealedFile(file string) (Healed, bool) {
	s.healing.mu.Lock()
	defer s.healing.mu.Unlock()
	h, ok := s.healing.healed[file]
	return h, ok
}

// Healed returns all files that were healed when they were read, by name.
func (s *Store) Healed() []Healed {
	s.healing.mu.Lock()
	defer s.healing.mu.Unlock()
	all := make([]Healed, 0, len(s.healing.healed))
	for _, h := range s.healing.healed {
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b Healed) int { return strings.Compare(a.File, b.File) })
	return all
}

// withLost notes which files of a listing have recovery files, and adds those
// that should be there: a set that has its manifest needs its other files, and
// a removal begins with the manifest.
func (s *Store) withLost(ctx context.Context, known []chain.Stored) ([]chain.Stored, error) {
	h := &s.healing
	if h.healer == nil {
		return known, nil
	}
	all, err := h.healer.Recovery(ctx)
	if err != nil {
		return nil, err
	}
	whole := map[string]bool{}
	for _, f := range known {
		if f.Kind == chain.ManifestFile {
			whole[setOf(f.Name)] = true
		}
	}
	lost := map[string]bool{}
	for file, r := range all {
		n, ok := chain.ParseName(file, s.opts.Prefixes)
		if r.Lost && ok && n.Kind != chain.ManifestFile && whole[setOf(n)] {
			lost[file] = true
			known = append(known, chain.Stored{Name: n, Size: -1})
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all, h.lost = all, lost
	return known, nil
}

// LostOf returns, by their recovery files, those files of a set that are not
// there, and Leftovers all such files of no complete set: what is left of sets
// that were removed, or that lost their manifest.
func (s *Store) LostOf(set *chain.Set) []chain.Stored {
	return s.lostFiles(func(n chain.Name) bool {
		return n.Full == set.Full && n.Start.Equal(set.Start) && n.End.Equal(set.End)
	})
}

// Leftovers is described with LostOf.
func (s *Store) Leftovers() []chain.Stored {
	return s.lostFiles(func(n chain.Name) bool { return !s.healing.lost[n.File] })
}

// lostFiles calls f with the lock held.
func (s *Store) lostFiles(f func(chain.Name) bool) []chain.Stored {
	h := &s.healing
	h.mu.Lock()
	defer h.mu.Unlock()
	var files []chain.Stored
	for file, r := range h.all {
		if n, ok := chain.ParseName(file, s.opts.Prefixes); ok && r.Lost && f(n) {
			files = append(files, chain.Stored{Name: n, Size: -1})
		}
	}
	slices.SortFunc(files, func(a, b chain.Stored) int { return strings.Compare(a.File, b.File) })
	return files
}

// Recovery returns how many recovery files of a file there are, and their bytes,
// as far as the newest listing tells.
func (s *Store) Recovery(file string) backends.Recovery {
	s.healing.mu.Lock()
	defer s.healing.mu.Unlock()
	return s.healing.all[file]
}

func setOf(n chain.Name) string {
	return fmt.Sprint(n.Full, n.Start.Unix(), n.End.Unix())
}

// healable reports whether an error can come from damage. A wrong key may be
// one that was read wrongly.
func healable(err error) bool {
	var corrupt *chain.CorruptError
	return errors.As(err, &corrupt) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, chain.ErrNoKey)
}

// Heal makes sure that a stored file which cannot be read for a reason is read
// from a healed copy from now on. Else it returns the reason, with what stands
// against healing it. The copy is verified as any stored file is, when it is
// read.
func (s *Store) Heal(ctx context.Context, file string, reason error) error {
	h := &s.healing
	if h.healer == nil || !healable(reason) || ctx.Err() != nil {
		return reason
	}
	h.mu.Lock()
	failed := h.failed[file]
	h.mu.Unlock()
	if failed != nil {
		return unhealed(file, reason, failed)
	}
	if err := s.begin(); err != nil {
		return reason
	}
	defer s.behind.Done()
	c, mine := h.copies.use(file)
	defer h.copies.release(file, c)
	if mine {
		s.makeHealed(file, c)
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if c.err != nil {
		return unhealed(file, reason, s.unhealable(file, c.err))
	}
	h.mu.Lock()
	_, again := h.healed[file]
	if !again {
		if h.healed == nil {
			h.healed = map[string]Healed{}
		}
		h.healed[file] = Healed{file, reasonText(file, reason)}
	}
	told := h.healed[file]
	h.mu.Unlock()
	if !again && s.opts.Notify != nil {
		s.opts.Notify(told)
	}
	return nil
}

// Healing calls f, which reads a stored file, and once more if that fails for
// damage that can be healed.
func (s *Store) Healing(ctx context.Context, file string, f func() error) error {
	err := f()
	if err == nil || !s.CanHeal(file) {
		return err
	}
	if err := s.Heal(ctx, file, err); err != nil {
		return err
	}
	return f()
}

// reasonText is an error without the name of the file.
func reasonText(file string, err error) string {
	var corrupt *chain.CorruptError
	switch {
	case errors.As(err, &corrupt) && corrupt.Name == file:
		return corrupt.Reason
	case errors.Is(err, fs.ErrNotExist):
		return "it is missing"
	}
	return strings.TrimPrefix(err.Error(), file+": ")
}

// makeHealed lets the backend heal a file. It lasts as long as the store, not
// the reader: another one may want it, too.
func (s *Store) makeHealed(file string, c *localCopy) {
	c.err = errors.New("it was given up")
	defer close(c.done)
	f, err := s.healing.healer.Heal(s.ctx, file)
	if err == nil {
		var fi os.FileInfo
		if fi, err = f.Stat(); err == nil {
			c.file, c.size = f, fi.Size()
		} else {
			f.Close()
		}
	}
	c.err = err
	s.healing.copies.grown(c)
}

// unhealable remembers why a file cannot be healed, if that will not pass.
func (s *Store) unhealable(file string, err error) error {
	if errors.Is(err, backends.ErrTransient) || errors.Is(err, context.Canceled) || s.ctx.Err() != nil {
		return err
	}
	h := &s.healing
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failed == nil {
		h.failed = map[string]error{}
	}
	h.failed[file] = err
	return err
}

// unhealed is the reason for which a file cannot be read, with what stands
// against healing it. That there is nothing to heal it with says nothing new.
func unhealed(file string, reason, why error) error {
	if errors.Is(why, fs.ErrNotExist) || errors.Is(why, backends.ErrIntact) {
		return reason
	}
	return &chain.CorruptError{Name: file, Err: reason,
		Reason: fmt.Sprintf("%s; it cannot be healed: %s", reasonText(file, reason), strings.TrimPrefix(why.Error(), file+": "))}
}

// OpenStored opens a stored file as it is stored: its healed copy, if there is
// one already.
func (s *Store) OpenStored(ctx context.Context, file string) (io.ReadCloser, error) {
	return s.openFile(ctx, file, 0, -1)
}

// copyOf opens a range of the healed copy of a file, nil if it has none.
func (s *Store) copyOf(file string, off, n int64) io.ReadCloser {
	c := s.healing.copies.ready(file)
	if c == nil {
		return nil
	}
	left := max(c.size-off, 0)
	if n < 0 || n > left {
		n = left
	}
	return &copyReader{io.NewSectionReader(c.file, off, n), func() { s.healing.copies.release(file, c) }}
}

// copyReader reads a copy, and releases it once.
type copyReader struct {
	io.Reader
	release func()
}

func (c *copyReader) Close() error {
	if c.release != nil {
		c.release()
		c.release = nil
	}
	return nil
}

// whole opens a stored file to be read to its end. One that could be healed is
// read and verified first, since what was handed out cannot be taken back;
// temporary space then: its size.
func (s *Store) whole(ctx context.Context, n chain.Stored) (io.ReadCloser, error) {
	if !s.CanHeal(n.File) {
		return s.openFile(ctx, n.File, 0, -1)
	}
	if c := s.copyOf(n.File, 0, -1); c != nil {
		return c, nil
	}
	tmp, err := s.verified(ctx, n)
	if err == nil {
		return tmp, nil
	}
	if err := s.Heal(ctx, n.File, err); err != nil {
		return nil, err
	}
	return s.openFile(ctx, n.File, 0, -1)
}

// verified fetches a stored file and reads it to its end once.
func (s *Store) verified(ctx context.Context, n chain.Stored) (*os.File, error) {
	body, err := s.openFile(ctx, n.File, 0, -1)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	tmp, err := s.temp()
	if err != nil {
		return nil, err
	}
	if err = s.check(ctx, tmp, body, n); err == nil {
		_, err = tmp.Seek(0, io.SeekStart)
	}
	if err != nil {
		tmp.Close()
		return nil, err
	}
	return tmp, nil
}

// check copies a stored file to tmp and verifies it.
func (s *Store) check(ctx context.Context, tmp *os.File, body io.Reader, n chain.Stored) error {
	size, err := io.Copy(tmp, body)
	if err == nil {
		_, err = tmp.Seek(0, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", n.File, err)
	}
	if size == 0 {
		return chain.Corrupt(n.File, "it is empty")
	}
	r, err := volume.NewReader(ctx, tmp, n.Layer, s.opts.Keys, n.File)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}

// PutBack stores the healed copy of a file in the place of what is damaged,
// once more verified. sum, if not nil, is what its SHA-1 must be.
func (s *Store) PutBack(ctx context.Context, n chain.Stored, sum []byte) error {
	if s.healing.healer == nil {
		return fmt.Errorf("%s: %w", n.File, errors.ErrUnsupported)
	}
	c := s.copyOf(n.File, 0, -1)
	if c == nil { // it had to make room
		if err := s.Heal(ctx, n.File, chain.Corrupt(n.File, "it is damaged")); err != nil {
			return err
		}
		if c = s.copyOf(n.File, 0, -1); c == nil {
			return fmt.Errorf("%s: there is no healed copy", n.File)
		}
	}
	defer c.Close()
	tmp, err := s.temp()
	if err != nil {
		return err
	}
	defer tmp.Close()
	if err := s.check(ctx, tmp, c, n); err != nil {
		return err
	}
	if err := hasSum(tmp, n.File, sum); err != nil {
		return err
	}
	if err := s.healing.healer.PutBack(ctx, n.File, tmp); err != nil {
		return err
	}
	size, err := tmp.Seek(0, io.SeekEnd)
	if err == nil {
		err = s.checkSize(ctx, n.File, size)
	}
	if err == nil {
		s.forgetHealed(n.File)
	}
	return err
}

// forgetHealed lets a file be read from the backend again.
func (s *Store) forgetHealed(file string) {
	s.healing.copies.drop(file)
	s.healing.mu.Lock()
	defer s.healing.mu.Unlock()
	delete(s.healing.healed, file)
	delete(s.healing.failed, file)
}

// Protect makes the recovery files of a stored file anew, which is verified
// before. sum, if not nil, is what its SHA-1 must be.
func (s *Store) Protect(ctx context.Context, n chain.Stored, sum []byte) error {
	if s.healing.healer == nil {
		return fmt.Errorf("%s: %w", n.File, errors.ErrUnsupported)
	}
	tmp, err := s.verified(ctx, n)
	if err != nil {
		return err
	}
	defer tmp.Close()
	if err := hasSum(tmp, n.File, sum); err != nil {
		return err
	}
	return s.healing.healer.Protect(ctx, n.File, tmp)
}
