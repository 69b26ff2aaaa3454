package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
	"dupfs/chain/retention"
)

func pruneCommand(e *environ) *cli.Command {
	c := removeCommand(e, "prune", "keep a backup of each of the last days, weeks, months and years, and delete the rest, in whole chains", "URL", planPrune)
	c.Description = `dupfs prune --keep-daily 7 --keep-weekly 5 --keep-monthly 12 URL           shows what it would delete
dupfs prune --keep-last 2 --keep-yearly 10 --force URL

A chain counts by its newest backup. What any option keeps stays; so do the
newest chain and the newest that nothing is missing of.`
	for _, o := range []struct{ name, usage string }{
		{"keep-last", "keep the newest `N` chains"},
		{"keep-daily", "keep the newest chain of each of the last `N` days that have one"},
		{"keep-weekly", "the same for weeks"},
		{"keep-monthly", "for months"},
		{"keep-yearly", "for years"},
	} {
		c.Flags = append(c.Flags, &cli.IntFlag{Name: o.name, Usage: o.usage})
	}
	return c
}

func planPrune(ctx context.Context, a *archive, c *cli.Context, _ string, col *chain.Collection) (*retention.Plan, error) {
	p := retention.Policy{
		Last: c.Int("keep-last"), Daily: c.Int("keep-daily"), Weekly: c.Int("keep-weekly"),
		Monthly: c.Int("keep-monthly"), Yearly: c.Int("keep-yearly"),
	}
	if min(p.Last, p.Daily, p.Weekly, p.Monthly, p.Yearly) < 0 || p == (retention.Policy{}) {
		return nil, &usageError{
			text: "prune: at least one of --keep-last, --keep-daily, --keep-weekly, --keep-monthly and --keep-yearly must be 1 or more, none less than 0",
			hint: "dupfs prune --keep-daily 7 --keep-monthly 12 URL",
		}
	}
	return retention.Prune(col, p, func(ch *chain.Chain) bool { return a.whole(ctx, c, ch) }), nil
}

// whole reports whether nothing of a chain is missing, as far as can be told
// without anybody being asked for a passphrase.
func (a *archive) whole(ctx context.Context, c *cli.Context, ch *chain.Chain) bool {
	given, err := a.env.passphrases(c)
	mayRead := err == nil && len(given) > 0
	for _, s := range ch.Sets {
		for i, v := range s.Volumes {
			if v.Volume != i+1 {
				return false
			}
		}
		if s.Manifest.Layer == chain.OpenPGP && !mayRead {
			continue
		}
		m, err := a.manifest(ctx, s)
		if err != nil || len(m.Missing(s.Volumes)) > 0 {
			return false
		}
	}
	return true
}
