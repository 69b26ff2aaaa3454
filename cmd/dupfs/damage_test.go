package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"dupfs/chain"
)

// damages are what can become of one stored file. Each changes dir/name; other
// is a file of the same kind, or any other file if there is none.
var damages = []struct {
	name string
	do   func(t *testing.T, dir, name, other string)
}{
	{"removed", func(t *testing.T, dir, name, _ string) { must(t, os.Remove(filepath.Join(dir, name))) }},
	{"truncated", func(t *testing.T, dir, name, _ string) {
		text := readFile(t, filepath.Join(dir, name))
		replace(t, dir, name, text[:len(text)/2])
	}},
	{"bit flipped", func(t *testing.T, dir, name, _ string) {
		text := readFile(t, filepath.Join(dir, name))
		text[len(text)/2] ^= 1
		replace(t, dir, name, text)
	}},
	{"emptied", func(t *testing.T, dir, name, _ string) { replace(t, dir, name, nil) }},
	{"another's", func(t *testing.T, dir, name, other string) {
		replace(t, dir, name, readFile(t, filepath.Join(dir, other)))
	}},
	{"renamed", func(t *testing.T, dir, name, _ string) {
		must(t, os.Rename(filepath.Join(dir, name), filepath.Join(dir, "x"+name)))
	}},
	{"duplicated", func(t *testing.T, dir, name, _ string) {
		replace(t, dir, twin(name), readFile(t, filepath.Join(dir, name)))
	}},
}

// twin returns a name like one that a stored file could have, too.
func twin(name string) string {
	if i := strings.Index(name, ".vol"); i >= 0 {
		return name[:i] + ".vol77" + name[strings.Index(name, ".difftar"):]
	}
	return strings.TrimSuffix(name, ".gpg")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	must(t, err)
	return text
}

// replace writes a file anew, never into one that has other names.
func replace(t *testing.T, dir, name string, text []byte) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	must(t, os.WriteFile(filepath.Join(dir, name), text, 0o600))
}

// damagedWorld has an archive of several sets and what each point holds.
type damagedWorld struct {
	*world
	points int
	want   []map[string]string // of each point: path to line
	files  []string
}

// newDamagedWorld makes the archive, encrypted with a passphrase or, which
// duplicity reads sooner, to a key.
func newDamagedWorld(t *testing.T, ours, key bool) *damagedWorld {
	w := &damagedWorld{world: newWorld(t), points: 5}
	options := []string{"--volsize", "1"}
	if key {
		options = append(options, "--encrypt-key", w.key("Test <test@example.com>", "", "ed25519", "cv25519"))
	}
	for n := range w.points {
		if n < 4 {
			w.grow(n)
		} else {
			w.write("src/fifth", "the fifth\n")
			w.sh(`touch -d @1700000000 src/fifth src; rm -rf copy4; cp -a src copy4`)
		}
		turn := w.stock
		if ours {
			turn = w.dupfs
		}
		turn(append(slices.Clone(options), "--current-time", at(n), "src", w.url("archive"))...)
		w.want = append(w.want, linesOf(t, w.path(fmt.Sprint("copy", n))))
	}
	w.files = strings.Fields(w.sh("ls archive"))
	return w
}

// linesOf returns what diskLines says of each path.
func linesOf(t *testing.T, dir string) map[string]string {
	out := map[string]string{}
	for _, l := range diskLines(t, dir) {
		quoted, err := strconv.QuotedPrefix(l)
		must(t, err)
		path, err := strconv.Unquote(quoted)
		must(t, err)
		out[path] = l[len(quoted):]
	}
	return out
}

// outcome is what came of one damage.
type outcome struct {
	intact, partly, refused, older int // points
	lost                           int // entries of points that were restored partly
	told                           bool
}

func (o outcome) String() string {
	s := fmt.Sprintf("%d whole", o.intact)
	if o.partly > 0 {
		s += fmt.Sprintf(", %d but for %s named", o.partly, plural(int64(o.lost), "entry"))
	}
	if o.older > 0 {
		s += fmt.Sprintf(", %d older with a warning", o.older)
	}
	if o.refused > 0 {
		s += fmt.Sprintf(", %d refused", o.refused)
	}
	if !o.told {
		s += "; doctor finds nothing"
	}
	return s
}

