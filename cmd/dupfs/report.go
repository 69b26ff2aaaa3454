package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

// warn tells the user of something that is not as it should be, on one line.
func (e *environ) warn(format string, args ...any) {
	e.warnAs(message{level: levelWarning, format: "%s", args: []any{name(fmt.Sprintf(format, args...))}}, format, args...)
}

// warnAs is warn with what duplicity says in its place.
func (e *environ) warnAs(m message, format string, args ...any) {
	if e.duplicity {
		e.say(m)
		return
	}
	e.machine.write(&m)
	if log := e.logging(); log != nil {
		log("warning: "+format, args...)
		return
	}
	e.outMu.Lock()
	defer e.outMu.Unlock()
	e.clearBar()
	fmt.Fprintln(e.stderr, "warning: "+printable(fmt.Sprintf(format, args...)))
}

// hint tells how to go on after a warning.
func (e *environ) hint(text string) {
	e.outMu.Lock()
	defer e.outMu.Unlock()
	e.clearBar()
	fmt.Fprintln(e.stderr, "hint: "+printable(text))
}

// note tells of something that was helped, where somebody is looking or
// --verbosity info asks for it. The log of a mount gets all.
func (e *environ) note(text string) {
	e.noteAs(message{level: levelInfo, format: "%s", args: []any{name(text)}}, text)
}

// noteAs is note with what duplicity says in its place.
func (e *environ) noteAs(m message, text string) {
	if e.duplicity {
		e.say(m)
		return
	}
	e.machine.write(&m)
	if log := e.logging(); log != nil {
		log("note: %s", text)
		return
	}
	if e.level < levelInfo && (!e.terminal || e.level < levelNotice) {
		return
	}
	e.outMu.Lock()
	defer e.outMu.Unlock()
	e.clearBar()
	fmt.Fprintln(e.stderr, "note: "+printable(text))
}

// logging returns the log of a mount in the background, nil if there is none.
func (e *environ) logging() func(string, ...any) {
	e.outMu.Lock()
	defer e.outMu.Unlock()
	return e.log
}

// clearBar makes room for a line. The lock is held.
func (e *environ) clearBar() {
	if e.bar != nil {
		_ = e.bar.Clear()
	}
}

// progress is what a long work has done, polled while it goes on.
type progress struct {
	done, total int64  // bytes; total 0: not known yet
	text        string // what is going on
}

// pollInterval is how often progress is shown.
const pollInterval = 200 * time.Millisecond

// follow shows the progress of work on a terminal, with rate and remaining
// time, until stop is called; elsewhere it shows nothing.
func (e *environ) follow(what string, poll func() progress) (stop func()) {
	if !e.terminal {
		return func() {}
	}
	bar := progressbar.NewOptions64(-1,
		progressbar.OptionSetWriter(e.stderr),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true),
		progressbar.OptionShowCount(),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionFullWidth(),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionThrottle(pollInterval),
	)
	e.outMu.Lock()
	e.bar = bar
	e.outMu.Unlock()
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { e.draw(bar, what, poll, quit) })
	return func() {
		close(quit)
		wg.Wait()
		e.outMu.Lock()
		defer e.outMu.Unlock()
		_ = bar.Clear()
		e.bar = nil
	}
}

// draw polls until quit.
func (e *environ) draw(bar *progressbar.ProgressBar, what string, poll func() progress, quit chan struct{}) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		select {
		case <-quit:
			return
		case <-tick.C:
		}
		p := poll()
		e.outMu.Lock()
		if p.total > 0 {
			bar.ChangeMax64(max(p.total, p.done, 1))
		}
		if p.text != "" {
			bar.Describe(what + " " + shorten(printable(p.text), 30))
		}
		_ = bar.Set64(p.done)
		e.outMu.Unlock()
	}
}

// shorten keeps the end of a text.
func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return "…" + string(r[len(r)-n+1:])
}
