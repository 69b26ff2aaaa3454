//go:build linux

package fusefs

import (
	"fmt"
	"strings"
	"testing"

	"dupfs/chain/chaintest"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// BenchmarkWalk has programs walk 60,000 entries that are looked at for the
// first time, and once more.
func BenchmarkWalk(b *testing.B) {
	const tops, files = 600, 100
	for name, script := range map[string]string{
		"ls-lR": "ls -lR . >/dev/null", "ls-lR-noxattrs": "ls -lR . >/dev/null",
		"find": "find . >/dev/null", "du": "du -s . >/dev/null",
	} {
		o := Options{NoXattrs: strings.HasSuffix(name, "noxattrs")}
		for _, again := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/again=%v", name, again), func(b *testing.B) {
				dir := only(b, mount(b, &wide{tops: tops, files: files}, o))
				if again {
					sh(b, dir, script)
				}
				for b.Loop() {
					if !again {
						b.StopTimer()
						dir = only(b, mount(b, &wide{tops: tops, files: files}, o))
						b.StartTimer()
					}
					sh(b, dir, script)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(tops*files), "ns/entry")
			})
		}
	}
}

// BenchmarkReadDirPlus is the server's part of it.
func BenchmarkReadDirPlus(b *testing.B) {
	const files = 1000
	f := newFileSystem(b.Context(), &wide{tops: 1, files: files}, Options{}.withDefaults())
	open := &fuse.OpenOut{}
	in := &fuse.OpenIn{}
	in.NodeId = dirBit | 1<<dirBits | 2
	f.OpenDir(nil, in, open)
	buf := make([]byte, 32<<10)
	b.ReportAllocs()
	for b.Loop() {
		for off := uint64(0); off < files+2; {
			in := &fuse.ReadIn{Fh: open.Fh, Offset: off}
			in.NodeId = dirBit | 1<<dirBits | 2
			out := fuse.NewDirEntryList(buf, off)
			if s := f.ReadDirPlus(nil, in, out); s != fuse.OK {
				b.Fatal(s)
			}
			off = out.Offset
		}
	}
}

// BenchmarkRead reads a file from its begin to its end.
func BenchmarkRead(b *testing.B) {
	const size = 1 << 30
	f := chaintest.New(chaintest.Point{Items: []chaintest.Item{chaintest.Sparse("f", size)}})
	b.SetBytes(size)
	for b.Loop() {
		b.StopTimer()
		dir := only(b, mount(b, f, Options{}))
		b.StartTimer()
		sh(b, dir, "cat f >/dev/null")
	}
}
