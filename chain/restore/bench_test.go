//go:build linux

package restore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dupfs/chain"
	"dupfs/chain/chaintest"
)

func BenchmarkRun(b *testing.B) {
	var small []chaintest.Item
	for i := range 1000 {
		small = append(small, chaintest.File(fmt.Sprintf("d%d/f%d", i%10, i), strings.Repeat("x", 4096)))
	}
	for _, c := range []struct {
		name  string
		items []chaintest.Item
	}{
		{"1000 small files", small},
		{"one large file", []chaintest.Item{chaintest.File("f", strings.Repeat("0123456789abcdef", 64<<20/16))}},
	} {
		b.Run(c.name, func(b *testing.B) {
			f := forest(c.items...)
			dir := filepath.Join(b.TempDir(), "t")
			for range b.N {
				rep, err := Run(context.Background(), f, f.Newest(), chain.Root, dir, Options{})
				if err != nil || rep.Failed > 0 {
					b.Fatal(err)
				}
				b.SetBytes(rep.Bytes)
				b.StopTimer()
				if err := os.RemoveAll(dir); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
