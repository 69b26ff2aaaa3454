package selection

import (
	"errors"
	"strings"
	"testing"

	"dupfs/chain"
)

// dir and file are facts of plain entries.
var dir, file = Facts{Type: chain.Dir}, Facts{Type: chain.File}

func TestJudge(t *testing.T) {
	include := func(p string) Rule { return Rule{Include: true, Pattern: p} }
	exclude := func(p string) Rule { return Rule{Pattern: p} }
	literal := func(p string) Rule { return Rule{Kind: Literal, Pattern: p} }
	device := Facts{Type: chain.BlockDevice}
	for _, tt := range []struct {
		source string
		rules  []Rule
		path   chain.Path
		facts  Facts
		want   Verdict
	}{
		{"src", nil, "a", file, Include},
		{"src", []Rule{exclude("**")}, "", dir, Include},
		{"src", []Rule{exclude("**")}, "a", file, Exclude},
		{"./src/", []Rule{exclude("src/a")}, "a/b", file, Exclude},
		{".", []Rule{exclude("./a")}, "a", file, Exclude},
		{"/", []Rule{exclude("/proc")}, "proc/1", dir, Exclude},
		{"/", []Rule{exclude("/proc")}, "proc2", dir, Include},
		{"/", []Rule{include("/home/me"), exclude("/")}, "home", dir, Scan},
		{"/", []Rule{include("/home/me"), exclude("/")}, "home", file, Exclude},
		{"/", []Rule{include("/home/me"), exclude("/")}, "home/me/x", file, Include},
		{"/x", []Rule{exclude("ignorecase:/X/a")}, "A", file, Exclude},
		{"/x", []Rule{exclude("IGNORECASE:/X/É*")}, "éa", file, Exclude},
		{"s", []Rule{exclude("s/\xff?")}, "\xff\xfe", file, Exclude},
		{"s", []Rule{exclude("s/[\xfe-\xff]")}, "\xff", file, Exclude},
		{"s", []Rule{exclude("s/[\xfe-\xff]")}, "\xfd", file, Include},
		{"s", []Rule{exclude("s/\xff")}, "\xff", file, Exclude},
		{"s", []Rule{{Kind: DeviceFiles}}, "sda", device, Exclude},
		{"s", []Rule{{Kind: DeviceFiles}}, "sda", file, Include},
		{"s", []Rule{{Kind: OtherFilesystems}}, "mnt", Facts{Type: chain.Dir, OtherFS: true}, Exclude},
		{"s", []Rule{include("s/mnt"), {Kind: OtherFilesystems}}, "mnt", Facts{Type: chain.Dir, OtherFS: true}, Include},
		{"s", []Rule{{Kind: OlderThan, Time: 5}}, "a", Facts{Type: chain.File, Mtime: 4}, Exclude},
		{"s", []Rule{{Kind: OlderThan, Time: 5}}, "a", Facts{Type: chain.File, Mtime: 5}, Include},
		{"s", []Rule{{Kind: OlderThan, Time: 5}}, "a", Facts{Type: chain.Dir, Mtime: 4}, Include},
		{"s", []Rule{{Kind: Regexp, Pattern: `\.o\Z`}}, "a.o", file, Exclude},
		{"s", []Rule{{Kind: Regexp, Pattern: `\d{3}(?!foo)`}}, "123bar", file, Exclude},
		{"s", []Rule{{Kind: Regexp, Pattern: `\d{3}(?!foo)`}}, "123foo", file, Include},
		{"s", []Rule{{Kind: Regexp, Pattern: `(?P<a>.)(?P=a)`}}, "xx", file, Exclude},
		{"s", []Rule{{Kind: Filelist, List: strings.NewReader("s/a\x00s/b\n\x00"), Null: true}}, "b", file, Exclude},
		// As duplicity 3.0.4 does it:
		{"s", []Rule{literal("s/a*")}, "ab", file, Include},
		{"s", []Rule{literal("s/a*[?]")}, "a*[?]/x", file, Exclude},
		{"s", []Rule{literal("s/a/")}, "a", file, Exclude},
		{"s", []Rule{literal("s//a")}, "a", file, Include},
		{"s", []Rule{literal("s/./a")}, "a", file, Include},
		{"S", []Rule{{Kind: Literal, Pattern: "s/A*B", Fold: true}}, "a*b/c", file, Exclude},
		{"S", []Rule{{Kind: Literal, Pattern: "s/A*B", Fold: true}}, "axb", file, Include},
		{"S", []Rule{{Kind: Literal, Pattern: "s/D/E", Fold: true, Include: true}, exclude("**")}, "d", dir, Scan},
		{"S", []Rule{{Pattern: "s/[B]?", Fold: true}}, "bx", file, Exclude},
		{"S", []Rule{{Pattern: "ignorecase:s/b", Fold: true}}, "B", file, Exclude},
		{"S", []Rule{{Pattern: "s/[!a-z]", Fold: true}}, "B", file, Include},
		{"S", []Rule{{Kind: Regexp, Pattern: "^s/a", Fold: true}}, "Ab", file, Exclude},
		{"S", []Rule{{Kind: Regexp, Pattern: "ä(?!c)", Fold: true}}, "Äb", file, Exclude},
		{"s", []Rule{{Kind: Filelist, Lines: Literal, List: strings.NewReader("+ s/a*/b\n- 's/a*'")}}, "a*/b", file, Include},
		{"s", []Rule{{Kind: Filelist, Lines: Literal, List: strings.NewReader("+ s/a*/b\n- 's/a*'")}}, "a*/c", file, Exclude},
		{"s", []Rule{{Kind: Filelist, Lines: Regexp, Fold: true, List: strings.NewReader("\\.O$\n")}}, "a.o", file, Exclude},
	} {
		s, err := New(tt.source, tt.rules)
		if err != nil {
			t.Errorf("%q %v: %v", tt.source, tt.rules, err)
			continue
		}
		if got := s.Judge(tt.path, tt.facts); got != tt.want {
			t.Errorf("%q %v: verdict on %q is %d, want %d", tt.source, tt.rules, tt.path, got, tt.want)
		}
	}
}

