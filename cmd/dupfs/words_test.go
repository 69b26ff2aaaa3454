package main

import (
	"fmt"
	"strings"
	"testing"

	"dupfs/internal/need"
)

// same runs a command with both and compares exit status, standard output and
// what front ends read.
func (p *pair) same(args ...string) {
	p.t.Helper()
	stock, ours, want, got := p.run(nil, args...)
	name := strings.Join(args, " ")
	if ours.code != stock.code {
		p.t.Errorf("%s: exit %d, stock %d\n%s%s", name, ours.code, stock.code, ours.stdout, ours.stderr)
	}
	if o, s := normalized(ours.stdout), normalized(stock.stdout); o != s {
		p.t.Errorf("%s: it says\n%s\nstock\n%s", name, o, s)
	}
	compareLines(p.t, name, comparable(got), comparable(want))
}

// Rules mean for verify and restore what they mean for duplicity: what is not
// selected is missing for verify, and restore warns that it does not mind them.
func TestSelectionWhenReading(t *testing.T) {
	p := newPair(t)
	p.both(`mkdir -p s/d/e s/x; echo 1 > s/a; echo 2 > s/b; echo 3 > s/d/c; echo 4 > s/d/e/f; echo 5 > s/x/y; find s -exec touch -d 2020-01-01 {} +
		duplicity -v0 --archive-dir cache --no-print-statistics --no-encryption s file://t`)
	verify := []string{"verify", "--compare-data", "file://t", "s"}
	for _, rules := range [][]string{
		{"--exclude", "s/a", "--exclude", "s/d/e"},
		{"--include", "s/d/e", "--exclude", "**"},
		{"--include", "**/y", "--exclude-regexp", "s/."},
		{"--exclude", "d"},
	} {
		p.same(append(rules, verify...)...)
	}
	p.same("verify", "-r", "d", "--exclude", "s/d/e", "file://t", "s/d")
	p.both("echo 5 >> s/d/c; touch s/d/new; rm s/d/e/f; touch -d 2020-01-01 s/d/e; chmod 700 s/d/e; ln -s x s/d/l")
	for _, sub := range []string{"d", "d/c", "d/e"} { // paths as seen from there
		p.same("verify", "--compare-data", "-r", sub, "file://t", "s/"+sub)
		p.same("verify", "-r", sub, "file://t", "s/"+sub)
	}
	p.same("restore", "-r", "d", "file://t", "part")
	p.same("restore", "--exclude", "whatever", "file://t", "out")
	compareLines(t, "restore", diskLines(t, p.path("ours", "out")), diskLines(t, p.path("stock", "out")))
}

// What changed in which set, and in which sets a file changed.
func TestChangesShown(t *testing.T) {
	p := newPair(t)
	// duplicity takes a file that changed within a second for unchanged.
	p.both(`mkdir -p s/d; echo 1 > s/a; echo 2 > s/d/longer-name; touch -d 2020-01-01 s/a`)
	run := func(n string) {
		p.both("duplicity -v0 --archive-dir cache --no-print-statistics --no-encryption s file://t --current-time " + n)
	}
	run("1700000000")
	p.both("echo 3 >> s/a; rm s/d/longer-name; echo > s/x")
	run("1700100000")
	for _, args := range [][]string{
		{"--show-changes-in-set", "0"}, {"--show-changes-in-set", "1"}, {"--file-changed", "a"}, {"--file-changed", "d/longer-name/"}, {"--file-changed", "nowhere"},
	} {
		p.same(append(args, "collection-status", "file://t")...)
	}
	_, ours, _, _ := p.run(nil, "collection-status", "--show-changes-in-set", "-1", "file://t")
	if !strings.Contains(ours.stdout, "longer-name                   new") {
		t.Errorf("the oldest set: %s", ours.stdout)
	}
	p.same("collection-status", "--show-changes-in-set", "0", "file://none")
	if stock, ours, _, _ := p.run(nil, "collection-status", "--show-changes-in-set", "7", "file://t"); ours.code != stock.code {
		t.Errorf("a set that is not there: exit %d, stock %d", ours.code, stock.code)
	}
}

