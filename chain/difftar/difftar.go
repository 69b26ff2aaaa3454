// Package difftar reads and writes the members of a volume's plaintext, a tar
// stream.
package difftar

import (
	"errors"
	"io"

	"dupfs/chain"
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

// Member is one member of a volume.
type Member struct {
	// Entry is what the header says. Its Size is -1 for a File, unless a
	// record of ours tells. A Deleted member has the Path only, and no Type.
	Entry chain.Entry
	Kind  Kind
	// Piece is 0 if the body is the whole content or delta, else the number
	// of this piece, from 1. Nothing but the next member tells which piece is
	// the last.
	Piece int
	Off   int64 // plainOff of the body
	Len   int64 // bytes of the body
}

// Reader reads a volume's plaintext.
type Reader struct{}

// NewReader returns a Reader of r, from the beginning of the plaintext.
func NewReader(r io.Reader) *Reader { return &Reader{} }

// Next goes to the next member, past what is left of the current body. The
// Member is the caller's. It returns io.EOF at the first zero block or at the
// end of r; damage is a *chain.CorruptError.
func (r *Reader) Next() (*Member, error) { return nil, errors.New("not written yet") }

// Read reads the body of the current member.
func (r *Reader) Read(p []byte) (int, error) { return 0, errors.New("not written yet") }

// Drain reads what follows the last member to the end of the stream, so that
// checks made there (CRC, MDC, signature) are made. It returns nil when the
// stream ended with io.EOF.
func (r *Reader) Drain() error { return errors.New("not written yet") }

// Writer writes a volume's plaintext.
type Writer struct{}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{} }

// Header begins a member; m.Len bytes must be written after it. It finishes
// the previous member and returns the plainOff of the body. m.Off is not
// looked at. Members must come in path order, pieces by number.
func (w *Writer) Header(m *Member) (dataOff int64, err error) {
	return 0, errors.New("not written yet")
}

// Write writes a part of the current member's body.
func (w *Writer) Write(p []byte) (int, error) { return 0, errors.New("not written yet") }

// Close finishes the stream with two zero blocks. It does not close the
// writer beneath.
func (w *Writer) Close() error { return errors.New("not written yet") }

// Off returns the bytes written so far, padding and headers included.
func (w *Writer) Off() int64 { return 0 }
