package sigtar

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"dupfs/chain"
	"dupfs/chain/internal/tarstream"
	"dupfs/chain/internal/tartest"
)

func file(p chain.Path, mode uint32) Member {
	return Member{Entry: chain.Entry{Path: p, Type: chain.File, Mode: mode, Size: -1}, Len: 12}
}

func dir(p chain.Path) Member { return Member{Entry: chain.Entry{Path: p, Type: chain.Dir}} }

func gone(p chain.Path) Member { return Member{Entry: chain.Entry{Path: p}, Deleted: true} }

// write writes a sigtar; the signatures are "path:mode", padded.
func write(t testing.TB, ms ...Member) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := NewWriter(&buf)
	for i := range ms {
		off, err := w.Header(&ms[i])
		if err != nil {
			t.Fatal(err)
		}
		ms[i].Off = off
		if _, err := io.WriteString(w, body(ms[i])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if buf.Len()%10240 != 0 || w.Off() != int64(buf.Len()) {
		t.Fatalf("%d bytes", buf.Len())
	}
	return buf.Bytes()
}

func body(m Member) string {
	s := fmt.Sprintf("%s:%o%012d", m.Entry.Path, m.Entry.Mode, 0)
	return s[:m.Len]
}

func members(r io.Reader) (ms []Member, err error) {
	sr := NewReader(r)
	for {
		m, err := sr.Next()
		if err == io.EOF {
			return ms, sr.Drain()
		}
		if err != nil {
			return ms, err
		}
		ms = append(ms, *m)
	}
}

func TestRoundTrip(t *testing.T) {
	rich := file("a/rich", 0o644)
	rich.Entry.Size, rich.Entry.HasHash, rich.Entry.Hash = 1<<40, true, [32]byte{5}
	rich.Entry.Mtime = chain.Time{Sec: 1700000000, Nsec: 1}
	rich.Entry.Xattrs = []chain.Xattr{{Name: "user.a", Value: []byte{0, '\n'}}}
	link := Member{Entry: chain.Entry{Path: "b", Type: chain.Symlink, Link: "x", Mode: 0o777}}
	ms := []Member{dir(""), dir("a"), rich, gone("a/x\xff"), link, file("c", 0)}
	stream := write(t, ms...)
	got, err := members(bytes.NewReader(stream))
	if err != nil || !reflect.DeepEqual(got, ms) {
		t.Fatalf("got %+v, %v\nwant %+v", got, err, ms)
	}
	names := []string{"snapshot", "snapshot/a", "signature/a/rich", "deleted/a/x\xff", "snapshot/b", "signature/c"}
	for i, m := range tartest.PythonRead(t, stream) {
		if string(m.Name) != names[i] || m.Off != ms[i].Off || m.Size != ms[i].Len {
			t.Errorf("python sees %s, %d bytes at %d", m.Name, m.Size, m.Off)
		}
	}
	// A single file as the root.
	ms = []Member{file("", 0o600)}
	if got, err := members(bytes.NewReader(write(t, ms...))); err != nil || !reflect.DeepEqual(got, ms) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestWriterRefuses(t *testing.T) {
	w := NewWriter(io.Discard)
	first := dir("b")
	if _, err := w.Header(&first); err != nil {
		t.Fatal(err)
	}
	withBody := dir("c")
	withBody.Len = 1
	for _, m := range []Member{dir("b"), file("a", 0), gone("a"), withBody, {Entry: chain.Entry{Path: "c"}}} {
		if _, err := w.Header(&m); err == nil {
			t.Errorf("%+v is taken", m)
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	for name, typ := range map[string]byte{
		"diff/a": '0', "dupfs/index": '0', "multivol_snapshot/a/1": '0', "": '0', "signature/../a": '0',
		"signature/a": '5', "snapshot/a": '0', "snapshot/b": '1', "deleted/..": '0',
	} {
		var buf bytes.Buffer
		if _, err := tarstream.NewWriter(&buf).WriteHeader(&tarstream.Header{Name: name, Type: typ}); err != nil {
			t.Fatal(err)
		}
		_, err := members(&buf)
		var corrupt *chain.CorruptError
		if !errors.As(err, &corrupt) || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v, want a CorruptError", name, err)
		}
	}
}

// merged returns what a merge yields: "path mode set", and the signatures.
func merged(streams ...[]byte) (rows []string, err error) {
	var readers []*Reader
	for _, s := range streams {
		readers = append(readers, NewReader(bytes.NewReader(s)))
	}
	m := Merge(readers...)
	for {
		e, set, err := m.Next()
		if err == io.EOF {
			return rows, m.Drain()
		}
		if err != nil {
			return rows, err
		}
		sig, err := io.ReadAll(m)
		if err != nil {
			return rows, err
		}
		if string(sig) != body(*e) || e.Len > 0 && !bytes.HasPrefix(streams[set][e.Off:], sig) {
			return rows, fmt.Errorf("%s: the signature is %q", e.Entry.Path, sig)
		}
		rows = append(rows, fmt.Sprintf("%s %o %d", e.Entry.Path, e.Entry.Mode, set))
	}
}

func TestMerge(t *testing.T) {
	full := write(t, dir(""), dir("a"), file("a/b", 1), file("a/c", 1), file("a b", 1), file("d", 1))
	tests := []struct {
		name string
		sets [][]byte
		want []string
	}{
		{"nothing", nil, nil},
		{"empty", [][]byte{nil, nil}, nil},
		{"full", [][]byte{full}, []string{". 0 0", "a 0 0", "a/b 1 0", "a/c 1 0", "a b 1 0", "d 1 0"}},
		{"newest wins", [][]byte{full, write(t, file("a/b", 2)), write(t, file("a/b", 3), file("d", 3))},
			[]string{". 0 0", "a 0 0", "a/b 3 2", "a/c 1 0", "a b 1 0", "d 3 2"}},
		{"deleted", [][]byte{full, write(t, gone("a/c"), file("d", 2)), write(t, gone("d"), file("e", 3))},
			[]string{". 0 0", "a 0 0", "a/b 1 0", "a b 1 0", "e 3 2"}},
		{"back again", [][]byte{full, write(t, gone("d")), write(t, file("d", 3))},
			[]string{". 0 0", "a 0 0", "a/b 1 0", "a/c 1 0", "a b 1 0", "d 3 2"}},
		{"deleted root", [][]byte{full, write(t, gone(""), gone("d"))}, []string{". 0 0", "a 0 0", "a/b 1 0", "a/c 1 0", "a b 1 0"}},
		{"deleted twice", [][]byte{full, write(t, gone("d")), write(t, gone("d"))}, []string{". 0 0", "a 0 0", "a/b 1 0", "a/c 1 0", "a b 1 0"}},
		{"empty set between", [][]byte{full, nil, write(t, gone("a b"))}, []string{". 0 0", "a 0 0", "a/b 1 0", "a/c 1 0", "d 1 0"}},
	}
	for _, test := range tests {
		got, err := merged(test.sets...)
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, %v\nwant %q", test.name, got, err, test.want)
		}
	}
}

func TestMergeErrors(t *testing.T) {
	full := write(t, dir(""), file("a", 1), file("b", 1))
	head := full[:512*5] // three headers and two signatures
	restarted := append(bytes.Clone(head), full...)
	_, err := merged(write(t, dir("")), restarted)
	if !errors.Is(err, ErrOrder) || !strings.Contains(err.Error(), "sigtar 1") {
		t.Errorf("a sigtar that begins again: %v", err)
	}
	if ms, err := members(bytes.NewReader(restarted)); err != nil || len(ms) != 6 {
		t.Errorf("read by itself: %d records, %v", len(ms), err)
	}
	bad := bytes.Clone(full)
	bad[512*1+3] ^= 1
	rows, err := merged(full, bad)
	var corrupt *chain.CorruptError
	if !errors.As(err, &corrupt) || !strings.Contains(err.Error(), "sigtar 1") || len(rows) != 1 {
		t.Errorf("%q, %v", rows, err)
	}
	broken := errors.New("broken")
	m := Merge(NewReader(bytes.NewReader(full)), NewReader(io.MultiReader(bytes.NewReader(full), errReader{broken})))
	for err = nil; err == nil; {
		_, _, err = m.Next()
	}
	if err != io.EOF {
		t.Fatal(err)
	}
	if _, _, err := m.Next(); err != io.EOF {
		t.Error(err)
	}
	if err := m.Drain(); !errors.Is(err, broken) {
		t.Errorf("Drain: %v", err)
	}
}

type errReader struct{ err error }

func (r errReader) Read([]byte) (int, error) { return 0, r.err }

// TestMergeModel compares merges of random sigtars with a map.
func TestMergeModel(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	paths := []chain.Path{"", "a", "a/b", "a/b/c", "a b", "a.b", "b", "c"}
	for range 200 {
		state := map[chain.Path]string{}
		var sets [][]byte
		for set := range 1 + r.IntN(5) {
			var ms []Member
			for _, p := range paths {
				switch r.IntN(4) {
				case 0:
					ms = append(ms, file(p, uint32(set)))
					state[p] = fmt.Sprintf("%s %o %d", p, set, set)
				case 1:
					ms = append(ms, gone(p))
					if p != chain.Root {
						delete(state, p)
					}
				}
			}
			sets = append(sets, write(t, ms...))
		}
		var want []string
		for _, p := range paths {
			if row, ok := state[p]; ok {
				want = append(want, row)
			}
		}
		if got, err := merged(sets...); err != nil || !slices.Equal(got, want) {
			t.Fatalf("got %q, %v\nwant %q", got, err, want)
		}
	}
}

// TestStock merges the sigtars of a chain by duplicity 0.8.22 (the signatures
// made zeros, to be small) and compares with what duplicity restored.
func TestStock(t *testing.T) {
	files, err := filepath.Glob("testdata/plain/*.sigtar.gz")
	if err != nil || len(files) != 5 {
		t.Fatal(files, err)
	}
	slices.Sort(files)
	for i := range files {
		var readers []*Reader
		for _, f := range files[:i+1] {
			readers = append(readers, NewReader(bytes.NewReader(tartest.Gunzip(t, f))))
		}
		want := tartest.State(t, fmt.Sprintf("testdata/plain/%d.json.gz", i))
		n := 0
		m := Merge(readers...)
		for {
			e, _, err := m.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			n++
			row, ok := want[e.Entry.Path]
			if !ok {
				t.Errorf("point %d: %s should not be", i, e.Entry.Path)
			} else if diff := row.Differ(e.Entry); diff != "" {
				t.Errorf("point %d: %s: %s", i, e.Entry.Path, diff)
			}
			// A signature of n blocks bounds the size.
			if blocks := (e.Len - 12) / 12; e.Entry.Type == chain.File && (row.Size > blocks*2048 || row.Size <= (blocks-1)*512 && blocks > 0) {
				t.Errorf("point %d: %s: %d blocks for %d bytes", i, e.Entry.Path, blocks, row.Size)
			}
		}
		if n != len(want) {
			t.Errorf("point %d: %d entries, want %d", i, n, len(want))
		}
	}
}

func FuzzSigtar(f *testing.F) {
	f.Add(write(f, dir(""), file("a", 1), gone("b"))[:4096], write(f, gone("a"), file("c", 2))[:4096])
	f.Add([]byte{}, []byte{0})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		a, b = tartest.FixSums(a), tartest.FixSums(b)
		m := Merge(NewReader(bytes.NewReader(a)), NewReader(bytes.NewReader(b)))
		var last chain.Path
		for first := true; ; first = false {
			e, set, err := m.Next()
			if err != nil {
				break
			}
			if !first && e.Entry.Path.Compare(last) <= 0 || e.Deleted || set < 0 || set > 1 {
				t.Fatalf("%+v after %q", e, last)
			}
			last = e.Entry.Path
		}
	})
}
