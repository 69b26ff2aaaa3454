package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"dupfs/internal/need"
)

// pair is a world in which stock and dupfs, called as duplicity, do the same
// side by side, each in a directory of its own.
type pair struct {
	*world
	t    *testing.T
	ours string // dupfs as duplicity
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{world: newWorld(t), t: t}
	p.ours = p.path("duplicity")
	if err := os.Symlink(binary, p.ours); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"stock", "ours"} {
		if err := os.Mkdir(p.path(d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// both runs a shell script in both directories.
func (p *pair) both(script string) {
	p.t.Helper()
	for _, d := range []string{"stock", "ours"} {
		p.sh("cd " + d + "; " + script)
	}
}

// run runs the same command with both and returns how they ended, with their
// machine logs. Nobody can be asked anything.
func (p *pair) run(env []string, args ...string) (stock, ours result, stockLog, ourLog []string) {
	p.t.Helper()
	one := func(dir, program string) (result, []string) {
		line := append([]string{"-w", program, "--archive-dir=cache", "--log-file=log"}, args...)
		os.Remove(p.path(dir, "log"))
		r := p.in(dir).exec(env, "setsid", line...)
		text, err := os.ReadFile(p.path(dir, "log"))
		if err != nil && !os.IsNotExist(err) {
			p.t.Fatal(err)
		}
		return r, stanzasOf(p.t, string(text))
	}
	stock, stockLog = one("stock", need.Program(p.t, "duplicity"))
	ours, ourLog = one("ours", p.ours)
	return stock, ours, stockLog, ourLog
}

// in returns the world with another working directory.
func (w *world) in(dir string) *world {
	other := *w
	other.dir = w.path(dir)
	return &other
}

// stanzasOf splits a log and checks its form.
func stanzasOf(t testing.TB, text string) []string {
	t.Helper()
	if text == "" {
		return nil
	}
	if !strings.HasSuffix(text, "\n\n") {
		t.Errorf("the log does not end in an empty line:\n%s", text)
	}
	list := strings.Split(strings.TrimSuffix(text, "\n\n"), "\n\n")
	control := regexp.MustCompile(`^(ERROR|WARNING|NOTICE|INFO|DEBUG) [0-9]+( |\n|$)`)
	for _, s := range list {
		if !control.MatchString(s) {
			t.Errorf("no stanza: %q", s)
		}
	}
	return list
}

// variable is what differs from run to run, or rightly between the programs.
var variable = []struct {
	form *regexp.Regexp
	as   string
}{
	{regexp.MustCompile(`20[0-9]{6}T[0-9]{6}Z`), "STAMP"},
	{regexp.MustCompile(`[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9]{2} [0-9:]{8} 20[0-9]{2}`), "DATE"},
	{regexp.MustCompile(`(StartTime|EndTime|ElapsedTime|TotalDestinationSizeChange|RawDeltaSize|ChangedDeltaSize) .*`), "$1"},
	{regexp.MustCompile(`Archive dir: .*`), "Archive dir"},
	{regexp.MustCompile(`directory: b'(.*)'`), "directory: $1"}, // it prints Python's bytes
	{regexp.MustCompile(` *b'(New|Changed|Deleted)'`), "$1"},
	{regexp.MustCompile(`(DATE) *(New|Changed|Deleted)\n`), "$1$2\n"},
	{regexp.MustCompile(`(/[^ ]*)?/(stock|ours)\b`), "HERE"},
}

func normalized(s string) string {
	for _, v := range variable {
		s = v.form.ReplaceAllString(s, v.as)
	}
	return s
}

// cacheNotice is about duplicity's copies of the metadata, which dupfs has not.
var cacheNotice = regexp.MustCompile(`^NOTICE 1\n. (Local and Remote|Synchronizing|Copying|Deleting local)`)

// comparable returns the stanzas that front ends read, normalized. What is
// done in parallel here comes in no order: it is sorted.
func comparable(log []string) []string {
	var out, last []string
	for _, s := range log {
		if strings.HasPrefix(s, "INFO 1\n") || strings.HasPrefix(s, "DEBUG 1\n") {
			continue
		}
		if strings.HasPrefix(s, "ERROR 30 ") || strings.HasPrefix(s, "ERROR 31 ") {
			s, _, _ = strings.Cut(s, "\n") // tracebacks, and what GnuPG says
		}
		s = normalized(s)
		if cacheNotice.MatchString(s) {
			continue
		}
		if strings.HasPrefix(s, "INFO 7 ") || strings.HasPrefix(s, "INFO 2 ") || strings.HasPrefix(s, "INFO 15 ") {
			last = append(last, s)
			continue
		}
		if head, files, ok := strings.Cut(s, "files from backend:\n"); ok { // in an order that is safe to stop at
			lines := strings.Split(files, "\n")
			slices.Sort(lines)
			s = head + "files from backend:\n" + strings.Join(lines, "\n")
		}
		out = append(out, s)
	}
	out = slices.Compact(out) // it names signatures in its cache and at the backend, with the same words
	slices.Sort(last)
	return append(out, last...)
}

// The machine-readable log is duplicity's, stanza for stanza, and the console
// has what the log has.
func TestMachineLog(t *testing.T) {
	p := newPair(t)
	p.both(`mkdir -p src/d; echo hi > src/a; head -c 300000 /dev/zero > src/big; ln -s a src/ln; mkfifo src/ff
		printf x > $'src/d/\u00fc q\x27uote\nnl'; printf x > $'src/d/b\\ack\U1f600'; mkdir other; echo 1 > other/x`)
	const plain = "--no-encryption"
	// An incomplete set, and an increment on one that is missing.
	const leftovers = `cd a; v=$(ls duplicity-full.*.vol1.* | head -1); cp $v duplicity-full.20200101T000000Z.vol1.difftar.gz
		inc=20200102T000000Z.to.20200103T000000Z; cp $v duplicity-inc.$inc.vol1.difftar.gz
		cp duplicity-inc.*.manifest duplicity-inc.$inc.manifest; cp duplicity-new*.gz duplicity-new-signatures.$inc.sigtar.gz`
	for _, step := range []struct {
		before string
		env    []string
		args   []string
	}{
		{"", nil, []string{"incremental", "src", "file://none"}},
		{"", nil, []string{"restore", "file://none", "out"}},
		{"", nil, []string{"src", "file://a", plain}},
		{"sleep 1; rm src/d/*uote*; echo more >> src/a; echo n > src/new", nil, []string{"src", "file://a", plain}},
		{"", nil, []string{"collection-status", "file://a"}},
		{"", nil, []string{"list-current-files", "file://a"}},
		{"", nil, []string{"restore", "file://a", "out"}},
		{"", nil, []string{"restore", "file://a", "out"}},
		{"", nil, []string{"restore", "-r", "no/such", "file://a", "out2"}},
		{"touch -d 2020-01-01 src/new", nil, []string{"verify", "--compare-data", "file://a", "src"}},
		{"", nil, []string{"incremental", "other", "file://a", plain}},
		{"", nil, []string{"full", "src", "file://a", plain}},
		{leftovers, nil, []string{"collection-status", "file://a", plain}},
		{"", nil, []string{"cleanup", "--force", "file://a", plain}},
		{"", nil, []string{"remove-all-inc-of-but-n-full", "1", "--force", "file://a"}},
		{"sleep 1.1", nil, []string{"remove-older-than", "0s", "--force", "file://a"}},
		{"", nil, []string{"other", "file://b", "--volsize=1"}},
		{"rm -rf cache/*/sessions cache/*/catalog", []string{"PASSPHRASE=wrong"}, []string{"restore", "file://b", "out3"}},
		{"rm -r cache", []string{"PASSPHRASE="}, []string{"collection-status", "file://b"}},
		{"", nil, []string{"full", "src", "nosuch://x"}},
		{"", nil, []string{"full", "nosource", "file://x"}},
		{"", nil, []string{"full", "src", "file://x", "--include", "src/a"}},
		{"", nil, []string{"verify", "file://b", "nosuch"}},
	} {
		if step.before != "" {
			p.both(step.before)
		}
		stock, ours, want, got := p.run(step.env, append([]string{"-v9"}, step.args...)...)
		name := strings.Join(step.args, " ")
		if stock.code != ours.code {
			t.Errorf("%s: exit %d, stock %d\n%s%s", name, ours.code, stock.code, ours.stdout, ours.stderr)
		}
		compareLines(t, name, comparable(got), comparable(want))
		if said, text := consoleText(ours.stdout), consoleText(logText(got)); said != text {
			t.Errorf("%s: the console says\n%s\nthe log\n%s", name, said, text)
		}
	}
}

// logText returns what a log has for standard output.
func logText(log []string) string {
	var b strings.Builder
	for _, s := range log {
		if strings.HasPrefix(s, "ERROR") {
			continue
		}
		for _, line := range strings.Split(s, "\n") {
			if text, ok := strings.CutPrefix(line, ". "); ok {
				fmt.Fprintln(&b, text)
			}
		}
	}
	return b.String()
}

// consoleText leaves names out that the console escapes.
func consoleText(s string) string {
	var keep []string
	for _, line := range strings.Split(s, "\n") {
		if !strings.Contains(line, "uote") && line != "nl" && !strings.HasPrefix(line, "nl of type") {
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "\n")
}

// A log on a descriptor is written as things happen, and inherited by nobody.
func TestLogDescriptor(t *testing.T) {
	w := newWorld(t)
	w.write("src/f", "x")
	out := w.sh(binary + " --log-fd 3 -v5 --no-encryption src " + w.url("a") + ` 3>&1 >/dev/null`)
	for _, want := range []string{"NOTICE 1\n. Last full backup date: none\n\n", "INFO 4 'f'\n. A f\n\n", "INFO 2 "} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	for _, bad := range []string{"0", "-1", "x", "97"} {
		r := w.exec(nil, binary, "--log-fd="+bad, "status", w.url("a"))
		if r.code != exitUsage || !strings.Contains(r.stderr, "--log-fd") {
			t.Errorf("--log-fd=%s: exit %d, %s", bad, r.code, r.stderr)
		}
	}
	r := w.exec(nil, binary, "--log-file", filepath.Join(w.dir, "no/dir"), "status", w.url("a"))
	if r.code == 0 || !strings.Contains(r.stderr, "--log-file") {
		t.Errorf("a log that cannot be opened: exit %d, %s", r.code, r.stderr)
	}
}

// Names in control lines are as Python spells them.
func TestLogName(t *testing.T) {
	for in, want := range map[string]string{
		"plain name":    `'plain name'`,
		"q'uo\\te":      `'q\x27uo\\te'`,
		"ü\t\n\r\x01":   `'\xfc\t\n\r\x01'`,
		"例\U0001f600":   `'\u4f8b\U0001f600'`,
		"bad\xff\x7f/é": `'bad\udcff\x7f/\xe9'`,
	} {
		if got := logName(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}
