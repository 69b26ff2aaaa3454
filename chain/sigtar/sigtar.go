// Package sigtar reads and writes signature archives: for each entry of a
// set its metadata and, for a file, its librsync signature. The sigtars of a
// chain's sets, merged, are the state at a point.
package sigtar

import (
	"io"
	"strings"

	"dupfs/chain"
	"dupfs/chain/internal/tarstream"
)

// ErrTooLarge says that an entry has extended attributes, or a name, beyond
// what a header holds: 256 KiB for one attribute, 4 MiB for all.
var ErrTooLarge = tarstream.ErrTooLarge

// Member is one record of a sigtar.
type Member struct {
	// Entry is what the header says. Its Size is -1 for a File, unless a
	// record of ours tells: a signature has bounds of the size only. A
	// deleted record has the Path only, and no Type.
	Entry   chain.Entry
	Deleted bool
	Off     int64 // plainOff of the body, the signature of a File
	Len     int64 // bytes of the body
}

// Reader reads a sigtar's plaintext. Its memory is bounded, whatever the
// input is.
type Reader struct{ tar *tarstream.Reader }

// NewReader returns a Reader of r, from the beginning of the plaintext.
func NewReader(r io.Reader) *Reader { return &Reader{tarstream.NewReader(r)} }

// Next goes to the next record, past what is left of the current signature.
// The Member is the caller's. It returns io.EOF at the first zero block and at
// the end of r. Damage, and what no duplicity writes, is a
// *chain.CorruptError; errors of r are returned as they are.
//
// Records come as they are stored. They are in path order, but for what
// ErrOrder tells.
func (r *Reader) Next() (*Member, error) {
	h, err := r.tar.Next()
	if err != nil {
		return nil, err
	}
	prefix, rest, _ := strings.Cut(h.Name, "/")
	path, ok := chain.ParsePath(rest)
	if !ok {
		return nil, chain.Corrupt("record "+h.Name, "a path that leads out of the backup")
	}
	m := &Member{Off: h.Off, Len: h.Size}
	switch prefix {
	case "deleted":
		m.Deleted = true
		m.Entry.Path = path
		return m, nil
	case "signature", "snapshot":
	default:
		return nil, chain.Corrupt("record "+h.Name, "a prefix that is not known")
	}
	if m.Entry, err = h.Entry(); err != nil {
		return nil, err
	}
	if (prefix == "signature") != (m.Entry.Type == chain.File) {
		return nil, chain.Corrupt("record "+h.Name, "a prefix that does not fit a "+m.Entry.Type.String())
	}
	m.Entry.Path = path
	return m, nil
}

// Read reads the signature of the current record.
func (r *Reader) Read(p []byte) (int, error) { return r.tar.Read(p) }

// Drain reads what follows the last record to the end of the stream, so that
// checks made there are made. It returns nil if the stream ended with io.EOF.
func (r *Reader) Drain() error { return r.tar.Drain() }
