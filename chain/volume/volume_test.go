package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"

	"dupfs/chain"
	"dupfs/chain/pgp"
)

const passphrase = "fixture"

// sample is n bytes, half of it text-like and half noise, with runs.
func sample(n int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, 0, n+512)
	for len(b) < n {
		switch k := rng.IntN(10); {
		case k == 0:
			b = append(b, bytes.Repeat([]byte{byte(rng.Uint32())}, 1+rng.IntN(400))...)
		case k < 7 && len(b) > 100:
			d := 1 + rng.IntN(min(len(b), 30000))
			for range 3 + rng.IntN(60) {
				b = append(b, b[len(b)-d])
			}
		case k < 9:
			for range rng.IntN(40) {
				b = append(b, "etaoin shrdlu"[rng.IntN(13)])
			}
		default:
			for range rng.IntN(60) {
				b = append(b, byte(rng.Uint32()))
			}
		}
	}
	return b[:n]
}

// theEncrypter is made once: that is slow on purpose.
var theEncrypter = sync.OnceValues(func() (*pgp.Encrypter, error) { return pgp.NewEncrypter(passphrase) })

// theKeys open what theEncrypter wrote, and remember how.
var theKeys = sync.OnceValue(func() *pgp.Keys { return pgp.NewKeys(passphrase) })

func testEncrypter(t testing.TB) *pgp.Encrypter {
	t.Helper()
	e, err := theEncrypter()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// write writes plain as a stored file. cuts tells where members begin.
func write(t testing.TB, layer chain.Layer, enc *pgp.Encrypter, o Options, plain []byte, cuts ...int) ([]byte, *Layout) {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, layer, enc, o)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	from := 0
	for i, to := range append(cuts, len(plain)) {
		if i > 0 {
			w.CutBefore(int64(to - from))
		}
		// In two steps, so that a chunk does not end with a Write.
		mid := (from + to) / 2
		for _, p := range [][]byte{plain[from:mid], plain[mid:to]} {
			if n, err := w.Write(p); err != nil || n != len(p) {
				t.Fatal(n, err)
			}
		}
		from = to
	}
	if w.Off() != int64(len(plain)) {
		t.Fatalf("off %d of %d", w.Off(), len(plain))
	}
	l, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if l.StoredSize != int64(out.Len()) || l.PlainSize != int64(len(plain)) {
		t.Fatalf("sizes %d, %d; not %d, %d", l.StoredSize, l.PlainSize, out.Len(), len(plain))
	}
	return out.Bytes(), l
}

// checkLayout decodes every chunk and compares it.
func checkLayout(t testing.TB, l *Layout, stored, plain []byte) {
	t.Helper()
	if l.PlainSize != int64(len(plain)) || l.StoredSize != int64(len(stored)) {
		t.Fatalf("sizes %d, %d; not %d, %d", l.PlainSize, l.StoredSize, len(plain), len(stored))
	}
	if l.Ordered {
		stored = plain // the copy that chunks are of
	}
	at := int64(0)
	for k := range l.Len() {
		c := l.Chunk(k)
		if c.PlainOff != at || c.PlainLen <= 0 {
			t.Fatalf("chunk %d at %d, %d bytes; not at %d", k, c.PlainOff, c.PlainLen, at)
		}
		if l.Find(at) != k || l.Find(at+c.PlainLen-1) != k {
			t.Fatalf("chunk %d: found %d, %d", k, l.Find(at), l.Find(at+c.PlainLen-1))
		}
		part := bytes.Clone(stored[c.StoredOff : c.StoredOff+c.StoredLen])
		keep := bytes.Clone(part)
		got, err := l.Decode([]byte("before"), k, part)
		if err != nil {
			t.Fatalf("chunk %d of %d: %v", k, l.Len(), err)
		}
		if !bytes.Equal(got[6:], plain[at:at+c.PlainLen]) || string(got[:6]) != "before" {
			t.Fatalf("chunk %d of %d: wrong bytes", k, l.Len())
		}
		if !bytes.Equal(part, keep) {
			t.Fatal("Decode has changed its input")
		}
		checkStart(t, l, k, part, plain[at:at+c.PlainLen])
		at += c.PlainLen
	}
	if at != int64(len(plain)) {
		t.Fatalf("chunks end at %d of %d", at, len(plain))
	}
	checkMarshal(t, l)
}

