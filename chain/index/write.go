package index

import (
	"errors"
	"io"

	"dupfs/chain"
	"dupfs/chain/volume"
)

// Writer writes the stored index of one set.
type Writer struct{ w io.Writer }

// NewWriter begins the index of set.
func NewWriter(w io.Writer, set *chain.Set) *Writer { return &Writer{w} }

// Runs adds runs of the file that the next Entry describes, in order of
// FileOff, without gaps or overlaps; the runs of all calls together cover the
// file. It may be called any number of times, so that a file of any size
// needs little memory.
func (w *Writer) Runs(runs ...Run) error { return errors.New("index: not yet written") }

// Entry adds what the set says of a path. Paths must ascend.
func (w *Writer) Entry(rec *Record) error { return errors.New("index: not yet written") }

// Close writes the volumes, by number, and the sigtar's layout, and ends the
// index. It does not close the underlying writer. A nil sigtar is left out.
func (w *Writer) Close(vols []VolumeInfo, sigtar *volume.Layout) error {
	return errors.New("index: not yet written")
}

// ReadIndex reads a stored index in bounded memory.
func ReadIndex(r io.Reader, h Handler) error { return errors.New("index: not yet written") }