// try damages a copy of the archive and restores every point of it.
func (w *damagedWorld) try(t *testing.T, name string, damage int) outcome {
	t.Helper()
	w.t = t
	w.sh("rm -rf broken out cache; cp -al archive broken")
	damages[damage].do(t, w.path("broken"), name, w.otherThan(name))
	var o outcome
	url := w.url("broken")
	for n := range w.points {
		out := w.path("out")
		must(t, os.RemoveAll(out))
		r := w.exec(nil, binary, "restore", "--archive-dir", w.path("cache"), "--time", at(n), url, out)
		w.judge(t, n, out, r, &o)
	}
	r := w.exec(nil, binary, "doctor", "--deep", "--archive-dir", w.path("cache"), url)
	if o.told = !strings.Contains(r.stdout, "Nothing is wrong"); !o.told {
		t.Errorf("doctor finds nothing: %s%s", r.stdout, r.stderr)
	}
	return o
}

// otherThan returns a stored file of the same kind, in another set if possible.
func (w *damagedWorld) otherThan(name string) string {
	this, _ := chain.ParseName(name, chain.Prefixes{})
	best := ""
	for _, f := range w.files {
		n, _ := chain.ParseName(f, chain.Prefixes{})
		if f != name && (best == "" || n.Kind == this.Kind) {
			best = f
		}
	}
	return best
}

// judge compares what was restored of a point with what there was.
func (w *damagedWorld) judge(t *testing.T, n int, out string, r result, o *outcome) {
	t.Helper()
	if _, err := os.Lstat(out); err != nil {
		if r.code == exitOK || r.stderr == "" {
			t.Errorf("point %d: nothing restored, exit %d: %s", n, r.code, r.stderr)
		}
		o.refused++
		return
	}
	got := linesOf(t, out)
	if strings.Contains(r.stderr, "has no manifest and is not used") {
		for m := range n {
			if maps.Equal(got, w.want[m]) {
				o.older++
				return
			}
		}
	}
	for p, l := range got {
		if want, ok := w.want[n][p]; !ok || want != l {
			t.Errorf("point %d, %q: restored %s, want %s (exit %d: %s)", n, p, l, want, r.code, r.stderr)
		}
	}
	lost := 0
	for p := range w.want[n] {
		if _, ok := got[p]; !ok {
			lost++
			if !named(r.stderr, p) {
				t.Errorf("point %d: %q is lost and not named (exit %d): %s", n, p, r.code, r.stderr)
			}
		}
	}
	switch {
	case lost > 0 && r.code == exitOK:
		t.Errorf("point %d: exit 0, but %d entries are lost", n, lost)
	case lost > 0:
		o.partly++
		o.lost += lost
	default:
		o.intact++
	}
}

// named reports whether a path or a directory above it is told of.
func named(stderr, path string) bool {
	for ; path != "." && path != ""; path = filepath.Dir(path) {
		if strings.Contains(stderr, printable(path)+": ") {
			return true
		}
	}
	return false
}

// Whatever happens to a single file of an archive, what is restored of any point
// is right, what is not is named, and the exit status says so. A part of the
// cases is tried; with DUPFS_DAMAGE=all all are, and a table is printed. With
// DUPFS_DAMAGE=stock it is counted, not judged, what duplicity itself makes of
// the same damages.
func TestEveryDamage(t *testing.T) {
	all, stock := os.Getenv("DUPFS_DAMAGE") == "all", os.Getenv("DUPFS_DAMAGE") == "stock"
	for _, writer := range []string{"dupfs", "stock"} {
		t.Run(writer, func(t *testing.T) {
			w := newDamagedWorld(t, writer == "dupfs", stock)
			var table bytes.Buffer
			for i, f := range w.files {
				for d := range damages {
					if !all && !stock && (i*len(damages)+d)%17 != 3 || stock && !forStock(f) {
						continue
					}
					t.Run(f+" "+damages[d].name, func(t *testing.T) {
						var o fmt.Stringer
						if stock {
							o = w.tryStock(t, f, d)
						} else {
							o = w.try(t, f, d)
						}
						fmt.Fprintf(&table, "| %s | %s | %s | %v |\n", writer, short(f), damages[d].name, o)
					})
				}
			}
			w.t = t
			if all || stock {
				rows := strings.Split(strings.TrimSpace(table.String()), "\n")
				fmt.Println(strings.Join(slices.Compact(rows), "\n"))
			}
		})
	}
}

// short names a stored file by its set's number and its kind.
func short(f string) string {
	n, _ := chain.ParseName(f, chain.Prefixes{})
	set := (n.End.Unix() - epoch) / 86400
	if n.Kind == chain.VolumeFile {
		return fmt.Sprintf("set %d volume %d", set, n.Volume)
	}
	kind := map[chain.Kind]string{chain.ManifestFile: "manifest", chain.SigtarFile: "signatures", chain.IndexFile: "index"}[n.Kind]
	return fmt.Sprintf("set %d %s", set, kind)
}
