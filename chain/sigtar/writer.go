package sigtar

import (
	"fmt"
	"io"

	"dupfs/chain"
	"dupfs/chain/internal/tarstream"
)

// Writer writes a sigtar's plaintext.
type Writer struct {
	tar   *tarstream.Writer
	last  chain.Path
	begun bool
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{tar: tarstream.NewWriter(w)} }

// Header begins a record and returns the plainOff of its signature, of which
// exactly m.Len bytes must be written after it. m.Off is not looked at; the
// entry's Size and Hash, where known, are kept.
//
// Records must come in path order, each path once. An entry that a header
// cannot hold is an error that wraps ErrTooLarge; the stream is then as it was.
func (w *Writer) Header(m *Member) (dataOff int64, err error) {
	p := m.Entry.Path
	if w.begun && p.Compare(w.last) <= 0 {
		return 0, fmt.Errorf("%s does not come after %s", p, w.last)
	}
	if m.Len != 0 && (m.Deleted || m.Entry.Type != chain.File) {
		return 0, fmt.Errorf("%s: a signature of what is no file", p)
	}
	h, err := m.header()
	if err != nil {
		return 0, err
	}
	if dataOff, err = w.tar.WriteHeader(h); err != nil {
		return 0, err
	}
	w.last, w.begun = p, true
	return dataOff, nil
}

// Write writes a part of the current signature.
func (w *Writer) Write(p []byte) (int, error) { return w.tar.Write(p) }

// Close finishes the stream with zero blocks up to a multiple of 10240. It
// does not close the writer beneath.
func (w *Writer) Close() error { return w.tar.Close(10240) }

// Off returns the bytes written so far, padding and headers included.
func (w *Writer) Off() int64 { return w.tar.Off() }

// header makes the tar header of m.
func (m *Member) header() (*tarstream.Header, error) {
	path := string(m.Entry.Path)
	switch {
	case m.Deleted:
		return &tarstream.Header{Name: "deleted/" + path, Type: tarstream.TypeFile}, nil
	case m.Entry.Type == chain.File:
		return tarstream.NewHeader("signature/"+path, &m.Entry, m.Len, tarstream.Known)
	case m.Entry.Type != chain.Dir:
		return tarstream.NewHeader("snapshot/"+path, &m.Entry, 0, tarstream.Known)
	case path == "":
		// Not "snapshot/./" as in a volume: with that duplicity takes the root
		// to be new and another one to be deleted.
		return tarstream.NewHeader("snapshot/", &m.Entry, 0, tarstream.Known)
	}
	return tarstream.NewHeader("snapshot/"+path+"/", &m.Entry, 0, tarstream.Known)
}
