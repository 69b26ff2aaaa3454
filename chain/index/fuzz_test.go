package index

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/chain/store"
	"dupfs/delta"
)

// FuzzRow decodes what a row of a catalog may hold.
func FuzzRow(f *testing.F) {
	m := modelStream(1, 1)
	for i := range m.records {
		c := coder{alone: true}
		var p pager
		for _, r := range m.runs[i] {
			p.add(r)
		}
		f.Add(c.append(nil, &m.records[i], 0), p.cur.buf)
	}
	f.Fuzz(func(t *testing.T, meta, page []byte) {
		r := row{id: 1 << ordBits, meta: meta}
		var rec Record
		if err := r.record(&rec); err == nil && rec.Mode > 0o7777 {
			t.Fatalf("%+v", rec)
		}
		runs, err := decodePage(7, page)
		if err != nil {
			return
		}
		off := int64(7)
		for _, run := range runs {
			if run.FileOff != off || run.Len <= 0 || run.Off < 0 {
				t.Fatalf("%+v", runs)
			}
			off += run.Len
		}
	})
}

// volumeOf makes the plaintext of a volume.
func volumeOf(t testing.TB, members ...difftar.Member) []byte {
	t.Helper()
	var all []byte
	for _, m := range members {
		body := []byte(m.Entry.Link) // a place to carry it
		m.Entry.Link = ""
		m.Len = int64(len(body))
		var b bytes.Buffer
		w := difftar.NewWriter(&b) // one for each member, for it keeps their order
		_, err := w.Header(&m)
		if err == nil {
			_, err = w.Write(body)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b.Bytes()[:b.Len()-1024]...)
	}
	return append(all, make([]byte, 1024)...)
}

func member(path string, kind difftar.Kind, piece int, body string) difftar.Member {
	return difftar.Member{Entry: chain.Entry{Path: chain.Path(path), Type: chain.File, Size: -1, Link: body}, Kind: kind, Piece: piece}
}

