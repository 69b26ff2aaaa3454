package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
	"testing"
	"time"

	"dupfs/backends/mem"
	"dupfs/chain"
	"dupfs/chain/chaintest"
	"dupfs/chain/index"
)

// lies is content of another size than it says.
type lies struct {
	chain.Content
	size int64
}

func (l lies) Size() int64 { return l.size }

// badForest opens no version of a size.
type badForest struct {
	*chaintest.Forest
	fail bool
}

func (f badForest) OpenVersion(ctx context.Context, version uint64) (chain.Content, error) {
	if f.fail {
		return nil, errTest
	}
	return f.Forest.OpenVersion(ctx, version)
}

// badTree lists its directories wrongly.
type badTree struct {
	chain.Tree
	err  error
	loop bool // a directory has itself in it
}

func (b badTree) ReadDir(ctx context.Context, dir uint64, after string, exact bool, fn func(chain.Node) error) error {
	if b.loop {
		n, err := b.Dir(ctx, dir)
		if n.Name = "again"; err == nil {
			err = fn(n)
		}
		return err
	}
	if err := b.Tree.ReadDir(ctx, dir, after, exact, fn); err != nil {
		return err
	}
	return b.err
}

// A compaction whose point cannot be read intact fails, names what is wrong, and
// leaves nothing behind.
func TestCompactDamaged(t *testing.T) {
	small, big := "a small one", noise(1, 300_000)
	for _, tt := range []struct {
		name string
		wrap func(n chain.Node, c chain.Content) chain.Content
		open bool // no version can be opened
		tree badTree
		want string // of the error; "": none
	}{
		{name: "intact"},
		{name: "small: read error", wrap: only("small", func(c chain.Content) chain.Content {
			return chaintest.Faulty{Content: c, Off: 3, Err: errTest}
		}), want: "d/small"},
		{name: "big: read error", wrap: only("big", func(c chain.Content) chain.Content {
			return chaintest.Faulty{Content: c, Off: 200_000, Err: errTest}
		}), want: "d/big"},
		{name: "small: another content", wrap: only("small", func(chain.Content) chain.Content {
			return chaintest.Bytes(strings.ToUpper(small))
		}), want: "d/small: content does not have its SHA-256"},
		{name: "big: another content", wrap: only("big", func(chain.Content) chain.Content {
			return chaintest.Bytes(noise(2, 300_000))
		}), want: "d/big: content does not have its SHA-256"},
		{name: "small: another size", wrap: only("small", func(c chain.Content) chain.Content {
			return chaintest.Bytes(small + "x")
		}), want: "d/small: size is 11 in one place, 12 in another"},
		{name: "small: shorter than it says", wrap: only("small", func(c chain.Content) chain.Content {
			return lies{chaintest.Bytes(small[:5]), c.Size()}
		}), want: "d/small"},
		{name: "big: shorter than it says", wrap: only("big", func(c chain.Content) chain.Content {
			return lies{chaintest.Bytes(big[:200_000]), c.Size()}
		}), want: "d/big"},
		{name: "a version that cannot be opened", open: true, want: errTest.Error()},
		{name: "a directory that cannot be read", tree: badTree{err: errTest}, want: errTest.Error()},
		{name: "a directory within itself", tree: badTree{loop: true}, want: "directory lies within itself"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := chaintest.New(chaintest.Point{Items: []chaintest.Item{
				chaintest.File("d/big", big), chaintest.File("d/small", small), chaintest.File("e", "e"),
			}})
			f.Wrap = tt.wrap
			w := newWorld(t, chain.Plain)
			store := mem.New()
			w.backend = store
			tt.tree.Tree = f.Newest()
			o := Options{Now: time.Unix(w.now, 0), Layer: chain.Plain, VolSize: 50_000, PieceSize: 16 << 10, TempDir: t.TempDir()}
			stats, err := Compact(t.Context(), Origin{badForest{f, tt.open}, tt.tree, memBase{}}, w.store(), o)
			files, lerr := store.List(t.Context())
			if lerr != nil {
				t.Fatal(lerr)
			}
			switch {
			case tt.want == "":
				if err != nil || stats.Set == nil || len(files) < 8 {
					t.Errorf("%v, %d files", err, len(files))
				}
			case err == nil || !strings.Contains(err.Error(), tt.want):
				t.Errorf("%v, want %q", err, tt.want)
			case len(files) > 0:
				t.Errorf("left: %v", files)
			}
			if err != nil && errors.Is(err, context.Canceled) {
				t.Errorf("what ended it is hidden: %v", err)
			}
		})
	}
}

