// Package manifest reads and writes the manifest of a set: which paths are in
// which volume, and the hash of each volume.
package manifest

import (
	"errors"
	"io"
	"iter"

	"dupfs/chain"
)

// Volume is what a manifest says of one volume.
type Volume struct {
	Number int // from 1
	// First and Last are the paths of the first and the last member. After a
	// run that was interrupted and resumed, First can come too late: a search
	// that finds nothing should look into the other volumes as well.
	First, Last chain.Path
	// FirstBlock and LastBlock are the numbers of the first and last member
	// within their files, -1 where the member is a whole file or its last piece.
	FirstBlock, LastBlock int
	// SHA1 and MD5 are hashes of the stored file. A hash that the manifest
	// garbles is present and zero: no volume matches it.
	SHA1    [20]byte
	HasSHA1 bool
	MD5     [16]byte
	HasMD5  bool
}

// MayHold reports whether the volume can have a member for p or something
// below p.
func (v Volume) MayHold(p chain.Path) bool { return true }

// Manifest is a set's manifest without its list of changed files.
type Manifest struct {
	Hostname string // "" if absent
	Localdir string // the source argument of the run, as bytes; "" if absent
	Volumes  []Volume
	// IndexSHA256 and IndexSize bind the set's index file, plaintext, if
	// HasIndex.
	IndexSHA256 [32]byte
	IndexSize   int64
	HasIndex    bool
}

// Change is one line of a manifest's list of changed files.
type Change struct {
	Kind string // "new", "changed" or "deleted"
	Path chain.Path
}

// Parse reads a manifest, as tolerantly as duplicity, to the end of r.
// The list of changed files is skipped. Errors in the text are
// *chain.CorruptError; errors of r are returned as they are.
func Parse(r io.Reader) (*Manifest, error) { return nil, errors.New("not written yet") }

// ParseFileList calls fn for each line of the list of changed files, in the
// order of the text, until fn returns an error, which it returns.
func ParseFileList(r io.Reader, fn func(Change) error) error { return errors.New("not written yet") }

// Write writes a manifest that duplicity 0.6 to 3 reads. The list of changed
// files has count lines, which changes yields in path order; with changes nil
// there is no list.
func Write(w io.Writer, m *Manifest, count int, changes iter.Seq2[Change, error]) error {
	return errors.New("not written yet")
}
