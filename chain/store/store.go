// Package store is the membrane between names and plaintext above and opaque
// names and stored bytes below: encryption, compression and both caches meet
// here only. It hands out the plaintext of stored files, whole and in order
// (Open, Scan) or by ranges (ReadAt), and writes new ones (Create, Put).
package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"dupfs/backends"
	"dupfs/cache"
	"dupfs/chain"
	"dupfs/chain/pgp"
	"dupfs/chain/volume"
)

// Options of a Store. The zero value reads unencrypted archives.
type Options struct {
	Keys *pgp.Keys // to read with; nil: none
	// Encrypter makes the keys of what is written in the OpenPGP layer. It is
	// called at most once, by Ready or when the first such file is created.
	Encrypter func() (*pgp.Encrypter, error)
	Layer     chain.Layer    // of volumes, sigtars and indexes that are written
	Prefixes  chain.Prefixes // of names
	TempDir   string         // for files on their way to the backend; "": the system's
	Volume    volume.Options // of what is written
	Memory    int64          // budget of decoded chunks in bytes; 0: 64 MiB
	Disk      *cache.Dir     // stored bytes kept on disk; nil: none
	// Sums says that the store tells MD5s of its files, so that those of what is
	// written are worth noting. SumPart is the size in bytes of the parts in which
	// it takes larger files, if it then tells of the parts' MD5s; 0 if it does not.
	Sums    bool
	SumPart int64
	// Notify is told of each file that is damaged and was healed, once. It is
	// called from any goroutine.
	Notify func(Healed)
	// Near says that stored bytes cost little to read once more, as on a local
	// disk. Then a read out of order decodes a chunk only as far as it needs.
	Near bool
}

const defaultMemory = 64 << 20

// Store holds an archive's stored files. Safe for concurrent use.
//
// Its memory is bounded by Options.Memory for decoded chunks, maxInFlight for
// stored bytes on their way, and what the writers in use hold. Files that can
// only be read in order need temporary space as well, see maxCopies, and so do
// damaged ones that are healed, see maxHealed.
type Store struct {
	backend backends.Backend
	opts    Options
	blocks  *cache.Blocks[blockKey]
	decode  chan struct{} // one token for each decoder at work

	encOnce sync.Once
	enc     *pgp.Encrypter
	encErr  error

	fetches fetches
	copies  copies
	healing healing
	counts  counters
	tierMu  sync.Mutex
	tiers   map[string]string // of stored files, as listed; none for stores without
	sums    map[string]string // as tiers: what the store says of their contents
	ctx     context.Context   // ends with Close; bounds what runs behind readers
	cancel  context.CancelFunc
	behind  sync.WaitGroup
}

