package difftar

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"dupfs/chain"
	"dupfs/chain/internal/tarstream"
	"dupfs/chain/internal/tartest"
)

// volumes returns the fixture's volumes in the order of sets and numbers.
func volumes(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata/plain", pattern))
	if err != nil || len(files) == 0 {
		t.Fatal(pattern, err)
	}
	slices.Sort(files)
	return files
}

func members(r io.Reader) (ms []Member, err error) {
	tr := NewReader(r)
	for {
		m, err := tr.Next()
		if err == io.EOF {
			return ms, tr.Drain()
		}
		if err != nil {
			return ms, err
		}
		ms = append(ms, *m)
	}
}

// TestStockVolumes reads the volumes of a chain by duplicity 0.8.22 (their
// bodies made zeros, to be small) and compares the state at each point with
// what duplicity restored there.
func TestStockVolumes(t *testing.T) {
	state := map[chain.Path]chain.Entry{}
	sizes := map[chain.Path]int64{} // of what was stored whole
	sets := [][]string{volumes(t, "duplicity-full.*")}
	for _, v := range volumes(t, "duplicity-inc.*") {
		sets = append(sets, []string{v})
	}
	pieces, kinds := 0, map[Kind]int{}
	for i, set := range sets {
		var last Member
		for _, volume := range set {
			ms, err := members(bytes.NewReader(tartest.Gunzip(t, volume)))
			if err != nil {
				t.Fatalf("%s: %v", volume, err)
			}
			for _, m := range ms {
				p := m.Entry.Path
				kinds[m.Kind]++
				if m.Piece > 1 {
					pieces++
					if last.Entry.Path != p || last.Piece != m.Piece-1 || last.Kind != m.Kind {
						t.Errorf("%s, piece %d, after %s, piece %d", p, m.Piece, last.Entry.Path, last.Piece)
					}
				} else if c := p.Compare(last.Entry.Path); c < 0 || c == 0 && p != chain.Root {
					t.Errorf("%s after %s", p, last.Entry.Path)
				}
				switch {
				case m.Kind == Deleted:
					delete(state, p)
					delete(sizes, p)
				case m.Kind == Diff:
					delete(sizes, p)
				case m.Piece > 1:
					sizes[p] += m.Len
				default:
					sizes[p] = m.Len
				}
				if m.Kind != Deleted {
					state[p] = m.Entry
				}
				last = m
			}
		}
		want := tartest.State(t, "testdata/plain/"+string(rune('0'+i))+".json.gz")
		for p, row := range want {
			e, ok := state[p]
			if !ok {
				t.Errorf("point %d: %s is missing", i, p)
			} else if diff := row.Differ(e); diff != "" {
				t.Errorf("point %d: %s: %s", i, p, diff)
			}
			if n, ok := sizes[p]; ok && row.Type == "file" && n != row.Size {
				t.Errorf("point %d: %s: size %d, want %d", i, p, n, row.Size)
			}
		}
		if len(state) != len(want) {
			t.Errorf("point %d: %d entries, want %d", i, len(state), len(want))
		}
	}
	if pieces < 20 || kinds[Snapshot] < 100 || kinds[Diff] < 5 || kinds[Deleted] < 5 {
		t.Errorf("%d pieces, %v: the fixture is not what it was", pieces, kinds)
	}
}

