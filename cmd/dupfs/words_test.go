package main

import (
	"strings"
	"testing"
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
	p.same("restore", "-r", "d", "file://t", "part")
	p.same("restore", "--exclude", "whatever", "file://t", "out")
	compareLines(t, "restore", diskLines(t, p.path("ours", "out")), diskLines(t, p.path("stock", "out")))
}

// What changed in which set, and in which sets a file changed.
func TestChangesShown(t *testing.T) {
	p := newPair(t)
	p.both(`mkdir -p s/d; echo 1 > s/a; echo 2 > s/d/longer-name`)
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
