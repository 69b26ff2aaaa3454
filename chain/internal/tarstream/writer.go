package tarstream

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

const (
	maxOctal7  = 1<<21 - 1 // what seven octal digits hold
	maxOctal11 = 1<<33 - 1
)

// Writer writes a tar stream.
type Writer struct {
	w    io.Writer
	off  int64
	left int64 // of the current body
	pad  int64 // after it
	err  error // of w: nothing can follow
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Off returns the bytes written so far, padding and headers included.
func (w *Writer) Off() int64 { return w.off }

// Err returns the error of the writer beneath, after which nothing can follow.
func (w *Writer) Err() error { return w.err }

// WriteHeader begins a member and returns the plainOff of its body, of which
// exactly h.Size bytes must follow. An error that is not one of the writer
// beneath leaves the stream as it was.
func (w *Writer) WriteHeader(h *Header) (int64, error) {
	if w.left > 0 {
		return 0, fmt.Errorf("the body of a member is %d bytes short", w.left)
	}
	buf, err := h.encode()
	if err != nil {
		return 0, err
	}
	if err := w.raw(buf); err != nil {
		return 0, err
	}
	if hasBody(h.Type) {
		w.left, w.pad = h.Size, padding(h.Size)
	}
	return w.off, nil
}

// Write writes a part of the current body. The padding follows the last byte
// at once.
func (w *Writer) Write(p []byte) (int, error) {
	if int64(len(p)) > w.left {
		return 0, errors.New("the body of a member is too long")
	}
	if err := w.raw(p); err != nil {
		return 0, err
	}
	w.left -= int64(len(p))
	if w.left == 0 && w.pad > 0 {
		var zeros [blockSize]byte
		pad := w.pad
		w.pad = 0
		if err := w.raw(zeros[:pad]); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// Close writes two zero blocks, and more up to a multiple of record bytes,
// which is a multiple of 512. It does not close the writer beneath.
func (w *Writer) Close(record int64) error {
	if w.left > 0 {
		return fmt.Errorf("the body of a member is %d bytes short", w.left)
	}
	n := int64(2 * blockSize)
	if over := (w.off + n) % record; over > 0 {
		n += record - over
	}
	return w.raw(make([]byte, n))
}

// raw writes p to the writer beneath.
func (w *Writer) raw(p []byte) error {
	if w.err != nil {
		return w.err
	}
	n, err := w.w.Write(p)
	w.off += int64(n)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	w.err = err
	return err
}

// encode returns the blocks of the header: an x header if one is needed, and
// the header itself.
func (h *Header) encode() ([]byte, error) {
	if h.Size < 0 || h.Major > maxOctal7 || h.Minor > maxOctal7 {
		return nil, fmt.Errorf("%s: a number that tar cannot hold", h.Name)
	}
	var buf []byte
	if records := h.records(); len(records) > 0 {
		if len(records) > MaxExtended {
			return nil, fmt.Errorf("%s: %w", h.Name, ErrTooLarge)
		}
		x := block(&Header{Name: "././@PaxHeader", Type: 'x', Size: int64(len(records))})
		buf = append(buf, x[:]...)
		buf = append(buf, records...)
		buf = append(buf, make([]byte, padding(int64(len(records))))...)
	}
	b := block(h)
	return append(buf, b[:]...), nil
}

// records returns the body of the x header, as Python writes it: only what
// the header block cannot hold, then the extra records.
func (h *Header) records() []byte {
	var b []byte
	texts := []struct {
		key, value string
		max        int
	}{{"path", h.Name, 100}, {"linkpath", h.Link, 100}, {"uname", h.User, 32}, {"gname", h.Group, 32}}
	for _, t := range texts {
		// Python takes values that are not UTF-8 as bytes only if told so.
		if !utf8.ValidString(t.value) {
			b = appendRecord(b, "hdrcharset", "BINARY")
			break
		}
	}
	for _, t := range texts {
		if len(t.value) > t.max || !isASCII(t.value) {
			b = appendRecord(b, t.key, t.value)
		}
	}
	for _, n := range []struct {
		key   string
		value int64
		max   int64
	}{{"uid", int64(h.UID), maxOctal7}, {"gid", int64(h.GID), maxOctal7}, {"size", h.Size, maxOctal11}, {"mtime", h.Mtime.Sec, maxOctal11}} {
		if n.value > n.max {
			b = appendRecord(b, n.key, strconv.FormatInt(n.value, 10))
		}
	}
	for _, r := range h.Records {
		b = appendRecord(b, r.Key, r.Value)
	}
	return b
}

// appendRecord appends "length key=value\n", the length counting itself.
func appendRecord(b []byte, key, value string) []byte {
	n := len(key) + len(value) + 3
	size := n + len(strconv.Itoa(n))
	size = n + len(strconv.Itoa(size))
	b = strconv.AppendInt(b, int64(size), 10)
	b = append(b, ' ')
	b = append(b, key...)
	b = append(b, '=')
	b = append(b, value...)
	return append(b, '\n')
}

// block returns the header block. What does not fit is cut, or zero: the x
// header has it.
func block(h *Header) (b [blockSize]byte) {
	copy(fieldName().of(&b), toASCII(h.Name))
	octal(fieldMode().of(&b), int64(h.Mode))
	octal(fieldUID().of(&b), upTo(int64(h.UID), maxOctal7))
	octal(fieldGID().of(&b), upTo(int64(h.GID), maxOctal7))
	octal(fieldSize().of(&b), upTo(h.Size, maxOctal11))
	octal(fieldMtime().of(&b), upTo(h.Mtime.Sec, maxOctal11))
	b[offType] = h.Type
	copy(fieldLink().of(&b), toASCII(h.Link))
	copy(fieldMagic().of(&b), ustarMagic+"00")
	copy(fieldUser().of(&b), toASCII(h.User))
	copy(fieldGroup().of(&b), toASCII(h.Group))
	if h.Type == TypeChar || h.Type == TypeBlock {
		octal(fieldMajor().of(&b), int64(h.Major))
		octal(fieldMinor().of(&b), int64(h.Minor))
	}
	f := fieldChecksum().of(&b)
	octal(f[:7], checksum(&b))
	f[7] = ' '
	return b
}

// upTo returns v, or 0 if a field with that limit cannot hold it.
func upTo(v, limit int64) int64 {
	if v < 0 || v > limit {
		return 0
	}
	return v
}

// toASCII replaces what is not ASCII by question marks.
func toASCII(s string) string {
	if isASCII(s) {
		return s
	}
	b := []byte(s)
	for i, c := range b {
		if c >= utf8.RuneSelf {
			b[i] = '?'
		}
	}
	return string(b)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
