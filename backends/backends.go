// Package backends defines where archives are stored: a flat namespace of
// whole files. Each sub-package drives one kind of store; package all opens
// any of them from its URL; package backendtest holds the contract as a test.
package backends

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"
)

// File is a stored file as a listing shows it.
type File struct {
	Name    string
	Size    int64     // bytes; -1 if the store does not tell
	ModTime time.Time // zero if the store does not tell
	Tier    string    // access tier or storage class as the store names it; "" if it has none
	// Sum is what the store says of the content: its MD5 in lower-case hex, or
	// that of the MD5s of its N parts, then "-N". "" if it does not tell, or
	// not without reading the file. Stat is surer than List, see there.
	Sum string

	// Archived files cannot be read before they are rehydrated.
	Archived bool
	// Rehydrating files are archived, and on their way back.
	Rehydrating bool
}

// Backend is a flat namespace of whole files. It is safe for concurrent use.
// A missing file is fs.ErrNotExist; what may succeed on another try is
// ErrTransient; both are wrapped with the name of the file or the operation.
// Every method returns soon after its context is cancelled.
type Backend interface {
	// List returns all files, in no order. A container or directory that
	// does not exist yet lists as empty only if the driver can create it;
	// else it is fs.ErrNotExist.
	List(ctx context.Context) ([]File, error)
	// Open reads n bytes from offset off; n < 0 reads to the end. A range
	// that goes beyond the end is cut there. The reader fails with an error
	// other than io.EOF when the body ends before it should.
	Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, error)
	// Put stores all of r, from its current position on, under name. It is
	// all or nothing: a reader never sees a part of it, and after an error
	// the old content, or none, is there. It replaces an existing file.
	Put(ctx context.Context, name string, r io.ReadSeeker) error
	// Delete removes a file. Deleting what is not there is fs.ErrNotExist.
	Delete(ctx context.Context, name string) error
}

// Stater is a Backend that can tell of one file without a listing.
type Stater interface {
	// Stat returns what List would for one file, but leaves out a Sum that is
	// in truth one of something else: some stores show only here that a file is
	// in segments, or encrypted with a key of their own.
	Stat(ctx context.Context, name string) (File, error)
}

// Exclusive is a Backend that can store a file only where none is, as one
// step that two writers cannot both win.
type Exclusive interface {
	// PutNew is Put, but fails with fs.ErrExist if the name is taken, and with
	// errors.ErrUnsupported, storing nothing, if this server cannot do that.
	PutNew(ctx context.Context, name string, r io.ReadSeeker) error
}

// Doubtful is an Exclusive whose server may not do what PutNew promises, and
// does not tell.
type Doubtful interface {
	// Doubtful reports whether that is so.
	Doubtful() bool
}

// Excludes reports whether of two writers that store a file under one name, by
// PutNew, certainly only one wins.
func Excludes(b Backend) bool {
	if _, ok := b.(Exclusive); !ok {
		return false
	}
	d, ok := b.(Doubtful)
	return !ok || !d.Doubtful()
}

// Tierer is a Backend whose files have access tiers.
type Tierer interface {
	// SetTier moves a file to a tier. From an archive tier this begins a
	// rehydration, which can take hours; priority is "Standard" or "High".
	SetTier(ctx context.Context, name, tier, priority string) error
}

// Healer makes damaged files whole again, from recovery files that are stored
// beside them and that no listing shows. Safe for concurrent use.
type Healer interface {
	// Recovery tells of the recovery files of each file that has some, as the
	// newest listing had them. It asks for a listing only if there was none.
	Recovery(ctx context.Context) (map[string]Recovery, error)
	// Heal returns a file as it was when it was stored, in a temporary file
	// without a name that the caller closes. Who reads it verifies it as any
	// stored file. fs.ErrNotExist says that it has no recovery files,
	// ErrIntact that they find nothing wrong with it; any other error that is
	// not ErrTransient says why it cannot be healed.
	Heal(ctx context.Context, name string) (*os.File, error)
	// PutBack stores a file that was healed, leaving its recovery files.
	PutBack(ctx context.Context, name string, r io.ReadSeeker) error
	// Protect replaces the recovery files of a stored file by new ones, made
	// from its content.
	Protect(ctx context.Context, name string, r io.ReadSeeker) error
}

// Recovery is what is stored to make one file whole again.
type Recovery struct {
	Files int
	Bytes int64 // as far as the listing tells sizes
	Lost  bool  // the file itself is not listed
}

// HealerOf returns what makes the damaged files of b whole, nil if nothing does.
func HealerOf(b Backend) Healer {
	if h, ok := b.(interface{ Healer() Healer }); ok {
		return h.Healer()
	}
	return nil
}

// Close releases what a backend holds, such as connections or a child
// process, if it holds anything. The backend is not used afterwards.
func Close(b Backend) error {
	if c, ok := b.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// RetryAfter is an error of a store that says how long to wait before the
// next try. Zero means that it did not say.
type RetryAfter interface {
	error
	RetryAfter() time.Duration
}

// IsVolume reports whether a stored file is a volume: the bulk, which may lie
// in a cheaper tier than manifests, signatures and indexes, because it is
// read only to restore. Only the name is looked at; every current form of a
// volume's name holds ".difftar", with any prefix and any suffix.
func IsVolume(name string) bool { return strings.Contains(name, ".difftar") }

var (
	// ErrTransient marks what may succeed on another try: a broken
	// connection, a timeout, a server too busy.
	ErrTransient = errors.New("temporary failure")
	// ErrArchived marks a file that must be rehydrated before it is read.
	ErrArchived = errors.New("in an archive tier: it must be rehydrated before it can be read")
	// ErrAuth marks credentials that are missing or refused.
	ErrAuth = errors.New("credentials missing or refused")
	// ErrIntact says that a file is as it was when it was stored.
	ErrIntact = errors.New("it is as it was stored")
	// ErrNoSpace marks a store that is full or over its quota.
	ErrNoSpace = errors.New("no space left in the store")
)
