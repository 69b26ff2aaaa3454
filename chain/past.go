package chain

import (
	"context"
	"time"
)

// Past is a Forest that can also be seen across its points: what a path was at
// any time, what is gone, and what differs between two points. It answers from
// the catalogs, which are filled first if they are not yet.
//
// A place is the number of a path that some point has, 0 < place < 1<<40. It
// may have several numbers, and keeps each as long as some point has the path.
type Past interface {
	// Place returns the number of the path called name beneath a place; of the
	// root if parent is 0. fs.ErrNotExist if no point has it.
	Place(ctx context.Context, parent uint64, name string) (uint64, error)
	// Names calls fn for each name that some point has beneath a place, in
	// order of names as bytes, beginning after the name after ("" for all),
	// until fn returns an error, which it returns.
	Names(ctx context.Context, place uint64, after string, fn func(Spot) error) error
	// Spot returns one of the names beneath a place. fs.ErrNotExist if no point
	// has it.
	Spot(ctx context.Context, place uint64, name string) (Spot, error)
	// Parent returns the place of the directory that a place is in, 0 for the
	// root; ParentDir does so for a directory of a point.
	Parent(ctx context.Context, place uint64) (uint64, error)
	ParentDir(ctx context.Context, point uint32, dir uint64) (uint64, error)
	// Lost reports whether anything is gone beneath a place that is a directory
	// at the newest point: that point lacks a path there that another one has.
	// It is true, too, where it would take too long to be sure.
	Lost(ctx context.Context, place uint64) (bool, error)
	// Versions returns the versions of a place that differ, the oldest first.
	Versions(ctx context.Context, place uint64) ([]PastVersion, error)
	// PointOf returns the first point that has a version. fs.ErrNotExist if
	// there is none.
	PointOf(ctx context.Context, version uint64) (uint32, error)
	// Changes calls fn, as Names does, for each name in a directory that
	// differs between two points. dir numbers it in the tree of to, and it is
	// a directory at both points.
	Changes(ctx context.Context, from, to uint32, dir uint64, after string, fn func(Change) error) error
	// Change returns what Changes says of one name. fs.ErrNotExist if that is
	// nothing.
	Change(ctx context.Context, from, to uint32, dir uint64, name string) (Change, error)
	// ChangedDir returns the directory itself, as it is at both points.
	ChangedDir(ctx context.Context, from, to uint32, dir uint64) (Change, error)
}

// Spot is a name in the past.
type Spot struct {
	Name   string
	Place  uint64
	Now    Type // type at the newest point, 0 if it is not there
	WasDir bool // it is a directory at some point; if not at the newest, with something in it
}

// PastVersion is one version of a path.
type PastVersion struct {
	Time  time.Time // of the first point that has it
	Point uint32    // that point
	Node  Node      // Size is -1 where nobody knows it yet
}

// The kinds of differences, as bits.
const (
	Added = 1 << iota
	Modified
	Deleted
)

// Change is a name that differs between two points. Old or New is nil if it is
// not there.
type Change struct {
	Name     string
	Old, New *Node
	// Below tells, if both are directories, which kinds of differences are
	// beneath: at least those that are there.
	Below uint8
}
