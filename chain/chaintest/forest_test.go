package chaintest_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"dupfs/chain"
	"dupfs/chain/chaintest"
)

// find looks a path up.
func find(t *testing.T, tr chain.Tree, path string) chain.Node {
	t.Helper()
	ctx := context.Background()
	n, err := tr.Root(ctx)
	for _, c := range chain.Path(path).Components() {
		if err == nil {
			n, err = tr.Lookup(ctx, n.Dir, c)
		}
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return n
}

func TestNumbers(t *testing.T) {
	f := chaintest.Zoo()
	ctx := context.Background()
	points, err := f.Points(ctx)
	if err != nil || len(points) != 3 {
		t.Fatalf("points %v, %v", points, err)
	}
	var trees []chain.Tree
	for _, p := range points {
		tr, err := f.Tree(ctx, p.Number)
		if err != nil {
			t.Fatal(err)
		}
		trees = append(trees, tr)
	}
	if a, b := find(t, trees[0], "docs").Dir, find(t, trees[2], "docs").Dir; a != b || a == 0 {
		t.Errorf("directory has numbers %d and %d", a, b)
	}
	if a, b := find(t, trees[0], "docs/big.bin").Version, find(t, trees[1], "docs/big.bin").Version; a != b || a == 0 {
		t.Errorf("unchanged file has versions %d and %d", a, b)
	}
	if a, b := find(t, trees[0], "docs/changed.txt").Version, find(t, trees[1], "docs/changed.txt").Version; a == b {
		t.Errorf("changed file has one version %d", a)
	}
	one, three := find(t, trees[0], "hard/one"), find(t, trees[0], "later/three")
	if one.Version != three.Version || one.Nlink != 3 || three.Nlink != 3 {
		t.Errorf("hard links %d (%d names) and %d (%d names)", one.Version, one.Nlink, three.Version, three.Nlink)
	}
	if n := find(t, trees[0], "times").Nlink; n != 3 {
		t.Errorf("link count of a directory with one below is %d", n)
	}
	_, err = trees[2].Lookup(ctx, 1, "deep")
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("deleted entry: %v", err)
	}
}

func TestHostileName(t *testing.T) {
	f := chaintest.New(chaintest.Point{Items: []chaintest.Item{chaintest.File("d/x", "1").As("../x")}})
	if l := strings.Join(chaintest.Tree(t, f, f.Newest()), "\n"); !strings.Contains(l, `"d/../x" file`) {
		t.Errorf("no hostile name in\n%s", l)
	}
}

func TestReadDirAfter(t *testing.T) {
	f := chaintest.New(chaintest.Point{Items: []chaintest.Item{
		chaintest.File("c", ""), chaintest.File("a", "x"), chaintest.File("b", ""),
	}})
	f.Lazy = true
	for _, exact := range []bool{true, false} {
		var got []string
		err := f.Newest().ReadDir(context.Background(), 1, "a", exact, func(n chain.Node) error {
			got = append(got, n.Name)
			if (n.Size < 0) == exact {
				t.Errorf("exact %v: size %d", exact, n.Size)
			}
			return nil
		})
		if err != nil || !slices.Equal(got, []string{"b", "c"}) {
			t.Errorf("after a: %v, %v", got, err)
		}
	}
}

func TestSparseContent(t *testing.T) {
	it := chaintest.Sparse("s", 20, chaintest.Piece{Off: 2, Data: "abc"}, chaintest.Piece{Off: 18, Data: "xy"})
	want := "\x00\x00abc" + strings.Repeat("\x00", 13) + "xy"
	for off := range 21 {
		for n := range 22 {
			p := make([]byte, n)
			k, err := it.Content.ReadAt(context.Background(), p, int64(off))
			if w := want[off:min(20, off+n)]; string(p[:k]) != w || (err == io.EOF) != (k < n) {
				t.Fatalf("read %d at %d: %q, %v, want %q", n, off, p[:k], err, w)
			}
		}
	}
}

func TestFaulty(t *testing.T) {
	bad := errors.New("bad")
	c := chaintest.Faulty{Content: chaintest.Bytes("0123456789"), Off: 4, Err: bad}
	for _, row := range []struct {
		off, n int64
		want   string
		err    error
	}{{0, 4, "0123", nil}, {0, 5, "0123", bad}, {4, 1, "", bad}, {9, 1, "", bad}} {
		p := make([]byte, row.n)
		n, err := c.ReadAt(context.Background(), p, row.off)
		if string(p[:n]) != row.want || err != row.err {
			t.Errorf("%d at %d: %q, %v", row.n, row.off, p[:n], err)
		}
	}
}
