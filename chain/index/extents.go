package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"

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
	n, inline, err := c.versionRow(ctx, version)
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
	return c.runsOf(n, inline, off)
}

// Open returns the size of a file and whether its runs are known, without which
// the size is only a bound. It costs no query after Children has returned the
// file, and finds what Extents would look up first. fs.ErrNotExist if there is no
// such version, fs.ErrInvalid if it is no file.
func (c *Catalog) Open(ctx context.Context, version int64) (size int64, known bool, err error) {
	if v, _, ok := c.pages.find(version, 0); ok {
		return v.size, true, nil
	}
	n, inline, err := c.versionRow(ctx, version)
	if err == nil && n.Type != chain.File {
		err = fmt.Errorf("version %d is no file: %w", version, fs.ErrInvalid)
	}
	if err == nil && n.Known && inline != nil {
		_, _, err = c.runsOf(n, inline, 0)
	}
	if err != nil {
		return 0, false, err
	}
	return n.Size, n.Known, nil
}

// keep keeps the runs of a file that was listed, if nothing else must be asked
// for them: files are often opened next. What is wrong with them is found then.
func (c *Catalog) keep(n *Node, inline []byte) {
	if n.Type != chain.File || !n.Known || inline == nil && n.Size > 0 {
		return
	}
	runs, err := decodePage(0, inline)
	if err != nil || n.Size > 0 && covers(runs, n.ID, 0) != nil || slices.ContainsFunc(runs, ofBase) {
		return
	}
	c.pages.add(n.ID, content{size: n.Size}, runs)
}

// ofBase reports whether a run is copied from the version before.
func ofBase(r Run) bool { return r.Volume == 0 }

// versionRow returns a version, and its runs if they are in its row.
func (c *Catalog) versionRow(ctx context.Context, version int64) (*Node, []byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	n, r := new(Node), new(row)
	err := r.scanNode(c.st.version.QueryRow(OrdOf(version), version), n)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil, fs.ErrNotExist
	}
	return n, r.runs, err
}

// runsOf finds the runs of a known file from a page that covers off, and keeps
// them.
func (c *Catalog) runsOf(n *Node, inline []byte, off int64) (v content, runs []Run, err error) {
	v.size = n.Size
	switch {
	case off >= n.Size:
	case inline == nil:
		runs, err = c.page(n.ID, off)
	default:
		if runs, err = decodePage(0, inline); err == nil {
			err = covers(runs, n.ID, off)
		}
	}
	// Most small files are whole in their row and need no version before.
	if err == nil && n.Size > 0 && (inline == nil || slices.ContainsFunc(runs, ofBase)) {
		v, err = c.content(n.ID, n.Size)
	}
	if err != nil {
		return v, nil, err
	}
	c.pages.add(n.ID, v, runs)
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

// page reads the page that covers off of a version whose runs are not in its
// row.
func (c *Catalog) page(version, off int64) ([]Run, error) {
	var at int64
	var sealed []byte
	if err := c.st.page.QueryRow(version, off).Scan(&at, &sealed); err != nil {
		return nil, fmt.Errorf("%w: version %d has no runs at %d: %w", ErrBadCatalog, version, off, err)
	}
	runs, err := openPage(version, at, sealed)
	if err == nil {
		err = covers(runs, version, off)
	}
	return runs, err
}

// covers checks that the last of the runs goes beyond off.
func covers(runs []Run, version, off int64) error {
	if n := len(runs); n == 0 || runs[n-1].FileOff+runs[n-1].Len <= off {
		return fmt.Errorf("%w: version %d has no runs at %d", ErrBadCatalog, version, off)
	}
	return nil
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
