package main

import (
	"bufio"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

// oddNames makes an archive of two points, and of names that would do
// something to a terminal or break a line.
func oddNames(t *testing.T) (*world, string) {
	w := newWorld(t)
	w.sh(`mkdir -p src/$'dir\033[2J' src/bin; cd src
		echo one > $'dir\033[2J/new\nline'; echo two > $'\xff\xfe bad'; echo three > $'tab\t"q" \\ '
		echo four > $'bell\a'; ln -s $'to\033]0;x\a' $'link\r'; echo x > bin/run; chmod 755 bin/run; mkfifo pipe
		printf 'right\u202eleft' > /dev/null; echo five > $'right\u202eleft'`)
	url := w.url("archive")
	w.dupfs("full", "--current-time", at(0), "src", url)
	w.sh(`cd src; echo more >> $'bell\a'; rm $'\xff\xfe bad'; echo new > $'fresh\033'`)
	w.dupfs("incremental", "--current-time", at(1), "src", url)
	w.sh(`cd archive; touch $'duplicity-full.\033[2J.vol1.difftar.gz' $'\a\r'`)
	return w, url
}

// commands that list names.
func listings(url string) [][]string {
	return [][]string{
		{"ls", "-R", url}, {"ls", "-lR", "-H", url}, {"find", url, "*"}, {"find", "--all-points", "-l", url, "*"},
		{"history", url, "bell\a"}, {"diff", url, at(0), at(1)}, {"diff", "-u", url, at(0), at(1)},
		{"cost", url, "bell\a"}, {"status", url}, {"verify", "--compare-data", "--time", at(0), url, "src"},
		{"list-current-files", url}, {"status", "--tiers", url}, {"doctor", url},
	}
}

// No listing writes a control character, whatever a name holds, and with
// --json each line is an object.
func TestOddNames(t *testing.T) {
	w, url := oddNames(t)
	for _, args := range listings(url) {
		for _, color := range []string{"", "--color=always"} {
			if color != "" && (args[0] == "cost" || args[0] == "verify" || args[0] == "doctor" || args[0] == "list-current-files") {
				continue
			}
			r := w.exec(nil, binary, append(args, strings.Fields(color)...)...)
			if r.code > 1 || r.stdout == "" {
				t.Errorf("%q: exit %d\n%s", args, r.code, r.stderr)
			}
			text := r.stdout
			if color != "" {
				for _, p := range []paint{dirPaint, linkPaint, nodePaint, execPaint, goodPaint, badPaint, midPaint, headPaint, hunkPaint, dimPaint} {
					text = strings.ReplaceAll(text, "\x1b["+string(p)+"m", "")
				}
				text = strings.ReplaceAll(text, "\x1b[0m", "")
			}
			for _, c := range text {
				if c != '\n' && c != '\t' && !unicode.IsPrint(c) {
					t.Errorf("%q writes %q:\n%q", args, c, text)
					break
				}
			}
		}
		if args[0] == "list-current-files" || args[0] == "doctor" { // of which nothing is wrong
			continue
		}
		r := w.exec(nil, binary, append(args, "--json")...)
		lines := 0
		for scan := bufio.NewScanner(strings.NewReader(r.stdout)); scan.Scan(); lines++ {
			var v map[string]any
			if err := json.Unmarshal(scan.Bytes(), &v); err != nil {
				t.Errorf("%q: %v: %s", args, err, scan.Text())
			}
		}
		if lines == 0 || r.code > 1 {
			t.Errorf("%q: exit %d, %d lines\n%s", args, r.code, lines, r.stderr)
		}
	}
}

// Colours are for terminals, and may be asked for or refused.
func TestColours(t *testing.T) {
	w := newWorld(t)
	w.sh("mkdir -p src/sub; ln -s x src/link; echo x > src/run; chmod 755 src/run")
	url := w.url("archive")
	w.dupfs("full", "src", url)
	terminal := func(env []string, args string) string {
		return w.exec(env, "script", "-qec", binary+" "+args+" "+url, "/dev/null").stdout
	}
	const colours = "\x1b[1;34msub\x1b[0m"
	for _, c := range []struct {
		env  string
		args string
		want bool
	}{{"TERM=xterm", "ls", true}, {"NO_COLOR=1", "ls", false}, {"TERM=dumb", "ls", false}, {"TERM=xterm", "ls --color=never", false}, {"NO_COLOR=1", "ls --color=always", true}} {
		if out := terminal([]string{c.env}, c.args); strings.Contains(out, colours) != c.want {
			t.Errorf("%s %s: %q", c.env, c.args, out)
		}
	}
	if out := w.dupfs("ls", url); out != "link\nrun\nsub\n" {
		t.Errorf("to a pipe: %q", out)
	}
	if r := w.exec(nil, binary, "ls", "--color=sometimes", url); r.code != exitUsage {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	if out := w.dupfs("ls", "-l", "-H", "--color", "always", url); !strings.Contains(out, "     2 bytes ") || !strings.Contains(out, "\x1b[1;32mrun\x1b[0m") {
		t.Errorf("%q", out)
	}
	if r := w.exec(nil, binary, "find", url, "nothing*"); r.code != 1 || r.stdout+r.stderr != "" {
		t.Errorf("find of nothing: exit %d %q %q", r.code, r.stdout, r.stderr)
	}
	var l listing
	if err := json.Unmarshal([]byte(w.dupfs("find", "--all-points", "--json", url, "run")), &l); err != nil || l.Point == "" || l.Path != "run" {
		t.Errorf("%v %+v", err, l)
	}
}
