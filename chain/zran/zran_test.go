package zran

import (
	"bufio"
	"bytes"
	stdflate "compress/flate"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/flate"
)

// sample is n bytes that deflate to something like half, with runs, text and
// noise in it.
func sample(n int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, 0, n+400)
	for len(b) < n {
		switch k := rng.IntN(100); {
		case k < 5:
			b = append(b, bytes.Repeat([]byte{byte(rng.Uint32())}, 1+rng.IntN(400))...)
		case k < 60 && len(b) > 0:
			d := 1 + rng.IntN(min(len(b), 40000))
			for i, m := 0, 3+rng.IntN(60); i < m; i++ {
				b = append(b, b[len(b)-d])
			}
		default:
			for range rng.IntN(30) {
				b = append(b, "etaoin shrdlu"[rng.IntN(13)]+byte(rng.IntN(2)*rng.IntN(160)))
			}
		}
	}
	return b[:n]
}

// stdDeflate is the standard library's encoder; flushes at the given places
// put empty stored blocks in.
func stdDeflate(t testing.TB, b []byte, level int, flushEach int) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := stdflate.NewWriter(&out, level)
	if err != nil {
		t.Fatal(err)
	}
	for len(b) > 0 {
		n := len(b)
		if flushEach > 0 {
			n = min(n, flushEach)
		}
		w.Write(b[:n])
		if flushEach > 0 {
			w.Flush()
		}
		b = b[n:]
	}
	w.Close()
	return out.Bytes()
}

// scan inflates all of stream and marks Points.
func scan(t testing.TB, stream []byte, spacing int64) ([]byte, []*Point, *Reader) {
	t.Helper()
	r := &Reader{Spacing: spacing}
	r.ResetBytes(stream, nil)
	var out []byte
	pts := []*Point{{}}
	for {
		b, err := r.Next()
		out = append(out, b...)
		if err == io.EOF {
			return out, pts, r
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", len(out), err)
		}
		if p := r.Mark(); p != nil {
			if p.Out != int64(len(out)) {
				t.Fatalf("point at %d, not %d", p.Out, len(out))
			}
			pts = append(pts, p)
		}
	}
}

// inflaters returns the implementations that must read segments.
func inflaters() map[string]func(src, dict []byte) ([]byte, error) {
	std, kp, own, sips := stdflate.NewReader(nil), flate.NewReader(nil), &Reader{}, &Reader{Most: 1}
	return map[string]func(src, dict []byte) ([]byte, error){
		"std": func(src, dict []byte) ([]byte, error) {
			std.(stdflate.Resetter).Reset(bytes.NewReader(src), dict)
			return io.ReadAll(std)
		},
		"klauspost": func(src, dict []byte) ([]byte, error) {
			kp.(flate.Resetter).Reset(bytes.NewReader(src), dict)
			return io.ReadAll(kp)
		},
		"own": func(src, dict []byte) ([]byte, error) {
			own.ResetBytes(src, dict)
			return readAll(own)
		},
		"own, a little at a time": func(src, dict []byte) ([]byte, error) {
			sips.Most = sips.Most%1000 + 37
			sips.ResetBytes(src, dict)
			return readAll(sips)
		},
	}
}

func readAll(r *Reader) ([]byte, error) {
	var out []byte
	for {
		b, err := r.Next()
		out = append(out, b...)
		if r.Most > 0 && len(b) > r.Most+maxMatch {
			return out, fmt.Errorf("%d bytes at a time", len(b))
		}
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, err
		}
	}
}

// checkSegments inflates every segment alone, by every implementation.
// Only every nth, but all if n is 1.
func checkSegments(t testing.TB, stream, plain []byte, pts []*Point, n int) {
	t.Helper()
	all := inflaters()
	for i, p := range pts {
		if i%n != 0 {
			continue
		}
		from, to, end := p.In, int64(len(stream)), int64(len(plain))
		var next *Point
		if i+1 < len(pts) {
			next = pts[i+1]
			to, end = next.In, next.Out
			if next.Bit > 0 {
				to++
			}
		}
		seg, err := p.Segment(stream[from:to], next)
		if err != nil {
			t.Fatalf("point %d: %v", i, err)
		}
		dict, err := p.Dict(nil)
		if err != nil {
			t.Fatalf("point %d: %v", i, err)
		}
		for name, inflate := range all {
			got, err := inflate(seg, dict)
			if err != nil || !bytes.Equal(got, plain[p.Out:end]) {
				t.Fatalf("point %d of %d (bit %d, block %d bits), %s: %d bytes for %d, %v", i, len(pts), p.Bit, p.BlockLen, name, len(got), end-p.Out, err)
			}
		}
	}
}

