package selection

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"dupfs/chain"
	"dupfs/internal/stock"
)

// option is a rule and how duplicity's command line spells it.
type option struct {
	rule Rule
	args []string
	list string
}

func glob1(include bool, p string) option {
	return option{Rule{Kind: Glob, Include: include, Pattern: p}, []string{flag("", include), p}, ""}
}

func flag(kind string, include bool) string {
	if include {
		return "--include" + kind
	}
	return "--exclude" + kind
}

// oracle runs a program like duplicity in a directory.
type oracle func(dir string, args ...string) (code int, said string)

// loaded returns the duplicity that is installed.
func loaded(t *testing.T) oracle {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "LC_ALL=C.UTF-8"}
	server := stock.Start(t, env)
	return func(dir string, args ...string) (int, string) {
		r := server.Run(t, dir, env, args...)
		return r.Code, r.Stdout + r.Stderr
	}
}

// program returns a duplicity that is run afresh each time.
func program(t *testing.T, name string) oracle {
	return func(dir string, args ...string) (int, string) {
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		text, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatalf("%v: %s", err, text)
		}
		return cmd.ProcessState.ExitCode(), string(text)
	}
}

// selected returns what duplicity selects, or its exit status.
func (o oracle) selected(t *testing.T, dir string, opts []option) ([]string, int) {
	t.Helper()
	for _, d := range []string{"out", "cache"} {
		if err := os.RemoveAll(filepath.Join(dir, d)); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"full", "--no-encryption", "--no-compression", "--archive-dir", "cache"}
	for i, o := range opts {
		if o.rule.Kind == Filelist {
			list := "list" + strconv.Itoa(i)
			if err := os.WriteFile(filepath.Join(dir, list), []byte(o.list), 0o600); err != nil {
				t.Fatal(err)
			}
			o.args = append(o.args, flag("-filelist", o.rule.Include), list)
		}
		args = append(args, o.args...)
	}
	code, said := o(dir, append(args, "T", "file://out")...)
	if code == 99 || code < 0 {
		t.Fatalf("%+v: %s", opts, said)
	}
	if code != 0 {
		return nil, code
	}
	return sigtarNames(t, filepath.Join(dir, "out")), 0
}

// sigtarNames lists the only sigtar in dir.
func sigtarNames(t *testing.T, dir string) []string {
	files, err := filepath.Glob(filepath.Join(dir, "*.sigtar"))
	if err != nil || len(files) != 1 {
		t.Fatalf("sigtars: %v, %v", files, err)
	}
	f, err := os.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var names []string
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			slices.Sort(names)
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		_, name, _ := strings.Cut(h.Name, "/")
		names = append(names, strings.TrimSuffix(name, "/"))
	}
}

// ours returns what a Selection selects, or duplicity's exit status for its
// error.
func ours(t *testing.T, dir string, opts []option) ([]string, int) {
	var rules []Rule
	for _, o := range opts {
		r := o.rule
		if r.Kind == Filelist {
			r.List = strings.NewReader(o.list)
		}
		rules = append(rules, r)
	}
	s, err := New("T", rules)
	switch {
	case errors.Is(err, ErrOutside):
		return nil, 14
	case errors.Is(err, ErrRedundant):
		return nil, 16
	case errors.Is(err, ErrGlob) && strings.Contains(err.Error(), "slashes"):
		return nil, 15
	case errors.Is(err, ErrGlob), errors.Is(err, ErrRegexp):
		return nil, 30
	case err != nil:
		t.Fatal(err)
	}
	var names []string
	var walk func(p chain.Path) (found bool)
	walk = func(p chain.Path) bool {
		full := filepath.Join(dir, "T", string(p))
		info, err := os.Lstat(full)
		if err != nil {
			t.Fatal(err)
		}
		f := Facts{Type: chain.File, Mtime: info.ModTime().Unix()}
		switch {
		case info.IsDir():
			f.Type = chain.Dir
		case info.Mode()&os.ModeSymlink != 0:
			f.Type = chain.Symlink
		}
		f.Holds = func(name string) bool {
			_, err := os.Lstat(filepath.Join(full, name))
			return err == nil
		}
		v := s.Judge(p, f)
		if v == Exclude {
			return false
		}
		found := v == Include
		if f.Type == chain.Dir {
			entries, err := os.ReadDir(full)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				found = walk(p.Join(e.Name())) || found
			}
		}
		if found {
			names = append(names, string(p))
		}
		return found
	}
	walk("")
	slices.Sort(names)
	return names, 0
}

