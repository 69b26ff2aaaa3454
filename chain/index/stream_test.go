package index

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"dupfs/chain"
	"dupfs/chain/difftar"
)

func testSet() *chain.Set {
	return &chain.Set{Full: true, Start: time.Unix(1700000000, 0).UTC(), End: time.Unix(1700000000, 0).UTC()}
}

// stream is an index in memory.
type stream struct {
	records []Record
	runs    [][]Run
}

func (s *stream) write(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b, testSet())
	for i := range s.records {
		for _, r := range s.runs[i] {
			if err := w.Runs(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Entry(&s.records[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, n := w.Sum(); n != int64(b.Len()) {
		t.Fatalf("sum of %d bytes, %d written", n, b.Len())
	}
	return b.Bytes()
}

func readStream(r io.Reader) (*stream, error) {
	s := &stream{}
	var runs []Run
	err := ReadIndex(r, Handler{
		Set:  func(times string) error { return nil },
		Runs: func(r []Run) error { runs = append(runs, r...); return nil },
		Record: func(r *Record) error {
			s.records = append(s.records, *r)
			s.runs = append(s.runs, runs)
			runs = nil
			return nil
		},
	})
	return s, err
}

// modelStream is set ord of a random line.
func modelStream(seed uint64, ord int) *stream {
	m := newModel(rand.New(rand.NewPCG(seed, 7)), ord+1)
	s := &stream{records: m.sets[ord]}
	for _, r := range s.records {
		s.runs = append(s.runs, m.runs[ord][r.Path])
	}
	return s
}

func TestStreamRoundTrip(t *testing.T) {
	streams := []*stream{{}, manyOwners(), manyFrames()}
	for seed := range uint64(20) {
		streams = append(streams, modelStream(seed, int(seed%3)))
	}
	for i, want := range streams {
		b := want.write(t)
		for _, r := range []io.Reader{bytes.NewReader(b), iotest.OneByteReader(bytes.NewReader(b)), iotest.DataErrReader(bytes.NewReader(b))} {
			got, err := readStream(r)
			if err != nil {
				t.Fatalf("%d: %v", i, err)
			}
			if a, b := fmt.Sprintf("%+v", got.records), fmt.Sprintf("%+v", want.records); a != b {
				t.Fatalf("%d:\n got %s\nwant %s", i, a, b)
			}
			for k := range want.runs {
				if !slices.Equal(got.runs[k], want.runs[k]) {
					t.Fatalf("%d: %s: runs %v, want %v", i, want.records[k].Path, got.runs[k], want.runs[k])
				}
			}
		}
	}
}

// manyOwners has more owners than a coder remembers, most of them twice.
func manyOwners() *stream {
	s := &stream{}
	for i := range 3 * maxOwners {
		s.records = append(s.records, Record{Entry: chain.Entry{Path: chain.Path(fmt.Sprintf("%06d", i)), Type: chain.Dir,
			UID: uint32(i % (maxOwners + 10)), User: fmt.Sprint(i % 3)}, Change: difftar.Snapshot, SigLen: -1})
		s.runs = append(s.runs, nil)
	}
	return s
}

// manyFrames has a file whose runs fill several frames.
func manyFrames() *stream {
	var runs []Run
	for i := range int64(2*frameRuns + 1) {
		runs = append(runs, Run{FileOff: i, Len: 1, Volume: int(i % 3), Off: 1000 - i%7})
	}
	return &stream{
		records: []Record{{Entry: chain.Entry{Path: "f", Type: chain.File, Size: int64(len(runs)),
			Data: []chain.Extent{}, Xattrs: []chain.Xattr{{Name: "user.x", Value: bytes.Repeat([]byte{7}, 100_000)}}}, Change: difftar.Diff, SigLen: -1}},
		runs: [][]Run{runs},
	}
}

// Wherever an index is cut, it is an error.
func TestStreamCut(t *testing.T) {
	b := modelStream(3, 1).write(t)
	for n := range b {
		if _, err := readStream(bytes.NewReader(b[:n])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut at %d of %d: %v", n, len(b), err)
		}
	}
	if _, err := readStream(bytes.NewReader(append(b, 0))); err == nil {
		t.Fatal("a byte too many is no error")
	}
	fail := errors.New("network")
	if _, err := readStream(io.MultiReader(bytes.NewReader(b[:len(b)/2]), iotest.ErrReader(fail))); !errors.Is(err, fail) {
		t.Fatal(err)
	}
}

// Whatever a byte of an index becomes, the index is refused, or what it tells can
// be written and is read the same again.
func TestStreamDamage(t *testing.T) {
	for _, s := range []*stream{modelStream(3, 1), every()} {
		b := s.write(t)
		refused := 0
		for i := range b {
			for _, v := range []byte{0, 1, 0x7f, 0x80, 0xff, b[i] + 1, b[i] ^ 0x40} {
				bad := bytes.Clone(b)
				bad[i] = v
				got, err := readStream(bytes.NewReader(bad))
				if err != nil {
					refused++
					continue
				}
				again, err := readStream(bytes.NewReader(got.write(t)))
				if err != nil || fmt.Sprintf("%+v", again.records) != fmt.Sprintf("%+v", got.records) {
					t.Fatalf("byte %d is %d: %v, or other records", i, v, err)
				}
			}
		}
		if refused < len(b) {
			t.Errorf("only %d damages of %d bytes were refused", refused, len(b))
		}
	}
}

// every has an entry with everything that can be told of one.
func every() *stream {
	e := chain.Entry{Path: "a/b", Type: chain.File, Mode: 0o4755, UID: 1000, GID: 1001, User: "u", Group: "g",
		Mtime: chain.Time{Sec: -5, Nsec: 6}, Size: 30, LinkGroup: 9, Hash: [32]byte{1}, HasHash: true,
		Xattrs: []chain.Xattr{{Name: "user.a", Value: []byte("v")}, {Name: "user.b"}},
		Data:   []chain.Extent{{Off: 3, Len: 4}, {Off: 10, Len: 5}}}
	dev := chain.Entry{Path: "c", Type: chain.BlockDevice, Major: 8, Minor: 1}
	link := chain.Entry{Path: "d", Type: chain.Symlink, Link: "a/b"}
	return &stream{
		records: []Record{
			{Entry: e, Change: difftar.Diff, SigOff: 512, SigLen: 100},
			{Entry: dev, Change: difftar.Snapshot, SigLen: -1}, {Entry: link, Change: difftar.Snapshot, SigLen: -1},
			{Entry: chain.Entry{Path: "e"}, Change: difftar.Deleted, SigLen: -1},
		},
		runs: [][]Run{{{Len: 10, Volume: 1, Off: 700}, {FileOff: 10, Len: 12, Off: 3}, {FileOff: 22, Len: 8, Volume: 2, Off: 5}}, nil, nil, nil},
	}
}

func TestWriterRefuses(t *testing.T) {
	file := Record{Entry: chain.Entry{Path: "f", Type: chain.File, Size: 5}, Change: difftar.Snapshot, SigLen: -1}
	run := Run{Len: 5, Volume: 1}
	for name, fn := range map[string]func(w *Writer) error{
		"size":       func(w *Writer) error { return w.Entry(&file) },
		"gap":        func(w *Writer) error { return w.Runs(Run{FileOff: 1, Len: 1, Volume: 1}) },
		"empty run":  func(w *Writer) error { return w.Runs(Run{Volume: 1}) },
		"negative":   func(w *Writer) error { return w.Runs(Run{Len: 1, Volume: 1, Off: -1}) },
		"left runs":  func(w *Writer) error { return cmpErr(w.Runs(run), w.Close(nil, nil)) },
		"runs of":    func(w *Writer) error { d := file; d.Type = chain.Dir; return cmpErr(w.Runs(run), w.Entry(&d)) },
		"order":      func(w *Writer) error { return errors.Join(w.Runs(run), w.Entry(&file), w.Runs(run), w.Entry(&file)) },
		"mode":       func(w *Writer) error { d := file; d.Mode = 0o10000; return errors.Join(w.Runs(run), w.Entry(&d)) },
		"change":     func(w *Writer) error { d := file; d.Change = 0; return errors.Join(w.Runs(run), w.Entry(&d)) },
		"nanosecond": func(w *Writer) error { d := file; d.Mtime.Nsec = -1; return errors.Join(w.Runs(run), w.Entry(&d)) },
		"sparse": func(w *Writer) error {
			d := file
			d.Data = []chain.Extent{{Off: 3, Len: 1}, {Off: 2, Len: 1}}
			return errors.Join(w.Runs(run), w.Entry(&d))
		},
	} {
		w := NewWriter(io.Discard, testSet())
		if err := fn(w); err == nil {
			t.Errorf("%s: no error", name)
		} else if again := w.Close(nil, nil); again == nil {
			t.Errorf("%s: forgotten", name)
		}
	}
}

// The index is small: nothing of what can be predicted costs anything.
func TestStreamSize(t *testing.T) {
	s := &stream{}
	var off int64
	for i := range 1000 {
		s.records = append(s.records, Record{Entry: chain.Entry{Path: chain.Path(fmt.Sprintf("dir/file%04d", i)), Type: chain.File, Mode: 0o644,
			User: "me", Group: "me", UID: 1000, GID: 1000, Size: 700, Mtime: chain.Time{Sec: 1700000000 + int64(i)}},
			Change: difftar.Snapshot, SigOff: padded(0) + int64(i)*1024, SigLen: 36})
		s.runs = append(s.runs, []Run{{Len: 700, Volume: 1, Off: off + 512}})
		off += 512 + 1024
	}
	if n := len(s.write(t)) / 1000; n > 20 {
		t.Errorf("%d bytes an entry, before compression", n)
	}
}

func FuzzReadIndex(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte(magic + "\x00Z\x03\x00\x00\x00"))
	f.Add([]byte(magic + "\x00R\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))
	f.Add([]byte(magic + "\x00E\x03\x00\x01a"))
	for seed := range uint64(5) {
		f.Add(modelStream(seed, 2).write(f))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := readStream(bytes.NewReader(b))
		if err != nil {
			return
		}
		if !strings.HasPrefix(string(b), magic) {
			t.Fatal("accepted without its magic")
		}
		// What parses can be written, and is the same when read again.
		again, err := readStream(bytes.NewReader(s.write(t)))
		if err != nil {
			t.Fatal(err)
		}
		if a, b := fmt.Sprintf("%+v", again), fmt.Sprintf("%+v", s); a != b {
			t.Fatalf("%s\n%s", a, b)
		}
	})
}
