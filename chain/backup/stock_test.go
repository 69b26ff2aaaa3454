package backup

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dupfs/chain"
	"dupfs/chain/volume"
)

// noise returns n bytes that do not compress, always the same for a seed.
func noise(seed uint64, n int) string {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = rng.Read(b)
	return string(b)
}

// zoo makes a source with every kind of entry and the oddest names.
func (w *world) zoo() {
	t := w.t
	w.write("plain", "hello\n")
	w.write("empty", "")
	w.write("names/new\nline", "1")
	w.write("names/sp ace", "2")
	w.write("names/bad\xff\xfe", "3")
	w.write("names/"+strings.Repeat("é", 127), "4")
	w.write("names/"+strings.Repeat("n", 255), "5")
	w.write("names/quote\"'\\x20", "6")
	w.write("names/ends with blank ", "7")
	w.write(strings.Repeat("deep/", 60)+"er", "8")
	w.write("order/a/b", "1")
	w.write("order/a b", "2")
	w.write("order/a.b", "3")
	w.write("order/a-b", "4")
	for _, n := range []int{99, 100, 101, 200, 300} { // of pieces of 100 bytes
		w.write(fmt.Sprintf("edge/%d", n), noise(uint64(n), n))
	}
	w.write("big", noise(1, 70_000))
	w.write("num/12/1", "looks like a piece")
	w.write("gone", "deleted, then made again")
	w.write("toDir", "a file that becomes a directory")
	w.write("toFile/a/b", "a directory that becomes a file")
	w.write("toLink/a", "a directory that becomes a link")
	w.write("setuid", "x")
	must(t, os.Chmod(w.path("setuid"), 0o755|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky))
	must(t, os.Link(w.path("plain"), w.path("hardlink")))
	must(t, os.Symlink("plain", w.path("symlink")))
	must(t, os.Symlink(strings.Repeat("/long", 50), w.path("longlink")))
	must(t, unix.Mkfifo(w.path("fifo"), 0o600))
	must(t, os.MkdirAll(w.path("emptydir"), 0o700))
	w.write("old", "before 1970")
	must(t, os.Chtimes(w.path("old"), time.Unix(-100, 5), time.Unix(-100, 5)))
	w.write("year2300", "late")
	must(t, os.Chtimes(w.path("year2300"), time.Unix(10413792000, 0), time.Unix(10413792000, 0)))
	f, err := os.Create(w.path("sparse"))
	must(t, err)
	_, err = f.WriteAt([]byte("in the middle"), 100_000)
	must(t, err)
	must(t, f.Truncate(300_000))
	must(t, f.Close())
	if os.Geteuid() == 0 {
		must(t, unix.Mknod(w.path("chr"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
		must(t, unix.Mknod(w.path("blk"), unix.S_IFBLK|0o600, int(unix.Mkdev(259, 70000))))
		must(t, os.Chown(w.path("edge/99"), 3_000_000, 12345))
	}
}

// steps are the edits between sets.
func (w *world) steps() []func() {
	t := w.t
	touch := func(name string, sec int64) {
		must(t, os.Chtimes(w.path(name), time.Unix(sec, 123), time.Unix(sec, 123)))
	}
	return []func(){
		func() {
			w.write("plain", "hello again\n")
			big := []byte(noise(1, 70_000))
			copy(big[20_000:], "changed in the middle")
			w.write("big", string(append(big[:50_000], []byte(noise(2, 3000)+string(big[50_000:]))...)))
			must(t, os.Remove(w.path("gone")))
			must(t, os.Remove(w.path("toDir")))
			w.write("toDir/a/b", "inside")
			must(t, os.RemoveAll(w.path("toFile")))
			w.write("toFile", "a file now")
			must(t, os.RemoveAll(w.path("toLink")))
			must(t, os.Symlink("elsewhere", w.path("toLink")))
			must(t, os.Chmod(w.path("edge/200"), 0o600))
			touch("edge/101", 1_600_000_000)
			w.write("edge/300", "")
			w.write("empty", "no longer")
			must(t, os.Remove(w.path("symlink")))
			must(t, os.Symlink("empty", w.path("symlink")))
		},
		func() {
			w.write("gone", noise(9, 250))
			w.write("big", noise(1, 70_000))
			w.write("edge/300", noise(300, 300))
			must(t, os.RemoveAll(w.path("toDir")))
			must(t, os.RemoveAll(w.path("names")))
			w.write("names/again", "1")
			must(t, os.Rename(w.path("num"), w.path("numb")))
			must(t, os.Chmod(w.path("emptydir"), 0o555))
		},
		func() {}, // nothing
		func() {
			w.write("big", noise(3, 200))
			w.write("edge/99", strings.Repeat(noise(99, 99), 30))
			must(t, os.RemoveAll(w.path("deep")))
		},
	}
}

// tiny makes every boundary close.
func (w *world) tiny() {
	w.opts.PieceSize = 100
	w.opts.VolSize = 20_000
	w.vol = volume.Options{Chunk: 1000}
}

// TestStock lets duplicity restore every point of what we wrote, then
// continue it, and continues that.
func TestStock(t *testing.T) {
	for _, layer := range []chain.Layer{chain.Plain, chain.Gzip, chain.OpenPGP} {
		for _, size := range []string{"tiny", "usual"} {
			t.Run(layer.String()+" "+size, func(t *testing.T) {
				if size == "usual" && layer == chain.Plain || testing.Short() && (layer != chain.Gzip || size != "tiny") {
					t.Skip("the others do")
				}
				w := newWorld(t, layer)
				if size == "tiny" {
					w.tiny()
				}
				if layer == chain.OpenPGP {
					w.opts.VolSize *= 5 // gpg takes its time to derive a key for each
				}
				w.zoo()
				w.mustRun(true)
				steps := w.steps()
				for _, edit := range steps[:2] {
					edit()
					w.mustRun(false)
				}
				w.stockRestores()
				steps[2]()
				if out := w.stockRun("incremental"); !strings.Contains(out, "DeltaEntries 0\n") {
					t.Errorf("duplicity found changes where there are none:\n%s", out)
				}
				if s := w.mustRun(false); s.DeltaEntries != 0 {
					t.Errorf("%d changes on a set of duplicity's where there are none", s.DeltaEntries)
				}
				steps[3]()
				w.stockRun("incremental")
				w.write("after", "the last")
				w.mustRun(false)
				w.stockRestores()
			})
		}
	}
}

// TestStockBase continues a full set of duplicity's.
func TestStockBase(t *testing.T) {
	w := newWorld(t, chain.Gzip)
	w.zoo()
	w.stockRun("full")
	if s := w.mustRun(false); s.DeltaEntries != 0 {
		t.Errorf("%d changes where there are none", s.DeltaEntries)
	}
	for _, edit := range w.steps() {
		edit()
		w.mustRun(false)
	}
	w.stockRestores()
}

// TestStatistics compares the statistics with duplicity's.
func TestStatistics(t *testing.T) {
	ours, theirs := newWorld(t, chain.Plain), newWorld(t, chain.Plain)
	ours.zoo()
	theirs.src = ours.src
	compare := func(s *Stats, out string) {
		t.Helper()
		for _, f := range []struct {
			name string
			n    int64
		}{
			{"SourceFiles", s.SourceFiles}, {"SourceFileSize", s.SourceFileSize}, {"NewFiles", s.NewFiles},
			{"NewFileSize", s.NewFileSize}, {"DeletedFiles", s.DeletedFiles}, {"ChangedFiles", s.ChangedFiles},
			{"ChangedFileSize", s.ChangedFileSize}, {"DeltaEntries", s.DeltaEntries}, {"Errors", s.Errors},
		} {
			if line := fmt.Sprintf("\n%s %d", f.name, f.n); !strings.Contains(out, line) {
				_, rest, _ := strings.Cut(out, "\n"+f.name)
				text, _, _ := strings.Cut(rest, "\n")
				t.Errorf("%s is %d, duplicity says%s", f.name, f.n, text)
			}
		}
	}
	s := ours.mustRun(true)
	compare(s, theirs.stockRun("full"))
	for _, edit := range ours.steps()[:2] {
		edit()
		compare(ours.mustRun(false), theirs.stockRun("incremental"))
	}
}

// TestThreeVolumes stores a file of three volumes, and a delta of two.
func TestThreeVolumes(t *testing.T) {
	w := newWorld(t, chain.Gzip)
	w.opts.VolSize, w.opts.PieceSize = 1<<20, 100_000
	w.vol.Chunk = 32 << 10
	w.write("a", "before")
	w.write("m", noise(1, 3_300_000))
	w.write("z", "after")
	w.opts.Uploads = 2
	s := w.mustRun(true)
	if n := len(s.Set.Volumes); n < 3 {
		t.Fatalf("%d volumes", n)
	}
	var size int64
	for _, v := range s.Set.Volumes {
		size += v.Size
		if v.Size > 1<<20+150_000 {
			t.Errorf("volume %d has %d bytes", v.Volume, v.Size)
		}
	}
	b := []byte(noise(1, 3_300_000))
	copy(b[500_000:], noise(5, 1_400_000))
	w.write("m", string(bytes.Clone(b)))
	s = w.mustRun(false)
	if n := len(s.Set.Volumes); n != 2 {
		t.Errorf("%d volumes of a delta", n)
	}
	w.stockRestores()
}

// TestRandom makes random trees and edits, with tiny sizes, and reads every
// set back by its index. DUPFS_BACKUP_SEED repeats one.
func TestRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("DUPFS_BACKUP_SEED"); s != "" {
		_, err := fmt.Sscan(s, &seed)
		must(t, err)
	}
	for i := range uint64(6) {
		t.Run(fmt.Sprint(seed+i), func(t *testing.T) { testRandom(t, rand.New(rand.NewPCG(seed+i, 0))) })
	}
}

func testRandom(t *testing.T, rng *rand.Rand) {
	w := newWorld(t, []chain.Layer{chain.Plain, chain.Gzip, chain.OpenPGP}[rng.IntN(3)])
	w.opts.PieceSize = 1 + rng.IntN(3000)
	w.opts.VolSize = int64(2000 + rng.IntN(40_000))
	if w.layer == chain.OpenPGP {
		w.opts.VolSize *= 10
	}
	w.opts.Workers = 1 + rng.IntN(4)
	w.opts.Uploads = 1 + rng.IntN(2)
	w.opts.Memory = int64(1 + rng.IntN(1<<20))
	w.vol = volume.Options{Chunk: 600 + rng.IntN(5000)}
	for range 15 {
		w.edit(rng)
	}
	w.mustRun(true)
	for range 4 {
		for range rng.IntN(10) {
			w.edit(rng)
		}
		w.mustRun(false)
	}
	want := make(map[string]bool)
	for name, text := range w.points[len(w.points)-1].tree {
		want[name] = strings.Contains(text, " bytes ")
	}
	for p := range w.contents {
		if !want[string(p)] {
			t.Errorf("%s is in the archive, but not in the source", p)
		}
		delete(want, string(p))
	}
	for name, isFile := range want {
		if isFile {
			t.Errorf("%s is in the source, but not in the archive", name)
		}
	}
	if testing.Short() {
		return
	}
	w.points = w.points[len(w.points)-1:]
	w.stockRestores()
}

// edit changes something below the source at random.
func (w *world) edit(rng *rand.Rand) {
	name := ""
	for range 1 + rng.IntN(3) {
		name += "/" + []string{"a", "b", "a b", "a.b", "ab", "\xff"}[rng.IntN(6)]
	}
	full := w.path(name)
	for p := full; p != w.src; p = filepath.Dir(p) { // no file may be on the way
		if info, err := os.Lstat(p); err == nil && !info.IsDir() && p != full {
			must(w.t, os.Remove(p))
		}
	}
	old, err := os.ReadFile(full)
	switch n := rng.IntN(10); {
	case err == nil && n < 5:
		cut := rng.IntN(len(old) + 1)
		end := cut + rng.IntN(len(old)-cut+1)
		w.write(name, string(old[:cut])+noise(rng.Uint64(), rng.IntN(2000))+string(old[end:]))
	case err == nil && n < 7:
		must(w.t, os.Chmod(full, fs.FileMode(0o400+rng.IntN(0o400))))
	case n == 8:
		must(w.t, os.RemoveAll(full))
	case n == 9:
		must(w.t, os.RemoveAll(full))
		must(w.t, os.MkdirAll(filepath.Dir(full), 0o755))
		must(w.t, os.Symlink(fmt.Sprint("to ", rng.IntN(100)), full))
	default:
		must(w.t, os.RemoveAll(full))
		w.write(name, strings.Repeat(noise(rng.Uint64(), rng.IntN(3000)), 1+rng.IntN(4)))
	}
}
