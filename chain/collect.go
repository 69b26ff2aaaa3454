package chain

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

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
func (s *Set) Times() string { return times(s.Full, s.Start, s.End) }

func times(full bool, start, end time.Time) string {
	if full {
		return FormatTime(end)
	}
	return FormatTime(start) + ".to." + FormatTime(end)
}

// Files returns every file of the set in the order in which to delete them:
// first whatever could pass for its manifest, without which the set is no more.
func (s *Set) Files() []Stored {
	var files []Stored
	for _, f := range []*Stored{s.Manifest, s.Index, s.Sigtar, s.JSONStat} {
		if f != nil {
			files = append(files, *f)
		}
	}
	files = append(files, s.Duplicates...)
	files = append(files, s.Volumes...)
	slices.SortStableFunc(files, func(a, b Stored) int {
		rank := func(f Stored) int {
			if f.Kind == ManifestFile {
				return 0
			}
			return 1
		}
		return cmp.Compare(rank(a), rank(b))
	})
	return files
}

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
	Claims       []Stored // by which runs took a second
	Unknown      []string // names that are none of ours, sorted
}

// Base returns the sets that the next increment can build on: those of the
// newest chain, if all of them have a sigtar. Where only the last one lacks it,
// and is an increment, it is left out, as duplicity does. Else there is no
// base, and the next backup must be a full one.
func (c *Collection) Base() []*Set {
	if len(c.Chains) == 0 {
		return nil
	}
	sets := c.Chains[len(c.Chains)-1].Sets
	last := len(sets) - 1
	for i, s := range sets {
		if s.Sigtar != nil {
			continue
		}
		if i == last && i > 0 {
			return sets[:last]
		}
		return nil
	}
	return sets
}

// Collect puts the files of an archive in order, as duplicity would. Where
// duplicity gives up, because two files claim one place, it takes the one with
// the usual name. Unfinished (Part) files never take a place. The result does
// not depend on the order of files.
func Collect(files []Stored) *Collection {
	c := &Collection{}
	sets := c.group(files)
	var complete []*Set
	for _, s := range sets {
		if s.Complete() {
			complete = append(complete, s)
		} else {
			c.Incomplete = append(c.Incomplete, s)
		}
	}
	replaced := c.assemble(complete)
	c.drawLines(replaced)
	return c
}

// A setKey tells the files of one set.
type setKey struct {
	full       bool
	start, end int64
}

func keyOf(n Name) setKey { return setKey{n.Full, n.Start.Unix(), n.End.Unix()} }

// group sorts the files into sets, which it returns by end time, and into the
// loose and unknown ones.
func (c *Collection) group(files []Stored) []*Set {
	files = ranked(files)
	byKey := make(map[setKey]*Set)
	for _, f := range files {
		if f.Kind != VolumeFile && f.Kind != ManifestFile {
			continue
		}
		k := keyOf(f.Name)
		if byKey[k] == nil {
			byKey[k] = &Set{Full: f.Full, Start: f.Start, End: f.End}
		}
	}
	for _, f := range files {
		switch s := byKey[keyOf(f.Name)]; {
		case f.Kind == ClaimFile:
			c.Claims = append(c.Claims, f)
		case f.Kind != 0 && s != nil:
			s.add(f)
		default:
			c.addLoose(f)
		}
	}
	slices.Sort(c.Unknown)
	sets := make([]*Set, 0, len(byKey))
	for _, s := range byKey {
		s.settle()
		sets = append(sets, s)
	}
	slices.SortFunc(sets, byEnd)
	return sets
}

// ranked returns the files, each once, so that of two for one place the one to
// prefer comes first, whatever the listing's order was.
func ranked(files []Stored) []Stored {
	type entry struct {
		usual int
		Stored
	}
	entries := make([]entry, len(files))
	for i, f := range files {
		entries[i] = entry{f.usual(), f}
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(
			cmp.Compare(a.usual, b.usual),
			cmp.Compare(len(a.File), len(b.File)),
			strings.Compare(a.File, b.File),
			cmp.Compare(a.Size, b.Size))
	})
	sorted := make([]Stored, 0, len(entries))
	for i, e := range entries {
		if i == 0 || e.File != entries[i-1].File {
			sorted = append(sorted, e.Stored)
		}
	}
	return sorted
}

// byEnd orders sets by end time; a full set comes before increments that end
// with it.
func byEnd(a, b *Set) int {
	full := func(s *Set) int {
		if s.Full {
			return 0
		}
		return 1
	}
	return cmp.Or(a.End.Compare(b.End), cmp.Compare(full(a), full(b)), a.Start.Compare(b.Start))
}