// deltaOf makes a delta of literals and copies.
func deltaOf(t testing.TB, literals ...string) string {
	t.Helper()
	var b bytes.Buffer
	e := delta.NewEncoder(&b)
	for i, l := range literals {
		if err := e.Literal([]byte(l)); err != nil {
			t.Fatal(err)
		}
		if err := e.Copy(int64(100*i), 50); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// scanAll returns what a pass finds in a volume, a word for each entry.
func scanAll(t testing.TB, plain []byte, last bool) (string, error) {
	file, err := store.TempFile(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := &Pass{file: file}
	defer p.Close()
	p.Volume.Volume = 3
	if err := p.scan(t.Context(), bytes.NewReader(plain), last); err != nil {
		return "", err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	var size int64
	note := ""
	r := newReader(bytes.NewReader(all))
	r.loose = true
	r.ext = func(tag byte, d *decoder) error {
		switch tag {
		case tagVoid:
			size, r.fileSize, r.runs.baseEnd = 0, 0, 0
		case tagDamage:
			note = "damaged"
		case tagPart:
			pt, err := readPart(d)
			if err != nil {
				return err
			}
			note = "part"
			if pt.open {
				note = "open"
			}
		}
		return nil
	}
	r.h = Handler{
		Runs: func(runs []Run) error {
			for _, run := range runs {
				size += run.Len
			}
			return nil
		},
		Record: func(rec *Record) error {
			if note == "" && rec.Type == chain.File && rec.Size != size {
				t.Fatalf("%s: size %d of runs %d", rec.Path, rec.Size, size)
			}
			word := string(rec.Path)
			if note != "" {
				word += ":" + note
			}
			out = append(out, word)
			note, size = "", 0
			return nil
		},
	}
	if err := r.read(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, " "), nil
}

// A pass tells files that are whole from those that go on in other volumes.
func TestPass(t *testing.T) {
	d := deltaOf(t, "abc", strings.Repeat("x", 100_000), "end")
	half := len(d) / 2
	for name, c := range map[string]struct {
		members []difftar.Member
		last    bool
		want    string
	}{
		"empty":                 {nil, false, ""},
		"whole":                 {[]difftar.Member{member("a", difftar.Snapshot, 0, "abc"), member("b", difftar.Diff, 0, d), member("c", difftar.Snapshot, 0, "")}, false, "a b c"},
		"begins":                {[]difftar.Member{member("a", difftar.Snapshot, 1, "abc"), member("a", difftar.Snapshot, 2, "d")}, false, "a:open"},
		"ends with the set":     {[]difftar.Member{member("a", difftar.Snapshot, 1, "abc"), member("a", difftar.Snapshot, 2, "d")}, true, "a"},
		"followed":              {[]difftar.Member{member("a", difftar.Snapshot, 1, "abc"), member("a", difftar.Snapshot, 2, ""), member("b", difftar.Snapshot, 0, "")}, false, "a b"},
		"goes on":               {[]difftar.Member{member("a", difftar.Snapshot, 7, "abc"), member("a", difftar.Snapshot, 8, "d"), member("b", difftar.Snapshot, 0, "")}, false, "a:part b"},
		"gap":                   {[]difftar.Member{member("a", difftar.Snapshot, 1, "abc"), member("a", difftar.Snapshot, 3, "d"), member("b", difftar.Snapshot, 0, "")}, false, "a:damaged b"},
		"two files":             {[]difftar.Member{member("a", difftar.Snapshot, 1, "abc"), member("b", difftar.Snapshot, 1, "d")}, true, "a b"},
		"delta in pieces":       {[]difftar.Member{member("a", difftar.Diff, 1, d[:half]), member("a", difftar.Diff, 2, d[half:]), member("b", difftar.Snapshot, 0, "")}, false, "a b"},
		"delta of one byte":     {pieces1(d[:40]), false, "a:open"},
		"delta begins":          {[]difftar.Member{member("a", difftar.Diff, 1, d[:half])}, false, "a:open"},
		"delta begins, no more": {[]difftar.Member{member("a", difftar.Diff, 1, d[:half])}, true, "a:damaged"},
		"delta goes on":         {[]difftar.Member{member("a", difftar.Diff, 2, d[half:]), member("b", difftar.Snapshot, 0, "")}, false, "a:part b"},
		"delta ends exactly":    {[]difftar.Member{member("a", difftar.Diff, 1, d)}, false, "a"},
		"no delta":              {[]difftar.Member{member("a", difftar.Diff, 0, "not a delta"), member("b", difftar.Snapshot, 0, "")}, false, "a:damaged b"},
		"cut delta":             {[]difftar.Member{member("a", difftar.Diff, 0, d[:half]), member("b", difftar.Snapshot, 0, "")}, false, "a:damaged b"},
		"deleted":               {[]difftar.Member{member("a", difftar.Deleted, 0, "")}, false, "a"},
	} {
		got, err := scanAll(t, volumeOf(t, c.members...), c.last)
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
}

func pieces1(s string) (out []difftar.Member) {
	for i := range len(s) {
		out = append(out, member("a", difftar.Diff, i+1, s[i:i+1]))
	}
	return out
}

// FuzzPass reads what is no volume.
func FuzzPass(f *testing.F) {
	d := deltaOf(f, "abc", "def")
	f.Add(volumeOf(f, member("a", difftar.Snapshot, 1, "abc"), member("a", difftar.Snapshot, 2, "d")), false)
	f.Add(volumeOf(f, member("a", difftar.Diff, 1, d[:5]), member("a", difftar.Diff, 2, d[5:])), true)
	f.Add(volumeOf(f, member("a", difftar.Diff, 0, d), member("a", difftar.Deleted, 0, "")), false)
	f.Add([]byte{}, true)
	f.Fuzz(func(t *testing.T, plain []byte, last bool) {
		_, _ = scanAll(t, plain, last) // any error, but no panic and no lie
	})
}

// Nothing is left of a temporary file.
func TestTempFile(t *testing.T) {
	dir := t.TempDir()
	file, err := store.TempFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Fatal(left, err)
	}
	if _, err := store.TempFile(filepath.Join(dir, "not", "there")); err == nil {
		t.Fatal("no error")
	}
}
