package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"dupfs/internal/need"
)

// example is one of duplicity's manual page, with the places of a test: ME is
// the directory that is backed up, ROOT is above it, URL the archive, OUT what
// is restored.
type example struct {
	before string // what happens first, in the shell
	ago    int    // days before now that it is run; stock counts intervals from now all the same
	args   string
	code   int
}

// examples of the section of that name, in its order. The one that uses FTP is
// left out.
var examples = []example{
	{ago: 80, args: "ME URL"},
	{"echo new > ME/new; echo two > ME/Mail/article", 79, "ME URL", 0},
	{"rm ME/new; echo three > ME/Mail/article", 35, "full ME URL", 0},
	{"echo four > ME/Mail/article", 0, "--full-if-older-than 1M ME URL", 0},
	{"sleep 1.1; echo fifth > ME/Mail/article", 0, "--full-if-older-than 1M ME URL", 0},
	{args: "URL OUT"},
	{args: "URL ME", code: 11}, // unless it was deleted
	{args: "-t 3D --file-to-restore Mail/article URL OUT"},
	{args: "-t 36D --file-to-restore Mail/article URL OUT"},
	{args: "verify URL ME"},
	{"echo not saved > ME/Mail/article", 0, "verify URL ME", 0},
	{args: "verify --compare-data URL ME", code: 1},
	{args: "verify URL ME/none", code: 12},
}

// selections are its other examples, with what each backs up left to stock.
var selections = []string{
	"--exclude ROOT/mnt --exclude ROOT/tmp --exclude ROOT/proc ROOT",
	"--include ROOT/home --include ROOT/etc --exclude ** ROOT",
	"--include ROOT/usr --exclude ROOT/usr ROOT/usr",
	"--include ROOT/usr/local/bin --exclude ROOT/usr/local ROOT/usr",
	"--exclude ROOT/usr/local ROOT",
	"--exclude ROOT/usr/local --exclude ROOT/usr/local/** ROOT",
	"--include ROOT/usr/local --exclude ** ROOT",
	"--include ignorecase:ROOT/usr/[a-z0-9]foo/*/**.py --exclude ** ROOT",
	"--include-filelist list.txt --exclude ** ROOT",
	"--exclude-filelist list.txt ROOT",
	"--include-filelist list2.txt ROOT",
	"--include-regexp [0-9]{7}(?!foo) --exclude ** ROOT",
	"--exclude-regexp [0-9]{7}(?!foo) ROOT",
	"--include-filelist list2.txt --include ROOT/etc ROOT", // nothing is excluded: 16
	"--exclude /elsewhere ROOT",
	"--exclude-filelist none.txt ROOT",
}

// both runs stock and dupfs, each on an archive of its own.
type both struct {
	*world
	stock string
}

func newBoth(t *testing.T) *both {
	w := newWorld(t)
	w.asDuplicity()
	w.sh(`mkdir -p root/{home/me/Mail,home/ben/1234567,home/ben/1234567foo,etc,mnt/x,tmp/y,proc/z,var}
		mkdir -p root/usr/{local/{bin,doc/python,man},lib,doc,5fOO/hello/there}
		cd root; echo article > home/me/Mail/article
		find . -type d -empty -execdir sh -c 'echo {} > {}/file' \;
		touch home/ben/1234567/x home/ben/7654321 usr/5fOO/hello/there/world.py usr/5fOO/hello/there/world.c
		cd ..; r=$PWD/root
		printf '%s\n' $r/usr/local "- $r/usr/local/doc" $r/usr/local/bin "- $r/var" > list.txt
		printf '%s\n' $r/home/me "+ $r/etc" '- **' > list2.txt`)
	return &both{w, need.Program(t, "duplicity")}
}

// run runs a command line by one of the two; its places begin with the name of
// the program.
func (b *both) run(name, line string) result {
	b.t.Helper()
	program := map[string]string{"stock": b.stock, "dupfs": b.path("bin", "duplicity")}[name]
	r := strings.NewReplacer("ME", b.path("root/home/me"), "ROOT", b.path("root"),
		"URL", b.url(name), "OUT", b.path(name+"-out"))
	var args []string
	for _, arg := range strings.Fields(line) {
		args = append(args, r.Replace(arg))
	}
	return b.exec(nil, program, args...)
}

// The examples of duplicity's manual page end the same, and restore the same.
func TestManualExamples(t *testing.T) {
	b := newBoth(t)
	now := time.Now()
	for _, e := range examples {
		if e.ago > 0 {
			e.args = fmt.Sprint("--current-time ", now.AddDate(0, 0, -e.ago).Unix(), " ", e.args)
		}
		b.sh(strings.ReplaceAll(e.before, "ME", b.path("root/home/me")))
		for _, name := range []string{"stock", "dupfs"} {
			r := b.run(name, e.args)
			if r.code != e.code {
				t.Errorf("%s %s: exit %d, want %d\n%s%s", name, e.args, r.code, e.code, r.stdout, r.stderr)
			}
		}
		if strings.Contains(e.args, "OUT") {
			compareLines(t, e.args, diskLines(t, b.path("dupfs-out")), diskLines(t, b.path("stock-out")))
			b.sh("rm -r dupfs-out stock-out")
		}
	}
	compareLines(t, "status", kinds(b.run("dupfs", "collection-status URL").stdout), kinds(b.run("stock", "collection-status URL").stdout))
}

