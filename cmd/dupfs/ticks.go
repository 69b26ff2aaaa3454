package main

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"dupfs/chain/backup"
)

// overTick puts a line into the place of the one before.
const overTick = "\x1b[F\x1b[2K"

// stalledTicks is how many ticks without progress are no chance any more.
const stalledTicks = 6

// tick is a line of --progress.
type tick struct {
	bytes   int64 // read of what is stored
	elapsed time.Duration
	percent int
	eta     time.Duration
	speed   int64 // bytes a second
	stalled bool
}

// message returns the line and the stanza, in duplicity's form.
func (t tick) message() message {
	stalled, speed, eta := 0, tickSize(t.speed), etaText(int64(t.eta/time.Second))
	if t.stalled {
		stalled, speed, eta = 1, "0.0B", "Stalled!"
	}
	bar := strings.Repeat("=", t.percent*40/100)
	text := fmt.Sprintf("%s %s [%s/s] [%-41s] %d%% ETA %s", tickSize(t.bytes), clockText(int64(t.elapsed/time.Second)), speed, bar+">", t.percent, eta)
	return message{
		level: levelNotice, code: infoUploadTick, format: "%s", args: []any{text},
		extra: fmt.Sprint(t.bytes, int64(t.elapsed/time.Second), t.percent, int64(t.eta/time.Second), t.speed, stalled),
	}
}

// tickSize writes bytes with one digit, in KB to GB.
func tickSize(n int64) string {
	f, unit := float64(n)/1024, 0
	for f > 1000 && unit < 2 {
		f, unit = f/1024, unit+1
	}
	return fmt.Sprintf("%.1f%cB", f, "KMG"[unit])
}

// clockText writes seconds as 1d,02:03:04.
func clockText(s int64) string {
	text := fmt.Sprintf("%02d:%02d:%02d", s/3600%24, s/60%60, s%60)
	if days := s / 86400; days > 0 {
		text = fmt.Sprintf("%dd,%s", days, text)
	}
	return text
}

// etaText writes seconds the rougher the more there are.
func etaText(s int64) string {
	switch {
	case s <= 15:
		return fmt.Sprintf("%dsec", s)
	case s <= 30:
		return "< 30sec"
	case s <= 45:
		return "< 45sec"
	case s < 60:
		return "< 1min"
	}
	var parts []string
	part := func(n int64, unit string) {
		if n > 0 {
			parts = append(parts, fmt.Sprint(n, unit))
		}
	}
	part(s/86400, "d")
	part(s/3600%24, "h")
	part(s/60%60, "min")
	if s < 360 {
		part(s%60/30*30, "sec")
	}
	return strings.Join(parts, " ")
}

// next returns the tick after t, d later: read is what was read so far, p how
// much of all is done, and same the number of ticks in which nothing was read.
func (t tick) next(d time.Duration, read int64, p progress, same int) tick {
	n := tick{bytes: read, elapsed: t.elapsed + d, stalled: same >= stalledTicks}
	if seconds := d.Seconds(); seconds > 0 {
		n.speed = int64(0.7*float64(t.speed) + 0.3*float64(read-t.bytes)/seconds)
	}
	n.eta = n.elapsed
	if p.total > 0 && p.done > 0 {
		n.percent = int(min(99, 100*float64(p.done)/float64(p.total)))
		n.eta = time.Duration(float64(n.elapsed) * float64(max(p.total-p.done, 0)) / float64(p.done))
	}
	if n.stalled {
		n.eta, n.speed = t.eta, t.speed
	}
	return n
}

// ticks says how far a backup is, as --progress asks for, until stop is called.
// A terminal has a bar instead, unless it is called as duplicity.
func (e *environ) ticks(c *cli.Context, p *backup.Progress, poll func() progress) (stop func(done bool)) {
	say := e.say
	if e.terminal && !e.duplicity {
		say = func(m message) { e.machine.write(&m) }
	}
	began, last, same := time.Now(), tick{}, 0
	rate := time.NewTicker(time.Duration(max(c.Int("progress-rate"), 1)) * time.Second)
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-quit:
				return
			case <-rate.C:
			}
			read := p.BytesRead.Load()
			same++
			if read != last.bytes {
				same = 0
			}
			last = last.next(time.Since(began)-last.elapsed, read, poll(), same)
			say(last.message())
		}
	})
	return func(done bool) {
		rate.Stop()
		close(quit)
		wg.Wait()
		if done {
			last = last.next(time.Since(began)-last.elapsed, p.BytesRead.Load(), poll(), 0)
			last.percent, last.eta = 100, 0
			say(last.message())
		}
	}
}
