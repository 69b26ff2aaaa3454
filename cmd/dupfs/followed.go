package main

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
	"dupfs/chain/backup"
	"dupfs/chain/restore"
	"dupfs/chain/selection"
)

// Codes of what is told while a command goes on.
const (
	infoProgress   = 2
	infoNew        = 4
	infoChanged    = 5
	infoDeleted    = 6
	infoWriting    = 7
	infoListed     = 10
	infoUpload     = 11
	infoAsync      = 12
	infoUploaded   = 13
	infoAsyncDone  = 14
	infoSocket     = 15
	infoUploadTick = 16
)

// follows makes a backup tell what it does, entry by entry and volume by
// volume.
func (e *environ) follows(c *cli.Context, src string, p *backup.Progress, o *backup.Options) {
	o.Notice = func(n backup.Notice) { e.backupNotice(src, n) }
	if !e.machine.on() && e.level < levelInfo {
		return
	}
	o.OnChange = func(ch backup.Change, path chain.Path) {
		code := [...]int{infoNew, infoChanged, infoDeleted}[ch]
		e.say(message{
			level: levelInfo, code: code, extra: logName(path.String()),
			format: "%c %s", args: []any{"AMD"[ch], name(path.String())},
		})
		if o.DryRun {
			e.progressed(p)
		}
	}
	async := c.Bool("asynchronous-upload") || o.Uploads > 1
	o.OnVolume = func(v backup.VolumeEvent) { e.volume(v, p, async) }
}

// progressed tells how much of the source was seen.
func (e *environ) progressed(p *backup.Progress) {
	e.say(message{level: levelInfo, code: infoProgress, extra: fmt.Sprint(p.Packed.Load())})
}

// volume tells of an upload.
func (e *environ) volume(v backup.VolumeEvent, p *backup.Progress, async bool) {
	code, done, text := infoUpload, infoUploaded, "AsyncScheduler: running task synchronously (asynchronicity disabled)"
	end := "AsyncScheduler: task completed successfully"
	if async {
		code, done, text = infoAsync, infoAsyncDone, "AsyncScheduler: scheduling task for asynchronous execution"
		end = "AsyncScheduler: task execution done (success: True)"
	}
	if !v.Done {
		e.say(message{level: levelInfo, code: code, format: "%s", args: []any{text}})
		e.say(message{level: levelInfo, format: "Writing %s", args: []any{name(v.File)}})
		return
	}
	e.say(message{level: levelInfo, code: done, format: "%s", args: []any{end}})
	e.say(message{
		level: levelInfo, code: infoProgress, extra: fmt.Sprint(p.Packed.Load()),
		format: "Processed volume %d", args: []any{v.Number},
	})
}

// backupNotice tells of an entry that was not stored as it should be.
func (e *environ) backupNotice(src string, n backup.Notice) {
	full := path.Join(src, n.Path.String())
	m := message{level: levelWarning}
	switch n.Class {
	case backup.Skipped:
		m = message{level: levelInfo, code: infoSocket, extra: logName(full), format: "Skipping socket %s", args: []any{name(full)}}
		e.noteAs(m, fmt.Sprintf("%s: %v", n.Path, n.Err))
		return
	case backup.BadSignature:
		e.note(fmt.Sprintf("%s: %v", n.Path, n.Err))
		return
	case backup.Unreadable:
		m.code, m.extra = warnUnreadable, logName(full)
		m.format, m.args = "Error accessing possibly locked file %s", []any{name(full)}
	default:
		m.format, m.args = "Error %v getting delta for %s", []any{n.Err, name(full)}
	}
	e.warnAs(m, "%s: %v", n.Path, n.Err)
}

// selectionWords gives an error of the selection duplicity's words.
func selectionWords(err error, src string, rules []selection.Rule) error {
	var rule *selection.RuleError
	if !errors.As(err, &rule) {
		return err
	}
	switch {
	case errors.Is(err, selection.ErrOutside):
		return worded(err, "", `Fatal Error: The file specification
    %s
cannot match any files in the base directory
    %s
Useful file specifications begin with the base directory or some
pattern (such as '**') which matches the base directory.`, rule.Rule, selection.Source(src))
	case errors.Is(err, selection.ErrRedundant):
		what := "Command-line include glob: "
		if n := len(rules); n > 0 && (rules[n-1].Kind == selection.Regexp || rules[n-1].Lines == selection.Regexp) {
			what = "Regular expression: "
		}
		return worded(err, "", `Last selection expression:
    %s%s
only specifies that files be included.  Because the default is to
include all files, the expression is redundant.  Exiting because this
probably isn't what you meant.`, what, rule.Rule)
	case errors.Is(err, selection.ErrGlob):
		text := err.Error()
		if strings.Contains(rule.Rule, "//") {
			text = "Consecutive '/'s found in globbing string " + rule.Rule
		}
		return worded(err, "", "Fatal Error while processing expression\n%s", text)
	}
	return err
}

// restoring returns what is told of each entry that is restored, by its path
// below top, nil if nobody listens.
func (e *environ) restoring(top chain.Path) func(chain.Path, chain.Type) {
	if !e.machine.on() && e.level < levelInfo {
		return nil
	}
	return func(p chain.Path, t chain.Type) {
		p = relative(top, p)
		e.say(message{
			level: levelInfo, code: infoWriting, extra: logName(p.String()) + " " + typeWord(t),
			format: "Writing %s of type %s", args: []any{name(p.String()), typeWord(t)},
		})
	}
}

// unrestored warns of an entry that could not be restored, read or set right.
func (e *environ) unrestored(p chain.Path, err error) {
	e.warnAs(message{
		level: levelWarning, code: warnUnrestored, extra: logName(p.String()),
		format: "Error '%v' patching %s", args: []any{name(err.Error()), name(p.String())},
	}, "%s: %v", p, err)
}

// setsAt returns the sets that a point is made of.
func (a *archive) setsAt(point chain.Point) []*chain.Set {
	for _, l := range a.snapshot.Collection().Lines {
		for i, s := range l.Sets {
			if s.End.Equal(point.Time) {
				return l.Sets[:i+1]
			}
		}
	}
	return nil
}

// volumesAt returns how many volumes a point is made of.
func (a *archive) volumesAt(point chain.Point) (n int) {
	for _, s := range a.setsAt(point) {
		n += len(s.Volumes)
	}
	return n
}

// countVolumes tells a front end how far the reading of n volumes is, until
// stop is called. Files are read from all of them at once, so it is the share
// of all bytes that is told as duplicity's "volume 3 of 8".
func (e *environ) countVolumes(n int, counts *restore.Progress, size *expected) (stop func(all bool)) {
	if !e.machine.on() && e.level < levelInfo {
		return func(bool) {}
	}
	told := 0
	upTo := func(k int) {
		for told < k {
			told++
			e.say(message{
				level: levelInfo, code: infoProgress, extra: fmt.Sprintf("%d %d", told, n),
				format: "Processed volume %d of %d", args: []any{told, n},
			})
		}
	}
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(pollInterval)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			if total := size.sum.Load(); total > 0 {
				upTo(int(float64(counts.Bytes.Load())/float64(total)*float64(n)) - 1)
			}
		}
	})
	return func(all bool) {
		close(quit)
		wg.Wait()
		if all {
			upTo(n)
		}
	}
}
