package volume

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// prose is n bytes that deflate to less than a third, none of them dense.
func prose(n int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 8))
	words := strings.Fields("if the base was read and its parts are in order for all of them then we go on with what is left")
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "%s %s(%d);\n", words[rng.IntN(len(words))], words[rng.IntN(len(words))], rng.IntN(10000))
	}
	return b.Bytes()[:n]
}

// noise is n random bytes.
func noise(n int, seed uint64) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

func inflate(t *testing.T, b []byte) []byte {
	t.Helper()
	got, err := io.ReadAll(flate.NewReader(bytes.NewReader(b)))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// Dense and other bytes in one chunk, wherever they begin and end, take no more
// than each for itself.
func TestDeflateMixed(t *testing.T) {
	e := &encoder{level: 6}
	for _, shift := range []int{0, 100, 4096, 20 << 10, 50_001} {
		var mixed []byte
		apart := 0
		for i := range uint64(4) {
			n := 64 << 10
			if i == 0 {
				n -= shift
			}
			text := prose(64<<10, i)
			mixed = append(append(mixed, noise(n, i)...), text...)
			apart += n + len(e.deflate(nil, text, true))
		}
		got := e.deflate([]byte("before"), mixed, true)
		if string(got[:6]) != "before" || !bytes.Equal(inflate(t, got[6:]), mixed) {
			t.Fatalf("shift %d: other bytes come back", shift)
		}
		if limit := apart + apart/50; len(got) > limit {
			t.Errorf("shift %d: %d bytes, apart they take %d", shift, len(got), apart)
		}
	}
}

// What looks dense but repeats is deflated all the same.
func TestDeflateDenseRepeats(t *testing.T) {
	e := &encoder{level: 6}
	p := bytes.Repeat(noise(1000, 1), 200)
	got := e.deflate(nil, p, true)
	if !bytes.Equal(inflate(t, got), p) {
		t.Fatal("other bytes come back")
	}
	if len(got) > len(p)/10 {
		t.Errorf("%d of %d bytes", len(got), len(p))
	}
}

// Chunks of random stretches come back, as the end of a stream and in the
// middle of one, and never grow by more than stored blocks do.
func TestDeflateRandomStretches(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 9))
	e := &encoder{level: 6}
	for round := range uint64(60) {
		var p []byte
		for range rng.IntN(9) {
			n := rng.IntN(1 << (5 + rng.IntN(13)))
			if rng.IntN(2) == 0 {
				p = append(p, noise(n, round)...)
			} else {
				p = append(p, prose(n, round)...)
			}
		}
		middle := e.deflate(nil, p, false)
		both := e.deflate(middle, p, true)
		if got := inflate(t, both); !bytes.Equal(got, append(bytes.Clone(p), p...)) {
			t.Fatalf("round %d: %d bytes: others come back", round, len(p))
		}
		if len(both) > 2*storedLen(len(p))+10 {
			t.Fatalf("round %d: %d bytes became %d", round, len(p), len(both)/2)
		}
	}
}
