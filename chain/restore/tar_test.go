package restore

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"dupfs/chain"
	"dupfs/chain/chaintest"
)

// tarOf writes the last point of a forest.
func tarOf(t *testing.T, f *chaintest.Forest, w io.Writer, o TarOptions) (*Report, error) {
	t.Helper()
	points, err := f.Points(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tree, err := f.Tree(t.Context(), points[len(points)-1].Number)
	if err != nil {
		t.Fatal(err)
	}
	return Tar(t.Context(), f, tree, chain.Root, w, o)
}

// Go's own reader finds what the tree has, in order, files of all sizes among
// it.
func TestTarStream(t *testing.T) {
	var items []chaintest.Item
	want := map[string]int{}
	for i := range 60 {
		n := i * 1000
		if i%10 == 9 {
			n = maxSmall + i // read while it is written
		}
		name := fmt.Sprintf("d%d/f%02d", i%3, i)
		want["./"+name] = n
		items = append(items, chaintest.File(name, strings.Repeat("x", n)))
	}
	var out bytes.Buffer
	report, err := tarOf(t, forest(items...), &out, TarOptions{})
	if err != nil || report.Files != 60 || report.Dirs != 4 || report.Failed != 0 || out.Len()%tarRecord != 0 {
		t.Fatalf("%+v %v, %d bytes", report, err, out.Len())
	}
	last := ""
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); err != nil || n != int64(want[h.Name]) {
			t.Errorf("%s: %d bytes, %v", h.Name, n, err)
		}
		if delete(want, h.Name); h.Name < last {
			t.Errorf("%s comes after %s", h.Name, last)
		}
		last = h.Name
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

// fullWriter fails after some bytes.
type fullWriter struct{ left int }

var errFull = errors.New("no more")

func (w *fullWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		return 0, errFull
	}
	w.left -= len(p)
	return len(p), nil
}

// A writer that fails ends the stream with its error, and so does the end of
// the context; nothing goes on behind.
func TestTarStops(t *testing.T) {
	var items []chaintest.Item
	for i := range 200 {
		items = append(items, chaintest.File(fmt.Sprintf("f%03d", i), strings.Repeat("x", 5000)))
	}
	f := forest(items...)
	for _, n := range []int{0, 512, 40_000} {
		if _, err := tarOf(t, f, &fullWriter{n}, TarOptions{}); !errors.Is(err, errFull) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	points, _ := f.Points(ctx)
	tree, err := f.Tree(ctx, points[0].Number)
	if err != nil {
		t.Fatal(err)
	}
	stop := writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	if _, err := Tar(ctx, f, tree, chain.Root, stop, TarOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// An ACL in the kernel's form becomes the text that tar programs read.
func TestACLText(t *testing.T) {
	acl := []byte("\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x06\x00\x39\x30\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff")
	if got, ok := aclText(acl); !ok || got != "user::rwx,user:12345:rw-,group::r-x,mask::rwx,other::---" {
		t.Errorf("%q %v", got, ok)
	}
	for _, bad := range [][]byte{nil, acl[:7], append([]byte{3}, acl[1:]...), append(bytes.Clone(acl[:4]), 64, 0, 0, 0, 0, 0, 0, 0)} {
		if got, ok := aclText(bad); ok {
			t.Errorf("%x: %q", bad, got)
		}
	}
	for in, want := range map[chain.Time]string{
		{Sec: 5, Nsec: 1}: "5.000000001", {Sec: -1, Nsec: 5e8}: "-0.500000000", {Sec: -2, Nsec: 25e7}: "-1.750000000", {Sec: -3}: "-3",
	} {
		if got := tarTime(in); got != want {
			t.Errorf("%v: %s, want %s", in, got, want)
		}
	}
}
