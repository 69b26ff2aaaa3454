package backup

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestFork(t *testing.T) {
	content := make([]byte, 1_000_003)
	for i := range content {
		content[i] = byte(i * i >> 7)
	}
	var beside bytes.Buffer
	f := newFork(iotest.HalfReader(bytes.NewReader(content)), &beside)
	got, err := io.ReadAll(f)
	if err2 := f.close(); err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	if !bytes.Equal(got, content) || !bytes.Equal(beside.Bytes(), content) {
		t.Fatalf("%d and %d bytes of %d, or others", len(got), beside.Len(), len(content))
	}
}

// full is a writer that takes n bytes.
type full struct{ n int }

var errFull = errors.New("full")

func (w *full) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// A writer that fails ends the reading of what has no end, and is told of.
func TestForkFails(t *testing.T) {
	f := newFork(endless{}, &full{1 << 20})
	if _, err := io.Copy(io.Discard, f); err != nil {
		t.Fatal(err)
	}
	if err := f.close(); !errors.Is(err, errFull) {
		t.Fatal(err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
