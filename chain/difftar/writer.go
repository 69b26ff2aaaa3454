package difftar

import (
	"fmt"
	"io"
	"strconv"

	"dupfs/chain"
	"dupfs/chain/internal/tarstream"
)

// Writer writes a volume's plaintext.
type Writer struct {
	tar   *tarstream.Writer
	last  chain.Path
	kind  Kind // of the last member; 0 before the first
	piece int
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{tar: tarstream.NewWriter(w)} }

// Header begins a member and returns the plainOff of its body, of which
// exactly m.Len bytes must be written after it. m.Off is not looked at.
//
// Members must come in path order, the pieces of a file by number: duplicity
// silently drops what is out of order, so this is an error. An entry that a
// header cannot hold is an error that wraps ErrTooLarge; the stream is then as
// it was.
func (w *Writer) Header(m *Member) (dataOff int64, err error) {
	if err := w.check(m); err != nil {
		return 0, err
	}
	h, err := m.header()
	if err != nil {
		return 0, err
	}
	if dataOff, err = w.tar.WriteHeader(h); err != nil {
		return 0, err
	}
	w.last, w.kind, w.piece = m.Entry.Path, m.Kind, m.Piece
	return dataOff, nil
}

// Write writes a part of the current body. The padding follows the last byte.
func (w *Writer) Write(p []byte) (int, error) { return w.tar.Write(p) }

// Close finishes the stream with two zero blocks. It does not close the
// writer beneath.
func (w *Writer) Close() error { return w.tar.Close(512) }

// Off returns the bytes written so far, padding and headers included.
func (w *Writer) Off() int64 { return w.tar.Off() }

// check refuses members that duplicity would not take.
func (w *Writer) check(m *Member) error {
	p := m.Entry.Path
	isFile := m.Entry.Type == chain.File
	switch {
	case m.Kind < Snapshot || m.Kind > Deleted:
		return fmt.Errorf("%s: %v", p, m.Kind)
	case m.Kind == Deleted && m.Piece != 0,
		m.Kind == Diff && !isFile,
		m.Kind == Snapshot && !isFile && (m.Piece != 0 || m.Len != 0):
		return fmt.Errorf("%s: a %v of type %v with a body", p, m.Kind, m.Entry.Type)
	}
	if w.kind == 0 {
		return nil
	}
	next := p == w.last && m.Kind == w.kind && w.piece > 0 && m.Piece == w.piece+1
	if !next && (p.Compare(w.last) <= 0 || m.Piece > 1) {
		return fmt.Errorf("%s, piece %d, does not come after %s, piece %d", p, m.Piece, w.last, w.piece)
	}
	return nil
}

// header makes the tar header of m.
func (m *Member) header() (*tarstream.Header, error) {
	if m.Kind == Deleted {
		return &tarstream.Header{Name: m.name(), Type: tarstream.TypeFile, Size: m.Len}, nil
	}
	facts := tarstream.Own
	if m.Piece > 1 {
		facts = tarstream.Basic
	}
	return tarstream.NewHeader(m.name(), &m.Entry, m.Len, facts)
}

// name returns the member's name. Directories end in a slash, and so does a
// file that is the root, whose own name is empty.
func (m *Member) name() string {
	kind, path := m.Kind.String(), string(m.Entry.Path)
	switch {
	case m.Piece > 0 && path == "":
		return "multivol_" + kind + "/./" + strconv.Itoa(m.Piece)
	case m.Piece > 0:
		return "multivol_" + kind + "/" + path + "/" + strconv.Itoa(m.Piece)
	case m.Entry.Type != chain.Dir:
		return kind + "/" + path
	case path == "":
		return kind + "/./"
	}
	return kind + "/" + path + "/"
}
