package backup

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync/atomic"
	"time"

	"dupfs/chain"
	"dupfs/chain/selection"
)

// BaseEntry is an entry of the newest point, as the next set is compared with.
type BaseEntry struct {
	chain.Entry
	// Exact says that dupfs wrote the entry, so that nanoseconds, xattrs and
	// link groups that are zero are really zero. Otherwise only what
	// duplicity records is compared: whole seconds and no xattrs.
	Exact bool
	// SigOff and SigLen say where the signature is; SigLen < 0: there is none.
	SigOff, SigLen int64
	Set            int // which set of the line wrote it
	// Ctime (nanoseconds since 1970) and Ino are what this machine's file
	// system said when the entry was last found equal to the source; both 0:
	// not known.
	Ctime int64
	Ino   uint64
	ID    int64 // for the base's own use
}

// Base is the newest point of a chain.
type Base interface {
	// Walk returns the entries in path order, Size -1 where it is unknown. They
	// are kept for a while, so each must be one of its own. It runs on another
	// goroutine.
	Walk(ctx context.Context) iter.Seq2[*BaseEntry, error]
	// Signature opens an entry's signature. It is safe for concurrent use,
	// also while Walk runs.
	Signature(ctx context.Context, e *BaseEntry) (io.ReadCloser, error)
}

// Options of a run. The zero value of a field is a good choice, but Now and
// Layer must be given.
type Options struct {
	Now   time.Time   // the set's end time, cut to whole seconds
	Last  time.Time   // end time of the newest set in the archive, zero if none; where an incremental set starts
	Layer chain.Layer // of volumes and signatures
	// Taken are the end times of sets that are not finished: this one gets
	// another one.
	Taken []time.Time
	// Forks are the end times of sets that begin where this one does, and are
	// known. Any other one was made meanwhile, from another machine.
	Forks []time.Time

	Selection *selection.Selection // nil: everything
	Only      *Listed              // what of the source there is at all, before Selection; nil: everything
	Hostname  string               // "": left out of the manifest
	Localdir  string               // source as the manifest has it; "": left out

	VolSize   int64  // stored bytes at which a volume is closed, later ones of very many at more; 0: 200 MiB
	PieceSize int    // bytes of content in one member; 0: 1 MiB, which is also the most
	MaxBlock  int    // cap of signature block lengths in bytes; 0: duplicity's 2048
	Workers   int    // files prepared at a time; 0: as many as processors, at least 2
	Uploads   int    // volumes uploaded at a time; 0: 1. Temporary space is (Uploads+1) volumes
	Memory    int64  // bytes of content and signatures held ahead of the packer; 0: 96 MiB
	TempDir   string // for spools, which hold key material and are unlinked at once; "": os.TempDir()

	// Journal is the file in which the run notes what it has stored. With it, a
	// run that fails or dies can be resumed: what has arrived stays in the
	// store. "": a run that fails removes what it has stored.
	Journal string
	Owner   string       // what ReadJournal returns: how the set is written, for the caller to compare
	Resume  *Interrupted // go on with this run: its set, with the time it had. Layer, Now and Last are not looked at

	CopyLinks      bool // store what symbolic links lead to, in their place
	DryRun         bool // compare and count only; nothing is created, st may be nil
	SkipEmpty      bool // write no set if nothing has changed
	NoFilesChanged bool // leave the list of changed files out of the manifest

	Progress *Progress    // may be nil
	Notice   func(Notice) // called from several goroutines, one at a time; may be nil
	// Verify is given the set before it exists: all but its manifest is stored,
	// and that is what manifest holds. After an error the set does not come to
	// be; with ErrUnsound nothing of it stays. May be nil.
	Verify func(ctx context.Context, set *chain.Set, manifest io.ReaderAt) error
	// OnIndex is given the set's index in plain once the set exists, to
	// extend a local catalog. Its error does not fail the run: it is returned
	// in Stats.IndexErr. May be nil.
	OnIndex func(ctx context.Context, r io.Reader) error
	// OnKnown is called in path order for files of the new point whose Ctime
	// and Ino are not those of the base, during the run; the caller keeps them
	// only if Run succeeds. May be nil.
	OnKnown func(k Known) error

	// OnChange is told of each entry that the set records, before it is
	// stored, in path order. May be nil.
	OnChange func(c Change, p chain.Path)
	// OnVolume is told when the upload of a volume begins and when it is
	// done, from several goroutines. May be nil.
	OnVolume func(v VolumeEvent)

	hooks *hooks // of tests
}