// New returns the store of the archive at b.
func New(b backends.Backend, o Options) *Store {
	if o.Memory <= 0 {
		o.Memory = defaultMemory
	}
	if o.Keys == nil {
		o.Keys = pgp.NewKeys()
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Store{
		backend: b, opts: o, ctx: ctx, cancel: cancel,
		blocks: cache.NewBlocks[blockKey](o.Memory),
		decode: make(chan struct{}, runtime.GOMAXPROCS(0)),
	}
	s.fetches.init()
	s.copies.budget = maxCopies
	s.healing.healer, s.healing.copies.budget = backends.HealerOf(b), maxHealed
	return s
}

// Close ends what still runs behind readers, waits for it, and closes the
// backend. Reads that come later fail with os.ErrClosed.
func (s *Store) Close() error {
	s.fetches.mu.Lock()
	s.fetches.closed = true
	s.fetches.mu.Unlock()
	s.cancel()
	s.behind.Wait()
	s.copies.close()
	s.healing.copies.close()
	return backends.Close(s.backend)
}

// Prefixes returns the prefixes of the archive's names.
func (s *Store) Prefixes() chain.Prefixes { return s.opts.Prefixes }

// Layer returns the layer of volumes, sigtars and indexes that are written.
func (s *Store) Layer() chain.Layer { return s.opts.Layer }

// Excludes reports whether the store keeps two writers of one name apart.
func (s *Store) Excludes() bool { return backends.Excludes(s.backend) }

// Backend returns the backend below, for what only it can do.
func (s *Store) Backend() backends.Backend { return s.backend }

// Keys returns the keys that the store reads with.
func (s *Store) Keys() *pgp.Keys { return s.opts.Keys }

// List returns the stored files whose names belong to duplicity or dupfs.
// One request.
func (s *Store) List(ctx context.Context) ([]chain.Stored, error) {
	known, _, err := s.ListAll(ctx)
	return known, err
}

// ListAll is List, and also returns the names that mean nothing here.
func (s *Store) ListAll(ctx context.Context) (known []chain.Stored, unknown []string, err error) {
	s.counts.requests.Add(1)
	files, err := s.backend.List(ctx)
	if err != nil {
		return nil, nil, err
	}
	tiers, sums := map[string]string{}, map[string]string{}
	defer func() {
		s.tierMu.Lock()
		defer s.tierMu.Unlock()
		s.tiers, s.sums = tiers, sums
	}()
	for _, f := range files {
		if f.Tier != "" {
			tiers[f.Name] = f.Tier
		}
		if n, ok := chain.ParseName(f.Name, s.opts.Prefixes); ok {
			if f.Sum != "" {
				sums[f.Name] = f.Sum
			}
			known = append(known, chain.Stored{Name: n, Size: f.Size})
		} else {
			unknown = append(unknown, f.Name)
		}
	}
	known, err = s.withLost(ctx, known)
	return known, unknown, err
}

// Open returns the plaintext of a stored file, whole and in order. io.EOF
// means that all of it was verified, as far as its layer can.
func (s *Store) Open(ctx context.Context, n chain.Stored) (io.ReadCloser, error) {
	body, err := s.whole(ctx, n)
	if err != nil {
		return nil, err
	}
	r, err := volume.NewReader(ctx, body, n.Layer, s.opts.Keys, n.File)
	if err != nil {
		body.Close()
		return nil, err
	}
	return &plain{Reader: r, closers: []io.Closer{r, body}}, nil
}

// plain is a decoded stored file.
type plain struct {
	io.Reader
	closers []io.Closer
}

func (p *plain) Close() error {
	var errs []error
	for _, c := range p.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// ReadThrough gives the plaintext of a stored file to fn, and reads what fn has
// left. What fn was given counts only if there is no error: one comes from fn, or
// says why the file is not to be believed. fn is called once more if the file was
// healed meanwhile.
func (s *Store) ReadThrough(ctx context.Context, n chain.Stored, fn func(r io.Reader) error) error {
	return s.Healing(ctx, n.File, func() error {
		r, err := s.Open(ctx, n)
		if err != nil {
			return err
		}
		if err = fn(r); err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		return errors.Join(err, r.Close())
	})
}

// Trailer reads what a volume of ours says of its own chunks: two small
// requests. volume.ErrForeign if the file is not one of ours.
func (s *Store) Trailer(ctx context.Context, n chain.Stored) (*volume.Layout, error) {
	get := func(ctx context.Context, off, size int64) ([]byte, error) {
		return s.fetch(ctx, n.File, off, size)
	}
	l, err := volume.ReadTrailer(ctx, get, n.Size, n.Layer, s.opts.Keys, n.File)
	if err == nil || !s.CanHeal(n.File) || s.Heal(ctx, n.File, err) != nil {
		return l, err
	}
	return volume.ReadTrailer(ctx, get, s.healing.copies.size(n.File, n.Size), n.Layer, s.opts.Keys, n.File)
}

// fetch reads a range of a stored file, all of it or an error.
func (s *Store) fetch(ctx context.Context, file string, off, n int64) ([]byte, error) {
	body, err := s.openFile(ctx, file, off, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b := make([]byte, n)
	if _, err := io.ReadFull(body, b); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return nil, chain.Corrupt(file, fmt.Sprintf("ends before byte %d", off+n))
		}
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return b, nil
}

// Delete removes a stored file. That it is not there is not an error: the
// aim is reached.
func (s *Store) Delete(ctx context.Context, n chain.Stored) error {
	err := s.backend.Delete(ctx, n.File)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Put stores a small file, such as a manifest, in the layer of its name.
func (s *Store) Put(ctx context.Context, n chain.Name, text []byte) error {
	w, err := s.Create(ctx, n)
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := io.Copy(w, bytes.NewReader(text)); err != nil {
		return err
	}
	_, err = w.Commit(ctx)
	return err
}

// uploadCheckTimeout bounds the question for the size of what was uploaded.
const uploadCheckTimeout = time.Minute
