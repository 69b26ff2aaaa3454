package restore

import (
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"dupfs/chain"
)

// ErrExists says that the target, or an entry of it, exists and Force was not
// given. An error that wraps it names what exists.
var ErrExists = errors.New("exists already")

// Progress counts while a run goes on. Read it at any time.
type Progress struct {
	Entries atomic.Int64 // done, of any type, failed ones too
	Files   atomic.Int64 // regular files done
	Bytes   atomic.Int64 // of content
}

// Options says how to restore. The zero value is useful.
type Options struct {
	// Force lets the target exist. Files in it that the archive has too are
	// replaced, a directory in the way of a file only if it is empty, and what
	// the archive does not have stays. Without it only an empty directory may
	// stand at the target.
	Force bool
	// NumericOwner takes the numbers of owners and groups. Otherwise a name that
	// this system knows counts, and the number only if it does not.
	NumericOwner bool
	// NoOwner leaves owners and groups as they become.
	NoOwner bool
	// NoSync leaves it to the system when what was restored comes to the disk.
	// Otherwise it is there when Run returns nil.
	NoSync bool
	// Workers is the number of files restored at a time; 0 is the lesser of 8
	// and twice the number of processors.
	Workers int
	// Progress, if not nil, is counted up.
	Progress *Progress
	// Warn, if not nil, is told what is wrong with an entry: that it was not
	// restored, as counted by Report.Failed, or without an attribute (an
	// *AttrError), as counted by Report.Warnings. One call at a time.
	Warn func(path chain.Path, err error)
	// Begin, if not nil, is told of each entry below the top before it is
	// restored. One call at a time, in no order.
	Begin func(path chain.Path, t chain.Type)
}

// AttrError says that an entry was restored, but not wholly as it was.
type AttrError struct {
	Attr string // what could not be set: "owner", "mode", ...
	Err  error
}

func (e *AttrError) Error() string { return "cannot set " + e.Attr + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *AttrError) Unwrap() error { return e.Err }

// Report is what a restore did.
type Report struct {
	Files, Dirs, Others int64 // restored regular files, directories, and the rest
	Bytes               int64 // of content written
	Failed              int64 // entries that were not restored; if any, the run was no success
	Warnings            int64 // times an attribute could not be set
}

// VerifyOptions says how to verify. The zero value is useful.
type VerifyOptions struct {
	// CompareData compares with the directory. Without it the archive is only
	// read and checked by itself, as duplicity does.
	CompareData bool
	// NumericOwner is as in Options.
	NumericOwner bool
	// Workers is as in Options.
	Workers int
	// Progress, if not nil, is counted up.
	Progress *Progress
	// Skip, if not nil, reports entries of the directory that count as not
	// there, and nothing below them does: what a selection excludes.
	Skip func(path chain.Path, t chain.Type) bool
	// Wanted, if not nil, says which files of the archive are read; the others
	// count as compared only.
	Wanted func(n chain.Node) bool
	// Differ, if not nil, is told the first difference of each path that has
	// one, in duplicity's words, in path order.
	Differ func(path chain.Path, text string)
	// Warn, if not nil, is told what could not be read, in path order.
	Warn func(path chain.Path, err error)
	// Location is the time zone of the texts; nil is the local one.
	Location *time.Location
}

// VerifyReport is what a verification found.
type VerifyReport struct {
	Compared    int64 // entries, those missing on one side too
	Differences int64 // entries that differ
	Files       int64 // regular files read from the archive
	Bytes       int64 // of content read from the archive
	Failed      int64 // entries that could not be read or compared
}

// workers returns the number of workers for n, as in Options.
func workers(n int) int {
	if n > 0 {
		return n
	}
	return min(8, 2*runtime.NumCPU())
}
