package index

import (
	"fmt"
	"testing"

	"modernc.org/sqlite"

	"dupfs/chain"
	"dupfs/chain/difftar"
)

// pagesOf returns how many pages of the file fn looks at, be they cached or not.
func pagesOf(t *testing.T, c *Catalog, fn func() error) int {
	t.Helper()
	c.r.SetMaxOpenConns(1)
	read := func() (n int) {
		conn, err := c.r.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		err = conn.Raw(func(driver any) error {
			for _, op := range []sqlite.DBStatusOp{sqlite.DBStatusCacheHit, sqlite.DBStatusCacheMiss} {
				k, _, err := driver.(sqlite.DBStatus).Status(op, false)
				if err != nil {
					return err
				}
				n += k
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := read()
	if err := fn(); err != nil {
		t.Fatal(err)
	}
	return read() - before
}

const (
	costFiles = 300
	costLong  = 365
)

// grown is a catalog of a full set and increments. Each changes the same file
// by a delta and another one whole, and replaces one that only it has.
func grown(t *testing.T, increments int) *Catalog {
	t.Helper()
	c := open(t, t.TempDir()+"/c.db")
	file := func(name string, ord int, change difftar.Kind) (*Record, []Run) {
		rec := &Record{Entry: chain.Entry{Path: chain.Path(name), Type: chain.File, Mode: 0o644, Size: 5000, Mtime: chain.Time{Sec: int64(ord)}}, Change: change, SigLen: -1}
		runs := []Run{{Len: 5000, Volume: 1, Off: 512}}
		if change == difftar.Diff {
			at := int64(ord*13) % 4900
			runs = []Run{{Len: at}, {FileOff: at, Len: 100, Volume: 1, Off: 512}, {FileOff: at + 100, Len: 4900 - at, Off: at + 100}}
			if at == 0 {
				runs = runs[1:]
			}
		}
		return rec, runs
	}
	for ord := range increments + 1 {
		err := c.Merge(t.Context(), setInfo(ord), func(m *Merger) error {
			put := func(rec *Record, runs []Run) {
				t.Helper()
				if err := m.Runs(runs); err != nil {
					t.Fatal(err)
				}
				if err := m.Record(rec); err != nil {
					t.Fatal(err)
				}
			}
			dir := func(name string) {
				put(&Record{Entry: chain.Entry{Path: chain.Path(name), Type: chain.Dir, Mode: 0o755}, Change: difftar.Snapshot, SigLen: -1}, nil)
			}
			if ord == 0 {
				dir("")
			}
			dir("d")
			for i := range costFiles {
				switch {
				case ord == 0 || i == ord%costFiles && i > 0:
					put(file(fmt.Sprintf("d/f%03d", i), ord, difftar.Snapshot))
				case i == 0:
					put(file("d/f000", ord, difftar.Diff))
				}
			}
			if ord > 0 {
				put(&Record{Entry: chain.Entry{Path: chain.Path(fmt.Sprintf("d/x%d", ord-1))}, Change: difftar.Deleted, SigLen: -1}, nil)
			}
			put(file(fmt.Sprintf("d/x%d", ord), ord, difftar.Snapshot))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// What a question costs in a long chain is what it costs in a short one, counted
// in pages, so whatever the machine does.
func TestCostDoesNotGrow(t *testing.T) {
	type costs map[string]int
	measure := func(c *Catalog, ord int) costs {
		got := costs{}
		ctx := t.Context()
		root, err := c.Lookup(ctx, ord, 0, "")
		if err != nil {
			t.Fatal(err)
		}
		d, err := c.Lookup(ctx, ord, root.Dir(), "d")
		if err != nil {
			t.Fatal(err)
		}
		var hot *Node
		got["lookup"] = pagesOf(t, c, func() (err error) {
			hot, err = c.Lookup(ctx, ord, d.Dir(), "f000")
			return err
		})
		got["stat"] = pagesOf(t, c, func() error {
			_, err := c.At(ctx, ord, hot.Dir())
			return err
		})
		got["ls"] = pagesOf(t, c, func() error {
			nodes, err := c.Children(ctx, ord, d.Dir(), "", 1000)
			if err == nil && len(nodes) != costFiles+1 {
				err = fmt.Errorf("%d children", len(nodes))
			}
			return err
		})
		got["walk"] = pagesOf(t, c, func() error {
			n := 0
			for _, err := range c.Walk(ctx, ord) {
				if err != nil {
					return err
				}
				n++
			}
			if n != costFiles+3 {
				return fmt.Errorf("%d entries", n)
			}
			return nil
		})
		whole, err := c.Lookup(ctx, ord, d.Dir(), "f200")
		if err != nil {
			t.Fatal(err)
		}
		c.pages = newPageCache(pageBudget)
		got["read"] = pagesOf(t, c, func() error {
			_, n, err := c.Extents(ctx, whole.ID, 0, 5000)
			if err == nil && n != 5000 {
				err = fmt.Errorf("%d bytes", n)
			}
			return err
		})
		return got
	}
	short, long := grown(t, 1), grown(t, costLong)
	want := measure(short, 1)
	for _, ord := range []int{1, costLong / 2, costLong} {
		got := measure(long, ord)
		for what, pages := range want {
			limit := pages + pages/10 + 2 // the trees may be a page deeper
			if what == "ls" || what == "walk" {
				limit += 3 * (costLong - ord) // names of the directory that came later are passed over
			}
			if got[what] > limit {
				t.Errorf("%s at point %d of %d: %d pages, %d in a short chain", what, ord, costLong, got[what], pages)
			}
		}
	}
}