// What links lead to is stored, and what a list names, as duplicity does it
// or, for lists, its newer versions.
func TestWhatIsStored(t *testing.T) {
	p := newPair(t)
	p.both(`mkdir -p s/d o; echo 1 > s/a; echo 2 > o/b; mkdir o/sub; ln -s ../o s/lo; ln -s a s/la; ln -s ../a s/d/la
		chmod 640 o/b; find s o -exec touch -h -d 2020-01-01 {} +`)
	p.both("ln -s s linked")
	p.same("--copy-links", "--no-encryption", "s", "file://t")
	p.same("restore", "file://t", "out")
	compareLines(t, "copied links", diskLines(t, p.path("ours", "out")), diskLines(t, p.path("stock", "out")))

	w := p.in("ours")
	w.write("s/d/e/f", "in a directory")
	w.sh("ln -s .. s/d/up; ln -s nowhere s/dead; printf 'd/e\nla\nd/la\nno/such\n' > list")
	w.dupfs("full", "--copy-links", "--no-encryption", "s", w.url("loop"))
	if got := w.dupfs("ls", "-lR", w.url("loop")); strings.Count(got, " -> ") != 2 || !strings.Contains(got, "dead -> nowhere") || !strings.Contains(got, "d/up -> ..") {
		t.Errorf("links that lead in a circle or nowhere:\n%s", got)
	}
	r := w.exec(nil, binary, "full", "--files-from", "list", "--no-encryption", "s", w.url("listed"))
	if r.code != exitIncomplete || !strings.Contains(r.stderr, "no/such") {
		t.Errorf("what is listed and missing: exit %d, %s", r.code, r.stderr)
	}
	r = w.exec(nil, p.ours, "full", "--files-from", "list", "--no-encryption", "s", w.url("as-duplicity"))
	if r.code != 0 || r.stderr != "" || !strings.Contains(r.stdout, "Error accessing possibly locked file s/no/such\n") || !strings.Contains(r.stdout, "Errors 1\n") {
		t.Errorf("called as duplicity: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if got, want := w.dupfs("ls", "-R", w.url("listed")), ".\nd\nd/e\nd/la\nla\n"; got != want {
		t.Errorf("listed: %q, want %q", got, want)
	}
	w.sh("echo /abs > abs; : > empty")
	for file, code := range map[string]int{"abs": exitAbsolutePath, "empty": exitEmptyList, "missing": exitFilelist} {
		if r := w.exec(nil, binary, "full", "--files-from", file, "--no-encryption", "s", w.url("x")); r.code != code {
			t.Errorf("--files-from %s: exit %d, want %d\n%s", file, r.code, code, r.stderr)
		}
	}
}

// Renamed paths are restored where stock restores them, and a dry run only
// names the volumes.
func TestRename(t *testing.T) {
	p := newPair(t)
	p.both(`mkdir -p s/home/old/x s/home/zed; echo 1 > s/home/old/x/f; echo 2 > s/home/old/g; echo 3 > s/top; find s -exec touch -d 2020-01-01 {} +
		duplicity -v0 --archive-dir cache --no-print-statistics --no-encryption s file://t`)
	p.same("restore", "--dry-run", "file://t", "dry")
	const f, g, top = "e5fa44f2b31c1fb553b6021e7360d07d5d91ff5e  ", "7448d8798a4380162d4b56f9b452e2f6f9e24e7a  ", "a3db5c13ff90a36963278c6a39e4ee3c22e2a436  "
	names := func(dir, out string) string {
		return p.in(dir).sh("cd " + out + "; find . -type f -exec sha1sum {} + | sort -k2")
	}
	if stock, ours, _, _ := p.run(nil, "restore", "--rename", "home/old", "home/new", "file://t", "out"); stock.code != 0 || ours.code != 0 {
		t.Errorf("exit %d, stock %d\n%s", ours.code, stock.code, ours.stderr)
	}
	if o, s := names("ours", "out"), names("stock", "out"); o != s {
		t.Errorf("restored\n%s\nstock\n%s", o, s)
	}
	// Stock writes where the order of paths lets it, and fails at others.
	for n, test := range []struct{ args, want string }{
		{"--rename home/old/ home/zed/old --rename top home/bottom", top + "./home/bottom\n" + g + "./home/zed/old/g\n" + f + "./home/zed/old/x/f\n"},
		{"-r home --rename old/x zed/y", g + "./old/g\n" + f + "./zed/y/f\n"},
	} {
		out := "out" + fmt.Sprint(n)
		p.in("ours").dupfs(append([]string{"restore", "file://t", out}, strings.Fields(test.args)...)...)
		if got := names("ours", out); got != test.want {
			t.Errorf("%s: restored\n%s", test.args, got)
		}
	}
	for _, args := range [][]string{{"--rename", "no", "x"}, {"--rename", "top", "no/x"}, {"--rename", "top", "home"}, {"--rename", "top"}} {
		if _, ours, _, _ := p.run(nil, append([]string{"restore", "file://t", "bad"}, args...)...); ours.code == 0 {
			t.Errorf("%v: exit 0", args)
		}
	}
}

// Stock and dupfs share an archive directory: neither minds what the other
// leaves there, and the lock of one stops the other.
func TestSharedArchiveDir(t *testing.T) {
	w := newWorld(t)
	dir := []string{"--archive-dir", w.path("cache"), "--name", "both", "--no-encryption"}
	url := w.url("a")
	for n, program := range []func(...string) string{w.stock, w.dupfs, w.stock, w.dupfs} {
		w.write("src/f", fmt.Sprint("version ", n))
		w.sh("touch -d @" + at(n) + " src/f") // stock looks at whole seconds
		program(append(dir, "--current-time", at(n), "src", url)...)
	}
	for n := range 4 {
		if got := w.dupfs(append(dir, "cat", "--time", at(n), url, "f")...); got != fmt.Sprint("version ", n) {
			t.Errorf("point %d: %q", n, got)
		}
	}
	if out := w.stock(append(dir, "verify", url, "src")...); !strings.Contains(out, "are synchronized, no sync needed") && !strings.Contains(out, "Copying") {
		t.Errorf("stock says\n%s", out)
	}
	if out := w.stock(append(dir, "collection-status", url)...); strings.Count(out, "Incremental ") != 3 || !strings.Contains(out, "No orphaned or incomplete") {
		t.Errorf("stock sees\n%s", out)
	}
	// Whoever holds the lock as duplicity does.
	hold := "exec " + need.Program(t, "python3") + ` -c 'import fcntl, os, sys
f = open("cache/both/lockfile", "w"); fcntl.lockf(f, fcntl.LOCK_EX)
sys.exit(os.spawnvp(os.P_WAIT, sys.argv[1], sys.argv[1:]) != int(os.environ["WANT"]))' `
	for _, program := range []string{need.Program(t, "duplicity"), binary} {
		r := w.exec([]string{"WANT=23"}, "/bin/bash", "-c", hold+program+" "+strings.Join(append(dir, "full", "src", url), " "))
		if r.code != 0 {
			t.Errorf("%s: it does not end with 23 while another one runs\n%s%s", program, r.stdout, r.stderr)
		}
	}
}