func TestNewErrors(t *testing.T) {
	for _, tt := range []struct {
		rule Rule
		want error
	}{
		{Rule{Pattern: "other/a"}, ErrOutside},
		{Rule{Pattern: "src//a"}, ErrGlob},
		{Rule{Pattern: "src/[b-a]"}, ErrGlob},
		{Rule{Pattern: ""}, ErrGlob},
		{Rule{Pattern: "src/a", Include: true}, ErrRedundant},
		{Rule{Kind: Regexp, Pattern: "(?=a"}, ErrRegexp},
		{Rule{Kind: Literal, Pattern: "**"}, ErrOutside},
		{Rule{Kind: Literal, Pattern: "ignorecase:src/a"}, ErrOutside},
		{Rule{Kind: Literal, Pattern: ""}, ErrGlob},
		{Rule{Kind: Literal, Pattern: "SRC/a"}, ErrOutside},
		{Rule{Pattern: "SRC/a", Fold: true, Include: true}, ErrRedundant},
		{Rule{Kind: Filelist, Lines: Regexp, Pattern: "l", List: strings.NewReader("(")}, ErrRegexp},
		{Rule{Kind: Filelist, Pattern: "l", List: strings.NewReader("x/y")}, ErrOutside},
		{Rule{Kind: Filelist, Pattern: "l", List: strings.NewReader("+ src/y")}, ErrRedundant},
	} {
		_, err := New("src", []Rule{tt.rule})
		var re *RuleError
		if !errors.Is(err, tt.want) || !errors.As(err, &re) {
			t.Errorf("%+v: %v, want %v", tt.rule, err, tt.want)
		}
	}
	if _, err := New("src", []Rule{{Kind: Filelist, Pattern: "l"}}); err == nil {
		t.Error("a list without content was accepted")
	}
	if _, err := New("src", []Rule{{Kind: Filelist, Lines: OlderThan, List: strings.NewReader("src")}}); err == nil {
		t.Error("a list of times was accepted")
	}
	if _, err := New("src", []Rule{{Kind: 99}}); err == nil {
		t.Error("an unknown kind was accepted")
	}
}

func TestSource(t *testing.T) {
	for typed, want := range map[string]string{
		"src": "src", "./src/": "src", "a//b/./c": "a/b/c", "/": "/", "//": "/", ".": ".", "./": ".", "..": "..",
		"/a/": "/a", "../x/./": "../x", "": ".",
	} {
		if got := Source(typed); got != want {
			t.Errorf("Source(%q) = %q, want %q", typed, got, want)
		}
	}
}

// FuzzGlob looks for patterns that panic, and for an exclude that the same
// include would not take in.
func FuzzGlob(f *testing.F) {
	for _, p := range []string{"src/a", "**/[!a-c]?", "src/[", "ignorecase:**X/", "src/\xff*", "src/[]", "src/[^]]"} {
		f.Add(p, "a/b")
	}
	f.Fuzz(func(t *testing.T, pattern, path string) {
		p, ok := chain.ParsePath(path)
		if !ok {
			t.Skip()
		}
		ex, err := New("src", []Rule{{Pattern: pattern}})
		if err != nil {
			return
		}
		in, err := New("src", []Rule{{Pattern: pattern, Include: true}, {Pattern: "**"}})
		if err != nil {
			t.Fatal(err)
		}
		if p != chain.Root && (ex.Judge(p, file) == Exclude) != (in.Judge(p, file) == Include) {
			t.Errorf("%q on %q: exclude and include disagree", pattern, p)
		}
	})
}
