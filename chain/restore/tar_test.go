package restore

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// untar lists a stream: what Go's own reader finds of each entry.
func untar(t *testing.T, stream []byte) map[string]string {
	t.Helper()
	got := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(stream)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatalf("%s: %v", h.Name, err)
		}
		got[h.Name] = fmt.Sprintf("%c %o %s %d:%d %x", h.Typeflag, h.Mode, h.Linkname, h.Devmajor, h.Devminor, sha256.Sum256(b))
	}
}

// Every kind of entry is in the stream as it is in the tree.
func TestTarKinds(t *testing.T) {
	group := func(e *chain.Entry) { e.LinkGroup = 3 }
	acl := []byte{2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255, 255}
	var out bytes.Buffer
	report, err := tarOf(t, forest(
		chaintest.File("a", "one").With(group), chaintest.File("b", "one").With(group), chaintest.File("c", "one").With(group),
		chaintest.Fifo("fifo"), chaintest.Link("link", "a"),
		chaintest.Device("chr", chain.CharDevice, 1, 3), chaintest.Device("blk", chain.BlockDevice, 7, 0),
		chaintest.Sparse("s/sparse", 1<<20, chaintest.Piece{Off: 5000, Data: "data"}), chaintest.Sparse("s/hole", 70_000),
		chaintest.File("x", "x").With(func(e *chain.Entry) {
			e.Xattrs = []chain.Xattr{{Name: "system.posix_acl_access", Value: acl}, {Name: "user.a=b%", Value: []byte("v")}}
		}),
	), &out, TarOptions{})
	if err != nil || report.Failed != 0 || report.Files != 4 || report.Dirs != 2 || report.Others != 6 {
		t.Fatalf("%+v, %v", report, err)
	}
	file := func(content string) string { return fmt.Sprintf("0 644  0:0 %x", sha256.Sum256([]byte(content))) }
	sparse := strings.Repeat("\x00", 5000) + "data" + strings.Repeat("\x00", 1<<20-5004)
	none := fmt.Sprintf("%x", sha256.Sum256(nil))
	want := map[string]string{
		"./": "5 755  0:0 " + none, "./s/": "5 755  0:0 " + none,
		"./a": file("one"), "./b": "1 644 ./a 0:0 " + none, "./c": "1 644 ./a 0:0 " + none,
		"./fifo": "6 600  0:0 " + none, "./link": "2 777 a 0:0 " + none,
		"./chr": "3 600  1:3 " + none, "./blk": "4 600  7:0 " + none,
		"./s/sparse": file(sparse), "./s/hole": file(strings.Repeat("\x00", 70_000)), "./x": file("x"),
	}
	got := untar(t, out.Bytes())
	for name, w := range want {
		if got[name] != w {
			t.Errorf("%s: %q, want %q", name, got[name], w)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
	for _, record := range []string{"SCHILY.acl.access=user::rw-", "SCHILY.xattr.user.a%3Db%25=v\n"} {
		if !bytes.Contains(out.Bytes(), []byte(record)) {
			t.Errorf("no record %q", record)
		}
	}
}

// A file that cannot be read is reported, and the stream goes on with the others;
// what was begun is filled up, and said to be.
func TestTarFaults(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 2*maxSmall/16)
	corrupt := chain.Corrupt("volume 1", "hash differs")
	for _, tt := range []struct {
		name, bad string
		wrap      func(c chain.Content) chain.Content
		want      string
		begun     bool
	}{
		{"small", "small", func(c chain.Content) chain.Content { return chaintest.Faulty{Content: c, Off: 2, Err: corrupt} }, "hash differs", false},
		{"small ends early", "small", func(c chain.Content) chain.Content { return chaintest.Faulty{Content: c, Off: 2} }, "unexpected EOF", false},
		{"another small one", "small", func(chain.Content) chain.Content { return chaintest.Bytes("SMALL") }, "SHA-256", false},
		{"small of another size", "small", func(chain.Content) chain.Content { return chaintest.Bytes("sm") }, "", false},
		{"big", "big", func(c chain.Content) chain.Content {
			return chaintest.Faulty{Content: c, Off: maxSmall + 5, Err: corrupt}
		}, "zeros in place of its last", true},
		{"big ends early", "big", func(c chain.Content) chain.Content { return chaintest.Faulty{Content: c, Off: maxSmall + 5} }, "zeros in place of its last", true},
		{"another big one", "big", func(chain.Content) chain.Content { return chaintest.Bytes(strings.ToUpper(big)) }, "SHA-256", true},
		{"big of another size", "big", func(chain.Content) chain.Content { return chaintest.Bytes(big + "x") }, "size is", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := forest(chaintest.File("a", "good"), chaintest.File("big", big), chaintest.File("small", "small"), chaintest.File("z/z", "good"))
			f.Wrap = func(n chain.Node, c chain.Content) chain.Content {
				if n.Name == tt.bad {
					return tt.wrap(c)
				}
				return c
			}
			var out bytes.Buffer
			var warned []string
			report, err := tarOf(t, f, &out, TarOptions{Warn: func(p chain.Path, err error) { warned = append(warned, p.String()+": "+err.Error()) }})
			if err != nil || report.Failed != 1 || report.Files != 3 || len(warned) != 1 ||
				!strings.HasPrefix(warned[0], tt.bad+": ") || !strings.Contains(warned[0], tt.want) {
				t.Fatalf("%+v, %v, %q", report, err, warned)
			}
			got := untar(t, out.Bytes())
			if _, there := got["./"+tt.bad]; there != tt.begun || len(got) != map[bool]int{false: 5, true: 6}[tt.begun] {
				t.Errorf("there: %v, of %d entries", there, len(got))
			}
		})
	}
}

// A tree that leads nowhere, or into itself, ends.
func TestTarOddTrees(t *testing.T) {
	f := forest()
	failed := errors.New("cannot be listed")
	var out bytes.Buffer
	report, err := Tar(t.Context(), f, failDir{Tree: forest(chaintest.File("d/f", "x")).Newest(), dir: 2, err: failed}, chain.Root, &out, TarOptions{})
	if err != nil || report.Failed == 0 {
		t.Errorf("a directory that cannot be listed: %+v, %v", report, err)
	}
	for name, tree := range map[string]oddTree{
		"directory lies within itself": {1: {odd("a", chain.Dir, 2)}, 2: {odd("b", chain.Dir, 1)}},
		"\"..\"":                       {1: {odd("..", chain.Symlink, 0)}},
		"\"a/b\"":                      {1: {odd("a/b", chain.Symlink, 0)}},
	} {
		var warned []string
		var out bytes.Buffer
		report, err := Tar(t.Context(), f, tree, chain.Root, &out, TarOptions{Warn: func(p chain.Path, err error) {
			warned = append(warned, p.String()+": "+err.Error())
		}})
		if err != nil || report.Failed != 1 || len(warned) != 1 || !strings.Contains(warned[0], name) {
			t.Errorf("%s: %+v, %v, %q", name, report, err, warned)
		}
		if got := untar(t, out.Bytes()); int64(len(got)) != report.Dirs {
			t.Errorf("%s: %v", name, got)
		}
	}
	if _, err := Tar(t.Context(), f, f.Newest(), "not/there", &out, TarOptions{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a path that is not there: %v", err)
	}
}
