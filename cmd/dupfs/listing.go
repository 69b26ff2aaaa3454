package main

import (
	"context"
	"crypto/sha256"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"dupfs/backends"
	"dupfs/chain/store"
)

// listingKeeper keeps the newest listing of an archive beside its catalogs, so
// that what they tell can be told without the archive. It is a cache: what
// cannot be written is not kept.
type listingKeeper struct {
	file string
	url  [sha256.Size]byte
	now  func() time.Time

	mu   sync.Mutex
	last []backends.File // as kept
}

// keptListing is what is kept.
type keptListing struct {
	URL   [sha256.Size]byte // a hash: it may hold a password
	Files []backends.File
}

func listingFile(dir string) string { return filepath.Join(dir, "listing") }

// listed keeps a listing. That nothing is there may only mean that a disk is
// not: what was known stays.
func (k *listingKeeper) listed(files []backends.File) {
	if len(files) == 0 {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.last != nil && slices.Equal(k.last, files) {
		now := k.now()
		if os.Chtimes(k.file, now, now) == nil { // the time of the file is that of the listing
			return
		}
	}
	k.last = nil
	f, err := os.CreateTemp(filepath.Dir(k.file), "listing-*") // mode 0600
	if err != nil {
		return
	}
	defer os.Remove(f.Name())
	err = gob.NewEncoder(f).Encode(keptListing{k.url, files})
	if cerr := f.Close(); err != nil || cerr != nil {
		return
	}
	if os.Rename(f.Name(), k.file) == nil {
		k.last = slices.Clone(files)
	}
}

// changed drops what is kept.
func (k *listingKeeper) changed() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.last = nil
	os.Remove(k.file)
}

// watch keeps the listings of a backend in the directory of the archive's
// cache.
func (e *environ) watch(b backends.Backend, url, dir string) backends.Backend {
	k := &listingKeeper{file: listingFile(dir), url: sha256.Sum256([]byte(url)), now: time.Now}
	return backends.Watch(b, k.listed, k.changed)
}

// errOffline says that something is not in the catalog.
var errOffline = errors.New("this is not in the local catalog")

// keptBackend is an archive of which only the listing is there.
type keptBackend struct {
	files []backends.File
	at    time.Time
}

// keptAt opens the listing that is kept in a directory.
func keptAt(dir, url string) (*keptBackend, error) {
	f, err := os.Open(listingFile(dir))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var l keptListing
	if err := gob.NewDecoder(f).Decode(&l); err != nil {
		return nil, err
	}
	if l.URL != sha256.Sum256([]byte(url)) {
		return nil, fmt.Errorf("the listing is of another archive: %w", os.ErrNotExist)
	}
	return &keptBackend{l.Files, info.ModTime()}, nil
}

func (b *keptBackend) List(context.Context) ([]backends.File, error) {
	return slices.Clone(b.files), nil
}

func (b *keptBackend) Open(_ context.Context, name string, _, _ int64) (io.ReadCloser, error) {
	return nil, fmt.Errorf("%s: %w", name, errOffline)
}

func (b *keptBackend) Put(_ context.Context, name string, _ io.ReadSeeker) error {
	return fmt.Errorf("%s: %w", name, errOffline)
}

func (b *keptBackend) Delete(_ context.Context, name string) error {
	return fmt.Errorf("%s: %w", name, errOffline)
}

// openKept opens what is kept of an archive, without the archive: no request,
// nobody is asked. What is not known locally is errOffline, or fs.ErrNotExist
// if nothing is kept.
func (e *environ) openKept(c *cli.Context, url string) (*archive, time.Time, error) {
	a, err := e.newArchive(c, url)
	if err != nil {
		return nil, time.Time{}, err
	}
	kept, err := keptAt(a.dir, url)
	if err != nil {
		return nil, time.Time{}, err
	}
	o, err := e.storeOptions(c, a)
	if err != nil {
		return nil, time.Time{}, err
	}
	a.store = store.New(kept, o)
	a.closers = append(a.closers, a.store.Close)
	return a, kept.at, nil
}
