package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"dupfs/internal/need"
)

// changedText makes two points whose text files differ in many ways; kept1 and
// kept2 are copies of the source at them.
func changedText(t *testing.T) (*world, string) {
	w := newWorld(t)
	w.sh(`mkdir -p src/sub src/gone
		for i in $(seq 1 400); do echo "line $i"; done > src/long
		printf 'one\ntwo\nthree' > src/sub/end
		printf 'a\n' > $'src/with\ttab \033[31m "quote" and \\'
		echo bye > src/gone/old
		touch src/empty src/vanishes
		head -c 5000 /dev/urandom > src/binary
		printf 'same' > src/same; ln -s one src/link; chmod 600 src/same`)
	url := w.url("archive")
	w.dupfs("full", "--current-time", at(0), "src", url)
	w.sh(`cp -a src kept1
		sed -i -e 5d -e 's/^line 200$/changed/' -e '390a new \xff line' src/long
		printf 'one\ntwo\nthree\n' > src/sub/end
		printf 'b\n' > $'src/with\ttab \033[31m "quote" and \\'
		rm -r src/gone src/vanishes; echo hello > src/sub/new; echo filled > src/empty
		head -c 5000 /dev/urandom > src/binary
		chmod 640 src/same; ln -sfn two src/link
		cp -a src kept2`)
	w.dupfs("incremental", "--current-time", at(1), "src", url)
	return w, url
}

// What diff -u writes makes the new text files of the old ones.
func TestDiffUnified(t *testing.T) {
	need.Program(t, "patch")
	w, url := changedText(t)
	r := w.exec(nil, binary, "diff", "-u", url, at(0), at(1))
	if r.code != 1 || r.stderr != "" {
		t.Fatalf("exit %d: %s", r.code, r.stderr)
	}
	w.write("patch", r.stdout)
	w.sh("cd kept1 && patch -p1 --quiet --fuzz=0 < ../patch")
	for _, line := range []string{
		"Binary files a/binary and b/binary differ", "Files a/same and b/same differ in mode (0600, 0640) only",
		"Links a/link and b/link differ: one, then two", "Only in a: vanishes (regular file)", "Only in a: gone (directory)",
		"\\ No newline at end of file", "+++ /dev/null\t1970",
	} {
		if !strings.Contains(r.stdout, line) {
			t.Errorf("no line %q in\n%s", line, r.stdout)
		}
	}
	w.sh("cp kept2/binary kept1/; ln -sfn two kept1/link; rm -f kept1/vanishes; diff -r --no-dereference kept1 kept2")
	if strings.Contains(r.stdout, "\x1b") {
		t.Error("control characters of a name are in the output")
	}

	if r := w.exec(nil, binary, "diff", "-u", url, at(1), at(1)); r.code != 0 || r.stdout != "" {
		t.Errorf("nothing changed: exit %d\n%s", r.code, r.stdout)
	}
	r = w.exec(nil, binary, "diff", "-u", "--color=always", url, at(0), at(1), "sub/end")
	if !strings.Contains(r.stdout, "\x1b[31m-three\x1b[0m\n") || !strings.Contains(r.stdout, "\x1b[32m+three\x1b[0m\n") {
		t.Errorf("no colours: %q", r.stdout)
	}
	testDiffJSON(t, w, url)
}

func testDiffJSON(t *testing.T, w *world, url string) {
	r := w.exec(nil, binary, "diff", "-u", "--json", url, at(0), at(1))
	seen := map[string]difference{}
	for dec := json.NewDecoder(strings.NewReader(r.stdout)); dec.More(); {
		var d difference
		if err := dec.Decode(&d); err != nil {
			t.Fatal(err)
		}
		seen[d.Path] = d
	}
	if d := seen["sub/new"]; d.Change != "added" || !strings.HasSuffix(d.Diff, "@@ -0,0 +1 @@\n+hello\n") {
		t.Errorf("%+v", d)
	}
	if d := seen["long"]; !d.Binary || d.Diff != "" {
		t.Errorf("%+v", d)
	}
}

// A file that is damaged is named, the others are compared, and the status is
// that of damage.
func TestDiffDamaged(t *testing.T) {
	w := newWorld(t)
	w.sh("mkdir src; head -c 60000 /dev/urandom | base64 > src/a; head -c 600000 /dev/urandom > src/b; echo x > src/c")
	url := w.url("archive")
	w.dupfs("full", "--no-encryption", "--no-compression", "--current-time", at(0), "src", url)
	w.sh("echo y >> src/a; echo y > src/c")
	w.dupfs("incremental", "--no-encryption", "--no-compression", "--current-time", at(1), "src", url)
	volume := strings.TrimSpace(w.sh("ls archive/duplicity-full.*.vol1.*"))
	text, err := os.ReadFile(w.path(volume))
	if err != nil {
		t.Fatal(err)
	}
	text[30_000] ^= 1
	w.write(volume, string(text))
	r := w.exec(nil, binary, "diff", "-u", "--no-encryption", url, at(0), at(1))
	if r.code != exitDamaged || !strings.Contains(r.stderr, "warning: a:") || !strings.Contains(r.stdout, "\n+y\n") {
		t.Errorf("exit %d\n%s\n%s", r.code, r.stdout, r.stderr)
	}
}

// Directories are compared a page at a time: names around the ends of pages, of
// which one side has more than the other.
func TestDiffPages(t *testing.T) {
	w := newWorld(t)
	url := w.url("archive")
	r := rand.New(rand.NewPCG(3, 5))
	var want []string
	must(t, os.MkdirAll(w.path("src"), 0o755))
	name := func(i int) string { return fmt.Sprintf("f%04d", i) }
	chance := make([]int, 5*childPage)
	for i := range chance {
		if chance[i] = r.IntN(12); i >= childPage && i < 2*childPage+9 {
			chance[i] = 0 // more than a page in a row
		}
		if chance[i] != 1 {
			w.write("src/"+name(i), "one")
		}
	}
	w.dupfs("full", "--no-encryption", "--current-time", at(0), "src", url)
	for i, c := range chance {
		switch c {
		case 0:
			must(t, os.Remove(w.path("src", name(i))))
			want = append(want, "- "+name(i))
		case 1:
			w.write("src/"+name(i), "two")
			want = append(want, "+ "+name(i))
		case 2:
			w.write("src/"+name(i), "three")
			want = append(want, "M "+name(i))
		}
	}
	w.dupfs("incremental", "--no-encryption", "--current-time", at(1), "src", url)
	for _, back := range []bool{false, true} {
		from, to := at(0), at(1)
		if back {
			from, to = to, from
		}
		out := w.exec(nil, binary, "diff", "--no-encryption", url, from, to).stdout
		if back {
			out = strings.NewReplacer("+ ", "- ", "- ", "+ ").Replace(out)
		}
		got := slices.DeleteFunc(strings.Split(strings.TrimSpace(out), "\n"), func(l string) bool { return !strings.Contains(l, " f") })
		if len(want) < childPage || !slices.Equal(got, want) {
			t.Errorf("back %v: %d lines, want %d:\n%.2000s", back, len(got), len(want), out)
		}
	}
}