func TestSegments(t *testing.T) {
	plain := sample(700_000, 1)
	noise := make([]byte, 200_000)
	rand.NewChaCha8([32]byte{}).Read(noise)
	mixed := append(append(append([]byte{}, plain[:300_000]...), noise...), plain[300_000:]...)
	var bitsSeen, midBlock [8]int
	for _, level := range []int{-2, 0, 1, 6, 9} {
		for _, flush := range []int{0, 1000} {
			stream := stdDeflate(t, mixed, level, flush)
			for _, spacing := range []int64{300, 5000, 40_000, 1 << 20} {
				if spacing == 300 {
					// As many points as bytes allow: a smaller stream will do.
					stream = stdDeflate(t, mixed[250_000:320_000], level, flush)
				}
				t.Run(fmt.Sprintf("level %d flush %d spacing %d", level, flush, spacing), func(t *testing.T) {
					want := mixed
					if spacing == 300 {
						want = mixed[250_000:320_000]
					}
					got, pts, r := scan(t, stream, spacing)
					if !bytes.Equal(got, want) {
						t.Fatal("wrong output")
					}
					if r.In() != int64(len(stream)) || r.Out() != int64(len(want)) {
						t.Fatalf("in %d of %d, out %d", r.In(), len(stream), r.Out())
					}
					if max := int64(len(want)) / spacing; level > 0 && spacing < 1<<20 && int64(len(pts)) < max/4 {
						t.Fatalf("%d points, not some %d", len(pts), max)
					}
					for _, p := range pts {
						bitsSeen[p.Bit]++
						if p.BlockLen > 0 {
							midBlock[p.Bit]++
						}
					}
					checkSegments(t, stream, want, pts, 1)
				})
				if spacing == 300 {
					stream = stdDeflate(t, mixed, level, flush)
				}
			}
		}
	}
	for i := range 8 {
		if bitsSeen[i] == 0 || midBlock[i] == 0 {
			t.Errorf("no point at bit %d was tried: %v %v", i, bitsSeen, midBlock)
		}
	}
}

// A block without end, as a bomb has, gets points within it.
func TestPointsWithinBlock(t *testing.T) {
	plain := make([]byte, 5<<20)
	stream := stdDeflate(t, plain, 9, 0)
	got, pts, _ := scan(t, stream, 64<<10)
	if !bytes.Equal(got, plain) {
		t.Fatal("wrong output")
	}
	last := int64(0)
	for _, p := range pts {
		if p.Out-last > 128<<10+maxMatch {
			t.Fatalf("%d bytes between points", p.Out-last)
		}
		last = p.Out
	}
	checkSegments(t, stream, plain, pts, 1)
}

func TestDict(t *testing.T) {
	plain := sample(100_000, 3)
	for _, n := range []int{0, 1, 100, 32767, 32768, 32769, 50_000} {
		var out bytes.Buffer
		w, _ := stdflate.NewWriterDict(&out, 9, plain[:n])
		w.Write(plain[n:])
		w.Close()
		for _, tail := range []string{"", "what follows"} {
			src := bufio.NewReader(iotest.HalfReader(io.MultiReader(bytes.NewReader(out.Bytes()), bytes.NewReader([]byte(tail)))))
			var r Reader
			r.Reset(src, plain[:n])
			got, err := readAll(&r)
			if err != nil || !bytes.Equal(got, plain[n:]) {
				t.Fatalf("dict of %d: %d bytes, %v", n, len(got), err)
			}
			if rest, _ := io.ReadAll(src); string(rest) != tail || r.In() != int64(out.Len()) {
				t.Fatalf("left %q, in %d of %d", rest, r.In(), out.Len())
			}
		}
	}
}

func TestTruncated(t *testing.T) {
	plain := sample(3000, 4)
	for level := range 10 {
		stream := stdDeflate(t, plain, level, 700)
		for n := range stream {
			var r Reader
			r.ResetBytes(stream[:n], nil)
			got, err := readAll(&r)
			if err != io.ErrUnexpectedEOF || !bytes.HasPrefix(plain, got) {
				t.Fatalf("level %d cut at %d: %v after %d bytes", level, n, err, len(got))
			}
		}
	}
}

