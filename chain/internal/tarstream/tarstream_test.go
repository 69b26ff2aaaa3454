package tarstream

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"dupfs/chain"
	"dupfs/chain/internal/tartest"
)

// blockOf makes a header block by hand: name, type, size as written, and edits
// before the checksum is made.
func blockOf(name string, typ byte, size string, edits ...func(b []byte)) []byte {
	b := make([]byte, 512)
	copy(b, name)
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], size)
	copy(b[136:], "14524770410\x00")
	b[156] = typ
	copy(b[257:], "ustar\x0000")
	for _, edit := range edits {
		edit(b)
	}
	sum := 0
	for i, c := range b {
		if 148 <= i && i < 156 {
			c = ' '
		}
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// put returns an edit that writes s at an offset.
func put(off int, s string) func([]byte) { return func(b []byte) { copy(b[off:], s) } }

// signed gives a block the checksum that old programs made of signed bytes.
func signed(b []byte) []byte {
	sum := 8 * int(' ')
	for i, c := range b {
		if i < 148 || i >= 156 {
			sum += int(int8(c))
		}
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// pad pads a body.
func pad(s string) []byte { return append([]byte(s), make([]byte, padding(int64(len(s))))...) }

// ext makes an extended member, of type x, g, L or K.
func ext(typ byte, body string) []byte {
	return append(blockOf("././@X", typ, fmt.Sprintf("%011o\x00", len(body))), pad(body)...)
}

// rec makes a PAX record.
func rec(key, value string) string { return string(appendRecord(nil, key, value)) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func readAll(r io.Reader) (hs []Header, bodies []string, err error) {
	tr := NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return hs, bodies, nil
		}
		if err != nil {
			return hs, bodies, err
		}
		body, err := io.ReadAll(tr)
		if err != nil {
			return hs, bodies, err
		}
		hs, bodies = append(hs, *h), append(bodies, string(body))
	}
}

func TestDialects(t *testing.T) {
	zero := make([]byte, 512)
	plain := blockOf("a", '0', "00000000003\x00")
	long := strings.Repeat("n", 150)
	want := func(name string, edit ...func(*Header)) Header {
		h := Header{Name: name, Type: '0', Mode: 0o644, Mtime: chain.Time{Sec: 0o14524770410}, Size: 3}
		for _, e := range edit {
			e(&h)
		}
		return h
	}
	tests := []struct {
		name string
		in   []byte
		want Header
	}{
		{"plain", join(plain, pad("abc"), zero, zero), want("a")},
		{"no end", join(plain, pad("abc")), want("a")},
		{"no padding", join(plain, []byte("abc")), want("a")},
		{"part of the padding", join(plain, pad("abc")[:100]), want("a")},
		{"one zero block, then garbage", join(plain, pad("abc"), zero, bytes.Repeat([]byte{7}, 1000)), want("a")},
		{"old file", join(blockOf("a", 0, "3"), pad("abc")), want("a")},
		{"contiguous file", join(blockOf("a", '7', "  3 "), pad("abc")), want("a")},
		{"slash at the end", join(blockOf("diff/", '0', "3"), pad("abc")), want("diff/")},
		{"full name", join(blockOf(long[:100], '0', "3"), pad("abc")), want(long[:100])},
		{"prefix", join(blockOf("a", '0', "3", put(345, "dir/sub")), pad("abc")), want("dir/sub/a")},
		{"no prefix in gnu", join(blockOf("a", '0', "3", put(257, "ustar  \x00"), put(345, "dir/sub")), pad("abc")), want("a")},
		{"signed checksum", join(signed(blockOf("a\xff\xfe", '0', "3")), pad("abc")), want("a\xff\xfe")},
		{"L", join(ext('L', long+"\x00"), blockOf(long[:100], '0', "3"), pad("abc")), want(long)},
		{"L without NUL", join(ext('L', long), blockOf(long[:99], '0', "3"), pad("abc")), want(long)},
		{"K and L", join(ext('K', long+"k\x00"), ext('L', long), blockOf(long[:99], '2', "3")),
			want(long, func(h *Header) { h.Link, h.Type, h.Size = long+"k", '2', 0 })},
		{"base-256 size", join(blockOf("a", '0', "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03"), pad("abc")), want("a")},
		{"base-256 id", join(blockOf("a", '0', "3", put(108, "\x80\x00\x00\x00\x00\x2d\xc6\xc0")), pad("abc")), want("a", func(h *Header) { h.UID = 3000000 })},
		{"base-256 below zero", join(blockOf("a", '0', "3", put(108, "\xff\xff\xff\xff\xff\xff\xff\xfe"), put(136, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")), pad("abc")),
			want("a", func(h *Header) { h.UID = 4294967294; h.Mtime.Sec = -1 })},
		{"x", join(ext('x', rec("path", long)+rec("size", "4")+rec("uid", "3000000")+rec("mtime", "12.75")+rec("gname", "äh")+rec("comment", "x=\n\x00")), plain, pad("abcd")),
			want(long, func(h *Header) {
				h.Size, h.UID, h.Mtime, h.Group = 4, 3000000, chain.Time{Sec: 12, Nsec: 750000000}, "äh"
			})},
		{"x below zero", join(ext('x', rec("mtime", "-1.25")), plain, pad("abc")), want("a", func(h *Header) { h.Mtime = chain.Time{Sec: -2, Nsec: 750000000} })},
		{"binary", join(ext('x', rec("hdrcharset", "BINARY")+rec("path", "bad\xff\xfe")), plain, pad("abc")), want("bad\xff\xfe")},
		{"x before L", join(ext('x', rec("path", "px")), ext('L', "gnu"), plain, pad("abc")), want("px")},
		{"two x", join(ext('x', rec("path", "px")), ext('x', rec("uid", "5")), plain, pad("abc")), want("px", func(h *Header) { h.UID = 5 })},
		{"g", join(ext('g', rec("DUPFS.size", "9")+rec("uname", "all")), plain, pad("abc")), want("a", func(h *Header) { h.User = "all" })},
		{"g and x", join(ext('g', rec("uname", "all")+rec("gname", "all")), ext('x', rec("uname", "me")+rec("gname", "")), plain, pad("abc")), want("a", func(h *Header) { h.User = "me" })},
		{"g at the end", join(plain, pad("abc"), ext('g', rec("uname", "all"))), want("a")},
		{"extra records", join(ext('x', rec("DUPFS.size", "5")+rec("LIBARCHIVE.x", "y")+rec("SCHILY.xattr.user.a", "\x00\n")), plain, pad("abc")),
			want("a", func(h *Header) { h.Records = []Record{{"DUPFS.size", "5"}, {"SCHILY.xattr.user.a", "\x00\n"}} })},
		{"long foreign record", join(ext('x', rec("ACME.big", strings.Repeat("x", 4<<20))+rec("DUPFS.size", "5")), plain, pad("abc")),
			want("a", func(h *Header) { h.Records = []Record{{"DUPFS.size", "5"}} })},
		{"long extra record", join(ext('x', rec("DUPFS.new", strings.Repeat("x", MaxRecord+1))+rec("DUPFS.size", "5")), plain, pad("abc")),
			want("a", func(h *Header) { h.Records = []Record{{"DUPFS.size", "5"}} })},
		{"device", blockOf("a", '4', "0", put(329, "0000403\x000210560\x00")), want("a", func(h *Header) { h.Type, h.Size, h.Major, h.Minor = '4', 0, 259, 70000 })},
	}
	for _, test := range tests {
		for _, r := range []io.Reader{bytes.NewReader(test.in), iotest.OneByteReader(bytes.NewReader(test.in)), iotest.DataErrReader(bytes.NewReader(test.in))} {
			hs, bodies, err := readAll(r)
			if err != nil || len(hs) != 1 {
				t.Errorf("%s: %d members, %v", test.name, len(hs), err)
				break
			}
			if off := hs[0].Off; off%512 != 0 || hs[0].Size > 0 && !bytes.HasPrefix(test.in[off:], []byte(bodies[0])) {
				t.Errorf("%s: body at %d", test.name, off)
			}
			hs[0].Off = 0
			if !reflect.DeepEqual(hs[0], test.want) {
				t.Errorf("%s: got %+v\nwant %+v", test.name, hs[0], test.want)
			}
			if body := "abcd"[:hs[0].Size]; bodies[0] != body {
				t.Errorf("%s: body %q", test.name, bodies[0])
			}
		}
	}
}

func TestEmpty(t *testing.T) {
	for _, in := range [][]byte{nil, make([]byte, 512), make([]byte, 10240), ext('g', rec("a", "b"))} {
		r := NewReader(bytes.NewReader(in))
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("%d bytes: %v", len(in), err)
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("%d bytes, again: %v", len(in), err)
		}
	}
}

func TestDamage(t *testing.T) {
	plain := join(blockOf("a", '0', "3"), pad("abc"))
	bad := bytes.Clone(plain)
	bad[300] ^= 1
	tests := map[string][]byte{
		"checksum":          bad,
		"garbage":           bytes.Repeat([]byte("x"), 512),
		"half a header":     plain[:100],
		"half a zero block": make([]byte, 511),
		"body cut":          plain[:514],
		"number":            blockOf("a", '0', "9"),
		"size below zero":   blockOf("a", '0', "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"),
		"huge size":         blockOf("a", '0', "\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
		"largest size":      blockOf("a", '0', "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"),
		"x alone":           ext('x', rec("uid", "5")),
		"L alone":           join(ext('L', "name"), make([]byte, 1024)),
		"x cut":             ext('x', rec("uid", "5"))[:515],
		"x too large":       blockOf("x", 'x', "02000000001\x00"),
		"L too large":       blockOf("x", 'L', "00004000001\x00"),
		"path too long":     join(ext('x', rec("path", strings.Repeat("p", MaxName+1))), plain),
		"record length":     join(ext('x', "99 a=b\n"), plain),
		"record length 0":   join(ext('x', "0 a=b\n"), plain),
		"record no length":  join(ext('x', "x a=b\n"), plain),
		"record long digit": join(ext('x', "99999999999999999999 a=b\n"), plain),
		"record no equals":  join(ext('x', "6 abc\n"), plain),
		"record no end":     join(ext('x', "6 a=bcc"), plain),
		"record number":     join(ext('x', rec("size", "x")), plain),
		"record size":       join(ext('x', rec("size", "-1")), plain),
		"record half byte":  join(ext('x', rec("size", "1.5")), plain),
		"uid too large":     join(ext('x', rec("uid", "4294967296")), plain),
	}
	for name, in := range tests {
		_, _, err := readAll(bytes.NewReader(in))
		var corrupt *chain.CorruptError
		if !errors.As(err, &corrupt) {
			t.Errorf("%s: %v, want a CorruptError", name, err)
		}
	}
}

func TestStreamErrors(t *testing.T) {
	whole := join(ext('x', rec("uid", "5")), blockOf("a", '0', "3"), pad("abc"), blockOf("b", '0', "0"))
	broken := errors.New("broken")
	for n := range whole {
		r := io.MultiReader(bytes.NewReader(whole[:n]), iotest.ErrReader(broken))
		if _, _, err := readAll(r); err != broken {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
	r := NewReader(io.MultiReader(bytes.NewReader(whole), bytes.NewReader(make([]byte, 5000)), iotest.ErrReader(broken)))
	for {
		if _, err := r.Next(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Drain(); err != broken {
		t.Errorf("Drain: %v", err)
	}
}

// TestPython reads what Python writes, in all its formats.
func TestPython(t *testing.T) {
	long := strings.Repeat("d/", 70) + strings.Repeat("n", 100)
	members := []tartest.Member{
		{Name: []byte("snapshot/."), Type: "5", Mode: 0o755, User: []byte("root"), Group: []byte("root"), Mtime: 1700000000},
		{Name: []byte("snapshot/a"), Type: "0", Mode: 0o4644, UID: 1000, GID: 2097151, Mtime: 1, Size: 3, Data: []byte("abc")},
		{Name: []byte("snapshot/" + strings.Repeat("x", 91)), Type: "0", Size: 513, Data: bytes.Repeat([]byte("z"), 513)},
		{Name: []byte("snapshot/link"), Type: "2", Mode: 0o777, Link: []byte("to")},
		{Name: []byte("snapshot/dev"), Type: "3", Major: 1, Minor: 3},
		{Name: []byte("snapshot/fifo"), Type: "6"},
	}
	wide := []tartest.Member{
		{Name: []byte("snapshot/" + strings.Repeat("x", 92)), Type: "0", Size: 1, Data: []byte("q")},
		{Name: []byte("snapshot/" + long), Type: "0", UID: 3000000, GID: 4294967294, Mtime: 8589934592, Size: 5, Data: []byte("hello")},
		{Name: []byte("snapshot/日本\xff"), Type: "2", Link: []byte(long + "\xfe"), User: []byte("jürgen"), Group: []byte(strings.Repeat("g", 40))},
	}
	for _, format := range []string{"ustar", "gnu", "pax"} {
		in := members
		if format != "ustar" {
			in = append(in, wide...)
		}
		hs, bodies, err := readAll(bytes.NewReader(tartest.PythonWrite(t, format, in)))
		if err != nil || len(hs) != len(in) {
			t.Fatalf("%s: %d members, %v", format, len(hs), err)
		}
		for i, h := range hs {
			m := in[i]
			group := string(m.Group)
			if format == "gnu" && len(group) > 32 {
				group = group[:32] // all that GNU headers hold
			}
			want := Header{Name: string(m.Name), Type: m.Type[0], Mode: uint32(m.Mode), UID: uint32(m.UID), GID: uint32(m.GID),
				User: string(m.User), Group: group, Link: string(m.Link), Mtime: chain.Time{Sec: m.Mtime},
				Size: m.Size, Major: uint32(m.Major), Minor: uint32(m.Minor), Off: h.Off}
			if m.Type == "5" {
				want.Name += "/"
			}
			if !reflect.DeepEqual(h, want) {
				t.Errorf("%s: got %+v\nwant %+v", format, h, want)
			}
			if bodies[i] != string(m.Data) {
				t.Errorf("%s: body of %s: %q", format, m.Name, bodies[i])
			}
		}
	}
}

// randomHeader makes a header that can be written.
func randomHeader(r *rand.Rand) Header {
	text := func(lens ...int) string {
		b := make([]byte, lens[r.IntN(len(lens))])
		alphabet := []string{"abc/", "ab\xc3\xa4", "\xff\x01 =\n"}[r.IntN(3)]
		for i := range b {
			b[i] = alphabet[r.IntN(len(alphabet))]
		}
		return string(b)
	}
	num := func(vs ...int64) int64 { return vs[r.IntN(len(vs))] }
	h := Header{
		Name: text(1, 2, 99, 100, 101, 300), Type: "0234567"[r.IntN(5)], Mode: uint32(r.IntN(0o10000)),
		UID: uint32(num(0, 1000, 2097151, 2097152, 4294967295)), GID: uint32(num(0, 1000, 2097151, 2097152, 4294967295)),
		User: text(0, 5, 32, 33), Group: text(0, 5, 32, 33), Mtime: chain.Time{Sec: num(0, 1, 1<<33-1, 1<<33)},
	}
	switch h.Type {
	case TypeFile:
		h.Size = num(0, 1, 511, 512, 513)
	case TypeSymlink:
		h.Link = text(1, 99, 100, 101, 300)
	case TypeChar, TypeBlock:
		h.Major, h.Minor = uint32(num(0, 259, 2097151)), uint32(num(0, 70000))
	}
	for range r.IntN(3) {
		h.Records = append(h.Records, Record{"DUPFS." + fmt.Sprint(r.IntN(9)), text(0, 1, 80, 88, 90, 995, 1000)})
	}
	return h
}

func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var buf bytes.Buffer
	w := NewWriter(&buf)
	var want []Header
	for range 500 {
		h := randomHeader(r)
		off, err := w.WriteHeader(&h)
		if err != nil {
			t.Fatal(err)
		}
		if off != int64(buf.Len()) || off != w.Off() {
			t.Fatalf("body at %d, but %d written", off, buf.Len())
		}
		h.Off = off
		if _, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size))); err != nil {
			t.Fatal(err)
		}
		want = append(want, h)
	}
	if err := w.Close(10240); err != nil {
		t.Fatal(err)
	}
	if buf.Len()%10240 != 0 || w.Off() != int64(buf.Len()) {
		t.Errorf("%d bytes", buf.Len())
	}
	got, _, err := readAll(bytes.NewReader(buf.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d members, want %d", len(got), len(want))
	}
	for i := range got {
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("got %+v\nwant %+v", got[i], want[i])
		}
	}
	for i, m := range tartest.PythonRead(t, buf.Bytes()) {
		h := want[i]
		name := strings.TrimRight(h.Name, "/")
		if strings.TrimRight(string(m.Name), "/") != name || string(m.Link) != h.Link || m.Type[0] != h.Type || m.Size != h.Size ||
			m.UID != int64(h.UID) || m.GID != int64(h.GID) || m.Mtime != h.Mtime.Sec || m.Mode != int64(h.Mode) ||
			string(m.User) != h.User || string(m.Group) != h.Group || m.Major != int64(h.Major) || m.Minor != int64(h.Minor) || m.Off != h.Off {
			t.Errorf("python sees %+v\nwant %+v", m, h)
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	var buf bytes.Buffer
	w := NewWriter(&buf)
	for _, h := range []Header{
		{Name: "a", Type: '0', Size: -1},
		{Name: "a", Type: '3', Minor: 2097152},
	} {
		if _, err := w.WriteHeader(&h); err == nil || buf.Len() > 0 {
			t.Errorf("%+v: %v, %d bytes", h, err, buf.Len())
		}
	}
	if _, err := w.WriteHeader(&Header{Name: "a", Type: '0', Size: 2}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("abc")); err == nil {
		t.Error("a body that is too long is taken")
	}
	if _, err := w.Write([]byte("a")); err != nil {
		t.Error(err)
	}
	if _, err := w.WriteHeader(&Header{Name: "b", Type: '0'}); err == nil {
		t.Error("a body that is too short is taken")
	}
	if err := w.Close(512); err == nil {
		t.Error("closed within a body")
	}
	failing := NewWriter(&failAfter{n: 700})
	if _, err := failing.WriteHeader(&Header{Name: "a", Type: '0', Size: 1000}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := failing.Write(make([]byte, 500)); err != errFull {
			t.Errorf("error of the writer: %v", err)
		}
	}
}

var errFull = errors.New("full")

type failAfter struct{ n int }

func (f *failAfter) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestEntry(t *testing.T) {
	full := chain.Entry{
		Type: chain.File, Mode: 0o6755, UID: 3000000, GID: 5, User: "u", Group: "g",
		Mtime: chain.Time{Sec: -5, Nsec: 300000000}, Size: 12345, LinkGroup: 1 << 60,
		Xattrs: []chain.Xattr{{Name: "user.", Value: []byte{}}, {Name: "user.a=b%\xff", Value: []byte("v\x00=\n")}, {Name: "user.x", Value: []byte("y")}},
		Data:   []chain.Extent{{Off: 0, Len: 4096}, {Off: 8192, Len: 1}},
		Hash:   [32]byte{1, 2, 3}, HasHash: true,
	}
	hole := chain.Entry{Type: chain.File, Data: []chain.Extent{}, Size: 1 << 40}
	late := chain.Entry{Type: chain.Dir, Mtime: chain.Time{Sec: 1700000000, Nsec: 999999999}}
	for _, e := range []chain.Entry{full, hole, late, {Type: chain.Symlink, Link: "x\xff", LinkGroup: 7}, {Type: chain.CharDevice, Major: 1, Minor: 3}, {Type: chain.Fifo}} {
		var buf bytes.Buffer
		h, err := NewHeader("name", &e, 0, Known)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := NewWriter(&buf).WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		hs, _, err := readAll(&buf)
		if err != nil {
			t.Fatal(err)
		}
		got, err := hs[0].Entry()
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("got %+v, %v\nwant %+v", got, err, e)
		}
	}
	h, err := NewHeader("name", &full, 0, Own)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := h.Entry(); err != nil || e.Size != -1 || e.HasHash {
		t.Errorf("a size and hash nobody wrote: %+v, %v", e, err)
	}
	big := chain.Entry{Type: chain.File, Xattrs: []chain.Xattr{{Name: "user.a", Value: make([]byte, MaxRecord+1)}}}
	if _, err := NewHeader("name", &big, 0, Own); !errors.Is(err, ErrTooLarge) {
		t.Errorf("an attribute too large: %v", err)
	}
	for range 1 << 17 {
		hole.Data = append(hole.Data, chain.Extent{Off: int64(len(hole.Data)) * 2, Len: 1})
	}
	if h, err := NewHeader("name", &hole, 0, Own); err != nil || len(h.Records) != 0 {
		t.Errorf("a map too large: %v, %d records", err, len(h.Records))
	}
}

// TestForeignFacts passes over records of ours that make no sense.
func TestForeignFacts(t *testing.T) {
	h := Header{Type: TypeFile, Mtime: chain.Time{Sec: 5}}
	for _, r := range [][2]string{
		{keyMtime, "1"}, {keyMtime, "1.5"}, {keyMtime, "x.000000000"}, {keyLink, "-1"}, {keySize, "-1"}, {keySize, "x"},
		{keySHA256, "00"}, {keySHA256, "zz"}, {keyData, ""}, {keyData, "1"}, {keyData, "1+0"}, {keyData, "0+5,5+1"}, {keyData, "5+1,0+1"},
		{keyData, "9223372036854775807+2"}, {keyXattr + "%f", "x"}, {keyXattr + "%zz", "x"}, {keyXattr, "x"}, {keySchily, "x"},
	} {
		h.Records = append(h.Records, Record{r[0], r[1]})
	}
	want := chain.Entry{Type: chain.File, Size: -1, Mtime: chain.Time{Sec: 5}}
	if got, err := h.Entry(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	h.Type = '1'
	if _, err := h.Entry(); err == nil {
		t.Error("a hard link is taken")
	}
}

// TestMemory reads 50 MiB of nothing but foreign records.
func TestMemory(t *testing.T) {
	member := join(ext('x', rec("ACME.big", strings.Repeat("x", 1<<20))), blockOf("a", '0', "0"))
	in := bytes.Repeat(member, 50)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	hs, _, err := readAll(bytes.NewReader(in))
	runtime.ReadMemStats(&after)
	if err != nil || len(hs) != 50 {
		t.Fatalf("%d members, %v", len(hs), err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes allocated", n)
	}
}

func FuzzTar(f *testing.F) {
	f.Add(join(blockOf("a", '0', "3"), pad("abc"), make([]byte, 1024)))
	f.Add(join(ext('x', rec("path", "long")+rec("DUPFS.mtime", "1.000000001")), blockOf("a", '0', "0")))
	f.Add(join(ext('g', rec("uname", "all")), ext('L', "name"), blockOf("a", '2', "0")))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 1 && in[len(in)-1] == 0 {
			in = tartest.FixSums(in)
		}
		tr := NewReader(bytes.NewReader(in))
		for {
			h, err := tr.Next()
			if err != nil {
				break
			}
			n, err := io.Copy(io.Discard, tr)
			if err == nil && n != h.Size {
				t.Fatalf("%d bytes of %d", n, h.Size)
			}
			if h.Off%512 != 0 || h.Off > int64(len(in)) {
				t.Fatalf("body at %d of %d", h.Off, len(in))
			}
			if e, err := h.Entry(); err == nil {
				if _, err := NewHeader(h.Name, &e, h.Size, Known); err != nil && !errors.Is(err, ErrTooLarge) {
					t.Fatal(err)
				}
			}
		}
		if err := tr.Drain(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestArchiveTar reads with archive/tar what we write.
func TestArchiveTar(t *testing.T) {
	var buf bytes.Buffer
	w := NewWriter(&buf)
	long := strings.Repeat("ä", 200)
	if _, err := w.WriteHeader(&Header{Name: long, Type: TypeFile, Size: 3, Mtime: chain.Time{Sec: 7}}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(512); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(&buf)
	h, err := r.Next()
	if err != nil || h.Name != long || h.Size != 3 || h.ModTime.Unix() != 7 {
		t.Fatalf("%+v, %v", h, err)
	}
	if _, err := r.Next(); err != io.EOF {
		t.Fatal(err)
	}
}
