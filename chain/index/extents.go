package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math"

	"dupfs/chain"
)

// Extent is a run of a volume's plaintext.
type Extent struct {
	Ord, Volume int // which volume of which set
	Off, Len    int64
}

// UnknownError says that nobody has yet read the volumes that hold a version.
type UnknownError struct{ Version int64 }

func (e *UnknownError) Error() string {
	return fmt.Sprintf("version %d: its volumes were not read yet", e.Version)
}

// need is a range of a version that is yet to be found.
type need struct{ version, off, n int64 }

// maxExtents bounds what one call of Extents returns.
const maxExtents = 1 << 16

// Extents returns where the bytes off..off+n of a version lie, in order, and
// how many of the bytes these are: fewer if the file ends before, or if there
// would be too many extents. Neighbours are joined. It goes back through as
// many deltas as there are; only pages of runs are read for it. *UnknownError
// if a version that is needed must be learned first, *chain.CorruptError if a
// delta makes no sense.
func (c *Catalog) Extents(ctx context.Context, version, off, n int64) (extents []Extent, found int64, err error) {
	if off < 0 || n <= 0 || off > math.MaxInt64-n {
		return nil, 0, nil
	}
	stack := []need{{version, off, n}}
	for len(stack) > 0 && len(extents) < maxExtents {
		top := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		v, runs, err := c.runsAt(ctx, top.version, top.off)
		if err != nil {
			return nil, 0, err
		}
		if len(stack) == 0 && top.version == version {
			top.n = min(top.n, v.size-top.off)
		}
		if top.n <= 0 {
			continue
		}
		if top.off+top.n > v.size {
			return nil, 0, c.corrupt(ctx, version, "a delta copies from beyond the end of the version before")
		}
		var again []need
		extents, found, again = c.take(extents, found, v, runs, top)
		for _, a := range again {
			if a.version == 0 {
				return nil, 0, c.corrupt(ctx, version, "a delta without a version before it")
			}
			stack = append(stack, a)
		}
	}
	return extents, found, nil
}

// take goes through the runs of one page, from the one that covers the start
// of w, up to the first that copies from the base. It returns what is left to
// find, the next last.
func (c *Catalog) take(extents []Extent, found int64, v content, runs []Run, w need) ([]Extent, int64, []need) {
	for _, r := range runs {
		skip := w.off - r.FileOff
		if skip >= r.Len {
			continue
		}
		k := min(w.n, r.Len-skip)
		rest := need{w.version, w.off + k, w.n - k}
		if r.Volume == 0 {
			base := need{v.base, r.Off + skip, k}
			if rest.n == 0 {
				return extents, found, []need{base}
			}
			return extents, found, []need{rest, base}
		}
		extents = join(extents, Extent{OrdOf(w.version), r.Volume, r.Off + skip, k})
		found += k
		if w = rest; w.n == 0 {
			return extents, found, nil
		}
	}
	return extents, found, []need{w}
}

// join appends an extent, or makes the last one longer.
func join(extents []Extent, e Extent) []Extent {
	if n := len(extents) - 1; n >= 0 {
		last := &extents[n]
		if last.Ord == e.Ord && last.Volume == e.Volume && last.Off+last.Len == e.Off {
			last.Len += e.Len
			return extents
		}
	}
	return append(extents, e)
}

// runsAt returns what is known of a version, and its runs from a page that
// covers off, unless off is at its end or beyond.
func (c *Catalog) runsAt(ctx context.Context, version, off int64) (content, []Run, error) {
	v, runs, ok := c.pages.find(version, off)
	if ok && (len(runs) > 0 || off >= v.size) {
		return v, runs, nil
	}
	n, err := c.Version(ctx, version)
	if errors.Is(err, fs.ErrNotExist) {
		return v, nil, fmt.Errorf("%w: version %d is missing", ErrBadCatalog, version)
	}
	if err != nil {
		return v, nil, err
	}
	if n.Type != chain.File {
		return v, nil, c.corrupt(ctx, version, "a delta on what is no file")
	}
	if !n.Known {
		return v, nil, &UnknownError{version}
	}
	if v, err = c.content(version, n.Size); err != nil {
		return v, nil, err
	}
	if off < v.size {
		if runs, err = c.page(version, off); err != nil {
			return v, nil, err
		}
	}
	c.pages.add(version, v, runs)
	return v, runs, nil
}

// content finds the version before a version, which must be a file.
func (c *Catalog) content(version, size int64) (content, error) {
	v := content{size: size}
	var kind int64
	err := c.st.base.QueryRow(version).Scan(&v.base, &kind)
	if errors.Is(err, sql.ErrNoRows) || err == nil && chain.Type(kind&7) != chain.File {
		v.base, err = 0, nil
	}
	return v, bad(err)
}

// page reads the page that covers off.
func (c *Catalog) page(version, off int64) ([]Run, error) {
	var inline []byte
	if err := c.r.QueryRow("SELECT runs FROM versions WHERE id=?", version).Scan(&inline); err != nil {
		return nil, bad(err)
	}
	var runs []Run
	var err error
	if inline != nil {
		runs, err = decodePage(0, inline)
	} else {
		var at int64
		var sealed []byte
		if err := c.st.page.QueryRow(version, off).Scan(&at, &sealed); err != nil {
			return nil, fmt.Errorf("%w: version %d has no runs at %d: %w", ErrBadCatalog, version, off, err)
		}
		runs, err = openPage(version, at, sealed)
	}
	if err != nil {
		return nil, err
	}
	if len(runs) == 0 || runs[len(runs)-1].FileOff+runs[len(runs)-1].Len <= off {
		return nil, fmt.Errorf("%w: version %d has no runs at %d", ErrBadCatalog, version, off)
	}
	return runs, nil
}

// corrupt returns the *chain.CorruptError of a version.
func (c *Catalog) corrupt(ctx context.Context, version int64, reason string) error {
	p, err := c.PathOf(ctx, version>>ordBits)
	if err != nil {
		return err
	}
	return chain.Corrupt(p.String(), reason)
}

// Base returns the version before a version of the same file; 0 if there is
// none, or if it is no file.
func (c *Catalog) Base(ctx context.Context, version int64) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	v, err := c.content(version, 0)
	return v.base, err
}
