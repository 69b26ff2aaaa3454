// Package retention decides what the commands that remove backups delete. It
// only plans: nothing is read or deleted here.
//
// The unit is a chain, and its time is its end. A chain is removed as a whole
// or not at all, and never the newest one. What forked from a chain, and so
// builds on its sets, counts as a part of it.
package retention

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"dupfs/chain"
)

// Plan says what a command would do.
type Plan struct {
	// Delete lists files in an order that is safe to stop at: after any
	// number of deletions every set that still has a manifest is whole and
	// can be restored, and Cleanup finds the rest.
	Delete []chain.Stored
	// Chains are the chains that go, newest first. Of RemoveAllIncOfButNFull:
	// those that lose their increments.
	Chains []*chain.Chain
	// Needed are sets older than asked for that stay because newer sets
	// depend on them, by end time.
	Needed []*chain.Set
	// ActiveOld says that the newest chain is older than asked for and stays.
	ActiveOld bool
	// Warnings are sentences for the user.
	Warnings []string
}

// RemoveOlderThan removes the chains that ended before t, and sigtars and
// index files of no set that are older. The newest chain stays, even one that
// duplicity would not protect because its sigtars are lost.
func RemoveOlderThan(c *chain.Collection, t time.Time) *Plan {
	p := choose(c, t)
	lines := linesOf(c)
	for _, ch := range p.Chains {
		p.delete(sets(lines[ch])...)
	}
	for _, f := range slices.Concat(c.LooseSigtars, c.LooseIndexes) {
		if f.End.Before(t) {
			p.Delete = append(p.Delete, f)
		}
	}
	return p
}

// RemoveAllButNFull removes the chains that ended before the n-th newest full
// set. With n < 1, or fewer full sets, it removes nothing.
func RemoveAllButNFull(c *chain.Collection, n int) *Plan {
	t, ok := nthFull(c, n)
	if !ok {
		return &Plan{}
	}
	return RemoveOlderThan(c, t)
}

// RemoveAllIncOfButNFull removes the increments of the chains that
// RemoveAllButNFull would remove, and leaves their full sets.
func RemoveAllIncOfButNFull(c *chain.Collection, n int) *Plan {
	t, ok := nthFull(c, n)
	if !ok {
		return &Plan{}
	}
	p := choose(c, t)
	lines := linesOf(c)
	p.Chains = slices.DeleteFunc(p.Chains, func(ch *chain.Chain) bool {
		return len(sets(lines[ch])) == 1
	})
	for _, ch := range p.Chains {
		all := sets(lines[ch])
		p.delete(all[:len(all)-1]...)
	}
	return p
}

// Policy says which chains to keep: the newest of each of the last so many
// days, weeks, months and years that have one, and the last so many in any
// case.
type Policy struct {
	Last, Daily, Weekly, Monthly, Yearly int
	Location                             *time.Location // whose days count; nil: the local one
}

// Prune removes the chains that no part of the policy keeps. A chain counts by
// its end. The newest one stays in any case, and so does the newest of those
// that are good, as far as good can tell; nil takes all for good.
func Prune(c *chain.Collection, o Policy, good func(*chain.Chain) bool) *Plan {
	p := &Plan{}
	lines := linesOf(c)
	kept, found := o.keeper(), false
	for i, ch := range backward(c.Chains) {
		keep := kept(sets(lines[ch])[0].End) || i == 0
		if !found && (good == nil || good(ch)) {
			keep, found = true, true
		}
		if !keep {
			p.Chains = append(p.Chains, ch)
		}
	}
	for _, ch := range p.Chains {
		p.delete(sets(lines[ch])...)
	}
	return p
}

// keeper returns what tells whether the policy keeps a chain that ends at a
// time. It is asked for the newest first.
func (o Policy) keeper() func(end time.Time) bool {
	if o.Location == nil {
		o.Location = time.Local
	}
	rules := []struct {
		left int
		span func(time.Time) string
		last string // span that the rule kept a chain of last
	}{
		{left: o.Last, span: func(t time.Time) string { return t.Format(time.RFC3339) }},
		{left: o.Daily, span: func(t time.Time) string { return t.Format(time.DateOnly) }},
		{left: o.Weekly, span: func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprint(y, " ", w) }},
		{left: o.Monthly, span: func(t time.Time) string { return t.Format("2006-01") }},
		{left: o.Yearly, span: func(t time.Time) string { return t.Format("2006") }},
	}
	return func(end time.Time) (keep bool) {
		for i := range rules {
			r := &rules[i]
			if span := r.span(end.In(o.Location)); r.left > 0 && span != r.last {
				r.left--
				r.last = span
				keep = true
			}
		}
		return keep
	}
}

