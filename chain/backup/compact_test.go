package backup

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"dupfs/backends/mem"
	"dupfs/chain"
	"dupfs/chain/chaintest"
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
