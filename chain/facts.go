package chain

import "context"

// Facts is what reading all of a version takes.
type Facts struct {
	Set     string   // times of the set that holds the version, as file names spell them
	Volumes []string // stored files that are read, oldest set first
	Fetch   int64    // stored bytes that must be fetched
	Cached  int64    // stored bytes of what is in a cache already
	// Bound says that nobody read these volumes yet: Volumes are those that may
	// be needed, and Fetch is all of them.
	Bound   bool
	Tiers   []string // access tiers of Volumes, each once; nil if the store has none
	Damaged string   // why the version cannot be read whole, as far as is known; "" if nothing is
}

// Teller is a Forest that knows what reading costs.
type Teller interface {
	// Facts returns what reading a version takes. It looks into the local
	// catalog and the caches only. fs.ErrNotExist if there is no such version.
	Facts(ctx context.Context, version uint64) (Facts, error)
}
