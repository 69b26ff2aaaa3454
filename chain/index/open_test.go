package index

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"

	"dupfs/chain"
	"dupfs/chain/difftar"
)

// TestOpenListed opens files before and after their directory was listed.
func TestOpenListed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.db")
	c := open(t, path)
	file := func(p string, change difftar.Kind, size int64) *Record {
		return &Record{Entry: chain.Entry{Path: chain.Path(p), Type: chain.File, Size: size}, Change: change, SigLen: -1}
	}
	add := func(ord int, rec *Record, runs ...Run) {
		t.Helper()
		if err := c.Merge(t.Context(), setInfo(ord), func(m *Merger) error {
			if err := m.Runs(runs); err != nil {
				return err
			}
			return m.Record(rec)
		}); err != nil {
			t.Fatal(err)
		}
	}
	add(0, file("d/delta", difftar.Snapshot, 10), Run{Len: 10, Volume: 1, Off: 512})
	add(1, file("d/whole", difftar.Snapshot, 7), Run{Len: 7, Volume: 2, Off: 1024})
	add(2, file("d/delta", difftar.Diff, 8), Run{Len: 5, Volume: 1, Off: 2048}, Run{FileOff: 5, Len: 3, Off: 6})
	add(3, file("d/unknown", difftar.Diff, -1))
	const ord = 3
	extents := map[string][]Extent{
		"delta": {{2, 1, 2048, 5}, {0, 1, 512 + 6, 3}},
		"whole": {{1, 2, 1024, 7}},
	}
	for _, listed := range []bool{false, true} {
		c := open(t, path) // with nothing cached
		dir, err := c.Lookup(t.Context(), ord, rootPath, "d")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"delta", "unknown", "whole"} {
			n, err := c.Lookup(t.Context(), ord, dir.Dir(), name)
			if err != nil {
				t.Fatal(err)
			}
			if listed {
				if _, err := c.Children(t.Context(), ord, dir.Dir(), "", 10); err != nil {
					t.Fatal(err)
				}
			}
			// Bytes of another version must be asked for.
			if _, _, kept := c.pages.find(n.ID, 0); kept != (listed && name == "whole") {
				t.Errorf("%s, listed %v: kept is %v", name, listed, kept)
			}
			size, known, err := c.Open(t.Context(), n.ID)
			if err != nil || known != n.Known || known && size != n.Size {
				t.Errorf("%s, listed %v: size %d, known %v, %v", name, listed, size, known, err)
			}
			if want := extents[name]; known {
				got, found, err := c.Extents(t.Context(), n.ID, 0, size)
				if err != nil || found != size || !slices.Equal(got, want) {
					t.Errorf("%s, listed %v: %v, %d, %v", name, listed, got, found, err)
				}
			}
		}
		if _, _, err := c.Open(t.Context(), dir.ID); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("a directory: %v", err)
		}
		if _, _, err := c.Open(t.Context(), 999<<ordBits); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("nothing: %v", err)
		}
	}
}
