package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"dupfs/chain"
)

const sample = `Hostname vm
Localdir src
Volume 1:
    StartingPath   .  
    EndingPath     large.bin 10
    Hash SHA1 c656701bb82e2663afab3588b8b31e5e80d596d0
Volume 2:
    StartingPath   large.bin 11
    EndingPath     xattr/file  
    Hash SHA1 873e025e73be919fb9f39d595a551d55d06d19de
Filelist 3
    new      del/one
    changed  "names/sp\x20ace"
    deleted  tofile/x
`

func parse(t *testing.T, text string) *Manifest {
	t.Helper()
	m, err := Parse(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return m
}

func changes(t *testing.T, text string) []Change {
	t.Helper()
	var list []Change
	if err := ParseFileList(strings.NewReader(text), func(c Change) error { list = append(list, c); return nil }); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return list
}

func seq(list []Change) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for _, c := range list {
			if !yield(c, nil) {
				return
			}
		}
	}
}

func TestParse(t *testing.T) {
	m := parse(t, sample)
	want := &Manifest{Hostname: "vm", Localdir: "src", Volumes: []Volume{
		{Number: 1, First: "", Last: "large.bin", FirstBlock: -1, LastBlock: 10, HasSHA1: true},
		{Number: 2, First: "large.bin", Last: "xattr/file", FirstBlock: 11, LastBlock: -1, HasSHA1: true},
	}}
	copy(want.Volumes[0].SHA1[:], "\xc6\x56\x70\x1b\xb8\x2e\x26\x63\xaf\xab\x35\x88\xb8\xb3\x1e\x5e\x80\xd5\x96\xd0")
	copy(want.Volumes[1].SHA1[:], "\x87\x3e\x02\x5e\x73\xbe\x91\x9f\xb9\xf3\x9d\x59\x5a\x55\x1d\x55\xd0\x6d\x19\xde")
	if !reflect.DeepEqual(m, want) {
		t.Errorf("got %+v\nwant %+v", m, want)
	}
	list := changes(t, sample)
	if wantList := []Change{{"new", "del/one"}, {"changed", "names/sp ace"}, {"deleted", "tofile/x"}}; !slices.Equal(list, wantList) {
		t.Errorf("got %q, want %q", list, wantList)
	}
}

