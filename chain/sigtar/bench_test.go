package sigtar

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"dupfs/chain"
)

// BenchmarkMerge merges a full sigtar of 100,000 files with nine small ones.
func BenchmarkMerge(b *testing.B) {
	stream := func(step int) []byte {
		var ms []Member
		for i := 0; i < 100000; i += step {
			m := file(chain.Path(fmt.Sprintf("dir%03d/file%06d", i/1000, i)), 0o644)
			m.Entry.Mtime.Nsec = 5
			ms = append(ms, m)
		}
		return write(b, ms...)
	}
	full, inc := stream(1), stream(1000)
	b.SetBytes(int64(len(full)))
	b.ReportAllocs()
	for b.Loop() {
		readers := []*Reader{NewReader(bytes.NewReader(full))}
		for range 9 {
			readers = append(readers, NewReader(bytes.NewReader(inc)))
		}
		m := Merge(readers...)
		for {
			if _, _, err := m.Next(); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
}
