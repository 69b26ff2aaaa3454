package chain

import "time"

// Stored is a stored file as a listing shows it. A file whose name was not
// understood has Kind 0 and its File alone.
type Stored struct {
	Name
	Size int64 // bytes as stored; -1 if the listing does not tell
}

// Set is what one backup run wrote.
type Set struct {
	Full       bool
	Start, End time.Time // equal for a full set
	Manifest   *Stored   // nil: the set is incomplete
	Sigtar     *Stored   // nil if there is none
	Index      *Stored   // nil if there is none
	JSONStat   *Stored   // nil if there is none
	Volumes    []Stored  // by number, each number once; gaps are possible
	// Duplicates are further files that claim a place taken by a file with a
	// more usual name.
	Duplicates []Stored
}

// Complete reports whether the set has a manifest. Whether all volumes are
// there only the manifest knows.
func (s *Set) Complete() bool { return s.Manifest != nil }

// Times returns the set's times as file names spell them: "20231114T221320Z"
// for a full set, else "20231114T221320Z.to.20231116T020000Z".
func (s *Set) Times() string {
	if s.Full {
		return FormatTime(s.End)
	}
	return FormatTime(s.Start) + ".to." + FormatTime(s.End)
}

// Files returns every file of the set, the manifest last.
func (s *Set) Files() []Stored { return nil }

// Chain is a full set and the increments on it, at least the full set. The
// sets' ends increase.
type Chain struct {
	Sets []*Set
}

// Start returns the time of the full set.
func (c *Chain) Start() time.Time { return c.Sets[0].End }

// End returns the end time of the last set.
func (c *Chain) End() time.Time { return c.Sets[len(c.Sets)-1].End }

// Line is one history: sets that each build on the one before, the first full.
type Line struct {
	Chain *Chain // the chain itself, or the one that the fork left
	Sets  []*Set
	Fork  bool
}

// End returns the end time of the last set.
func (l *Line) End() time.Time { return l.Sets[len(l.Sets)-1].End }

// Collection is all that an archive holds, put in order.
type Collection struct {
	Chains []*Chain // by end time
	// Lines are the histories one can mount: one for each chain, in the order
	// of Chains, then those of forks.
	Lines []*Line
	// Orphaned are complete sets that duplicity finds in no chain, by end.
	Orphaned []*Set
	// Incomplete are the sets without a manifest, by end.
	Incomplete   []*Set
	LooseSigtars []Stored // sigtars of no set
	LooseIndexes []Stored // index files of no set
	Unknown      []string // names that are none of ours, sorted
}

// Collect puts the files of an archive in order, as duplicity would. Where
// duplicity gives up, because two files claim one place, it takes the one with
// the usual name. The result does not depend on the order of files.
func Collect(files []Stored) *Collection { return &Collection{} }