// checkStart decodes the start of chunk k only, and of one that is damaged behind
// what is wanted nothing.
func checkStart(t testing.TB, l *Layout, k int, part, plain []byte) {
	t.Helper()
	for _, n := range []int{1, len(plain) / 3, len(plain) - 1, len(plain), len(plain) + 9} {
		if n <= 0 {
			continue
		}
		got, err := l.DecodeStart([]byte{'b'}[:0], k, part, int64(n))
		if err != nil || !bytes.Equal(got, plain[:min(n, len(plain))]) {
			t.Fatalf("%d bytes of chunk %d of %d: %d bytes, or wrong ones: %v", n, k, l.Len(), len(got), err)
		}
	}
	if !l.Own {
		return
	}
	bad := bytes.Clone(part)
	bad[len(bad)-1] ^= 1
	var corrupt *chain.CorruptError
	if got, err := l.DecodeStart(nil, k, bad, 1); !errors.As(err, &corrupt) || len(got) > 0 {
		t.Fatalf("a damaged chunk %d of %d: %d bytes, %v", k, l.Len(), len(got), err)
	}
}

// checkMarshal takes a Layout through its stored form.
func checkMarshal(t testing.TB, l *Layout) {
	t.Helper()
	b, err := l.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var l2 Layout
	if err := l2.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	b2, err := l2.MarshalBinary()
	if err != nil || !bytes.Equal(b, b2) {
		t.Fatalf("marshalled twice: %v", err)
	}
	for k := range l.Len() {
		if l.Chunk(k) != l2.Chunk(k) {
			t.Fatalf("chunk %d: %v, %v", k, l.Chunk(k), l2.Chunk(k))
		}
	}
}

