package store

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"dupfs/backends/backendtest"
	"dupfs/backends/mem"
	"dupfs/chain"
)

// copyTest is a store with one volume, and another one that gets it.
type copyTest struct {
	from *backendtest.Faulty
	to   *mem.Backend
	f    *File
	data []byte // as stored
}

// run copies the volume, and reports whether it has arrived.
func (c *copyTest) run(t *testing.T, target []backendtest.Fault, sum []byte) (arrived bool, err error) {
	t.Helper()
	s, to := New(c.from, Options{}), New(backendtest.NewFaulty(c.to, target...), Options{TempDir: t.TempDir()})
	err = s.CopyTo(t.Context(), to, c.f.Stored, sum)
	if cerr := errors.Join(s.Close(), to.Close()); cerr != nil {
		t.Error(cerr)
	}
	files, lerr := c.to.List(t.Context())
	if lerr != nil || len(files) > 1 {
		t.Fatalf("%v, %v", files, lerr)
	}
	if len(files) == 1 && !bytes.Equal(backendtest.Read(t, c.to, c.f.File()), c.data) {
		t.Error("another file has arrived")
	}
	return len(files) == 1, err
}

// A copy is what the manifest says, or there is an error and none.
func TestCopyTo(t *testing.T) {
	b := newBench(t, Options{})
	f := b.put(t, chain.Gzip, content(3*testChunk))
	data := backendtest.Read(t, b.mem, f.File())
	sum := f.Layout.SHA1[:]
	for _, tt := range []struct {
		name         string
		source, dest []backendtest.Fault
		sum          []byte
		want         string // of the error; "": none
		arrives      bool
	}{
		{name: "whole", sum: sum, arrives: true},
		{name: "without a sum", arrives: true},
		{name: "another sum", sum: []byte("another"), want: "SHA-1"},
		{name: "wrong byte", source: []backendtest.Fault{{Op: backendtest.Get, Kind: backendtest.Wrong, At: 100}}, sum: sum, want: "SHA-1"},
		{name: "cut", source: []backendtest.Fault{{Op: backendtest.Get, Kind: backendtest.Cut, At: 100}}, want: "it has 100 bytes"},
		{name: "broken", source: []backendtest.Fault{{Op: backendtest.Get, Kind: backendtest.Break, At: 100}}, sum: sum, want: f.File()},
		{name: "no source", source: []backendtest.Fault{{Op: backendtest.Get}}, sum: sum, want: f.File()},
		{name: "no target", dest: []backendtest.Fault{{Op: backendtest.Put}}, sum: sum, want: f.File()},
		{name: "no answer", dest: []backendtest.Fault{{Op: backendtest.Put, Kind: backendtest.Lost}}, sum: sum, want: f.File(), arrives: true},
		{name: "not to be asked", dest: []backendtest.Fault{{Op: backendtest.Stat}}, sum: sum, want: "check of the upload", arrives: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &copyTest{backendtest.NewFaulty(b.mem, tt.source...), mem.New(), f, data}
			arrived, err := c.run(t, tt.dest, tt.sum)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if arrived != tt.arrives {
				t.Errorf("arrived: %v", arrived)
			}
		})
	}
}

// A damaged source is healed on the way.
func TestCopyHealed(t *testing.T) {
	p, b, f := ward(t, chain.OpenPGP, content(3*testChunk))
	whole := backendtest.Read(t, b.mem, f.File())
	backendtest.Write(t, b.mem, f.File(), whole[:len(whole)/2])
	s, to := p.open(t, nil), mem.New()
	target := New(to, Options{TempDir: t.TempDir()})
	defer target.Close()
	if err := s.CopyTo(t.Context(), target, f.Stored, f.Layout.SHA1[:]); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(backendtest.Read(t, to, f.File()), whole) || p.asked.Load() != 1 {
		t.Errorf("another file; healed %d times", p.asked.Load())
	}
	if err := s.CopyTo(t.Context(), target, f.Stored, []byte("another")); err == nil {
		t.Error("copied with another sum")
	}
}

// Where the file system has no files without a name there is one for a moment.
func TestNamedTemp(t *testing.T) {
	dir := t.TempDir()
	f, err := namedTemp(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write([]byte("text")); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := namedTemp(dir + "/not there"); err == nil {
		t.Error("made in a directory that is not there")
	}
}
