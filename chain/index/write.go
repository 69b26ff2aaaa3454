package index

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"iter"

	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/chain/volume"
)

// The stored index is
//
//	magic   "DUPFSIX1", the last byte being the version
//	times   of the set, as a blob
//	frames  until the end frame, after which there is nothing
//
// A number is a uvarint; one that can be negative a zigzag varint, both as in
// encoding/binary. A blob is a number of bytes and the bytes. A frame is a tag
// byte and a blob, the body:
//
//	R  runs of the file that the next E describes, going on where the last R
//	   ended: for each length<<2 | kind, then by kind
//	     0  a run in the volume of the run before
//	     1  a run in another volume: its number
//	     2  a run in the previous version
//	   then the signed difference of its place from where it is expected: for
//	   0 and 1 one tar header after the padded end of the run before (0 in
//	   another volume), for 2 the end of the last run of kind 2 of this file
//	E  an entry: how many bytes its path shares with the one before, a blob
//	   with the rest of the path, and the metadata, see coder
//	V  a volume: number, file name, first path, last path (blobs), layout
//	S  the layout of the sigtar
//	Z  the end: how many E, runs and V there were
//
// Entries ascend by path; volumes come after them, ascending by number.
const magic = "DUPFSIX1"

const (
	tagRuns   = 'R'
	tagEntry  = 'E'
	tagVolume = 'V'
	tagSigtar = 'S'
	tagEnd    = 'Z'
)

const (
	maxFrame   = 64 << 20 // bytes of a body
	frameRuns  = 512      // runs that Writer puts in one frame
	maxRuns    = 1 << 16  // runs that a frame may hold
	maxTimes   = 64
	maxNameLen = 1 << 12 // of a stored file
)

// Writer writes the stored index of one set. Its memory does not depend on
// the size of the set.
type Writer struct {
	w        *bufio.Writer
	sum      hash.Hash
	size     int64
	err      error
	coder    coder
	runs     runCoder
	loose    bool // paths may come in any order: a spool, not a stored index
	last     chain.Path
	entries  uint64
	allRuns  uint64
	volumes  uint64
	fileSize int64  // sum of the runs of the next entry
	pending  []byte // runs not yet in a frame
	npending int
	body     []byte
}

// NewWriter begins the index of set.
func NewWriter(w io.Writer, set *chain.Set) *Writer { return newWriter(w, set.Times(), false) }

func newWriter(w io.Writer, times string, loose bool) *Writer {
	iw := &Writer{sum: sha256.New(), loose: loose}
	iw.w = bufio.NewWriterSize(w, 64<<10)
	iw.write([]byte(magic))
	iw.write(appendBlob(nil, times))
	return iw
}

func (w *Writer) write(b []byte) {
	if w.err != nil {
		return
	}
	w.sum.Write(b)
	w.size += int64(len(b))
	if _, err := w.w.Write(b); err != nil {
		w.err = fmt.Errorf("index: %w", err)
	}
}

func (w *Writer) frame(tag byte, body []byte) {
	if len(body) > maxFrame {
		w.fail("a body of %d bytes", len(body))
		return
	}
	var head [1 + binary.MaxVarintLen64]byte
	head[0] = tag
	w.write(binary.AppendUvarint(head[:1], uint64(len(body))))
	w.write(body)
}

func (w *Writer) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("index: "+format, args...)
	}
}

// Runs adds runs of the file that the next Entry describes, in order of
// FileOff, without gaps or overlaps; the runs of all calls together cover the
// file. It may be called any number of times, so that a file of any size
// needs little memory.
func (w *Writer) Runs(runs ...Run) error {
	for _, r := range runs {
		switch {
		case r.FileOff != w.fileSize:
			w.fail("a run at %d of a file, not at %d", r.FileOff, w.fileSize)
		case r.Len <= 0 || r.Off < 0 || r.Volume < 0 || r.Volume > maxVolume || r.FileOff+r.Len < 0 || r.Off+r.Len < 0:
			w.fail("a run out of range: %+v", r)
		}
		if w.err != nil {
			return w.err
		}
		w.fileSize += r.Len
		w.pending = w.runs.append(w.pending, r)
		if w.npending++; w.npending == frameRuns {
			w.flushRuns()
		}
	}
	return w.err
}

func (w *Writer) flushRuns() {
	if w.npending == 0 {
		return
	}
	w.frame(tagRuns, w.pending)
	w.allRuns += uint64(w.npending)
	w.pending, w.npending = w.pending[:0], 0
}

// Entry adds what the set says of a path. Paths must ascend, and the size of a
// file must be the sum of its runs.
func (w *Writer) Entry(rec *Record) error {
	w.flushRuns()
	if err := w.check(rec); err != nil {
		w.fail("%s: %v", rec.Path, err)
	}
	if w.err != nil {
		return w.err
	}
	b := w.appendPath(w.body[:0], rec.Path)
	w.body = w.coder.append(b, rec, w.fileSize)
	w.frame(tagEntry, w.body)
	w.entries++
	w.fileSize, w.runs.baseEnd = 0, 0
	return w.err
}