// Change is what happened to an entry, as duplicity sees it: Added also stands
// for all that is stored whole, such as a directory with another mtime.
type Change uint8

// The changes.
const (
	Added Change = iota
	Modified
	Deleted
)

// VolumeEvent is the begin or the end of a volume's upload.
type VolumeEvent struct {
	Number int
	File   string
	Done   bool
}

// Known is what this machine's file system says of a stored file: with it the
// next run sees content that was changed while its mtime was put back.
type Known struct {
	Path  chain.Path
	ID    int64 // of the BaseEntry if the entry is unchanged, 0 if it is in the new set
	Ctime int64 // nanoseconds since 1970; -1: compare the content next time in any case
	Ino   uint64
}

// Progress counts while a run goes on. Any goroutine may read it.
type Progress struct {
	Entries     atomic.Int64 // of the source, walked
	Bytes       atomic.Int64 // sum of the sizes of walked files
	Files       atomic.Int64 // files whose content was stored
	BytesRead   atomic.Int64 // of contents
	BytesStored atomic.Int64 // uploaded
	Volumes     atomic.Int64 // uploaded
	Packed      atomic.Int64 // sum of the sizes of all entries up to what is packed now
	Walked      atomic.Bool  // Entries and Bytes are final
	Current     atomic.Pointer[chain.Path]
}

// Class is the class of a Notice.
type Class uint8

// The classes of notices. All but Skipped are warnings and count as errors of
// the run: what they name is not stored as it is in the source.
const (
	// Skipped is an entry that is never stored, such as a socket.
	Skipped Class = iota
	// Unreadable is an entry that was left out, or kept as it was in the base
	// with all below it.
	Unreadable
	// Vanished is an entry that was listed but gone when it was opened; the
	// previous version stays.
	Vanished
	// Changing is a file that changed while it was read: what was stored may
	// mix two states. The next run stores it again.
	Changing
	// Cut is a big file with a read error after a part was already stored.
	// What was stored ends there. The next run stores it again.
	Cut
	// Reduced is an entry that was stored without its extended attributes, for
	// they are too large.
	Reduced
	// BadSignature is a file whose old signature cannot be used: it is stored
	// whole instead of as a delta. It does not count as an error.
	BadSignature
)

// Notice says what was not stored as it should be.
type Notice struct {
	Class Class
	Path  chain.Path
	Err   error // why
}

// Warning reports whether the notice counts as an error of the run.
func (n Notice) Warning() bool { return n.Class != Skipped && n.Class != BadSignature }

// Stats are the statistics that duplicity prints, and what a caller needs to
// go on.
type Stats struct {
	StartTime, EndTime time.Time
	SourceFiles        int64 // entries of the source
	SourceFileSize     int64 // sum of the sizes of its files, directories and links
	NewFiles           int64
	NewFileSize        int64
	DeletedFiles       int64
	ChangedFiles       int64
	ChangedFileSize    int64
	ChangedDeltaSize   int64
	DeltaEntries       int64 // new, changed and deleted
	RawDeltaSize       int64 // bytes of contents and deltas, before compression
	DestinationSize    int64 // TotalDestinationSizeChange: stored bytes of all files of the set
	Errors             int64 // warnings: the backup is not complete if > 0

	Set      *chain.Set // what was written; nil for a dry run, or with SkipEmpty if nothing changed
	Kept     int        // volumes that a run which failed left, for another one to go on with
	IndexErr error      // of OnIndex
	// JournalErr is why the journal could not be kept; the run is not affected.
	JournalErr error
}

// ErrUnsound is for an Options.Verify which found that a set is not what it
// should be.
var ErrUnsound = errors.New("the new set is not what it should be")

// ErrClock says that the clock is behind the newest set of the archive.
var ErrClock = errors.New("the clock is behind the time of the last backup")