// kinds returns the first words of the lines of a collection's status that
// name sets.
func kinds(status string) []string {
	var out []string
	for line := range strings.Lines(status) {
		if f := strings.Fields(line); len(f) == 7 && (f[0] == "Full" || f[0] == "Incremental") {
			out = append(out, fmt.Sprint(len(out), f[0]))
		}
	}
	return out
}

// So do those of what is backed up.
func TestManualSelections(t *testing.T) {
	b := newBoth(t)
	list := func(url string) []string {
		lines := strings.Split(b.dupfs("list-current-files", url), "\n")
		return slices.DeleteFunc(lines, func(l string) bool { return strings.Contains(l, ": ") })
	}
	for _, s := range selections {
		stock, ours := b.run("stock", s+" URL --no-encryption"), b.run("dupfs", s+" URL --no-encryption")
		if stock.code != ours.code {
			t.Errorf("%s: stock ends with %d, dupfs with %d: %s", s, stock.code, ours.code, ours.stderr)
			continue
		}
		if stock.code == 0 {
			compareLines(t, s, list(b.url("dupfs")), list(b.url("stock")))
		}
		b.sh("rm -rf stock dupfs")
	}
}

// Duplicity 3's --filter- options say how the patterns that follow are read.
// What is selected, and the statuses, are those of duplicity 3.0.4.
func TestFilters(t *testing.T) {
	w := newWorld(t)
	w.sh(`mkdir -p T/a/b T/UP; touch T/top.py 'T/w[1].txt' T/w1.txt T/a/x.md T/a/b/d.py 'T/a*b' T/axb T/UP/low T/UP/LOW
		printf '%s\n' 'T/a*b' '+ T/UP' '- T/w[1].txt' > list; printf '%s\n' '+ ^t/a' '\.PY$' > regexps`)
	for _, test := range []struct {
		options string
		code    int
		want    string
	}{
		{"--filter-literal --include T/a*b --filter-globbing --exclude **", 0, "a*b"},
		{"--filter-lit --exclude T/a --filter-ignorecase --exclude t/W[1].TXT --filter-strictcase --exclude T/up", 0, "UP UP/LOW UP/low a*b axb top.py w1.txt"},
		{"--filter-ignorecase --exclude T/A*", 0, "UP UP/LOW UP/low top.py w1.txt w[1].txt"},
		{"--filter-ignorecase --filter-regexp --exclude ^t/A", 0, "UP UP/LOW UP/low top.py w1.txt w[1].txt"},
		{"--filter-ignorecase --exclude-regexp /LOW$ --exclude-filelist list", 0, "UP a a/b a/b/d.py a/x.md top.py w[1].txt"},
		{"--filter-literal --include-filelist list --exclude T", 0, "UP UP/LOW UP/low a*b"},
		{"--filter-regexp --filter-ignorecase --exclude-filelist regexps", 0, "UP UP/LOW UP/low a a*b a/b a/b/d.py a/x.md axb w1.txt w[1].txt"},
		{"--filter-literal --exclude t/a", 14, ""},
		{"--filter-ignorecase --include t/a", 16, ""},
		{"--filter-globbing --exclude T/a", 70, ""},
		{"--exclude T/a --filter-strictcase --filter-globbing --exclude T/UP", 70, ""},
		{"--filter-literal", 71, ""},
		{"--filter-literal --exclude T/a --filter-globbing", 71, ""},
	} {
		r := w.exec(nil, binary, append(strings.Fields(test.options), "full", "--no-encryption", "T", w.url("a"))...)
		if r.code != test.code {
			t.Errorf("%s: exit %d, want %d\n%s", test.options, r.code, test.code, r.stderr)
		}
		if r.code != 0 {
			continue
		}
		got := strings.Fields(w.dupfs("ls", "-R", w.url("a")))[1:]
		slices.Sort(got)
		if want := strings.Fields(test.want); !slices.Equal(got, want) {
			t.Errorf("%s: stored %q, want %q", test.options, got, want)
		}
		w.sh("rm -r a")
	}
	// What the configuration has is read as it stands there.
	w.write("home/.config/dupfs/config", "no-encryption = yes\n[t]\nurl = "+w.url("named")+"\nsource = "+w.path("T")+"\nexclude = "+w.path("T/a*")+"\nfilter-literal = on\nexclude = "+w.path("T/UP")+"\n")
	w.dupfs("backup", "t", "--filter-regexp", "--exclude", "y$")
	if got, want := w.dupfs("ls", "-R", "t"), ".\nw1.txt\nw[1].txt\n"; got != want {
		t.Errorf("of what is configured %q is stored, want %q", got, want)
	}
}
