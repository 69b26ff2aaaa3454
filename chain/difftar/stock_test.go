package difftar_test

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/chain/manifest"
	"dupfs/chain/sigtar"
	"dupfs/internal/need"
)

// item is an entry and its content, cut into pieces as given; nil: whole.
type item struct {
	entry  chain.Entry
	body   string
	pieces []int
}

// tree returns a tree that tar finds hard, owned by who runs the test.
func tree() []item {
	r := rand.New(rand.NewPCG(11, 12))
	random := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return string(b)
	}
	entry := func(p chain.Path, t chain.Type, mode uint32) chain.Entry {
		return chain.Entry{Path: p, Type: t, Mode: mode, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()),
			Mtime: chain.Time{Sec: 1600000000 + int64(len(p)), Nsec: 999999999}}
	}
	file := func(p chain.Path, mode uint32, body string, pieces ...int) item {
		e := entry(p, chain.File, mode)
		e.Size = int64(len(body))
		return item{e, body, pieces}
	}
	dir := func(p chain.Path) item { return item{entry: entry(p, chain.Dir, 0o755)} }
	long := chain.Path(strings.Repeat("l", 100) + "/" + strings.Repeat("m", 200))
	rich := file("d/rich", 0o640, "rich")
	rich.entry.Xattrs = []chain.Xattr{{Name: "user.x", Value: []byte("\x00=\n\xff")}, {Name: "user.a=b", Value: []byte("v")}}
	rich.entry.LinkGroup, rich.entry.Data = 5, []chain.Extent{{Off: 0, Len: 4}}
	rich.entry.Hash, rich.entry.HasHash = [32]byte{1}, true
	link := entry("z link", chain.Symlink, 0o777)
	link.Link = "to\xff/" + strings.Repeat("t", 120)
	return []item{
		dir(""),
		file("a", 0o644, "hello\n"),
		file("big", 0o600, random(3000000), 1000000, 1000000, 1000000),
		dir("d"),
		file("d/empty", 0o444, ""),
		{entry: entry("d/fifo", chain.Fifo, 0o600)},
		rich,
		file("d/x y\n\xff\xfe", 0o644, "odd"),
		file("d b", 0o644, random(70000), 70000, 0),
		dir(chain.Path(strings.Repeat("l", 100))),
		file(long, 0o755, random(1<<20+1), 1<<20, 1),
		file("x"+chain.Path(strings.Repeat("y", 90)), 0o644, "name of 100 bytes with its prefix"),
		file("yé", 0o644, "utf-8"),
		{entry: link},
	}
}

