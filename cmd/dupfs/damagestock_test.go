package main

import (
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"

	"dupfs/chain"
	"dupfs/internal/need"
)

// stockPoints are the points that duplicity restores of each damaged archive: the
// newest, and the one before it. Each takes it a second or more.
var stockPoints = []int{4, 3}

// stockTime is how many seconds duplicity may take for a point, and stockLate
// the status of timeout(1) if that was not enough.
const (
	stockTime = "60"
	stockLate = 124
)

// forStock chooses the files that are damaged for duplicity: all but indexes,
// which it ignores.
func forStock(f string) bool {
	n, _ := chain.ParseName(f, chain.Prefixes{})
	return n.Kind != chain.IndexFile
}

// stockOutcome counts what duplicity made of one damage, by points.
type stockOutcome map[string]int

// What can become of a point with duplicity, as words in a table.
const (
	stockWhole  = "whole"                              // status 0
	stockNamed  = "but for what it names"              // whatever the status
	stockAborts = "aborts, a part is there"            // the rest is neither there nor named
	stockNone   = "refused"                            // nothing is there
	stockOlder  = "older with a hint of leftovers"     // status 0, the state of another point
	stockSilent = "in silence wrong, lost or outdated" // status 0
	stockBad    = "aborts, what is there is not right" // status other than 0, wrong content in place
	stockHangs  = "hangs"
	stockOdd    = "whole, but with a status other than 0"
)

func (o stockOutcome) String() string {
	var parts []string
	for _, kind := range []string{stockWhole, stockOdd, stockNamed, stockOlder, stockAborts, stockBad, stockNone, stockHangs, stockSilent} {
		if o[kind] > 0 {
			parts = append(parts, fmt.Sprint(o[kind], " ", kind))
		}
	}
	return strings.Join(parts, ", ")
}

// tryStock damages a copy of the archive and lets duplicity restore points of
// it, from an empty archive directory.
func (w *damagedWorld) tryStock(t *testing.T, name string, damage int) stockOutcome {
	t.Helper()
	w.t = t
	w.sh("rm -rf broken out; cp -al archive broken")
	damages[damage].do(t, w.path("broken"), name, w.otherThan(name))
	o := stockOutcome{}
	for _, n := range stockPoints {
		out := w.path("out")
		w.sh("rm -rf out cache")
		r := w.exec(nil, "timeout", stockTime, need.Program(t, "duplicity"), "restore", "--archive-dir", w.path("cache"), "--time", at(n), w.url("broken"), out)
		kind := w.judgeStock(t, n, out, r)
		o[kind]++
		if kind == stockSilent || kind == stockNamed || kind == stockBad {
			t.Logf("point %d: %s: status %d\n%s%s", n, kind, r.code, r.stdout, r.stderr)
		}
	}
	fmt.Printf("| %s | %s | %v |\n", short(name), damages[damage].name, o)
	w.sh("rm -rf tmp/*") // what it left when it aborted
	return o
}

// judgeStock compares what duplicity restored of a point with what there was,
// by the rules that hold for dupfs.
func (w *damagedWorld) judgeStock(t *testing.T, n int, out string, r result) string {
	t.Helper()
	if r.code == stockLate {
		return stockHangs
	}
	if _, err := os.Lstat(out); err != nil {
		if r.code == exitOK {
			return stockSilent
		}
		return stockNone
	}
	got := linesOf(t, out)
	said := r.stdout + r.stderr
	if r.code == exitOK && strings.Contains(said, "incomplete backup sets") {
		for m := range n {
			if maps.Equal(got, w.want[m]) {
				return stockOlder
			}
		}
	}
	wrong, lost, unnamed := 0, 0, 0
	for p, l := range got {
		if want, ok := w.want[n][p]; !ok || want != l {
			wrong++
			if !stockNames(said, p) {
				unnamed++
			}
		}
	}
	for p := range w.want[n] {
		if _, ok := got[p]; !ok {
			lost++
			if !stockNames(said, p) {
				unnamed++
			}
		}
	}
	switch {
	case wrong+lost == 0 && r.code == exitOK:
		return stockWhole
	case wrong+lost == 0:
		return stockOdd
	case unnamed == 0:
		return stockNamed
	case r.code == exitOK:
		return stockSilent
	case wrong > 0 && w.unlike(got, n):
		return stockBad
	}
	return stockAborts
}

// unlike reports whether a file was restored with a content that it never had
// at a point: of one that an abort left without its times and rights that alone
// is not said.
func (w *damagedWorld) unlike(got map[string]string, n int) bool {
	for p, l := range got {
		want, ok := w.want[n][p]
		if !ok || content(l) != content(want) {
			return true
		}
	}
	return false
}

// content is the part of a line of linesOf that tells what a file is and holds.
func content(line string) string {
	return strings.Fields(line)[0] + line[strings.Index(line, " size "):]
}

// stockNames reports whether duplicity's words name a path.
func stockNames(said, path string) bool {
	return path != "." && strings.Contains(said, "'"+path+"'") || strings.Contains(said, " "+path+"\n")
}