// An error of the input is reported as it is, not as damage.
func TestReadError(t *testing.T) {
	broken := errors.New("broken")
	stream := stdDeflate(t, sample(20_000, 5), 6, 0)
	for n := 0; n < len(stream); n += 97 {
		var r Reader
		r.Reset(bufio.NewReader(io.MultiReader(bytes.NewReader(stream[:n]), iotest.ErrReader(broken))), nil)
		if _, err := readAll(&r); err != broken {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func TestSegmentRefuses(t *testing.T) {
	p, next := &Point{}, &Point{In: 10, Bit: 3}
	if _, err := p.Segment(make([]byte, 10), next); err == nil {
		t.Error("a run too short was taken")
	}
	if _, err := (&Point{Bit: 3}).Segment(make([]byte, 10), nil); err == nil {
		t.Error("a Point without its prefix was taken")
	}
	if _, err := (&Point{Window: []byte{1, 2, 3}}).Dict(nil); err == nil {
		t.Error("a broken window was taken")
	}
	bomb := stdDeflate(t, make([]byte, 1<<20), 9, 0)
	if _, err := (&Point{Window: bomb}).Dict(nil); err == nil {
		t.Error("a window of 1 MiB was taken")
	}
}

// FuzzInflate holds the decoder against the standard library's.
func FuzzInflate(f *testing.F) {
	for level := -2; level < 10; level += 2 {
		f.Add(stdDeflate(f, sample(2000, 9), level, 0), uint16(300))
		f.Add(stdDeflate(f, sample(2000, 9), level, 100), uint16(1))
	}
	f.Add([]byte{3, 0}, uint16(0))
	f.Fuzz(func(t *testing.T, stream []byte, spacing uint16) {
		const limit = 1 << 20
		want, wantErr := io.ReadAll(io.LimitReader(stdflate.NewReader(bytes.NewReader(stream)), limit))
		if len(want) == limit {
			return
		}
		r := &Reader{Spacing: int64(spacing)}
		r.ResetBytes(stream, nil)
		var got []byte
		pts := []*Point{{}}
		var err error
		for err == nil {
			var b []byte
			b, err = r.Next()
			got = append(got, b...)
			if p := r.Mark(); p != nil {
				pts = append(pts, p)
			}
		}
		if wantErr == nil != (err == io.EOF) {
			t.Fatalf("%v, but std: %v", err, wantErr)
		}
		if wantErr != nil {
			return // how much comes before an error is each one's own choice
		}
		if !bytes.Equal(got, want) {
			t.Fatal("output differs")
		}
		checkSegments(t, stream[:r.In()], got, pts, 1+len(pts)/16)
	})
}

func benchmarkInflate(b *testing.B, run func(stream []byte) int) {
	plain := sample(4<<20, 1)
	stream := stdDeflate(b, plain, 6, 0)
	b.SetBytes(int64(len(plain)))
	b.ReportMetric(float64(len(stream))/float64(len(plain)), "ratio")
	for b.Loop() {
		if run(stream) != len(plain) {
			b.Fatal("short")
		}
	}
}

func BenchmarkInflate(b *testing.B) {
	var r Reader
	benchmarkInflate(b, func(stream []byte) (n int) {
		r.ResetBytes(stream, nil)
		for {
			p, err := r.Next()
			if n += len(p); err != nil {
				return n
			}
		}
	})
}

func BenchmarkInflateMark(b *testing.B) {
	r := &Reader{Spacing: 1 << 20}
	benchmarkInflate(b, func(stream []byte) (n int) {
		r.ResetBytes(stream, nil)
		for {
			p, err := r.Next()
			if n += len(p); err != nil {
				return n
			}
			r.Mark()
		}
	})
}

func BenchmarkInflateKlauspost(b *testing.B) {
	r := flate.NewReader(nil)
	benchmarkInflate(b, func(stream []byte) int {
		r.(flate.Resetter).Reset(bytes.NewReader(stream), nil)
		n, _ := io.Copy(io.Discard, r)
		return int(n)
	})
}

func BenchmarkInflateStd(b *testing.B) {
	r := stdflate.NewReader(nil)
	benchmarkInflate(b, func(stream []byte) int {
		r.(stdflate.Resetter).Reset(bytes.NewReader(stream), nil)
		n, _ := io.Copy(io.Discard, r)
		return int(n)
	})
}