// add puts f in its place in the set, if that is free.
func (s *Set) add(f Stored) {
	place := &s.Manifest
	switch f.Kind {
	case VolumeFile:
		if !f.Part {
			s.Volumes = append(s.Volumes, f)
			return
		}
	case SigtarFile:
		place = &s.Sigtar
	case IndexFile:
		place = &s.Index
	case JSONStatFile:
		place = &s.JSONStat
	}
	if f.Part || *place != nil {
		s.Duplicates = append(s.Duplicates, f)
		return
	}
	*place = &f
}

// settle puts the volumes in order and takes out those whose number is taken:
// a file that is encrypted just as the manifest is goes before another, then
// the one added first.
func (s *Set) settle() {
	other := func(f Stored) int {
		if s.Manifest == nil || (f.Layer == OpenPGP) == (s.Manifest.Layer == OpenPGP) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(s.Volumes, func(a, b Stored) int {
		return cmp.Or(cmp.Compare(a.Volume, b.Volume), cmp.Compare(other(a), other(b)))
	})
	kept := s.Volumes[:0]
	for _, f := range s.Volumes {
		if len(kept) > 0 && kept[len(kept)-1].Volume == f.Volume {
			s.Duplicates = append(s.Duplicates, f)
		} else {
			kept = append(kept, f)
		}
	}
	s.Volumes = kept
	slices.SortFunc(s.Duplicates, func(a, b Stored) int { return strings.Compare(a.File, b.File) })
}

// addLoose keeps a file that is of no set.
func (c *Collection) addLoose(f Stored) {
	switch f.Kind {
	case SigtarFile:
		c.LooseSigtars = append(c.LooseSigtars, f)
	case IndexFile:
		c.LooseIndexes = append(c.LooseIndexes, f)
	default:
		c.Unknown = append(c.Unknown, f.File)
	}
}

// assemble makes chains of complete sets, given by end time. It returns the
// increments that others replaced.
func (c *Collection) assemble(complete []*Set) (replaced []*Set) {
	for _, s := range complete {
		if s.Full {
			c.Chains = append(c.Chains, &Chain{Sets: []*Set{s}})
			continue
		}
		old, ok := c.join(s)
		if !ok {
			c.Orphaned = append(c.Orphaned, s)
		}
		if old != nil {
			replaced = append(replaced, old)
		}
	}
	slices.SortStableFunc(c.Chains, func(a, b *Chain) int { return a.End().Compare(b.End()) })
	return replaced
}

// join appends an increment to the first chain that it continues, or whose
// last increment, beginning at the same time, it replaces by a later one.
func (c *Collection) join(s *Set) (replaced *Set, ok bool) {
	for _, chain := range c.Chains {
		last := chain.Sets[len(chain.Sets)-1]
		if last.End.Equal(s.Start) {
			chain.Sets = append(chain.Sets, s)
			return nil, true
		}
		if !last.Full && last.Start.Equal(s.Start) && s.End.After(last.End) {
			chain.Sets[len(chain.Sets)-1] = s
			return last, true
		}
	}
	return nil, false
}

// A branch is where a set stands in the tree of sets: what it builds on, and
// the chain that its history comes from.
type branch struct {
	parent *Set
	chain  *Chain
	used   bool // another set builds on it, off the chains
}

// drawLines finds the histories one can mount. Besides the chains these are
// those of replaced increments, and of orphaned ones that build on a set that
// is there: what duplicity has no name for is still whole.
func (c *Collection) drawLines(replaced []*Set) {
	tree := make(map[*Set]*branch)
	ends := make(map[int64]*Set) // the set to build on at a time
	offer := func(s *Set) {
		if end := s.End.Unix(); ends[end] == nil {
			ends[end] = s
		}
	}
	for _, chain := range c.Chains {
		c.Lines = append(c.Lines, &Line{Chain: chain, Sets: chain.Sets})
		var before *Set
		for _, s := range chain.Sets {
			tree[s] = &branch{parent: before, chain: chain}
			offer(s)
			before = s
		}
	}
	forks := slices.Concat(replaced, c.Orphaned)
	slices.SortStableFunc(forks, byEnd) // a parent ends before its children do
	for _, s := range forks {
		parent := ends[s.Start.Unix()]
		if parent == nil {
			continue
		}
		up := tree[parent]
		up.used = true
		tree[s] = &branch{parent: parent, chain: up.chain}
		offer(s)
	}
	for _, s := range forks {
		if b := tree[s]; b != nil && !b.used {
			c.Lines = append(c.Lines, &Line{Chain: b.chain, Sets: path(tree, s), Fork: true})
		}
	}
}

// path returns the sets from the full one to s.
func path(tree map[*Set]*branch, s *Set) []*Set {
	var sets []*Set
	for ; s != nil; s = tree[s].parent {
		sets = append(sets, s)
	}
	slices.Reverse(sets)
	return sets
}