// archive writes the tree as a full set of two volumes.
func archive(t *testing.T, dir string, items []item) {
	t.Helper()
	const stamp = "20231114T221320Z"
	m := &manifest.Manifest{}
	var buf bytes.Buffer
	w := difftar.NewWriter(&buf)
	v := manifest.Volume{Number: 1, FirstBlock: -1, LastBlock: -1, HasSHA1: true}
	end := func() {
		check(t, w.Close())
		v.SHA1 = sha1.Sum(buf.Bytes())
		m.Volumes = append(m.Volumes, v)
		check(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("duplicity-full.%s.vol%d.difftar", stamp, v.Number)), buf.Bytes(), 0o600))
	}
	for _, it := range items {
		pieces := it.pieces
		if pieces == nil {
			pieces = []int{len(it.body)}
		}
		body := it.body
		for i, n := range pieces {
			mem := difftar.Member{Entry: it.entry, Kind: difftar.Snapshot, Len: int64(n)}
			if it.pieces != nil {
				mem.Piece = i + 1
			}
			if it.entry.Path == "big" && mem.Piece == 2 {
				v.LastBlock = 1
				end()
				buf.Reset()
				w = difftar.NewWriter(&buf)
				v = manifest.Volume{Number: 2, First: "big", FirstBlock: 2, LastBlock: -1, HasSHA1: true}
			}
			_, err := w.Header(&mem)
			check(t, err)
			_, err = io.WriteString(w, body[:n])
			check(t, err)
			body = body[n:]
			v.Last = it.entry.Path
		}
	}
	end()
	var sigs bytes.Buffer
	sw := sigtar.NewWriter(&sigs)
	for _, it := range items {
		mem := sigtar.Member{Entry: it.entry}
		signature := ""
		if it.entry.Type == chain.File {
			// A signature of no blocks stands for any file.
			signature = "rs\x01\x36\x00\x00\x02\x00\x00\x00\x00\x08"
		}
		mem.Len = int64(len(signature))
		_, err := sw.Header(&mem)
		check(t, err)
		_, err = io.WriteString(sw, signature)
		check(t, err)
	}
	check(t, sw.Close())
	check(t, os.WriteFile(filepath.Join(dir, "duplicity-full-signatures."+stamp+".sigtar"), sigs.Bytes(), 0o600))
	var text bytes.Buffer
	check(t, manifest.Write(&text, m, 0, nil))
	check(t, os.WriteFile(filepath.Join(dir, "duplicity-full."+stamp+".manifest"), text.Bytes(), 0o600))
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestStockReads lets duplicity restore, list and continue what we write.
func TestStockReads(t *testing.T) {
	need.Program(t, "duplicity")
	items := tree()
	dir, restored, cache := t.TempDir(), filepath.Join(t.TempDir(), "restored"), t.TempDir()
	archive(t, dir, items)
	run := func(args ...string) string {
		t.Helper()
		args = append([]string{"--no-encryption", "--no-compression", "--archive-dir", cache, "--allow-source-mismatch"}, args...)
		out, err := exec.Command("duplicity", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, word := range []string{"Warning", "rror", "oldindex"} {
			if strings.Contains(string(out), word) && !strings.Contains(string(out), "Errors 0\n") {
				t.Errorf("duplicity %v says\n%s", args, out)
			}
		}
		return string(out)
	}
	run("restore", "file://"+dir, restored)
	for _, it := range items {
		compare(t, restored, it)
	}
	n := 0
	check(t, filepath.WalkDir(restored, func(string, fs.DirEntry, error) error { n++; return nil }))
	if n != len(items) {
		t.Errorf("%d entries restored, want %d", n, len(items))
	}
	list := run("list-current-files", "file://"+dir)
	if got := strings.Count(list, " 2020 "); got != len(items) {
		t.Errorf("%d entries listed, want %d:\n%s", got, len(items), list)
	}
	stats := run("incremental", restored, "file://"+dir)
	for _, field := range []string{"NewFiles", "DeletedFiles", "ChangedFiles"} {
		if !regexp.MustCompile(`(?m)^` + field + ` 0$`).MatchString(stats) {
			t.Errorf("an increment of the same tree has changes:\n%s", stats)
			break
		}
	}
}

func compare(t *testing.T, root string, it item) {
	t.Helper()
	name := filepath.Join(root, string(it.entry.Path))
	info, err := os.Lstat(name)
	if err != nil {
		t.Error(err)
		return
	}
	if it.entry.Type == chain.Symlink {
		if to, err := os.Readlink(name); err != nil || to != it.entry.Link {
			t.Errorf("%q links to %q, %v", name, to, err)
		}
		return
	}
	if want := time.Unix(it.entry.Mtime.Sec, 0); !info.ModTime().Equal(want) || uint32(info.Mode().Perm()) != it.entry.Mode {
		t.Errorf("%q: %v %v, want %o %v", name, info.Mode(), info.ModTime(), it.entry.Mode, want)
	}
	if it.entry.Type == chain.File {
		if body, err := os.ReadFile(name); err != nil || string(body) != it.body {
			t.Errorf("%q: %d bytes, %v", name, len(body), err)
		}
	}
}

// TestStockSingleFile has a file as the root, whole and in pieces.
func TestStockSingleFile(t *testing.T) {
	need.Program(t, "duplicity")
	for _, pieces := range [][]int{nil, {3, 2, 0}} {
		e := chain.Entry{Type: chain.File, Mode: 0o600, UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Mtime: chain.Time{Sec: 1600000000}}
		it := item{e, "hello", pieces}
		dir, restored := t.TempDir(), filepath.Join(t.TempDir(), "restored")
		archive(t, dir, []item{it})
		out, err := exec.Command("duplicity", "restore", "--no-encryption", "--archive-dir", t.TempDir(), "file://"+dir, restored).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		compare(t, restored, it)
	}
}
