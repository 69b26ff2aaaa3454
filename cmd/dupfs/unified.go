package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"dupfs/chain"
	"dupfs/internal/textdiff"
)

// maxText is the size of the largest file that is compared line by line, in
// bytes: both texts are in memory.
const maxText = 16 << 20

// unified writes the differences of contents as diff -u does.
type unified struct {
	forest chain.Forest
	out    io.Writer
	paint  func(paint, string) string
	screen bool // control characters in contents must not reach the terminal
}

// readError is a content that cannot be read.
type readError struct{ error }

func (e *readError) Unwrap() error { return e.error }

// show writes what is different between two entries of one path, one of which
// may be nil.
func (u *unified) show(ctx context.Context, old, new *chain.Node) error {
	switch {
	case !isFile(old) && !isFile(new):
		return u.other(old, new)
	case old != nil && new != nil && old.Type != new.Type:
		return u.other(old, new)
	case old == nil && new.Size == 0, new == nil && old.Size == 0:
		return u.other(old, new) // there is no line of it
	}
	same, err := u.sameContent(ctx, old, new)
	if err != nil {
		return &readError{err}
	}
	if same && old != nil && new != nil {
		return u.line(badPaint, fmt.Sprintf("Files %s and %s differ in %s only", label("a", old), label("b", new), attributes(old, new)))
	}
	a, errA := u.text(ctx, old)
	b, errB := u.text(ctx, new)
	for _, err := range []error{errA, errB} {
		if errors.Is(err, errNoText) {
			return u.line(headPaint, fmt.Sprintf("%s %s and %s differ", err, label("a", old), label("b", new)))
		}
		if err != nil {
			return &readError{err}
		}
	}
	return u.hunks(old, new, a, b)
}

func isFile(n *chain.Node) bool { return n != nil && n.Type == chain.File }

// hunks writes the lines that patch reads.
func (u *unified) hunks(old, new *chain.Node, a, b []byte) error {
	if err := u.line(headPaint, "--- "+label("a", old)+"\t"+fileTime(old)); err != nil {
		return err
	}
	if err := u.line(headPaint, "+++ "+label("b", new)+"\t"+fileTime(new)); err != nil {
		return err
	}
	w := &hunkWriter{u: u}
	if err := textdiff.Unified(w, a, b); err != nil {
		return err
	}
	return w.flush()
}

// other tells of what is no file, on one line.
func (u *unified) other(old, new *chain.Node) error {
	switch {
	case old == nil:
		return u.line(goodPaint, fmt.Sprintf("Only in b: %s (%s)", quoted(new.Path.String()), kind(new)))
	case new == nil:
		return u.line(badPaint, fmt.Sprintf("Only in a: %s (%s)", quoted(old.Path.String()), kind(old)))
	case old.Type != new.Type:
		return u.line(headPaint, fmt.Sprintf("File %s is a %s while %s is a %s", label("a", old), kind(old), label("b", new), kind(new)))
	case old.Type == chain.Symlink && old.Link != new.Link:
		return u.line(headPaint, fmt.Sprintf("Links %s and %s differ: %s, then %s", label("a", old), label("b", new), quoted(old.Link), quoted(new.Link)))
	case old.Type == chain.Dir:
		return nil // of what is in it there is more to tell
	}
	return u.line(headPaint, fmt.Sprintf("%s and %s differ in %s only", label("a", old), label("b", new), attributes(old, new)))
}

func kind(n *chain.Node) string {
	return map[chain.Type]string{
		chain.File: "regular file", chain.Dir: "directory", chain.Symlink: "symbolic link", chain.Fifo: "fifo",
		chain.CharDevice: "character device", chain.BlockDevice: "block device",
	}[n.Type]
}

// attributes names what is not the same.
func attributes(old, new *chain.Node) string {
	var what []string
	if old.Mode != new.Mode {
		what = append(what, fmt.Sprintf("mode (%04o, %04o)", old.Mode, new.Mode))
	}
	if old.UID != new.UID || old.GID != new.GID {
		what = append(what, fmt.Sprintf("owner (%d:%d, %d:%d)", old.UID, old.GID, new.UID, new.GID))
	}
	if old.Mtime != new.Mtime {
		what = append(what, "time")
	}
	if len(what) == 0 {
		return "attributes"
	}
	return strings.Join(what, ", ")
}

// label names a file in a header.
func label(side string, n *chain.Node) string {
	if n == nil {
		return "/dev/null"
	}
	return quoted(side + "/" + n.Path.String())
}

