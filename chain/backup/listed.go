package backup

import (
	"slices"

	"dupfs/chain"
)

// Listed is the part of a source that a list names: the paths and the
// directories above them, but nothing below. It serves one run.
type Listed struct {
	paths map[chain.Path]bool // false: it lies above one that is listed, or was met
}

// NewListed returns the part that the paths name.
func NewListed(paths []chain.Path) *Listed {
	l := &Listed{paths: make(map[chain.Path]bool, len(paths))}
	for _, p := range paths {
		l.paths[p] = true
	}
	for _, p := range paths {
		for q := p; q != chain.Root; {
			q = q.Parent()
			if _, ok := l.paths[q]; ok {
				break
			}
			l.paths[q] = false
		}
	}
	return l
}

// wants reports whether an entry that was met belongs to the part.
func (l *Listed) wants(p chain.Path) bool {
	if l == nil {
		return true
	}
	_, ok := l.paths[p]
	if ok {
		l.paths[p] = false
	}
	return ok
}

// missing calls fn for each path that was not met, in path order.
func (l *Listed) missing(fn func(chain.Path)) {
	if l == nil {
		return
	}
	var list []chain.Path
	for p, left := range l.paths {
		if left && p != chain.Root {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, chain.Path.Compare)
	for _, p := range list {
		fn(p)
	}
}
