// Package tarstream reads and writes tar headers as duplicity's archives have
// them, and maps them to entries. Unlike archive/tar it ends at the first zero
// block, whatever follows; it tells where each body lies; and it keeps extra
// records without holding foreign ones in memory.
//
// It reads ustar with and without a prefix, PAX with its records x and g
// (values are bytes, whatever hdrcharset says), GNU with L and K names and
// base-256 numbers, and the dialect of duplicity up to 0.6.15: a ustar magic
// with L and K names that no NUL ends. It writes what Python 3.8 and later
// write: ustar headers, with an x header before them only where one is needed.
package tarstream

import (
	"errors"

	"dupfs/chain"
)

const blockSize = 512

// Bounds of what a header may hold, so that no input decides how much memory
// it takes.
const (
	// MaxExtended is the largest x or g header in bytes.
	MaxExtended = 64 << 20
	// MaxName is the longest path or link target in bytes: that of an entry, see
	// chain.MaxPath, and what a member's name has before it.
	MaxName = 64<<10 + 4096
	// MaxRecord is the longest value of an extra record in bytes. Longer ones
	// are skipped in reading and refused in writing.
	MaxRecord = 256 << 10
	// MaxRecords bounds the keys and values of all extra records of a member
	// together, in bytes; handled as MaxRecord.
	MaxRecords = 4 << 20
)

// ErrTooLarge says that an entry's facts do not fit into a header.
var ErrTooLarge = errors.New("too large for a tar header")

// Type flags of members.
const (
	TypeFile    = '0'
	TypeLink    = '1' // written only: read, it is no type of an entry
	TypeSymlink = '2'
	TypeChar    = '3'
	TypeBlock   = '4'
	TypeDir     = '5'
	TypeFifo    = '6'
)

// Record is an extra record of a member: what tar itself has no field for.
type Record struct{ Key, Value string }

// Header is a member's header.
type Header struct {
	Name        string // bytes as stored, with the slashes
	Type        byte   // a type flag; read, plain files of all sorts are TypeFile
	Mode        uint32 // 12 bits
	UID, GID    uint32
	User, Group string
	Mtime       chain.Time
	Link        string
	Major       uint32
	Minor       uint32
	Size        int64    // bytes of the body; 0 unless the type has one
	Records     []Record // of DUPFS.* and SCHILY.xattr.*, in order
	Off         int64    // plainOff of the body; not looked at in writing
}

// hasBody reports whether members of the type have a body.
func hasBody(typ byte) bool {
	switch typ {
	case TypeLink, TypeSymlink, TypeChar, TypeBlock, TypeDir, TypeFifo:
		return false
	}
	return true
}

// padding returns the bytes between a body of n bytes and the next header.
func padding(n int64) int64 { return -n & (blockSize - 1) }
