package chain

import "time"

// Type is the type of an entry.
type Type uint8

// The types of entries. Sockets are never stored.
const (
	File Type = iota + 1
	Dir
	Symlink
	Fifo
	CharDevice
	BlockDevice
)

// String returns the word that listings use.
func (t Type) String() string {
	switch t {
	case File:
		return "file"
	case Dir:
		return "dir"
	case Symlink:
		return "link"
	case Fifo:
		return "fifo"
	case CharDevice:
		return "chr"
	case BlockDevice:
		return "blk"
	}
	return "unknown"
}

// Time is a modification time: seconds since 1970, possibly negative, and
// nanoseconds 0 to 999,999,999 after them.
type Time struct {
	Sec  int64
	Nsec int32
}

// TimeOf converts t.
func TimeOf(t time.Time) Time { return Time{t.Unix(), int32(t.Nanosecond())} }

// Time converts t, in UTC.
func (t Time) Time() time.Time { return time.Unix(t.Sec, int64(t.Nsec)).UTC() }

// Xattr is an extended attribute. POSIX ACLs are the attributes
// system.posix_acl_access and system.posix_acl_default, in the kernel's form.
type Xattr struct {
	Name  string
	Value []byte
}

// Extent is a run of data in a sparse file; the rest are holes.
type Extent struct{ Off, Len int64 }

// Entry is what an archive knows of one file, directory, link or node at one
// point. Facts that a set does not record are zero, or as said at the field.
type Entry struct {
	Path        Path
	Type        Type
	Mode        uint32 // permission bits with setuid, setgid and sticky: 12 bits
	UID, GID    uint32
	User, Group string // names at the time of the backup, "" if unknown
	Mtime       Time
	Size        int64  // of a File, in bytes; -1 while unknown. 0 for others
	Link        string // target of a Symlink
	Major       uint32 // of a device
	Minor       uint32
	Xattrs      []Xattr // sorted by name
	// LinkGroup joins the names of one inode: entries of one point with the
	// same group that is not zero are hard links to each other.
	LinkGroup uint64
	// Data is the map of a sparse File, in order and not touching; nil
	// if the file is not known to be sparse. A file that is all hole has an
	// empty, non-nil map.
	Data []Extent
	// Hash is the SHA-256 of a File's content; valid if HasHash.
	Hash    [32]byte
	HasHash bool
}