func TestNames(t *testing.T) {
	file, dir := chain.Entry{Type: chain.File, Size: -1}, chain.Entry{Type: chain.Dir}
	at := func(e chain.Entry, p chain.Path) chain.Entry { e.Path = p; return e }
	tests := []struct {
		name    string
		typ     byte
		want    Member
		written string // if not name
	}{
		{"snapshot/a/b", '0', Member{Entry: at(file, "a/b"), Kind: Snapshot}, ""},
		{"snapshot/a/b/", '5', Member{Entry: at(dir, "a/b"), Kind: Snapshot}, ""},
		{"snapshot/a/b", '5', Member{Entry: at(dir, "a/b"), Kind: Snapshot}, "snapshot/a/b/"},
		{"snapshot/./", '5', Member{Entry: dir, Kind: Snapshot}, ""},
		{"snapshot/", '5', Member{Entry: dir, Kind: Snapshot}, "snapshot/./"},
		{"snapshot", '5', Member{Entry: dir, Kind: Snapshot}, "snapshot/./"},
		{"snapshot/", '0', Member{Entry: file, Kind: Snapshot}, ""},
		{"diff/", '0', Member{Entry: file, Kind: Diff}, ""},
		{"diff/x y", '0', Member{Entry: at(file, "x y"), Kind: Diff}, ""},
		{"deleted/x", '0', Member{Entry: chain.Entry{Path: "x"}, Kind: Deleted}, ""},
		{"deleted/", '0', Member{Kind: Deleted}, ""},
		{"multivol_snapshot/num/12/1", '0', Member{Entry: at(file, "num/12"), Kind: Snapshot, Piece: 1}, ""},
		{"multivol_diff/a/2147483647", '0', Member{Entry: at(file, "a"), Kind: Diff, Piece: 2147483647}, ""},
		{"multivol_snapshot/./3", '0', Member{Entry: file, Kind: Snapshot, Piece: 3}, ""},
		{"multivol_snapshot//3", '0', Member{Entry: file, Kind: Snapshot, Piece: 3}, "multivol_snapshot/./3"},
		{"snapshot/multivol_diff/1", '0', Member{Entry: at(file, "multivol_diff/1"), Kind: Snapshot}, ""},
	}
	for _, test := range tests {
		ms, err := members(bytes.NewReader(rawTar(t, test.name, test.typ)))
		if err != nil || len(ms) != 1 {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		got := ms[0]
		got.Off, got.Entry.Mtime = 0, chain.Time{}
		if !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
		want := test.written
		if want == "" {
			want = test.name
		}
		if name := test.want.name(); name != want {
			t.Errorf("%s is written %s", test.name, name)
		}
	}
}

// rawTar returns a tar of one empty member.
func rawTar(t *testing.T, name string, typ byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tarstream.NewWriter(&buf)
	if _, err := w.WriteHeader(&tarstream.Header{Name: name, Type: typ}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(512); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestRefuses(t *testing.T) {
	for name, typ := range map[string]byte{
		"dupfs/index": '0', "signature/a": '0', "multivol_deleted/a/1": '0', "x": '0', "snapshots/a": '0',
		"snapshot/../a": '0', "snapshot/a/..": '5', "deleted/..": '0',
		"multivol_snapshot/a": '0', "multivol_snapshot/a/b": '0', "multivol_snapshot/a/0": '0', "multivol_snapshot/a/": '0',
		"multivol_diff/a/-1": '0', "multivol_diff/a/99999999999": '0', "multivol_diff": '0', "multivol_snapshot/a/+1x": '0',
		"diff/a": '5', "multivol_snapshot/b/1": '5', "snapshot/hard": '1',
	} {
		_, err := members(bytes.NewReader(rawTar(t, name, typ)))
		var corrupt *chain.CorruptError
		if !errors.As(err, &corrupt) || !strings.Contains(err.Error(), strings.TrimSuffix(name, "/")) {
			t.Errorf("%s: %v, want a CorruptError that names it", name, err)
		}
	}
}

// sample returns members as a backup makes them, in order, and their bodies.
func sample() ([]Member, []string) {
	long := chain.Path(strings.Repeat("d/", 60) + strings.Repeat("n", 90))
	e := func(p chain.Path, t chain.Type) chain.Entry {
		e := chain.Entry{Path: p, Type: t, Mode: 0o640, UID: 7, GID: 8, User: "u", Group: "g", Mtime: chain.Time{Sec: 1700000000}}
		if t == chain.File {
			e.Size = -1
		}
		return e
	}
	rich := e("m/rich", chain.File)
	rich.Mtime = chain.Time{Sec: -1, Nsec: 999999999}
	rich.Xattrs = []chain.Xattr{{Name: "user.\xff", Value: []byte("\x00")}}
	rich.LinkGroup, rich.Data = 9, []chain.Extent{{Off: 5, Len: 6}}
	link := e("z", chain.Symlink)
	link.Link = "../\xfe"
	dev := e("m/dev", chain.BlockDevice)
	dev.Major, dev.Minor = 259, 70000
	rest := e("m/rich", chain.File) // what pieces after the first say
	rest.Mtime = chain.Time{}
	ms := []Member{
		{Entry: e("", chain.Dir), Kind: Snapshot},
		{Entry: e("a", chain.File), Kind: Snapshot},
		{Entry: e("b", chain.File), Kind: Diff},
		{Entry: chain.Entry{Path: "c"}, Kind: Deleted},
		{Entry: e(long, chain.File), Kind: Snapshot, Piece: 1},
		{Entry: e(long, chain.File), Kind: Snapshot, Piece: 2},
		{Entry: e("m", chain.Dir), Kind: Snapshot},
		{Entry: dev, Kind: Snapshot},
		{Entry: rich, Kind: Diff, Piece: 1},
		{Entry: rest, Kind: Diff, Piece: 2},
		{Entry: e("m/\xff\n", chain.Fifo), Kind: Snapshot},
		{Entry: link, Kind: Snapshot},
	}
	bodies := []string{"", "abc", strings.Repeat("d", 512), "", strings.Repeat("p", 1000), "", "", "", "r", "s", "", ""}
	for i := range ms {
		ms[i].Len = int64(len(bodies[i]))
	}
	return ms, bodies
}

func write(t *testing.T, ms []Member, bodies []string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := NewWriter(&buf)
	for i := range ms {
		off, err := w.Header(&ms[i])
		if err != nil {
			t.Fatal(err)
		}
		ms[i].Off = off
		if _, err := io.WriteString(w, bodies[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestRoundTrip(t *testing.T) {
	ms, bodies := sample()
	stream := write(t, ms, bodies)
	r := NewReader(bytes.NewReader(stream))
	for i, want := range ms {
		got, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(*got, want) {
			t.Errorf("got %+v\nwant %+v", *got, want)
		}
		if i%2 == 0 {
			continue // Next skips the body
		}
		body, err := io.ReadAll(r)
		if err != nil || string(body) != bodies[i] || string(stream[got.Off:got.Off+got.Len]) != bodies[i] {
			t.Errorf("%s: body %q, %v", got.Entry.Path, body, err)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Error(err)
	}
}

// TestPythonReads lets Python, on which duplicity stands, read what we write.
func TestPythonReads(t *testing.T) {
	ms, bodies := sample()
	got := tartest.PythonRead(t, write(t, ms, bodies))
	if len(got) != len(ms) {
		t.Fatalf("%d members, want %d", len(got), len(ms))
	}
	types := map[chain.Type]string{0: "0", chain.File: "0", chain.Dir: "5", chain.Symlink: "2", chain.Fifo: "6", chain.BlockDevice: "4"}
	for i, m := range ms {
		e, g := m.Entry, got[i]
		if string(g.Name) != strings.TrimRight(m.name(), "/") || g.Type != types[e.Type] || g.Size != m.Len || g.Off != m.Off ||
			string(g.Data) != bodies[i] || uint32(g.Mode) != e.Mode || g.UID != int64(e.UID) || g.Mtime != max(e.Mtime.Sec, 0) ||
			string(g.User) != e.User || string(g.Link) != e.Link || g.Minor != int64(e.Minor) {
			t.Errorf("got %+v\nwant %+v", g, m)
		}
		if plain := i < 4; plain && len(g.PAX) > 0 {
			t.Errorf("%s: records nobody needs: %v", g.Name, g.PAX)
		}
	}
	if pax := got[8].PAX; pax["DUPFS.mtime"] != "-1.999999999" || pax["DUPFS.link"] != "9" || pax["DUPFS.data"] != "5+6" || len(pax) != 4 {
		t.Errorf("records %v", pax)
	}
}

func TestOrder(t *testing.T) {
	m := func(p chain.Path, k Kind, piece int) Member {
		e := chain.Entry{Path: p, Type: chain.File}
		if k == Deleted {
			e.Type = 0
		}
		return Member{Entry: e, Kind: k, Piece: piece}
	}
	tests := []struct {
		a, b Member
		ok   bool
	}{
		{m("a", Snapshot, 0), m("b", Snapshot, 0), true},
		{m("a", Snapshot, 0), m("a/b", Deleted, 0), true},
		{m("a/b", Snapshot, 0), m("a b", Snapshot, 0), true},
		{m("a", Snapshot, 1), m("a", Snapshot, 2), true},
		{m("a", Snapshot, 7), m("a", Snapshot, 8), true}, // a volume begins anywhere
		{m("a", Snapshot, 2), m("b", Diff, 1), true},
		{m("b", Snapshot, 0), m("a", Snapshot, 0), false},
		{m("a b", Snapshot, 0), m("a/b", Snapshot, 0), false},
		{m("a", Snapshot, 0), m("a", Snapshot, 0), false},
		{m("a", Snapshot, 0), m("a", Snapshot, 1), false},
		{m("a", Snapshot, 1), m("a", Snapshot, 3), false},
		{m("a", Snapshot, 1), m("a", Diff, 2), false},
		{m("a", Snapshot, 1), m("b", Snapshot, 2), false},
		{m("a", Snapshot, 0), m("b", Deleted, 1), false},
		{m("a", Snapshot, 0), m("b", 0, 0), false},
		{m("a", Snapshot, 0), Member{Entry: chain.Entry{Path: "b", Type: chain.Dir}, Kind: Diff}, false},
		{m("a", Snapshot, 0), Member{Entry: chain.Entry{Path: "b", Type: chain.Dir}, Kind: Snapshot, Len: 1}, false},
		{m("a", Snapshot, 0), Member{Entry: chain.Entry{Path: "b"}, Kind: Snapshot}, false},
	}
	for _, test := range tests {
		w := NewWriter(io.Discard)
		if _, err := w.Header(&test.a); err != nil {
			t.Fatal(err)
		}
		before := w.Off()
		if _, err := w.Header(&test.b); (err == nil) != test.ok {
			t.Errorf("%v %s %d, then %v %s %d: %v", test.a.Kind, test.a.Entry.Path, test.a.Piece, test.b.Kind, test.b.Entry.Path, test.b.Piece, err)
		}
		if !test.ok && w.Off() != before {
			t.Error("a member that is refused was written")
		}
	}
}

func TestEndings(t *testing.T) {
	ms, bodies := sample()
	stream := write(t, ms, bodies)
	open := stream[:len(stream)-1024] // without zero blocks
	for name, end := range map[string][]byte{
		"none": nil, "one block": make([]byte, 512), "one block and garbage": append(make([]byte, 512), bytes.Repeat([]byte("g"), 80<<10)...),
	} {
		got, err := members(io.MultiReader(bytes.NewReader(open), bytes.NewReader(end)))
		if err != nil || len(got) != len(ms) {
			t.Errorf("%s: %d members, %v", name, len(got), err)
		}
	}
	if got, err := members(strings.NewReader("")); err != nil || got != nil {
		t.Errorf("empty stream: %v, %v", got, err)
	}
	rest := bytes.NewReader(append(bytes.Clone(stream), "trailer"...))
	if _, err := members(rest); err != nil || rest.Len() != 0 {
		t.Errorf("%v, %d bytes are left", err, rest.Len())
	}
}

func FuzzReader(f *testing.F) {
	var buf bytes.Buffer
	w := NewWriter(&buf)
	ms, bodies := sample()
	for i := range ms {
		if _, err := w.Header(&ms[i]); err != nil {
			f.Fatal(err)
		}
		if _, err := io.WriteString(w, bodies[i]); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(buf.Bytes())
	f.Add(buf.Bytes()[512:3000])
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 1 && in[len(in)-1] == 0 {
			in = tartest.FixSums(in)
		}
		ms, err := members(bytes.NewReader(in))
		for _, m := range ms {
			if again, ok := chain.ParsePath(string(m.Entry.Path)); !ok || again != m.Entry.Path {
				t.Fatalf("path %q", m.Entry.Path)
			}
			if m.Off < 0 || m.Len < 0 || err == nil && m.Off+m.Len > int64(len(in)) {
				t.Fatalf("body of %d bytes at %d of %d", m.Len, m.Off, len(in))
			}
			rewrite(t, m)
		}
	})
}

// rewrite writes a member that was read and reads it again.
func rewrite(t *testing.T, m Member) {
	t.Helper()
	var buf bytes.Buffer
	w := NewWriter(&buf)
	if m.Kind == Snapshot && m.Entry.Type != chain.File || m.Kind == Deleted {
		m.Len = 0
	}
	off, err := w.Header(&m)
	if errors.Is(err, ErrTooLarge) || m.Entry.Major >= 1<<21 || m.Entry.Minor >= 1<<21 {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	got, err := NewReader(&buf).Next()
	if err != nil {
		t.Fatal(err)
	}
	m.Off = off
	if m.Piece > 1 { // the extra facts are with the first piece
		m.Entry.Xattrs, m.Entry.LinkGroup, m.Entry.Data, m.Entry.HasHash, m.Entry.Hash = nil, 0, nil, false, [32]byte{}
		m.Entry.Mtime = chain.Time{Sec: max(m.Entry.Mtime.Sec, 0)}
	}
	m.Entry.HasHash, m.Entry.Hash = false, [32]byte{}
	if m.Entry.Type == chain.File {
		m.Entry.Size = -1
	}
	if !reflect.DeepEqual(*got, m) {
		t.Fatalf("got %+v\nwant %+v", *got, m)
	}
}
