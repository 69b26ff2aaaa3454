// Package retention decides what duplicity's removal commands delete.
package retention

import (
	"time"

	"dupfs/chain"
)

// Plan says what a removal command would do.
type Plan struct {
	// Delete lists files in an order that is safe to stop at: whatever is
	// left after the first n deletions is a sound archive plus leftovers that
	// Cleanup finds.
	Delete []chain.Stored
	// Chains are the chains that go, newest first. Of RemoveAllIncOfButNFull:
	// those that lose their increments.
	Chains []*chain.Chain
	// Needed are sets older than asked for that stay because newer sets
	// depend on them.
	Needed []*chain.Set
	// ActiveOld says that the newest chain is older than asked for and stays.
	ActiveOld bool
	Warnings  []string
}

// RemoveOlderThan removes the chains that ended before t.
func RemoveOlderThan(c *chain.Collection, t time.Time) *Plan { return &Plan{} }

// RemoveAllButNFull removes the chains that ended before the n-th newest full set.
func RemoveAllButNFull(c *chain.Collection, n int) *Plan { return &Plan{} }

// RemoveAllIncOfButNFull removes the increments of those chains and leaves
// their full sets.
func RemoveAllIncOfButNFull(c *chain.Collection, n int) *Plan { return &Plan{} }

// Cleanup removes the files of incomplete and orphaned sets.
func Cleanup(c *chain.Collection) *Plan { return &Plan{} }