// only wraps the content of one file.
func only(name string, fn func(chain.Content) chain.Content) func(chain.Node, chain.Content) chain.Content {
	return func(n chain.Node, c chain.Content) chain.Content {
		if n.Name == name {
			return fn(c)
		}
		return c
	}
}

// A directory of several pages is compacted whole, and the next increment, whose
// base has more entries than are read ahead at once, stores nothing.
func TestManyEntries(t *testing.T) {
	const many = 2*nodePage + 2*aheadBatch
	w := newWorld(t, chain.Plain)
	w.backend = mem.New()
	var items []chaintest.Item
	for i := range many {
		name := fmt.Sprintf("d/%05d", i)
		must(t, os.MkdirAll(w.path("d"), 0o755))
		must(t, os.Symlink(name, w.path(name)))
		items = append(items, chaintest.Link(name, name))
	}
	f := chaintest.New(chaintest.Point{Items: items})
	got := 0
	last := chain.Path("")
	o := Options{Now: time.Unix(w.now, 0), Layer: chain.Plain, TempDir: t.TempDir(), OnIndex: func(_ context.Context, r io.Reader) error {
		return index.ReadIndex(r, index.Handler{Record: func(r *index.Record) error {
			if got++; r.Path.Compare(last) <= 0 && got > 1 {
				t.Errorf("%s after %s", r.Path, last)
			}
			last = r.Path
			return nil
		}})
	}}
	stats, err := Compact(t.Context(), Origin{f, f.Newest(), memBase{}}, w.store(), o)
	must(t, err)
	must(t, stats.IndexErr)
	if got != many+2 {
		t.Errorf("%d entries of %d", got, many+2)
	}

	w.backend = nil
	w.now += 1000
	w.mustRun(true)
	if s := w.mustRun(false); s.NewFiles+s.ChangedFiles+s.DeletedFiles != 0 {
		t.Errorf("an increment without changes: %+v", s)
	}
	must(t, os.Remove(w.path("d/00000")))
	must(t, os.Remove(w.path(fmt.Sprintf("d/%05d", many-1))))
	if s := w.mustRun(false); s.DeletedFiles != 2 {
		t.Errorf("deleted: %d", s.DeletedFiles)
	}
}

// brokenBase fails after some entries.
type brokenBase struct {
	memBase
	left int
}

func (b brokenBase) Walk(ctx context.Context) iter.Seq2[*BaseEntry, error] {
	return func(yield func(*BaseEntry, error) bool) {
		for e, err := range b.memBase.Walk(ctx) {
			if b.left == 0 {
				yield(nil, errTest)
				return
			}
			if b.left--; !yield(e, err) {
				return
			}
		}
		yield(nil, errTest)
	}
}

// A base that cannot be read to its end ends the run, whatever was seen of it:
// what is behind that must not pass for deleted, or new.
func TestBrokenBase(t *testing.T) {
	w := newWorld(t, chain.Plain)
	for i := range aheadBatch + 20 {
		w.write(fmt.Sprintf("%03d", i), "x")
	}
	w.mustRun(true)
	before, err := os.ReadDir(w.dir + "/archive")
	must(t, err)
	st := w.store()
	b, last := w.base(st)
	for _, n := range []int{0, 1, aheadBatch, aheadBatch + 1, len(b.entries) - 1, len(b.entries)} {
		o := w.options()
		o.Last = last
		if _, err := Run(t.Context(), w.src, st, brokenBase{*b, n}, o); !errors.Is(err, errTest) {
			t.Errorf("after %d entries: %v", n, err)
		}
	}
	if after, err := os.ReadDir(w.dir + "/archive"); err != nil || len(after) != len(before) {
		t.Errorf("left: %v, %v", after, err)
	}
}