// makeTree makes files and directories (names ending in a slash) in dir/T.
func makeTree(t *testing.T, dir string, names []string) {
	for i, n := range names {
		full := filepath.Join(dir, "T", n)
		parent := filepath.Dir(full)
		if strings.HasSuffix(n, "/") {
			parent = full
		}
		if err := os.MkdirAll(parent, 0o755); err != nil {
			t.Fatal(err)
		}
		if parent == full {
			continue
		}
		if strings.HasSuffix(n, "lnk") {
			if err := os.Symlink("a", full); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(full, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		mtime := time.Unix(1600000000+int64(i)*1000, 0)
		if err := os.Chtimes(full, mtime, mtime); err != nil {
			t.Fatal(err)
		}
	}
}

func (o oracle) compare(t *testing.T, dir string, opts []option) {
	t.Helper()
	want, wantExit := o.selected(t, dir, opts)
	got, gotExit := ours(t, dir, opts)
	if gotExit != wantExit || !slices.Equal(got, want) {
		t.Errorf("%+v\n got %q, exit %d\nwant %q, exit %d", opts, got, gotExit, want, wantExit)
	}
}

var zoo = []string{
	"top.py", "a/x.md", "a/b/c/d.py", "a/b/e", "b/b", "b/x/b/y", "ab/q/r", "empty/", "a[", "a]b", "a-b",
	"nl\nx", "ä", "a/ä", "UP/low", "up/x", "lnk", "w1.txt", "w[1].txt", "bad\xff\xfe", "z/", "sp ace/x",
}

// TestStock runs the rule lists whose outcome is least obvious, and random
// ones (DUPFS_SELECTION_CASES trees with one or two lists each), through
// duplicity and through us. DUPFS_DUPLICITY3 may name a program of version 3:
// then the random ones are given to that, with its --filter- options. 2600 trees
// against 0.8.22 and 250 against 3.0.4 showed no difference.
func TestStock(t *testing.T) {
	o := loaded(t)
	dir := t.TempDir()
	makeTree(t, dir, zoo)
	all := glob1(false, "**")
	fixed := [][]option{
		{glob1(true, "T/a**/"), all},
		{glob1(true, "T/**b/"), all},
		{glob1(true, "T/a/**/c/"), all},
		{glob1(true, "T/a//"), all},
		{glob1(true, "T/a[]]b"), glob1(true, "T/w[[]1*"), glob1(true, "T/a[+-/]b"), all},
		{glob1(true, "T/nl?x"), glob1(true, "T/bad??"), glob1(true, "T/?"), all},
		{glob1(true, "T/a/b/c/d.py"), glob1(false, "T/a"), glob1(true, "T/empty/no"), glob1(false, "T/b**")},
		{glob1(false, "T/a[!x]b")},
		{glob1(false, "T//a")}, {glob1(false, "T/**//a")}, {glob1(false, "U/a")}, {glob1(true, "T/a")},
		{glob1(false, "T/[z-a]")},
		{glob1(true, "ignorecase:**up"), all},
		{{rule: Rule{Kind: Filelist, Include: true, Pattern: "list"}, list: " T/a \n\n# c\n- \"T/b\"\r\n+ **x\n- **"}},
		{{rule: Rule{Kind: IfPresent, Pattern: "x.md"}, args: []string{"--exclude-if-present", "x.md"}}},
		{{rule: Rule{Kind: IfPresent, Pattern: "x"}, args: []string{"--exclude-if-present", "x"}}, glob1(true, "T/a/x.md"), all},
	}
	for _, opts := range fixed {
		o.compare(t, dir, opts)
	}
	n := 8
	if s := os.Getenv("DUPFS_SELECTION_CASES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	modes := os.Getenv("DUPFS_DUPLICITY3") != ""
	if modes {
		o = program(t, os.Getenv("DUPFS_DUPLICITY3"))
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("DUPFS_SELECTION_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		t.Run(fmt.Sprintf("random %d", seed+uint64(i)), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed+uint64(i), 0))
			dir := t.TempDir()
			makeTree(t, dir, randomTree(rng))
			for range 1 + rng.IntN(2) {
				o.compare(t, dir, randomRules(rng, modes))
			}
		})
	}
}

func pick(rng *rand.Rand, from ...string) string { return from[rng.IntN(len(from))] }

func randomTree(rng *rand.Rand) []string {
	names := []string{"z/"}
	for range 3 + rng.IntN(12) {
		n := ""
		for range 1 + rng.IntN(3) {
			n = filepath.Join(n, pick(rng, "a", "b", "ab", "a.b", "B", "d1", "x y", "é", "b[", "l\xe9"))
		}
		// A name that is a directory for others ends as one; files are leaves.
		names = append(names, n+pick(rng, "/", "/f", "/f.py", "/lnk"))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func randomPattern(rng *rand.Rand) string {
	p := pick(rng, "T", "T", "T", "T", "**", "*", "?", "[T]", "U", "ignorecase:**", "T/")
	for range rng.IntN(4) {
		p += pick(rng, "/", "/", "/", "/", "") +
			pick(rng, "a", "b", "ab", "a.b", "B", "d1", "é", "f", "f.py", "lnk", "*", "**", "?", "a*", "*b", "**b",
				"b[", "[ab]", "[!a]", "d[0-9]", "*.py", "**.py", "l?", "[]", "b[[]")
	}
	return p + pick(rng, "", "", "", "/")
}

// randomMode sets how the patterns of a rule are read, and spells that as
// duplicity 3 does. What an earlier rule has set it sets back.
func randomMode(rng *rand.Rand, o option) option {
	args := []string{"--filter-globbing", "--filter-strictcase"}
	kind := Glob
	switch rng.IntN(3) {
	case 0:
		kind, args[0] = Literal, "--filter-literal"
	case 1:
		kind, args[0] = Regexp, "--filter-regexp"
	}
	if rng.IntN(2) == 0 {
		o.rule.Fold, args[1] = true, "--filter-ignorecase"
	}
	rng.Shuffle(2, func(i, j int) { args[i], args[j] = args[j], args[i] })
	switch o.rule.Kind {
	case Glob:
		o.rule.Kind = kind
	case Filelist:
		o.rule.Lines = kind
	}
	o.args = append(args, o.args...)
	return o
}

// randomRules returns options; with modes, each may set how it is read.
func randomRules(rng *rand.Rand, modes bool) []option {
	var opts []option
	for range 1 + rng.IntN(4) {
		include := rng.IntN(2) == 0
		switch rng.IntN(10) {
		case 0:
			list := ""
			for range rng.IntN(4) {
				list += pick(rng, "", "+ ", "- ", " ", "#") + randomPattern(rng) + pick(rng, "\n", "\n\n", " \n")
			}
			opts = append(opts, option{rule: Rule{Kind: Filelist, Include: include, Pattern: "list"}, list: list})
		case 1:
			e := pick(rng, `b$`, `^T/a`, `[^/]+\.py`, `f`, `(a|b)/f`, `/d\d`, `/f(?!\.py)`, `(?<!a)/b`)
			opts = append(opts, option{Rule{Kind: Regexp, Include: include, Pattern: e}, []string{flag("-regexp", include), e}, ""})
		case 2:
			n := pick(rng, "f", "a", "f.py", "lnk", "none")
			opts = append(opts, option{Rule{Kind: IfPresent, Pattern: n}, []string{"--exclude-if-present", n}, ""})
		case 3:
			at := 1600000000 + int64(rng.IntN(12000))
			opts = append(opts, option{Rule{Kind: OlderThan, Time: at}, []string{"--exclude-older-than", strconv.FormatInt(at, 10)}, ""})
		default:
			opts = append(opts, glob1(include, randomPattern(rng)))
		}
	}
	if rng.IntN(4) > 0 {
		opts = append(opts, glob1(false, pick(rng, "**", "T", "T/**", randomPattern(rng))))
	}
	for i := range opts {
		if modes {
			opts[i] = randomMode(rng, opts[i])
		}
	}
	if modes { // without one that is not the default they are refused
		opts[0].args = append([]string{"--filter-literal"}, opts[0].args...)
	}
	return opts
}
