package snapshot

import (
	"context"
	"errors"
	"fmt"

	"dupfs/chain"
	"dupfs/chain/index"
)

// adopt looks for indexes that were put beside sets after these were merged, by
// Upload at another machine, and takes what they know. One that does not fit is
// noted and not looked at again.
func (l *line) adopt(ctx context.Context, c *index.Catalog) error {
	unread, err := c.Unread(ctx)
	if err != nil {
		return err
	}
	for _, ord := range unread {
		set := l.set(ord)
		if set == nil || set.Index == nil && len(set.Duplicates) == 0 {
			continue
		}
		err := l.adoptSet(ctx, c, ord, set)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			l.mu.Lock()
			l.looked = false // whoever comes next does it
			l.mu.Unlock()
			return err
		case errors.Is(err, index.ErrBadCatalog):
			return err
		case errors.Is(err, chain.ErrNoPassphrase), errors.Is(err, chain.ErrNoKey):
			// What is in the catalog can be looked at without.
		default:
			l.a.note("set %s: its index is not used: %v", set.Times(), err)
		}
	}
	return nil
}

// adoptSet takes the index of a set, if it has one.
func (l *line) adoptSet(ctx context.Context, c *index.Catalog, ord int, set *chain.Set) error {
	man, err := l.a.Manifest(ctx, set)
	if err != nil {
		return err
	}
	f := indexOf(set, man)
	if f == nil || !l.worthTrying(f) {
		return nil
	}
	r, err := l.a.st.Open(ctx, *f)
	if err == nil {
		m := &merging{line: l, cat: c, ord: ord, set: set, man: man}
		err = c.Adopt(ctx, ord, func(a *index.Adopter) error { return m.check(ctx, r, a) })
		if cerr := r.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		if final(err) {
			l.refuse(f)
		}
		return fmt.Errorf("%s: %w", f.File, err)
	}
	return nil
}

// refuse notes that an index does not fit its set.
func (l *line) refuse(f *chain.Stored) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refused == nil {
		l.refused = map[string]int64{}
	}
	l.refused[f.File] = f.Size
}

// worthTrying reports whether an index was not refused, or was replaced since.
func (l *line) worthTrying(f *chain.Stored) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	size, refused := l.refused[f.File]
	return !refused || size != f.Size
}
