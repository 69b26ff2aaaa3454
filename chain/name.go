package chain

import "time"

// Layer is what lies between a stored file and its plaintext.
type Layer uint8

// The layers. The end of a file's name tells which one it has.
const (
	Plain Layer = iota
	Gzip
	OpenPGP
)

// Suffix returns what a file of that layer ends in: "", ".gz" or ".gpg".
func (l Layer) Suffix() string {
	switch l {
	case Gzip:
		return ".gz"
	case OpenPGP:
		return ".gpg"
	}
	return ""
}

// String returns the layer's name for messages.
func (l Layer) String() string {
	switch l {
	case Plain:
		return "plain"
	case Gzip:
		return "gzip"
	case OpenPGP:
		return "OpenPGP"
	}
	return "unknown layer"
}

// Kind is what a stored file is for. The zero Kind is a file that is none of
// ours and none of duplicity's.
type Kind uint8

// The kinds of stored files.
const (
	VolumeFile   Kind = iota + 1
	ManifestFile      // what is in which volume; a set exists once it has one
	SigtarFile        // metadata and signatures of a set's entries
	IndexFile         // ours: where each byte of the set is
	JSONStatFile      // statistics, by duplicity 2.1 and later
)

// Prefixes are the user's file name prefixes, matched literally: All begins
// every name, one of the others comes after it.
type Prefixes struct {
	All, Archive, Manifest, Signature, JSONStat string
}

// Name is a stored file's name, understood.
type Name struct {
	Kind Kind
	Full bool
	// Start and End are the set's times, in UTC and whole seconds. A full set
	// has Start == End, an increment Start < End.
	Start, End time.Time
	Volume     int // number of a VolumeFile, from 1
	Layer      Layer
	Part       bool   // an unfinished file, as duplicity keeps them locally
	File       string // the name as stored
}

// ParseName understands the name of a stored file by every scheme that
// duplicity has used, and the names of our index files. For any other name it
// reports false and returns a Name with File alone.
func ParseName(file string, p Prefixes) (Name, bool) {
	return Name{File: file}, false
}

// Format returns the file name of n in the current scheme. n.File is not
// looked at.
func (p Prefixes) Format(n Name) string {
	return ""
}

// FormatTime returns t as file names spell it, "20231114T221320Z".
func FormatTime(t time.Time) string {
	return t.UTC().Format("20060102T150405Z")
}
