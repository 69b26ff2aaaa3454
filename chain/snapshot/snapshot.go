// Package snapshot shows an archive as its points in time: it reads sets into
// the catalogs of their lines, learns what stock duplicity's sets do not tell,
// and implements chain.Forest over them.
package snapshot

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"dupfs/chain"
	"dupfs/chain/store"
)

var errLater = errors.New("snapshot: not yet written")

// ErrBefore says that the archive has no point at or before a time.
var ErrBefore = errors.New("the archive has no backup from that time or before")

// Options of an Archive.
type Options struct {
	// Dir keeps the catalogs, private to the user; "": a temporary directory
	// that Close removes.
	Dir string
	// MaxAge is how old the listing may be before Points lists the archive
	// again; 0: the listing of Open serves until Refresh.
	MaxAge time.Duration
	// Note, if not nil, receives remarks on what was found wrong and how it
	// was helped. It may be called from several goroutines.
	Note func(string)
	// Progress, if not nil, is told of long work. See Progress.
	Progress *Progress
}

// Archive is a chain.Forest over an archive in a store. Safe for concurrent use.
type Archive struct{}

var _ chain.Forest = (*Archive)(nil)

// Open lists the archive and returns it. Catalogs are filled when a point is
// first used.
func Open(ctx context.Context, st *store.Store, o Options) (*Archive, error) { return nil, errLater }

// Close ends all work and closes the catalogs.
func (a *Archive) Close() error { return nil }

// Collection returns the sets of the newest listing.
func (a *Archive) Collection() *chain.Collection { return nil }

// Refresh lists the archive again.
func (a *Archive) Refresh(ctx context.Context) error { return errLater }

// Points implements chain.Forest.
func (a *Archive) Points(ctx context.Context) ([]chain.Point, error) { return nil, errLater }

// Tree implements chain.Forest. The sets up to that point are merged into the
// line's catalog first if they are not yet.
func (a *Archive) Tree(ctx context.Context, number uint32) (chain.Tree, error) { return nil, errLater }

// Version implements chain.Forest.
func (a *Archive) Version(ctx context.Context, version uint64) (chain.Node, error) {
	return chain.Node{}, errLater
}

// OpenVersion implements chain.Forest.
func (a *Archive) OpenVersion(ctx context.Context, version uint64) (chain.Content, error) {
	return nil, errLater
}

// BaseEntry is an entry of the newest point as the next increment sees it.
type BaseEntry struct {
	chain.Entry // Size -1 where unknown
	SigOff      int64
	SigLen      int64 // -1: no signature
	Set         int   // ordinal in the line of the set that holds the signature
	Ctime       int64 // of the source in nanoseconds, as noted; 0 unknown
	Ino         uint64
	ID          int64 // of the version
}

// Base is the newest point of the newest chain, to build an increment on.
type Base struct{}

// Base returns the newest point of the newest chain; fs.ErrNotExist if there
// is none.
func (a *Archive) Base(ctx context.Context) (*Base, error) { return nil, errLater }

// Chain returns the chain of the base; its last set is the one to build on.
func (b *Base) Chain() *chain.Chain { return nil }

// Walk yields all entries in path order.
func (b *Base) Walk(ctx context.Context) iter.Seq2[*BaseEntry, error] { return nil }

// Signature opens the signature of an entry that Walk gave. Every byte of it
// is verified.
func (b *Base) Signature(ctx context.Context, e *BaseEntry) (io.ReadCloser, error) {
	return nil, errLater
}

// Source is local knowledge of a source entry.
type Source struct {
	Path  chain.Path
	Ctime int64 // nanoseconds since 1970
	Ino   uint64
}

// NoteSource remembers the ctime and inode number of entries, in path order,
// for the next Walk of the newest point. Paths that are not at that point are
// skipped.
func (b *Base) NoteSource(ctx context.Context, entries iter.Seq2[Source, error]) error {
	return errLater
}

// Progress counts long work, to be polled.
type Progress struct{}

// Resolve returns the node at a path of a tree. fs.ErrNotExist if there is none.
func Resolve(ctx context.Context, t chain.Tree, p chain.Path) (chain.Node, error) {
	return chain.Node{}, errLater
}

// At returns the newest point that is not after t; ErrBefore if there is none.
func At(points []chain.Point, t time.Time) (chain.Point, error) { return chain.Point{}, errLater }
