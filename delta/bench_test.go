package delta

import (
	"bytes"
	"io"
	"syscall"
	"testing"
)

const benchSize = 64 << 20

// perCPU reports, when what it returns is called, megabytes by seconds of
// processor time, which a busy machine does not disturb as much.
func perCPU(b *testing.B, size int) func() {
	used := func() int64 {
		var r syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
			b.Fatal(err)
		}
		return r.Utime.Nano() + r.Stime.Nano()
	}
	b.SetBytes(int64(size))
	b.ResetTimer()
	begin := used()
	return func() {
		b.ReportMetric(float64(size)*float64(b.N)*1e3/float64(used()-begin), "MB/cpu-s")
	}
}

// benchDiff diffs fresh against old.
func benchDiff(b *testing.B, old, fresh []byte, block int) {
	sig := readSig(b, sign(b, old, block))
	defer perCPU(b, len(fresh))()
	for range b.N {
		if err := Diff(sig, bytes.NewReader(fresh), NewEncoder(io.Discard)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDiff(b *testing.B) {
	old := random(benchSize, 1)
	onePercent := bytes.Clone(old)
	for off := 0; off < len(old); off += 100 * 2048 {
		copy(onePercent[off:], random(2048, uint64(off)))
	}
	scattered := bytes.Clone(old)
	for off := 0; off < len(old); off += 100 * 2048 {
		scattered[off] ^= 1
	}
	shifted := append([]byte("x"), old...)
	text := bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog\n"), benchSize/44)
	for _, c := range []struct {
		name       string
		old, fresh []byte
	}{
		{"same", old, old},
		{"one percent", old, onePercent},
		{"a byte in one block of 100", old, scattered},
		{"shifted", old, shifted},
		{"nothing alike", old, random(benchSize, 2)},
		{"zeros", make([]byte, benchSize), make([]byte, benchSize)},
		{"text in random", old, text},
		{"random in text", text, old},
		{"empty before", nil, old},
	} {
		b.Run(c.name, func(b *testing.B) { benchDiff(b, c.old, c.fresh, 2048) })
	}
}

func BenchmarkSign(b *testing.B) {
	p := random(benchSize, 1)
	defer perCPU(b, benchSize)()
	for range b.N {
		s := NewSigner(io.Discard, 2048)
		s.Write(p)
		s.Close()
	}
}

func BenchmarkReadSignature(b *testing.B) {
	p := sign(b, random(benchSize, 1), 2048)
	defer perCPU(b, len(p))()
	for range b.N {
		readSig(b, p)
	}
}

func BenchmarkMD4(b *testing.B) {
	p := random(2048, 1)
	defer perCPU(b, 2048)()
	for range b.N {
		kind{}.strong(p)
	}
}