// Cleanup removes the files of incomplete sets and of orphaned ones, sigtars
// and index files of no set, and claims. Unlike duplicity it leaves an orphaned set
// that can still be restored, because all it builds on is there, and removes
// the sigtars of the sets it removes, which duplicity at times leaves behind.
func Cleanup(c *chain.Collection) *Plan {
	p := &Plan{}
	useful := make(map[*chain.Set]bool)
	var newest time.Time
	for _, l := range c.Lines {
		for _, s := range l.Sets {
			useful[s] = true
		}
		if end := l.End(); end.After(newest) {
			newest = end
		}
	}
	for _, s := range backward(c.Orphaned) {
		if useful[s] {
			p.warn("set %s is in no chain, but can be restored: it stays", s.Times())
			continue
		}
		p.delete(s)
	}
	for _, s := range backward(c.Incomplete) {
		if s.End.After(newest) {
			p.warn("set %s is incomplete and newer than all others: a backup that is still running would be destroyed", s.Times())
		}
		p.delete(s)
	}
	p.Delete = append(p.Delete, c.LooseSigtars...)
	p.Delete = append(p.Delete, c.LooseIndexes...)
	p.Delete = append(p.Delete, c.Claims...)
	return p
}

// choose finds the chains that are older than t with all that builds on them.
func choose(c *chain.Collection, t time.Time) *Plan {
	p := &Plan{}
	lines := linesOf(c)
	for i, ch := range backward(c.Chains) {
		all := sets(lines[ch])
		last := all[0].End
		switch {
		case i == 0 && last.Before(t):
			p.ActiveOld = true
		case last.Before(t):
			p.Chains = append(p.Chains, ch)
		default:
			for _, s := range all {
				if s.End.Before(t) {
					p.Needed = append(p.Needed, s)
				}
			}
		}
	}
	slices.SortStableFunc(p.Needed, func(a, b *chain.Set) int { return a.End.Compare(b.End) })
	return p
}

// nthFull returns the time of the n-th newest full set that has a chain.
func nthFull(c *chain.Collection, n int) (time.Time, bool) {
	if n < 1 || n > len(c.Chains) {
		return time.Time{}, false
	}
	var starts []time.Time
	for _, ch := range c.Chains {
		starts = append(starts, ch.Start())
	}
	slices.SortFunc(starts, time.Time.Compare)
	return starts[len(starts)-n], true
}

// linesOf returns the lines of each chain: its own and those of its forks.
func linesOf(c *chain.Collection) map[*chain.Chain][]*chain.Line {
	lines := make(map[*chain.Chain][]*chain.Line)
	for _, l := range c.Lines {
		lines[l.Chain] = append(lines[l.Chain], l)
	}
	return lines
}

// sets returns the sets of the lines, each once, the newest first: no set
// comes after one that it builds on. The full set is the last.
func sets(lines []*chain.Line) []*chain.Set {
	seen := make(map[*chain.Set]bool)
	var all []*chain.Set
	for _, l := range lines {
		for _, s := range l.Sets {
			if !seen[s] {
				seen[s] = true
				all = append(all, s)
			}
		}
	}
	slices.SortFunc(all, func(a, b *chain.Set) int {
		return cmp.Or(b.End.Compare(a.End), b.Start.Compare(a.Start))
	})
	return all
}

// delete adds all files of the sets.
func (p *Plan) delete(sets ...*chain.Set) {
	for _, s := range sets {
		p.Delete = append(p.Delete, s.Files()...)
	}
}

func (p *Plan) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

// backward returns a copy of s in reverse order.
func backward[T any](s []T) []T {
	s = slices.Clone(s)
	slices.Reverse(s)
	return s
}
