// Package difftar reads and writes the members of a volume's plaintext, a tar
// stream. The members of all volumes of a set, one after the other, are the
// changes of that set, in path order. A file that is too large for one member
// is cut into pieces, which can lie in several volumes.
package difftar

import (
	"dupfs/chain"
	"dupfs/chain/internal/tarstream"
)

// Kind says how a member states its entry.
type Kind uint8

// The kinds of members.
const (
	Snapshot Kind = iota + 1 // the entry itself; for a file, its content
	Diff                     // a delta against the file's previous version
	Deleted                  // the entry is gone
)

// String returns the member's prefix, without "multivol_".
func (k Kind) String() string {
	switch k {
	case Snapshot:
		return "snapshot"
	case Diff:
		return "diff"
	case Deleted:
		return "deleted"
	}
	return "unknown kind"
}

// ErrTooLarge says that an entry has extended attributes, or a name, beyond
// what a header holds: 256 KiB for one attribute, 4 MiB for all.
var ErrTooLarge = tarstream.ErrTooLarge

// Member is one member of a volume.
type Member struct {
	// Entry is what the header says. Its Size is -1 for a File, unless a
	// record of ours tells. A Deleted member has the Path only, and no Type.
	//
	// What tar has no field for (nanoseconds and negative times, extended
	// attributes, LinkGroup, Data) rides in extra records, which duplicity
	// passes over. Of a file in pieces only the first piece has them.
	Entry chain.Entry
	Kind  Kind
	// Piece is 0 if the body is the whole content or delta, else the number
	// of this piece, from 1. Nothing but the next member tells which piece is
	// the last. Numbers are as stored: that they run without gaps is for the
	// caller to check.
	Piece int
	Off   int64 // plainOff of the body
	Len   int64 // bytes of the body
}
