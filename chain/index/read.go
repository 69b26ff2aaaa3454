package index

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"dupfs/chain"
	"dupfs/chain/volume"
)

// reader reads a stored index.
type reader struct {
	r     *bufio.Reader
	h     Handler
	loose bool                             // what a Pass keeps
	ext   func(tag byte, d *decoder) error // for the frames that only a Pass has
	coder coder
	runs  runCoder

	body     []byte
	buf      []Run
	path     []byte // of the last entry
	entries  uint64
	allRuns  uint64
	volumes  uint64
	lastVol  int
	sigtar   bool
	fileSize int64
	ended    bool
}

// ReadIndex reads a stored index to its end and calls h for its parts. Its
// memory does not depend on the size of the set. An index that is cut is
// io.ErrUnexpectedEOF; every other fault of it is an error as well, so that a
// caller should undo what it did for the parts when ReadIndex fails.
func ReadIndex(r io.Reader, h Handler) error {
	ir := newReader(r)
	ir.h = h
	return ir.read()
}

func newReader(r io.Reader) *reader { return &reader{r: bufio.NewReaderSize(r, 64<<10)} }

func (ir *reader) read() error {
	err := ir.header()
	for err == nil && !ir.ended {
		err = ir.frame()
	}
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("index: %w", io.ErrUnexpectedEOF)
	}
	if err != nil {
		return err
	}
	switch _, err := ir.r.ReadByte(); {
	case err == nil:
		return errors.New("index: it goes on after its end")
	case err != io.EOF:
		return err
	}
	return nil
}

func (r *reader) header() error {
	var head [len(magic)]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		return noEOF(err)
	}
	if string(head[:]) != magic {
		return fmt.Errorf("index: it begins with %q, not %q", head[:], magic)
	}
	times, err := r.blob(maxTimes)
	if err != nil || r.h.Set == nil {
		return err
	}
	return r.h.Set(string(times))
}

// Times returns the times of the set whose index r begins with, and leaves all
// of it to be read.
func Times(r *bufio.Reader) (string, error) {
	head, err := r.Peek(len(magic) + 1 + maxTimes)
	if len(head) <= len(magic) {
		return "", noEOF(cmpErr(err, io.EOF))
	}
	d := &decoder{b: head[len(magic):]}
	times := d.blob(maxTimes, "length of times")
	if string(head[:len(magic)]) != magic || d.err != nil {
		return "", fmt.Errorf("index: it does not begin as one")
	}
	return string(times), nil
}

// noEOF makes an end of input in the middle the error that it is.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("index: %w", err)
}

// blob reads a blob into the body, which grows only as input comes.
func (r *reader) blob(limit uint64) ([]byte, error) {
	n, err := binary.ReadUvarint(r.r)
	if err != nil {
		return nil, noEOF(err)
	}
	if n > limit {
		return nil, fmt.Errorf("index: %d bytes are more than %d", n, limit)
	}
	r.body = r.body[:0]
	for left := int(n); left > 0; {
		step := min(left, max(64<<10, cap(r.body)-len(r.body)))
		r.body = slices.Grow(r.body, step)
		k, err := io.ReadFull(r.r, r.body[len(r.body):len(r.body)+step])
		if err != nil {
			return nil, noEOF(err)
		}
		r.body = r.body[:len(r.body)+k]
		left -= k
	}
	return r.body, nil
}

func (r *reader) frame() error {
	tag, err := r.r.ReadByte()
	if err != nil {
		return noEOF(err)
	}
	body, err := r.blob(maxFrame)
	if err != nil {
		return err
	}
	d := &decoder{b: body}
	switch tag {
	case tagRuns:
		return r.readRuns(d)
	case tagEntry:
		return r.readEntry(d)
	case tagVolume:
		return r.readVolume(d)
	case tagSigtar:
		return r.readSigtar(d)
	case tagEnd:
		return r.readEnd(d)
	}
	if r.ext != nil {
		return r.ext(tag, d)
	}
	return fmt.Errorf("index: unknown tag %q", tag)
}

// atEntries checks that no volume came yet.
func (r *reader) atEntries(d *decoder) {
	if r.volumes > 0 || r.sigtar {
		d.fail("an entry after the volumes")
	}
}

