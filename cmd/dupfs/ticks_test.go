package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"dupfs/internal/stock"
)

// Lines of --progress are those that stock writes of the same numbers.
func TestTickLines(t *testing.T) {
	var ticks []tick
	add := func(n tick) { ticks = append(ticks, n) }
	for _, n := range []int64{0, 51, 52, 1023, 1024000, 1024001, 5 << 20, 1048576000, 1048576001, 5e12} {
		add(tick{bytes: n, elapsed: time.Second, percent: 50, eta: time.Second, speed: n})
	}
	for _, s := range []time.Duration{0, 1, 15, 16, 30, 31, 45, 46, 59, 60, 89, 90, 119, 150, 359, 360, 399, 3599, 3600, 3659, 3661, 7261, 86399, 86400, 90061, 999999} {
		add(tick{bytes: 5000, elapsed: s * time.Second, percent: 7, eta: s * time.Second, speed: 2000})
	}
	for percent := range 101 {
		add(tick{bytes: 5000, elapsed: time.Minute, percent: percent, eta: time.Minute, speed: 2000, stalled: percent%10 == 0})
	}
	script := "import sys, duplicity.log as l\nl.setup(); l.setverbosity(3); l.add_file(sys.argv[1])\n"
	var console, log strings.Builder
	e := &environ{stdout: &console, level: levelNotice}
	for _, n := range ticks {
		stalled := "False"
		if n.stalled {
			stalled = "True"
		}
		script += fmt.Sprintf("l.TransferProgress(%d, %d, %d, %d, %d, %s)\n", n.percent, n.eta/time.Second, n.bytes, n.elapsed/time.Second, n.speed, stalled)
		m := n.message()
		e.say(m)
		log.WriteString(stanza(&m))
	}
	script += "l.Notice('other')\nl.TransferProgress(1, 1, 1, 1, 1, False)\n"
	last := tick{bytes: 1, elapsed: time.Second, percent: 1, eta: time.Second, speed: 1}.message()
	e.tell("other")
	e.say(last)
	other := message{level: levelNotice, format: "other"}
	log.WriteString(stanza(&other) + stanza(&last))

	w := newWorld(t)
	cmd := stock.Python(t, script, w.path("log"))
	cmd.Env = w.env
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	compareLines(t, "console", strings.Split(console.String(), "\n"), strings.Split(string(out), "\n"))
	compareLines(t, "log", strings.Split(log.String(), "\n"), strings.Split(w.sh("cat log"), "\n"))
}

// What is told of the way is in proportion, and says when nothing moves.
func TestTicks(t *testing.T) {
	n := tick{}
	for range 5 {
		n = n.next(time.Second, 0, progress{}, 0)
	}
	if n.percent != 0 || n.speed != 0 || n.elapsed != 5*time.Second || n.stalled {
		t.Errorf("before the first byte: %+v", n)
	}
	n = n.next(5*time.Second, 500, progress{done: 250, total: 1000}, 0)
	if n.percent != 25 || n.eta != 30*time.Second || n.speed != 30 {
		t.Errorf("at a quarter: %+v", n)
	}
	still := n.next(time.Second, 500, progress{done: 250, total: 1000}, stalledTicks)
	if !still.stalled || still.eta != n.eta || still.speed != n.speed {
		t.Errorf("without a move: %+v", still)
	}
	if n = n.next(time.Second, 1000, progress{done: 1200, total: 1000}, 0); n.percent != 99 || n.eta != 0 {
		t.Errorf("when the source has grown: %+v", n)
	}
}

// With --progress a backup ends on 100 %, on the console and in the log; stock
// does so too, and nothing else has ticks.
func TestProgressOption(t *testing.T) {
	p := newPair(t)
	p.both("mkdir s; head -c 2000000 /dev/urandom > s/f")
	end := regexp.MustCompile(`[0-9.]+[KMG]B 00:[0-9:]{5} \[[0-9.]+[KMG]?B/s\] \[={40}>\] 100% ETA 0sec\n`)
	stanza := regexp.MustCompile(`^NOTICE 16 [0-9]+ [0-9]+ 100 0 [0-9]+ 0\n\. [^\n]* 100% ETA 0sec$`)
	for _, verbosity := range []string{"-v3", "-v2"} {
		stock, ours, stockLog, ourLog := p.run(nil, "full", "--progress", "--progress-rate=1", "--no-encryption", "--no-print-statistics", verbosity, "--current-time", map[string]string{"-v3": at(0), "-v2": at(1)}[verbosity], "s", "file://a")
		for name, r := range map[string]result{"stock": stock, "dupfs": ours} {
			log := map[string][]string{"stock": stockLog, "dupfs": ourLog}[name]
			want := verbosity == "-v3"
			if got := end.MatchString(r.stdout); r.code != 0 || got != want {
				t.Errorf("%s %s: exit %d, at its end %v\n%q%s", name, verbosity, r.code, got, r.stdout, r.stderr)
			}
			if got := len(log) > 0 && stanza.MatchString(log[len(log)-1]); got != want {
				t.Errorf("%s %s: the log ends %v\n%q", name, verbosity, got, log)
			}
		}
	}
	p.same("restore", "--progress", "file://a", "out")
	if r := p.in("ours").exec(nil, binary, "full", "--progress", "--progress-rate=x", "s", "file://a"); r.code != exitUsage {
		t.Errorf("a rate that is none: exit %d, %s", r.code, r.stderr)
	}
}