// TestTolerance makes changes that duplicity accepts without a word.
func TestTolerance(t *testing.T) {
	want, wantList := parse(t, sample), changes(t, sample)
	replace := func(old, new string) string { return strings.ReplaceAll(sample, old, new) }
	for name, text := range map[string]string{
		"comment on top":         "# hello\n\n" + sample,
		"unknown fields":         replace("Volume 2", "Shape round\nVolume 2"),
		"unknown indented":       replace("    Hash", "    Weight 5 kg\n    Hash"),
		"another hash":           replace("    Hash", "    Hash SHA256 abcd\n    Hash"),
		"before the list":        replace("Filelist", "Foo bar\nFilelist"),
		"extra words":            replace("d596d0", "d596d0 and more"),
		"text after volume":      replace("Volume 1:", "Volume 1: of 2"),
		"cr lf":                  replace("\n", "\r\n"),
		"no final newline":       strings.TrimSuffix(sample, "\n"),
		"tabs":                   strings.NewReplacer("    ", "\t", "Volume ", "volume\t").Replace(sample),
		"lower case":             strings.ToLower(sample[:strings.Index(sample, "Filelist")]) + sample[strings.Index(sample, "Filelist"):],
		"empty lines":            replace("\n", "\n\n"),
		"blanks in a block":      replace("    Hash", "    \n    Hash"),
		"wrong count":            replace("Filelist 3", "Filelist 77"),
		"list first":             sample[strings.Index(sample, "Filelist"):] + sample[:strings.Index(sample, "Filelist")],
		"junk":                   "\x00\xff\x01 junk\n" + sample,
		"a long line":            strings.Repeat("x ", 1<<20) + "\n" + sample,
		"a long line in a block": replace("    Hash", "    "+strings.Repeat("x ", 1<<20)+"\n    Hash"),
		"volumes":                replace("Volume 2", "Volumes 2\nVolume 2"),
		"upper case hash":        replace("c656701bb82e2663afab3588b8b31e5e80d596d0", "C656701BB82E2663AFAB3588B8B31E5E80D596D0"),
		"names only once":        strings.Replace(sample, "Volume 1", "Hostname other\nLocaldir other\nVolume 1", 1),
		"no fitting index":       replace("Volume 1", "Dupfs-Index\nDupfs-Index zz 5\nDupfs-Index abcd -5\nVolume 1"),
	} {
		if got := parse(t, text); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v\nwant %+v", name, got, want)
		}
		if got := changes(t, text); !slices.Equal(got, wantList) {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func TestRestarted(t *testing.T) {
	// After a run that was resumed the later block counts, and what is above
	// the last one is dropped.
	block := func(n, first, last string) string {
		return "Volume " + n + ":\n StartingPath " + first + "\n EndingPath " + last + "\n"
	}
	m := parse(t, block("1", ".", "a")+block("2", "b", "c")+block("3", "d", "e")+block("2", "b", "x"))
	want := []Volume{{Number: 1, First: "", Last: "a", FirstBlock: -1, LastBlock: -1}, {Number: 2, First: "b", Last: "x", FirstBlock: -1, LastBlock: -1}}
	if !reflect.DeepEqual(m.Volumes, want) {
		t.Errorf("got %+v", m.Volumes)
	}
	if m := parse(t, block("1", ".", "a")+block("3", "b", "c")+block("2", "b", "c")+block("4", "b", "c")); len(m.Volumes) != 4 {
		t.Errorf("got %+v", m.Volumes)
	}
}

func TestHashes(t *testing.T) {
	m := parse(t, "Volume 1:\n StartingPath .\n EndingPath .\n Hash MD5 000102030405060708090a0b0c0d0e0f\n Hash SHA1 garbled\n Hash SHA1\n")
	v := m.Volumes[0]
	if !v.HasMD5 || v.MD5[15] != 15 || !v.HasSHA1 || v.SHA1 != [20]byte{} {
		t.Errorf("%+v", v)
	}
	if m, err := Parse(strings.NewReader("")); !errors.As(err, new(*chain.CorruptError)) {
		t.Errorf("an empty manifest: %+v, %v", m, err)
	}
}

func TestParseErrors(t *testing.T) {
	for name, text := range map[string]string{
		"no number":      "Volume foo\n",
		"no colon":       "Volume 1\n",
		"number 0":       "Volume 0:\n",
		"huge number":    "Volume 99999999999:\n",
		"no first":       "Volume 1:\n EndingPath a\n",
		"no last":        "Volume 1:\n StartingPath a\nVolume 2:\n",
		"path outside":   "Volume 1:\n StartingPath ../a\n EndingPath b\n",
		"quote open":     "Volume 1:\n StartingPath \"a\n EndingPath b\n",
		"quote bad":      "Volume 1:\n StartingPath \"a\\n\"\n EndingPath b\n",
		"quote bad hex":  "Volume 1:\n StartingPath \"a\\xzz\"\n EndingPath b\n",
		"quote too soon": "Volume 1:\n StartingPath \"a\"b\"\n EndingPath b\n",
	} {
		_, err := Parse(strings.NewReader(text))
		var corrupt *chain.CorruptError
		if !errors.As(err, &corrupt) {
			t.Errorf("%s: %v, want a CorruptError", name, err)
		}
	}
	err := ParseFileList(strings.NewReader("Filelist 1\n    new  \"\n"), func(Change) error { return nil })
	var corrupt *chain.CorruptError
	if !errors.As(err, &corrupt) {
		t.Errorf("bad list: %v", err)
	}
	broken := errors.New("broken")
	r := io.MultiReader(strings.NewReader(sample[:100]), iotest.ErrReader(broken))
	if _, err := Parse(r); err != broken {
		t.Errorf("error of the reader: %v", err)
	}
	if err := ParseFileList(strings.NewReader(sample), func(Change) error { return broken }); err != broken {
		t.Errorf("error of the callback: %v", err)
	}
}

func TestQuote(t *testing.T) {
	for raw, quoted := range map[string]string{
		"plain": "plain", "": "", ".": ".", "new\nline": `"new\x0aline"`, `"quoted"`: `"\x22quoted\x22"`, "bad\xff\xfe": "bad\xff\xfe",
		"\x01\x1f\x7f": "\x01\x1f\x7f", `back\slash`: `"back\x5cslash"`, "it's": `"it\x27s"`, "\t\v\f\r ": `"\x09\x0b\x0c\x0d\x20"`, "日本 ä": "\"日本\\x20ä\"",
	} {
		if got := quote(raw); got != quoted {
			t.Errorf("quote(%q) = %s, want %s", raw, got, quoted)
		}
		if got, ok := unquote(quoted); !ok || got != raw {
			t.Errorf("unquote(%s) = %q, %v", quoted, got, ok)
		}
	}
}

func TestMayHold(t *testing.T) {
	v := Volume{First: "b/c", Last: "d/e"}
	for p, want := range map[chain.Path]bool{
		"": true, "a": false, "a/z": false, "b": true, "b/a": false, "b/b/x": false, "b/c": true, "b/c/d": true, "b/d": true,
		"b c": true, "c": true, "d": true, "d/a": true, "d/e": true, "d/e/f": false, "d/f": false, "d e": false, "e": false,
	} {
		if got := v.MayHold(p); got != want {
			t.Errorf("MayHold(%s) = %v", p, got)
		}
	}
	if empty := (Volume{}); !empty.MayHold("") || empty.MayHold("a") {
		t.Error("a volume of the root alone")
	}
}

// TestStock rewrites manifests of duplicity 0.8.22 to the same bytes.
func TestStock(t *testing.T) {
	files, err := filepath.Glob("testdata/*.manifest")
	if err != nil || len(files) < 6 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		rewrite(t, file, string(text))
	}
}

func rewrite(t *testing.T, name, text string) {
	t.Helper()
	list := changes(t, text)
	var buf bytes.Buffer
	if err := Write(&buf, parse(t, text), len(list), seq(list)); err != nil {
		t.Fatal(err)
	}
	if buf.String() != text {
		t.Errorf("%s: got\n%s\nwant\n%s", name, buf.String(), text)
	}
}

func TestWrite(t *testing.T) {
	rewrite(t, "sample", sample)
	m := parse(t, sample)
	m.HasIndex, m.IndexSHA256, m.IndexSize = true, [32]byte{0xab}, 1234
	m.Localdir = "/home/my dir"
	var buf bytes.Buffer
	if err := Write(&buf, m, 0, nil); err != nil {
		t.Fatal(err)
	}
	head := "Hostname vm\nLocaldir \"/home/my\\x20dir\"\nDupfs-Index ab" + strings.Repeat("00", 31) + " 1234\nVolume 1:\n"
	if got := buf.String(); !strings.HasPrefix(got, head) || strings.Contains(got, "Filelist") {
		t.Errorf("got\n%s", got)
	}
	if got := parse(t, buf.String()); !reflect.DeepEqual(got, m) {
		t.Errorf("got %+v\nwant %+v", got, m)
	}
	buf.Reset()
	if err := Write(&buf, &Manifest{}, 0, seq(nil)); err != nil || buf.String() != "Filelist 0\n" {
		t.Errorf("%q, %v", buf.String(), err)
	}
}

func TestWriteRefuses(t *testing.T) {
	vol := func(n int) Volume { return Volume{Number: n, HasSHA1: true} }
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		m    Manifest
		n    int
		list iter.Seq2[Change, error]
	}{
		"host name":    {Manifest{Hostname: "a\nVolume 1:"}, 0, nil},
		"no hash":      {Manifest{Volumes: []Volume{{Number: 1}}}, 0, nil},
		"number 0":     {Manifest{Volumes: []Volume{vol(0)}}, 0, nil},
		"descending":   {Manifest{Volumes: []Volume{vol(2), vol(1)}}, 0, nil},
		"count":        {Manifest{}, 2, seq([]Change{{"new", "a"}})},
		"kind":         {Manifest{}, 1, seq([]Change{{"old", "a"}})},
		"list order":   {Manifest{}, 2, seq([]Change{{"new", "b"}, {"new", "a"}})},
		"failing list": {Manifest{}, 1, func(yield func(Change, error) bool) { yield(Change{}, broken) }},
	} {
		if err := Write(io.Discard, &test.m, test.n, test.list); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	for n := range len(sample) {
		if err := Write(&short{n}, parse(t, sample), 3, seq(changes(t, sample))); err == nil {
			t.Fatalf("no error though only %d bytes were written", n)
		}
	}
}

// short is a writer that is full after n bytes.
type short struct{ n int }

func (s *short) Write(p []byte) (int, error) {
	if s.n -= len(p); s.n < 0 {
		return 0, errors.New("full")
	}
	return len(p), nil
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("Dupfs-Index " + strings.Repeat("ab", 32) + " 5\nVolume 1:\n\tstartingpath \"\\x22\" 3\n\tendingpath a\n\thash md5 00\nFilelist 1\n new a\n"))
	f.Add([]byte("Dupfs-Sigtar " + strings.Repeat("ab", 16) + "-2\nVolume 1:\n\tstartingpath a\n\tendingpath a\n\thash MD5-5 " + strings.Repeat("cd", 16) + "\n\thash SHA1 00\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := Parse(bytes.NewReader(text))
		if err != nil {
			return
		}
		var list []Change
		if err := ParseFileList(bytes.NewReader(text), func(c Change) error { list = append(list, c); return nil }); err != nil {
			return
		}
		slices.SortFunc(list, func(a, b Change) int { return a.Path.Compare(b.Path) })
		list = slices.CompactFunc(list, func(a, b Change) bool { return a.Path == b.Path })
		for i := range m.Volumes {
			m.Volumes[i].HasSHA1 = true
		}
		if strings.ContainsAny(m.Hostname, "\r") {
			return
		}
		var buf bytes.Buffer
		if err := Write(&buf, m, len(list), seq(list)); err != nil {
			t.Fatal(err)
		}
		again := parse(t, buf.String())
		if !reflect.DeepEqual(again, m) {
			t.Fatalf("got %+v\nwant %+v in\n%s", again, m, buf.String())
		}
		if got := changes(t, buf.String()); !slices.Equal(got, list) {
			t.Fatalf("got %q, want %q in\n%s", got, list, buf.String())
		}
	})
}

