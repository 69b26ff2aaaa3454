package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"dupfs/chain"
	"dupfs/chain/index"
	"dupfs/chain/manifest"
)

// An index of a set that another program wrote can be put beside it (Upload).
// The manifest does not speak of it, so the digest there, which authenticates
// the index of a set of ours, is missing. And an index of ours that was lost can
// be made anew (MakeIndex): the same to the last bit, unless the signatures had
// to be made anew as well, whose chunks it names. Where the digest does not
// decide, an index is used if all of this is true:
//
//   - It is in a layer that shows damage: OpenPGP's or gzip's.
//   - It is in the OpenPGP layer if any file of the set is, and only then. So
//     whoever made it had the passphrase, as the modification detection code
//     shows: who can only write to the archive cannot make one. Where a set is
//     encrypted to public keys, anybody can make one, but also the whole set.
//     Where it is not encrypted at all, the same is true. The index is as
//     trustworthy as the set in each case, and never less.
//   - It names the times of the set, and each volume of the manifest by its
//     number, its SHA-1 as the manifest has it, and its name and size as they
//     are listed. So an index that is authentic cannot be put beside another
//     set, or stay when a set was replaced. A manifest without SHA-1s has no
//     index.
//
// Else it is noted and ignored, and the set is learned as if it were not there.
// A hash of every chunk in it is checked whenever the chunk is read: an index
// can hide or rename what is in the volumes, but not change it.

// indexOf returns the index of a set that may be used, if it agrees; nil if
// there is none.
func indexOf(set *chain.Set, man *manifest.Manifest) *chain.Stored {
	secret := encrypted(set)
	if set.Index != nil && (set.Index.Layer == chain.OpenPGP) == secret {
		return set.Index
	}
	for i := range set.Duplicates {
		if f := &set.Duplicates[i]; f.Kind == chain.IndexFile && (f.Layer == chain.OpenPGP) == secret {
			return f
		}
	}
	if man.HasIndex {
		return set.Index
	}
	return nil
}

// encrypted reports whether any file of a set is, but for its index.
func encrypted(set *chain.Set) bool {
	files := append([]chain.Stored{}, set.Volumes...)
	for _, f := range []*chain.Stored{set.Manifest, set.Sigtar} {
		if f != nil {
			files = append(files, *f)
		}
	}
	for _, f := range files {
		if f.Layer == chain.OpenPGP {
			return true
		}
	}
	return false
}

// MakeIndex stores the index of a complete set that lost its own. It reads those
// of the set's volumes that nobody has read yet, and the content of files that
// nobody has hashed. An error says what cannot be known: then nothing is stored.
func (a *Archive) MakeIndex(ctx context.Context, times string) error {
	l, ord := a.place(times)
	if l == nil {
		return fmt.Errorf("set %s: %w", times, fs.ErrNotExist)
	}
	return l.do(ctx, ord, func(c *index.Catalog) error {
		set := l.set(ord)
		if set == nil {
			return fmt.Errorf("set %s: %w", times, fs.ErrNotExist)
		}
		man, err := a.Manifest(ctx, set)
		if err != nil {
			return err
		}
		m := &merging{line: l, cat: c, ord: ord, set: set, man: man}
		if reason := m.unbound(); reason != "" {
			return chain.Corrupt("set "+times, reason)
		}
		if err := l.learnSet(ctx, c, ord); err != nil {
			return err
		}
		if err := l.hashAll(ctx, c, ord); err != nil {
			return err
		}
		return m.upload(ctx)
	})
}

// place returns where a set is, of whatever line.
func (a *Archive) place(times string) (*line, int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.col.Lines {
		for ord, s := range l.Sets {
			if s.Times() == times {
				return a.lines[lineKey(l)], ord
			}
		}
	}
	return nil, 0
}

// Upload stores an index beside every set that another program wrote, so that
// whoever opens the archive next needs neither its sigtar nor its volumes to
// know all of it. It wants LearnAll first: a set of which something is not
// known, or damaged, is noted and left without. An index that is there and
// agrees stays.
func (a *Archive) Upload(ctx context.Context) error {
	return a.eachSet(ctx, func(l *line, c *index.Catalog, ord int) error {
		set := l.set(ord)
		if set == nil {
			return nil
		}
		man, err := a.Manifest(ctx, set)
		if err != nil || man.HasIndex {
			return err
		}
		m := &merging{line: l, cat: c, ord: ord, set: set, man: man}
		if there, err := m.agreed(ctx); err != nil || there {
			return err
		}
		if reason := m.unbound(); reason != "" {
			a.note("set %s gets no index: %s", set.Times(), reason)
			return nil
		}
		err = m.upload(ctx)
		var incomplete *index.IncompleteError
		if errors.As(err, &incomplete) {
			a.note("set %s gets no index: %v", set.Times(), err)
			return nil
		}
		return err
	})
}

// agreed reports whether the set has an index that would be used.
func (m *merging) agreed(ctx context.Context) (bool, error) {
	f := indexOf(m.set, m.man)
	if f == nil {
		return false, nil
	}
	r, err := m.line.a.st.Open(ctx, *f)
	if err == nil {
		err = m.check(ctx, r, nowhere{})
		if cerr := r.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil && ctx.Err() == nil && (final(err) || m.locked(err)) {
		return false, nil
	}
	return err == nil, err
}

// unbound says why no index could be bound to the set, "" if one can.
func (m *merging) unbound() string {
	for i := range m.man.Volumes {
		v := &m.man.Volumes[i]
		if !v.HasSHA1 {
			return fmt.Sprintf("its manifest has no SHA-1 of volume %d", v.Number)
		}
		if _, ok := m.line.stored(m.ord, v.Number); !ok {
			return fmt.Sprintf("volume %d is missing", v.Number)
		}
	}
	return ""
}

// upload writes the index of the set from the catalog.
func (m *merging) upload(ctx context.Context) error {
	n := chain.Name{Kind: chain.IndexFile, Full: m.set.Full, Start: m.set.Start, End: m.set.End, Layer: chain.Gzip}
	if encrypted(m.set) {
		n.Layer = chain.OpenPGP
	}
	w, err := m.line.a.st.Create(ctx, n)
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := m.cat.Dump(ctx, m.ord, m.set, w); err != nil {
		return err
	}
	if _, err := w.Commit(ctx); err != nil {
		return fmt.Errorf("index of set %s: %w", m.set.Times(), err)
	}
	m.line.a.progress().Indexes.Add(1)
	return nil
}
