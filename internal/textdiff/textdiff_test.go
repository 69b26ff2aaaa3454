package textdiff

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dupfs/internal/need"
)

// edits counts the lines that a difference takes away and adds.
func edits(diff string) (n int) {
	for _, l := range strings.Split(diff, "\n") {
		if strings.HasPrefix(l, "+") || strings.HasPrefix(l, "-") {
			n++
		}
	}
	return n
}

// text is a text of few different lines, perhaps without the last line feed.
func text(r *rand.Rand, lines int) []byte {
	var b bytes.Buffer
	for range lines {
		fmt.Fprintf(&b, "line %d\n", r.IntN(6))
	}
	if n := b.Len(); n > 0 && r.IntN(4) == 0 {
		b.Truncate(n - 1)
	}
	return b.Bytes()
}

// mutate changes some lines.
func mutate(r *rand.Rand, b []byte) []byte {
	lines := bytes.SplitAfter(bytes.Clone(b), []byte("\n"))
	for range r.IntN(8) {
		i := r.IntN(len(lines))
		switch r.IntN(3) {
		case 0:
			lines = append(lines[:i], lines[i+1:]...)
		case 1:
			lines = append(lines[:i], append([][]byte{[]byte("new\n")}, lines[i:]...)...)
		default:
			lines[i] = []byte("changed\n")
		}
		if len(lines) == 0 {
			return nil
		}
	}
	return bytes.Join(lines, nil)
}

// GNU patch makes the new text of the old one and our difference, and GNU diff
// finds none that is shorter.
func TestAgainstPatch(t *testing.T) {
	patch, diff := need.Program(t, "patch"), need.Program(t, "diff")
	dir := t.TempDir()
	name := func(s string) string { return filepath.Join(dir, s) }
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 120 {
		a := text(r, r.IntN(40))
		b := text(r, r.IntN(40))
		if i%2 == 0 {
			b = mutate(r, a)
		}
		var out bytes.Buffer
		if err := Unified(&out, a, b); err != nil {
			t.Fatal(err)
		}
		if (out.Len() == 0) != bytes.Equal(a, b) {
			t.Fatalf("%q and %q: %q", a, b, out.String())
		}
		if out.Len() == 0 {
			continue
		}
		write(t, name("a"), a)
		write(t, name("b"), b)
		write(t, name("p"), append([]byte("--- a\n+++ a\n"), out.Bytes()...))
		best, _ := exec.Command(diff, "-d", "-u", name("a"), name("b")).Output() // status 1: they differ
		if got, want := edits(out.String()), edits(string(best))-2; got != want {
			t.Errorf("%d edits, diff needs %d:\n%s\n%s", got, want, out.String(), best)
		}
		if text, err := exec.Command(patch, "--quiet", "--fuzz=0", name("a"), name("p")).CombinedOutput(); err != nil {
			t.Fatalf("patch: %v\n%s\n%s", err, text, out.String())
		}
		if got, err := os.ReadFile(name("a")); err == nil && !bytes.Equal(got, b) || err != nil && len(b) > 0 {
			t.Fatalf("%v: patched %q, want %q\n%s", err, got, b, out.String())
		}
	}
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Where the shortest difference would cost too much, the one that is given is
// still right: applying it gives the new text.
func TestVeryDifferent(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var a, b bytes.Buffer
	for range 20_000 {
		fmt.Fprintf(&a, "%d\n", r.IntN(50_000))
		fmt.Fprintf(&b, "%d\n", r.IntN(50_000))
	}
	var out bytes.Buffer
	if err := Unified(&out, a.Bytes(), b.Bytes()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), a.Bytes())
	write(t, filepath.Join(dir, "p"), append([]byte("--- a\n+++ a\n"), out.Bytes()...))
	patch := exec.Command(need.Program(t, "patch"), "--quiet", "--fuzz=0", filepath.Join(dir, "a"), filepath.Join(dir, "p"))
	if text, err := patch.CombinedOutput(); err != nil {
		t.Fatalf("patch: %v\n%.1000s", err, text)
	}
	if got, _ := os.ReadFile(filepath.Join(dir, "a")); !bytes.Equal(got, b.Bytes()) {
		t.Error("the difference does not give the new text")
	}
}

// Many changes in a row stay apart or together as diff has them.
func TestHunks(t *testing.T) {
	var a, b []byte
	for i := range 30 {
		line := fmt.Sprintf("%d\n", i)
		a = append(a, line...)
		switch i {
		case 3, 10, 18, 29:
			line = "x\n"
		}
		b = append(b, line...)
	}
	var out bytes.Buffer
	if err := Unified(&out, a, b); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a"), a)
	write(t, filepath.Join(dir, "b"), b)
	want, _ := exec.Command(need.Program(t, "diff"), "-u", filepath.Join(dir, "a"), filepath.Join(dir, "b")).Output()
	_, hunks, _ := strings.Cut(string(want), "@@")
	if got := out.String(); got != "@@"+hunks {
		t.Errorf("got\n%s\nwant\n%s", got, hunks)
	}
}