func FuzzQuote(f *testing.F) {
	f.Add("a b")
	f.Add(`"\x20"`)
	f.Fuzz(func(t *testing.T, s string) {
		q := quote(s)
		if back, ok := unquote(q); !ok || back != s {
			t.Fatalf("%q, quoted %q, is %q", s, q, back)
		}
		if len(words("x "+q)) != 2 && s != "" {
			t.Fatalf("%q is not one word", q)
		}
		if raw, ok := unquote(s); ok {
			if again, ok := unquote(quote(raw)); !ok || again != raw {
				t.Fatalf("%q", raw)
			}
		}
	})
}

func TestMissing(t *testing.T) {
	m := &Manifest{}
	for _, n := range []int{1, 2, 3, 4, 5, 7, 9} {
		m.Volumes = append(m.Volumes, Volume{Number: n})
	}
	for there, want := range map[string]string{
		"1,2,3,4,5,7,9": "[]",
		"2,3,4,5,7,9":   "[volume 1 is missing]",
		"1,5,7":         "[volumes 2 to 4 are missing volume 9 is missing]",
		"1,2,3,4":       "[volume 5 is missing volume 7 is missing volume 9 is missing]", // of 6 and 8 nobody knows
	} {
		var volumes []chain.Stored
		for _, n := range strings.Split(there, ",") {
			number, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(err)
			}
			volumes = append(volumes, chain.Stored{Name: chain.Name{Volume: number}})
		}
		if got := fmt.Sprint(m.Missing(volumes)); got != want {
			t.Errorf("%s: %s, not %s", there, got, want)
		}
	}
}