// check finds what a reader would refuse.
func (w *Writer) check(r *Record) error {
	switch {
	case len(r.Path) > maxPath:
		return fmt.Errorf("the path is too long")
	case !w.loose && w.entries > 0 && r.Path.Compare(w.last) <= 0:
		return fmt.Errorf("it does not come after %s", w.last)
	case w.fileSize > 0 && (r.Type != chain.File || r.Change == difftar.Deleted):
		return fmt.Errorf("runs of what is not a file")
	case r.Change == difftar.Deleted:
		return nil
	case r.Change > difftar.Deleted || r.Change == 0 && !w.loose:
		return fmt.Errorf("unknown change %d", r.Change)
	case r.Type < chain.File || r.Type > chain.BlockDevice:
		return fmt.Errorf("unknown type %d", r.Type)
	case r.Type == chain.File && r.Size != w.fileSize && !w.loose:
		return fmt.Errorf("its runs make %d bytes, its size is %d", w.fileSize, r.Size)
	case r.Mode > 0o7777:
		return fmt.Errorf("mode %o", r.Mode)
	case uint32(r.Mtime.Nsec) > 999_999_999:
		return fmt.Errorf("mtime of %d nanoseconds", r.Mtime.Nsec)
	case r.Type == chain.Symlink && len(r.Link) > maxPath:
		return fmt.Errorf("the target is too long")
	case len(r.User) > maxOwner || len(r.Group) > maxOwner:
		return fmt.Errorf("the name of its owner is too long")
	case len(r.Xattrs) > maxXattrs || len(r.Data) > maxSparse:
		return fmt.Errorf("too many attributes or holes")
	}
	for _, x := range r.Xattrs {
		if len(x.Name) > maxPath || len(x.Value) > maxXattr {
			return fmt.Errorf("attribute %q is too long", x.Name)
		}
	}
	return checkSparse(r.Data)
}

func checkSparse(data []chain.Extent) error {
	var end int64
	for _, x := range data {
		if x.Off < end || x.Len < 0 || x.Off+x.Len < x.Off {
			return fmt.Errorf("its map of holes is out of order")
		}
		end = x.Off + x.Len
	}
	return nil
}

// appendPath adds a path, front-coded.
func (w *Writer) appendPath(b []byte, p chain.Path) []byte {
	shared := 0
	for shared < min(len(p), len(w.last)) && p[shared] == w.last[shared] {
		shared++
	}
	w.last = p
	b = binary.AppendUvarint(b, uint64(shared))
	return appendBlob(b, p[shared:])
}

// Close writes the volumes, by number, and the sigtar's layout, and ends the
// index. It does not close the underlying writer. A nil sigtar is left out.
func (w *Writer) Close(vols []VolumeInfo, sigtar *volume.Layout) error {
	return w.CloseWith(func(yield func(*VolumeInfo, error) bool) {
		for i := range vols {
			if !yield(&vols[i], nil) {
				return
			}
		}
	}, sigtar)
}

// CloseWith is Close for more volumes than should be in memory at a time. An
// error that vols yields ends the index, and is returned.
func (w *Writer) CloseWith(vols iter.Seq2[*VolumeInfo, error], sigtar *volume.Layout) error {
	if w.npending > 0 || w.fileSize > 0 {
		w.fail("runs of no entry")
	}
	last := 0
	for v, err := range vols {
		if err != nil {
			w.fail("%w", err)
			break
		}
		if v.Number <= last {
			w.fail("volumes out of order")
		}
		last = v.Number
		w.volume(v)
	}
	if sigtar != nil {
		body, err := sigtar.MarshalBinary()
		if err != nil {
			w.fail("layout of the sigtar: %v", err)
		}
		w.frame(tagSigtar, body)
	}
	b := binary.AppendUvarint(nil, w.entries)
	b = binary.AppendUvarint(b, w.allRuns)
	w.frame(tagEnd, binary.AppendUvarint(b, w.volumes))
	if err := w.w.Flush(); err != nil {
		w.fail("%v", err)
	}
	return w.err
}

func (w *Writer) volume(v *VolumeInfo) {
	layout, err := v.Layout.MarshalBinary()
	if err != nil {
		w.fail("layout of volume %d: %v", v.Number, err)
		return
	}
	if v.Number < 1 || v.Number > maxVolume || len(v.File) > maxNameLen || len(v.First) > maxPath || len(v.Last) > maxPath {
		w.fail("volume %d: its names or number are out of range", v.Number)
		return
	}
	b := binary.AppendUvarint(nil, uint64(v.Number))
	b = appendBlob(appendBlob(appendBlob(b, v.File), v.First), v.Last)
	w.frame(tagVolume, append(b, layout...))
	w.volumes++
}

// Sum returns the SHA-256 and the length of what was written, in plaintext.
func (w *Writer) Sum() (sum [32]byte, size int64) {
	w.sum.Sum(sum[:0])
	return sum, w.size
}

// void makes the runs since the last entry void, in a spool.
func (w *Writer) void() {
	w.flushRuns()
	w.frame(tagVoid, nil)
	w.fileSize, w.runs.baseEnd = 0, 0
}
