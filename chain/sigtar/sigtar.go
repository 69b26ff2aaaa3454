// Package sigtar reads and writes signature archives: for each entry of a
// set its metadata and, for a file, its librsync signature.
package sigtar

import (
	"errors"
	"io"

	"dupfs/chain"
)

// Member is one record of a sigtar.
type Member struct {
	// Entry is what the header says. Its Size is -1 for a File, unless a
	// record of ours tells. A deleted record has the Path only, and no Type.
	Entry   chain.Entry
	Deleted bool
	Off     int64 // plainOff of the signature of a File
	Len     int64 // bytes of the signature
}

// Reader reads a sigtar's plaintext.
type Reader struct{}

// NewReader returns a Reader of r, from the beginning of the plaintext.
func NewReader(r io.Reader) *Reader { return &Reader{} }

// Next goes to the next record, past what is left of the current signature.
// The Member is the caller's. It returns io.EOF at the end; damage is a
// *chain.CorruptError.
func (r *Reader) Next() (*Member, error) { return nil, errors.New("not written yet") }

// Read reads the signature of the current record.
func (r *Reader) Read(p []byte) (int, error) { return 0, errors.New("not written yet") }

// Drain reads what follows the last record to the end of the stream, so that
// checks made there are made.
func (r *Reader) Drain() error { return errors.New("not written yet") }

// Writer writes a sigtar's plaintext.
type Writer struct{}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{} }

// Header begins a record; for a File, m.Len bytes of signature must be
// written after it. It returns the plainOff of the signature.
func (w *Writer) Header(m *Member) (dataOff int64, err error) {
	return 0, errors.New("not written yet")
}

// Write writes a part of the current signature.
func (w *Writer) Write(p []byte) (int, error) { return 0, errors.New("not written yet") }

// Close finishes the stream with zero blocks up to a multiple of 10240. It
// does not close the writer beneath.
func (w *Writer) Close() error { return errors.New("not written yet") }

// Off returns the bytes written so far.
func (w *Writer) Off() int64 { return 0 }

// ErrOrder says that the records of a sigtar are not in path order, as
// happens after a resumed run of duplicity 0.6.0: later records then replace
// earlier ones, which a merge in one pass cannot do. Read that sigtar by
// itself, and let each record replace an earlier one of its path.
var ErrOrder = errors.New("records are not in path order")

// Merged is the state at a point, from the sigtars of all sets up to it.
type Merged struct{}

// Merge merges sigtars, the oldest (that of the full set) first.
func Merge(readers ...*Reader) *Merged { return &Merged{} }

// Next goes to the next entry in path order: the record of the newest sigtar
// that has the path. Deleted entries are left out. The int is the reader the
// record came from, from 0. It returns io.EOF at the end of all, and an error
// that wraps ErrOrder as said there.
func (m *Merged) Next() (*Member, int, error) { return nil, 0, errors.New("not written yet") }

// Read reads the signature of the current entry.
func (m *Merged) Read(p []byte) (int, error) { return 0, errors.New("not written yet") }

// Drain reads every sigtar to its end.
func (m *Merged) Drain() error { return errors.New("not written yet") }