// quoted writes a name as git and GNU diff do, which patch undoes: one with
// characters that could do harm, or a quote or backslash, is in quotes and has
// them as escapes.
func quoted(name string) string {
	odd := strings.ContainsAny(name, "\"\\")
	var b strings.Builder
	for rest := name; len(rest) > 0; {
		r, n := decodeRune(rest)
		switch {
		case r < 0:
			odd = true
			fmt.Fprintf(&b, `\%03o`, rest[0])
		case r == '"' || r == '\\':
			b.WriteString(`\` + rest[:n])
		default:
			b.WriteString(rest[:n])
		}
		rest = rest[n:]
	}
	if !odd {
		return name
	}
	return `"` + b.String() + `"`
}

// fileTime is a time in a header; what is not there is of 1970, which patch
// takes for "no file".
func fileTime(n *chain.Node) string {
	t := time.Unix(0, 0).UTC()
	if n != nil {
		t = n.Mtime.Time().Local()
	}
	return t.Format("2006-01-02 15:04:05.000000000 -0700")
}

// line writes one line.
func (u *unified) line(p paint, text string) error {
	_, err := fmt.Fprintln(u.out, u.paint(p, text))
	return err
}

// errNoText is why contents are not compared line by line.
var errNoText = errors.New("")

type noText string

func (e noText) Error() string        { return string(e) }
func (e noText) Is(target error) bool { return target == errNoText }

// text returns the content of a file that can be compared line by line, nil
// for no file.
func (u *unified) text(ctx context.Context, n *chain.Node) ([]byte, error) {
	if n == nil {
		return nil, nil
	}
	c, err := u.forest.OpenVersion(ctx, n.Version)
	if err != nil {
		return nil, err
	}
	if c.Size() > maxText {
		return nil, noText("Large files")
	}
	b := make([]byte, c.Size())
	if got, err := c.ReadAt(ctx, b, 0); got < len(b) {
		if err == nil || err == io.EOF {
			err = chain.Corrupt(n.Path.String(), "ends too early")
		}
		return nil, err
	}
	switch {
	case !textdiff.IsText(b):
		return nil, noText("Binary files")
	case textdiff.Lines(b) > textdiff.MaxLines:
		return nil, noText("Large files")
	}
	return b, nil
}

// sameContent compares two files: by hash where both are known, else byte by
// byte.
func (u *unified) sameContent(ctx context.Context, old, new *chain.Node) (bool, error) {
	switch {
	case old == nil || new == nil || old.Size != new.Size:
		return false, nil
	case old.HasHash && new.HasHash:
		return old.Hash == new.Hash, nil
	}
	a, err := u.forest.OpenVersion(ctx, old.Version)
	if err != nil {
		return false, err
	}
	b, err := u.forest.OpenVersion(ctx, new.Version)
	if err != nil {
		return false, err
	}
	p, q := make([]byte, catChunk), make([]byte, catChunk)
	for off := int64(0); off < a.Size(); {
		n, err := a.ReadAt(ctx, p, off)
		if err != nil && err != io.EOF {
			return false, err
		}
		m, err := b.ReadAt(ctx, q[:n], off)
		if err != nil && err != io.EOF {
			return false, err
		}
		if n == 0 || m < n {
			return false, chain.Corrupt(new.Path.String(), "ends too early")
		}
		if !bytes.Equal(p[:n], q[:n]) {
			return false, nil
		}
		off += int64(n)
	}
	return true, nil
}

// hunkWriter colours the lines of hunks, and makes them safe for a terminal.
type hunkWriter struct {
	u    *unified
	rest []byte // of a line that is not whole yet
}

func (h *hunkWriter) Write(p []byte) (int, error) {
	h.rest = append(h.rest, p...)
	for {
		i := bytes.IndexByte(h.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		if err := h.line(string(h.rest[:i])); err != nil {
			return 0, err
		}
		h.rest = h.rest[i+1:]
	}
}

func (h *hunkWriter) flush() error {
	if len(h.rest) == 0 {
		return nil
	}
	return h.line(string(h.rest))
}

func (h *hunkWriter) line(text string) error {
	var p paint
	switch text[0] {
	case '@':
		p = hunkPaint
	case '+':
		p = goodPaint
	case '-':
		p = badPaint
	}
	if h.u.screen {
		text = printableText(text)
	}
	return h.u.line(p, text)
}

// printableText is printable, but leaves tabs.
func printableText(s string) string {
	parts := strings.Split(s, "\t")
	for i, p := range parts {
		parts[i] = printable(p)
	}
	return strings.Join(parts, "\t")
}
