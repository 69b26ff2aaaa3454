package main

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

// A lost manifest and lost signatures are made anew, in sets of either program,
// so that stock restores and continues the chain as if nothing had been.
func TestDoctorRepairs(t *testing.T) {
	w := newWorld(t)
	url := w.url("archive")
	for n, turn := range []func(...string) string{w.dupfs, w.stock, w.dupfs} {
		w.grow(n)
		turn("--volsize", "1", "--current-time", at(n), "src", url)
	}
	if out := w.dupfs("doctor", "--deep", url); !strings.Contains(out, "Nothing is wrong") {
		t.Errorf("of an intact archive:\n%s", out)
	}
	w.sh("rm archive/*manifest* archive/*full-signatures* archive/*new-signatures*.to.20231116*")
	r := w.exec(nil, binary, "restore", url, w.path("none"))
	if r.code == exitOK {
		t.Error("restored without a manifest")
	}
	w.repaired(t, url)
	w.sh("rm archive/*new-signatures*.to.20231115*")
	w.repaired(t, url)
	w.grow(3)
	w.stock("incremental", "--current-time", at(3), "src", url)
	for n := range 4 {
		w.stock("verify", "--compare-data", "--time", at(n), url, w.path(fmt.Sprint("copy", n)))
		w.dupfs("verify", "--compare-data", "--time", at(n), url, w.path(fmt.Sprint("copy", n)))
	}
}

// repaired repairs the archive, which must then be as good as new.
func (w *world) repaired(t *testing.T, url string) {
	t.Helper()
	if r := w.exec(nil, binary, "doctor", url); strings.Contains(r.stdout, "Nothing is wrong") {
		t.Errorf("nothing was found: %s%s", r.stdout, r.stderr)
	}
	if out := w.dupfs("doctor", "--repair", url); !strings.Contains(out, "Nothing is wrong") || !strings.Contains(out, "repaired: ") {
		t.Error(out)
	}
	w.dupfs("verify", "--all-points", url)
	if out := w.stock("cleanup", url); !strings.Contains(out, "No extraneous files found") {
		t.Errorf("stock finds something to clean up:\n%s", out)
	}
}