// readAll reads a stored file in order.
func readAll(stored []byte, layer chain.Layer, keys *pgp.Keys) ([]byte, error) {
	r, err := NewReader(context.Background(), bytes.NewReader(stored), layer, keys, "file")
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// scanAll reads a stored file in order and returns its Layout.
func scanAll(stored []byte, layer chain.Layer, keys *pgp.Keys, spacing int64) ([]byte, *Layout, error) {
	s, err := newScanner(context.Background(), bytes.NewReader(stored), layer, keys, "file", spacing)
	if err != nil {
		return nil, nil, err
	}
	defer s.Close()
	plain, err := io.ReadAll(iotest.OneByteReader(s))
	if len(stored) > 10_000 {
		s.Close()
		if s, err = newScanner(context.Background(), bytes.NewReader(stored), layer, keys, "file", spacing); err != nil {
			return nil, nil, err
		}
		defer s.Close()
		plain, err = io.ReadAll(s)
	}
	if err != nil {
		return plain, nil, err
	}
	l, err := s.Layout()
	return plain, l, err
}

// trailerOf is ReadTrailer. It counts requests.
func trailerOf(stored []byte, layer chain.Layer, keys *pgp.Keys) (*Layout, int, error) {
	gets := 0
	get := func(_ context.Context, off, n int64) ([]byte, error) {
		if off < 0 || n < 0 || off+n > int64(len(stored)) {
			return nil, fmt.Errorf("range %d+%d of %d", off, n, len(stored))
		}
		gets++
		return bytes.Clone(stored[off : off+n]), nil
	}
	l, err := ReadTrailer(context.Background(), get, int64(len(stored)), layer, keys, "file")
	return l, gets, err
}

var layers = []chain.Layer{chain.Plain, chain.Gzip, chain.OpenPGP}

func TestWriterSizes(t *testing.T) {
	enc, keys := testEncrypter(t), theKeys()
	sizes := []int{0, 1, 2, 504, 505, 506, 507, 511, 512, 513, 1017, 1018, 1019, 1024, 1500, 4096, 10_000, 70_000}
	for _, layer := range layers {
		for _, bits := range []int{9, 12, 20} {
			if layer != chain.OpenPGP && bits != 9 {
				continue
			}
			for _, chunk := range []int{512, 600, 4096, 256 << 10} {
				for _, n := range sizes {
					for _, bare := range []bool{false, true} {
						o := Options{Chunk: chunk, Workers: 2, NoTrailer: bare, pieceBits: bits}
						t.Run(fmt.Sprint(layer, bits, chunk, n, bare), func(t *testing.T) {
							plain := sample(n, uint64(n))
							cuts := []int{}
							if n > 2000 {
								cuts = []int{n / 3, n / 3, n/3 + 700, n - 1}
							}
							stored, l := write(t, layer, enc, o, plain, cuts...)
							checkLayout(t, l, stored, plain)
							checkReading(t, stored, layer, keys, plain, !bare && layer != chain.Plain)
						})
					}
				}
			}
		}
	}
}

// checkReading reads a stored file in every way.
func checkReading(t *testing.T, stored []byte, layer chain.Layer, keys *pgp.Keys, plain []byte, trailer bool) {
	t.Helper()
	got, err := readAll(stored, layer, keys)
	if err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("read: %d bytes of %d, %v", len(got), len(plain), err)
	}
	got, l, err := scanAll(stored, layer, keys, 3000)
	if err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("scanned: %d bytes of %d, %v", len(got), len(plain), err)
	}
	if l.Own != (trailer || layer == chain.Plain) {
		t.Fatalf("own: %v", l.Own)
	}
	checkLayout(t, l, stored, plain)
	l, gets, err := trailerOf(stored, layer, keys)
	if !trailer {
		if !errors.Is(err, ErrForeign) {
			t.Fatalf("trailer: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatalf("trailer: %v", err)
	}
	if gets > 2 {
		t.Errorf("%d requests for the trailer", gets)
	}
	checkLayout(t, l, stored, plain)
}

// A table of more than one stored block, one member, one tail.
func TestLongTable(t *testing.T) {
	enc, keys := testEncrypter(t), theKeys()
	plain := make([]byte, 4<<20)
	rand.NewChaCha8([32]byte{1}).Read(plain)
	for _, layer := range layers[1:] {
		stored, l := write(t, layer, enc, Options{Chunk: 512, pieceBits: 16}, plain)
		if l.Len()*hashLen < 2*maxStored {
			t.Fatalf("%d chunks are too few for this test", l.Len())
		}
		checkLayout(t, l, stored, plain)
		got, l, err := scanAll(stored, layer, keys, 1<<20)
		if err != nil || !bytes.Equal(got, plain) || !l.Own {
			t.Fatalf("scanned: %d bytes, %v", len(got), err)
		}
		l, gets, err := trailerOf(stored, layer, keys)
		if err != nil || gets > 3 {
			t.Fatalf("trailer: %d requests, %v", gets, err)
		}
		checkLayout(t, l, stored, plain)
	}
}

// The same plaintext gives the same StoredSize at each step, and the same
// chunks, whatever the number of workers.
func TestDeterministic(t *testing.T) {
	enc := testEncrypter(t)
	plain := sample(600_000, 5)
	for _, layer := range layers {
		var want []int64
		for _, workers := range []int{1, 2, 7} {
			w, err := NewWriter(io.Discard, layer, enc, Options{Chunk: 4096, Workers: workers})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Abort()
			var got []int64
			for at := 0; at < len(plain); at += 10_000 {
				w.CutBefore(10_000)
				w.Write(plain[at : at+10_000])
				got = append(got, w.StoredSize())
			}
			estimate := w.StoredSize()
			l, err := w.Close()
			if err != nil {
				t.Fatal(err)
			}
			if d := estimate - l.StoredSize; d > l.StoredSize/20 || d < -l.StoredSize/20 {
				t.Errorf("%v: estimate %d, size %d", layer, estimate, l.StoredSize)
			}
			for k := range l.Len() {
				c := l.Chunk(k)
				got = append(got, c.PlainOff, c.StoredOff, c.StoredLen)
			}
			if want == nil {
				want = got
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%v: %d workers differ", layer, workers)
			}
		}
	}
}

// failing fails after n bytes.
type failing struct{ n int }

var errFull = errors.New("disk full")

func (f *failing) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestWriterFails(t *testing.T) {
	enc := testEncrypter(t)
	plain := sample(6<<20, 6)
	for _, layer := range layers {
		for _, room := range []int{0, 100, 100_000, 1_200_000} {
			w, err := NewWriter(&failing{room}, layer, enc, Options{Chunk: 16 << 10})
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i < len(plain); i += 10_000 {
				if _, err = w.Write(plain[i:min(i+10_000, len(plain))]); err != nil {
					break
				}
			}
			if _, err2 := w.Close(); !errors.Is(err2, errFull) || err != nil && !errors.Is(err, errFull) {
				t.Errorf("%v, room for %d: %v, %v", layer, room, err, err2)
			}
			w.Abort()
			if _, err := w.Write(plain[:1]); err == nil {
				t.Error("written after Close")
			}
		}
		w, _ := NewWriter(&failing{}, layer, enc, Options{})
		w.Write(plain)
		w.Abort()
		w.Abort()
		if _, err := w.Close(); err == nil {
			t.Error("closed after Abort")
		}
	}
}

func TestOptionsRefused(t *testing.T) {
	enc := testEncrypter(t)
	for _, o := range []Options{{Chunk: 511}, {Chunk: 1 << 30}, {Level: 10}, {Level: -1}} {
		if _, err := NewWriter(io.Discard, chain.OpenPGP, enc, o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	if _, err := NewWriter(io.Discard, chain.OpenPGP, nil, Options{}); err == nil {
		t.Error("OpenPGP without a key")
	}
	if _, err := NewWriter(io.Discard, 9, enc, Options{}); err == nil {
		t.Error("an unknown layer")
	}
}
