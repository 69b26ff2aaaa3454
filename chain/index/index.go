// Package index knows where every byte is: what each set contains and where
// in its volumes.
//
// It has two forms. The stored index is a stream that a backup writes beside
// its set (Writer, ReadIndex). The Catalog is a local, disposable SQLite file
// that merges the sets of one line, so that the children of a directory at any
// point, the versions of a path and the extents of a file are one look-up. It
// is filled from stored indexes, or, where there is none, from sigtars and
// from passes over those volumes that a read needs.
package index

import (
	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/chain/volume"
)

// Record is what one set says of one path.
type Record struct {
	chain.Entry
	// Change tells whether the set holds the entry whole, as a delta against
	// its previous version, or says that it vanished. In a catalog it is 0
	// for a File of which only a sigtar told.
	Change difftar.Kind
	// SigOff and SigLen give the body of the file's signature in the sigtar's
	// plaintext. SigLen is -1 where there is none.
	SigOff, SigLen int64
}

// Run says where Len bytes of a file lie, beginning at FileOff: in the volume
// with that number of the same set at plainOff Off, or, if Volume is 0, in the
// previous version of the file at fileOff Off.
type Run struct {
	FileOff, Len int64
	Volume       int
	Off          int64
}

// VolumeInfo is what an index tells of one volume.
type VolumeInfo struct {
	Number      int
	File        string // as stored
	First, Last chain.Path
	Layout      *volume.Layout
}

// Handler receives the parts of a stored index in the order of the stream. An
// error ends the reading and is returned.
type Handler struct {
	// Set is called first, with the set's times as chain.Set.Times has them.
	Set func(times string) error
	// Runs is called zero or more times before the Record they belong to. The
	// slice is valid during the call.
	Runs func(runs []Run) error
	// Record is called for each path, in path order.
	Record func(r *Record) error
	// Volume is called for each volume, by number.
	Volume func(v *VolumeInfo) error
	// Sigtar is called once, unless the index has no layout of the sigtar.
	Sigtar func(l *volume.Layout) error
}
