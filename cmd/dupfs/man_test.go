package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dupfs/internal/need"
)

// The pages are clean for mandoc and groff, and say all that there is: every
// command, option, exit status and variable.
func TestManPages(t *testing.T) {
	w := newWorld(t)
	w.dupfs("man", "man1")
	pages, err := filepath.Glob(w.path("man1/*.1"))
	if err != nil || len(pages) < 20 {
		t.Fatalf("%v %v", pages, err)
	}
	need.Program(t, "mandoc")
	if r := w.exec(nil, "mandoc", append([]string{"-Tlint", "-Wwarning"}, pages...)...); r.code != 0 {
		t.Errorf("mandoc: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	text := w.sh("MANWIDTH=200 mandoc -Tutf8 man1/dupfs.1 | col -b")
	for _, s := range exitTexts() {
		if !strings.Contains(text, s.text[:min(20, len(s.text))]) {
			t.Errorf("no status %d", s.status)
		}
	}
	app := newApp(&environ{})
	for _, c := range app.Commands {
		if !strings.Contains(text, c.Name+" ") {
			t.Errorf("no command %s", c.Name)
		}
		page, err := os.ReadFile(w.path("man1", "dupfs-"+c.Name+".1"))
		if err != nil {
			t.Error(err)
		}
		for _, f := range c.VisibleFlags() {
			term := `\fB` + roff(dashed(f.Names()[0])) + `\fR`
			if !strings.Contains(string(page), term) && !strings.Contains(text, dashed(f.Names()[0])) {
				t.Errorf("%s: no option %s", c.Name, f.Names()[0])
			}
		}
	}
	statuses := map[string]bool{}
	for _, m := range statusLine.FindAllStringSubmatch(codesSource, -1) {
		statuses[m[2]] = true
	}
	if n := len(exitTexts()); n != len(statuses) || n < 20 {
		t.Errorf("%d statuses, %d in the manual", len(statuses), n)
	}
	for _, name := range []string{"PASSPHRASE", "DUPFS_URL", "NO_COLOR", "DIFFERENCES FROM DUPLICITY"} {
		if !strings.Contains(text, name) {
			t.Errorf("no %s", name)
		}
	}
}