func (r *reader) readRuns(d *decoder) error {
	r.atEntries(d)
	if len(d.b) == 0 {
		d.fail("an empty frame")
	}
	r.buf = r.buf[:0]
	for d.err == nil && len(d.b) > 0 {
		if len(r.buf) == maxRuns {
			d.fail("more than %d runs in a frame", maxRuns)
			break
		}
		run := r.runs.read(d, r.fileSize)
		r.fileSize += run.Len
		r.buf = append(r.buf, run)
	}
	if d.err != nil {
		return d.err
	}
	r.allRuns += uint64(len(r.buf))
	if r.h.Runs == nil {
		return nil
	}
	return r.h.Runs(r.buf)
}

func (r *reader) readEntry(d *decoder) error {
	r.atEntries(d)
	shared := d.count(uint64(len(r.path)), "shared bytes")
	rest := d.blob(maxPath, "length of a path")
	if d.err != nil {
		return d.err
	}
	last := chain.Path(r.path)
	r.path = append(r.path[:shared], rest...)
	rec := &Record{Entry: chain.Entry{Path: chain.Path(r.path)}}
	if p, ok := chain.ParsePath(string(rec.Path)); !ok || p != rec.Path || len(p) > maxPath {
		d.fail("%q is no path", rec.Path)
	}
	if r.entries > 0 && !r.loose && rec.Path.Compare(last) <= 0 {
		d.fail("%q does not come after %q", rec.Path, last)
	}
	r.coder.read(d, rec, r.fileSize)
	if err := d.end(); err != nil {
		return err
	}
	switch {
	case r.fileSize > 0 && rec.Type != chain.File:
		return fmt.Errorf("index: %q is no file but has runs", rec.Path)
	case rec.Type == chain.File && rec.Size != r.fileSize && !r.loose:
		return fmt.Errorf("index: %q has %d bytes but runs of %d", rec.Path, rec.Size, r.fileSize)
	case rec.Change == 0 && !r.loose:
		return fmt.Errorf("index: %q does not tell its change", rec.Path)
	}
	r.entries++
	r.fileSize, r.runs.baseEnd = 0, 0
	if r.h.Record == nil {
		return nil
	}
	return r.h.Record(rec)
}

func (r *reader) readVolume(d *decoder) error {
	if r.fileSize > 0 {
		d.fail("runs of no entry")
	}
	if r.sigtar {
		d.fail("a volume after the sigtar")
	}
	v := &VolumeInfo{Number: d.count(maxVolume, "volume")}
	v.File = string(d.blob(maxNameLen, "length of a name"))
	v.First = chain.Path(d.blob(maxPath, "length of a path"))
	v.Last = chain.Path(d.blob(maxPath, "length of a path"))
	if d.err == nil && v.Number <= r.lastVol {
		d.fail("volume %d after volume %d", v.Number, r.lastVol)
	}
	if d.err != nil {
		return d.err
	}
	v.Layout = new(volume.Layout)
	if err := v.Layout.UnmarshalBinary(d.b); err != nil {
		return fmt.Errorf("index: volume %d: %w", v.Number, err)
	}
	r.lastVol = v.Number
	r.volumes++
	if r.h.Volume == nil {
		return nil
	}
	return r.h.Volume(v)
}

func (r *reader) readSigtar(d *decoder) error {
	if r.sigtar || r.fileSize > 0 {
		return errors.New("index: a sigtar out of place")
	}
	r.sigtar = true
	l := new(volume.Layout)
	if err := l.UnmarshalBinary(d.b); err != nil {
		return fmt.Errorf("index: sigtar: %w", err)
	}
	if r.h.Sigtar == nil {
		return nil
	}
	return r.h.Sigtar(l)
}

func (r *reader) readEnd(d *decoder) error {
	e, n, v := d.uvarint(), d.uvarint(), d.uvarint()
	if err := d.end(); err != nil {
		return err
	}
	if e != r.entries || n != r.allRuns || v != r.volumes || r.fileSize > 0 {
		return fmt.Errorf("index: it should have %d entries, %d runs and %d volumes, not %d, %d and %d",
			e, n, v, r.entries, r.allRuns, r.volumes)
	}
	r.ended = true
	return nil
}
