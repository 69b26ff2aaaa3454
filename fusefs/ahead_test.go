package fusefs

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"dupfs/chain"
	"dupfs/chain/chaintest"
)

// TestPlan lists files and reads some: what is handed over then?
func TestPlan(t *testing.T) {
	const size = 10_000 // of a file; the first batch holds three
	for _, c := range []struct {
		name  string
		reads []uint64 // numbers
		want  []batch
	}{
		{"the first ones", []uint64{0, 1, 5, 12}, []batch{{}, {2, 5}, {6, 12}, {13, 26}}},
		{"one alone", []uint64{5}, []batch{{}}},
		{"in a row", []uint64{500, 501, 505}, []batch{{}, {502, 505}, {506, 512}}},
		{"while it is handed over", []uint64{500, 501, 503, 504}, []batch{{}, {502, 505}, {}, {}}},
		{"with gaps", []uint64{500, 505, 510}, []batch{{}, {506, 509}, {511, 517}}},
		{"back", []uint64{500, 501, 400}, []batch{{}, {502, 505}, {}}},
		{"at random", []uint64{500, 600, 200, 100}, []batch{{}, {}, {}, {}}},
		{"to the end", []uint64{998, 999}, []batch{{}, {1000, 1000}}},
		{"not listed", []uint64{1000, 1001}, []batch{{}, {}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := ahead{store: func(uint64, []byte) {}}
			for n := range uint64(1000) {
				a.list(versionBit|n+77, size)
			}
			for i, n := range c.reads {
				got := a.plan(versionBit | n + 77)
				if got != (batch{}) {
					got = batch{got.from - firstNumber, got.to - firstNumber}
				}
				if got != c.want[i] {
					t.Errorf("reading %d: %v, want %v", n, got, c.want[i])
				}
			}
		})
	}
}

// TestPlanBounds: large and empty files are not listed, and a batch has its
// bound, also when files are listed again and again.
func TestPlanBounds(t *testing.T) {
	a := ahead{store: func(uint64, []byte) {}}
	for round := range uint64(30) {
		for n := range uint64(1000) {
			a.list(versionBit|n+1, 4000)
			a.list(versionBit|n+5000, 0)
			a.list(versionBit|n+6000, maxSmall+1)
		}
		if a.next != firstNumber+1000*(round+1) {
			t.Fatalf("%d files listed", a.next)
		}
	}
	most := uint64(0)
	for n := uint64(10); n < 1000; n = (a.end-firstNumber)%1000 + 1 {
		b := a.plan(versionBit | n + 1)
		most = max(most, b.to-b.from)
	}
	if most != maxBatch/4000 {
		t.Errorf("a batch of %d files", most)
	}
}

// asked counts the reads of contents that the kernel asked for, and others.
type asked struct {
	chain.Content
	kernel, own *atomic.Int64
}

func (a asked) ReadAt(ctx context.Context, p []byte, off int64) (int, error) {
	if _, ok := ctx.(*request); ok {
		a.kernel.Add(1)
	} else {
		a.own.Add(1)
	}
	return a.Content.ReadAt(ctx, p, off)
}

// TestHandedOver reads small files in order: the kernel has most of them before
// it asks, and they are right.
func TestHandedOver(t *testing.T) {
	const files = 60 // of 30 KiB together: one batch
	var items []chaintest.Item
	for i := range int64(files) {
		items = append(items, chaintest.Big(fmt.Sprintf("d/%02d", i), pattern{i, 500 + i}))
	}
	f := chaintest.New(chaintest.Point{Items: items})
	var kernel, own atomic.Int64
	f.Wrap = func(n chain.Node, c chain.Content) chain.Content { return asked{c, &kernel, &own} }
	dir := only(t, mount(t, f, Options{})) + "/d"
	if _, err := os.ReadDir(dir); err != nil {
		t.Fatal(err)
	}
	for i := range int64(files) {
		got, err := os.ReadFile(fmt.Sprintf("%s/%02d", dir, i))
		want := make([]byte, 500+i)
		if n, werr := (pattern{i, 500 + i}).ReadAt(t.Context(), want, 0); n < len(want) {
			t.Fatal(werr)
		}
		if err != nil || string(got) != string(want) {
			t.Fatalf("file %d: %d bytes, %v", i, len(got), err)
		}
		if i == 1 {
			eventually(t, "the others to be handed over", func() bool { return own.Load() == files-2 })
		}
	}
	if n := kernel.Load(); n > 3 { // the last one may still have been on its way
		t.Errorf("the kernel asked for %d of %d files", n, files)
	}
}