// What is left of a backup that did not finish is not taken for a whole one.
func TestDoctorUnsure(t *testing.T) {
	w := newWorld(t)
	w.grow(0)
	url := w.url("archive")
	w.stock("--volsize", "1", "--current-time", at(0), "src", url)
	w.sh("rm archive/*manifest* archive/*.vol4.*") // the last one
	r := w.exec(nil, binary, "doctor", "--repair", url)
	if r.code != exitDamaged || !strings.Contains(r.stdout, "does not show that it is whole") {
		t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	w.sh("test ! -e archive/*manifest*; rm archive/*sigtar*")
	r = w.exec(nil, binary, "doctor", "--repair", url)
	if r.code != exitOK || !strings.Contains(r.stdout, "did not finish") {
		t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
}

// A lost index of ours is made anew, the same to the last bit, on a machine that
// has nothing but the archive, and so is one whose signatures are lost, too.
func TestDoctorMakesIndexes(t *testing.T) {
	w := newWorld(t)
	url := w.url("archive")
	for n := range 4 {
		w.grow(n)
		w.sh(`touch -d '2023-01-01 12:00:00.123456789' src/small.txt; ln -f src/small.txt src/hard
			setfattr -n user.colour -v blue src/small.txt src/dir 2>/dev/null || true`)
		w.dupfs("--volsize", "1", "--no-encryption", "--current-time", at(n), "src", url)
	}
	w.sh("cp -a archive whole; rm archive/dupfs-index*")
	doctor := []string{"doctor", "--no-encryption", "--archive-dir", w.path("empty"), "--repair", url}
	if out := w.dupfs(doctor...); strings.Count(out, "repaired: ") != 4 || !strings.Contains(out, "Nothing is wrong") {
		t.Error(out)
	}
	w.sh("for f in whole/dupfs-index*; do cmp <(zcat $f) <(zcat archive/${f#whole/}); done")
	// Signatures and index of one set at once: then there is another index, which
	// is used nevertheless as it fits the volumes.
	w.sh(`rm -r archive empty; cp -a whole archive; cd archive; rm dupfs-index*20231115T*.to.* *signatures.20231115T*.to.*`)
	if out := w.dupfs(doctor...); strings.Count(out, "repaired: ") != 2 || !strings.Contains(out, "Nothing is wrong") {
		t.Error(out)
	}
	w.sh("cp -a archive mended")
	fresh := []string{"--no-encryption", "--archive-dir", w.path("fresh"), "--verbosity", "info", "--all-points", url}
	if r := w.exec(nil, binary, append([]string{"verify"}, fresh...)...); r.code != exitOK || strings.Contains(r.stdout+r.stderr, "not used") {
		t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
	// It no longer fits if a volume is another.
	w.sh(`rm -r fresh; cd archive; zcat *inc.20231115T*.vol1.difftar.gz > v; cat v | gzip -1 > *inc.20231115T*.vol1.difftar.gz; rm v`)
	r := w.exec(nil, binary, append([]string{"verify"}, fresh...)...)
	if r.code != exitDamaged || !strings.Contains(r.stdout+r.stderr, "its index is not used: ") {
		t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
	}
}

// Of an increment whose base is lost what it holds itself can be restored, but
// only on demand, and nothing in the place of the rest.
func TestSalvage(t *testing.T) {
	for _, ours := range []bool{true, false} {
		t.Run(map[bool]string{true: "dupfs", false: "stock"}[ours], func(t *testing.T) {
			w := newWorld(t)
			url := w.url("archive")
			turn := map[bool]func(...string) string{true: w.dupfs, false: w.stock}[ours]
			for n := range 3 {
				w.grow(n)
				turn("--volsize", "1", "--current-time", at(n), "src", url)
			}
			w.sh("rm archive/*full*")
			if r := w.exec(nil, binary, "doctor", url); r.code != exitDamaged || strings.Count(r.stdout, "--salvage --time") != 2 ||
				!strings.Contains(r.stdout, "; it holds ") || strings.Contains(r.stdout, "cleanup") {
				t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
			}
			if r := w.exec(nil, binary, "restore", url, w.path("none")); r.code != exitDamaged || !strings.Contains(r.stderr, "--salvage") {
				t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
			}
			w.sh("test ! -e none")
			for n := 1; n < 3; n++ {
				out := w.path(fmt.Sprint("out", n))
				r := w.exec(nil, binary, "restore", "--salvage", "--time", at(n), url, out)
				if r.code != exitDamaged || !strings.Contains(r.stderr, "big.bin") {
					t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
				}
				w.salvaged(t, n, out)
			}
			// What came with the first increment, the second has as well.
			w.sh("cmp out1/new/file copy1/new/file; cmp out1/turns copy1/turns; cmp out2/turns copy2/turns; cmp out2/gone copy2/gone; test ! -e out2/big.bin; test ! -e out2/dir.txt; test ! -e out2/new")
		})
	}
}

// Where only volumes are left everything that they hold can be restored on
// demand, of every point, and nothing passes for a whole backup.
func TestSalvageVolumes(t *testing.T) {
	for _, ours := range []bool{true, false} {
		t.Run(map[bool]string{true: "dupfs", false: "stock"}[ours], func(t *testing.T) {
			w := newWorld(t)
			url := w.url("archive")
			turn := map[bool]func(...string) string{true: w.dupfs, false: w.stock}[ours]
			for n := range 3 {
				w.grow(n)
				turn("--volsize", "1", "--current-time", at(n), "src", url)
			}
			w.sh("rm -r home; mkdir home; cp -a archive whole; find archive -type f ! -name '*.vol*' -delete")
			for _, verb := range [][]string{{"restore", url, w.path("none")}, {"ls", url}} {
				r := w.exec(nil, binary, verb...)
				if r.code == exitOK || verb[0] == "restore" && !strings.Contains(r.stderr, "--salvage") {
					t.Errorf("%s: exit %d: %s%s", verb[0], r.code, r.stdout, r.stderr)
				}
			}
			for n := range 3 {
				out := w.path(fmt.Sprint("out", n))
				r := w.exec(nil, binary, "restore", "--salvage", "--time", at(n), url, out)
				if r.code != exitDamaged || !strings.Contains(r.stderr, "nothing shows") {
					t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
				}
				if got, want := linesOf(t, out), linesOf(t, w.path(fmt.Sprint("copy", n))); !maps.Equal(got, want) {
					t.Errorf("point %d: got %v\nwant %v", n, got, want)
				}
			}
			// With a volume of the first set missing, and one damaged: the rest.
			w.sh(`rm -r out? home; mkdir home; cd archive; rm *full*vol2.*; f=$(ls *full*vol4.*); printf ruin | dd of=$f bs=1 seek=70000 conv=notrunc status=none`)
			lost, kept := 0, 0
			for n := range 3 {
				out := w.path(fmt.Sprint("out", n))
				r := w.exec(nil, binary, "restore", "--salvage", "--time", at(n), url, out)
				if r.code != exitDamaged || !strings.Contains(r.stderr, "nothing shows") {
					t.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
				}
				w.salvaged(t, n, out)
				got := linesOf(t, out)
				for p, l := range linesOf(t, w.path(fmt.Sprint("copy", n))) {
					switch {
					case strings.HasPrefix(l, " dir "):
					case got[p] == "":
						lost++
					default:
						kept++
					}
				}
			}
			if lost == 0 || kept < 12 {
				t.Errorf("%d files are there, %d missing", kept, lost)
			}
			// Once the rest is back all is as it was.
			w.sh("rm -r archive out?; cp -a whole archive")
			w.dupfs("restore", url, w.path("out"))
			if !maps.Equal(linesOf(t, w.path("out")), linesOf(t, w.path("copy2"))) {
				t.Error("it is not as it was")
			}
		})
	}
}

// salvaged checks that every file that was restored of a point is right.
func (w *world) salvaged(t *testing.T, n int, out string) {
	t.Helper()
	want := linesOf(t, w.path(fmt.Sprint("copy", n)))
	for p, l := range linesOf(t, out) {
		isDir := strings.HasPrefix(l, " dir ")
		if wl, ok := want[p]; !ok || l != wl && !isDir { // a directory that the set does not mention has no facts
			t.Errorf("point %d, %q: restored %s, want %s", n, p, l, wl)
		}
	}
}
