package volume

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"dupfs/chain"
	"dupfs/chain/pgp"
)

// FuzzPackets feeds the packets within a message whole and in pieces.
func FuzzPackets(f *testing.F) {
	f.Add(literal([]byte("hello")), 1)
	f.Add(append(literal(nil), 0xca, 3, 'P', 'G', 'P'), 2)
	f.Add([]byte("\xcb\xe9b\x00\x00\x00\x00\x00"), 3)
	f.Add([]byte("\xafb\x00\x00\x00\x00\x00endless"), 4)
	f.Add([]byte("\x90\x0d\x03\x00\x0a\x01\xef\x4d\xe3\x39\x2c\xf5\x8d\x4b\x01\xcb\x06b\x00\x00\x00\x00\x00"), 1)
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		feed := func(step int) ([]byte, error) {
			p := packets{verify: pgp.NewKeys().NewVerifier()}
			var all []byte
			for rest := b; len(rest) > 0; {
				n := min(step, len(rest))
				for part := rest[:n]; len(part) > 0; {
					content, left, err := p.next(part)
					if err != nil {
						return all, err
					}
					p.verify.Write(content)
					all, part = append(all, content...), left
				}
				rest = rest[n:]
			}
			return all, p.finish()
		}
		whole, err := feed(len(b) + 1)
		pieces, err2 := feed(max(1, step%7))
		if !bytes.Equal(whole, pieces) || (err == nil) != (err2 == nil) {
			t.Fatalf("%d and %d bytes, %v and %v", len(whole), len(pieces), err, err2)
		}
		if len(whole) > len(b) {
			t.Fatal("more content than bytes")
		}
	})
}

// FuzzTrailer parses trailers; a sound one is written back the same.
func FuzzTrailer(f *testing.F) {
	key := trailerKey(nil)
	for _, n := range []int{0, 1, 3} {
		tr := trailer{plainSize: int64(n * 10), sizes: make([]chunkSize, n)}
		for i := range tr.sizes {
			tr.sizes[i] = chunkSize{stored: int64(20 + i), plain: 10}
		}
		b := tr.appendTable(nil, 0)
		f.Add(tr.appendFooter(b, 0, key, 1000))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		// The HMAC keeps fuzzing out: what lies behind it is tried alone.
		var tr trailer
		if tr.parseTable(b) == nil {
			var again trailer
			again.plainSize = tr.plainSize
			if err := again.parseTable(tr.appendTable(nil, 0)); err != nil || len(again.sizes) != len(tr.sizes) {
				t.Fatalf("written and read again: %v", err)
			}
		}
		if got, err := parseTrailer(b, key); err == nil {
			var total int64
			for _, s := range got.sizes {
				total += s.plain
			}
			if total != got.plainSize {
				t.Fatal("sizes do not add up")
			}
		}
		_, _ = ungzipTrailer(b)
		get := func(_ context.Context, off, n int64) ([]byte, error) { return b[off : off+n], nil }
		if l, err := ReadTrailer(context.Background(), get, int64(len(b)), chain.Gzip, nil, "file"); err == nil {
			decodeAll(t, l, b)
		}
	})
}

// decodeAll decodes what a Layout says, as far as there are bytes for it.
func decodeAll(t *testing.T, l *Layout, stored []byte) {
	for k := range min(l.Len(), 100) {
		c := l.Chunk(k)
		if c.StoredOff < 0 || c.StoredLen < 0 || c.PlainLen <= 0 {
			t.Fatalf("chunk %d: %+v", k, c)
		}
		if c.StoredLen > int64(len(stored)) || c.StoredOff > int64(len(stored))-c.StoredLen {
			continue
		}
		got, err := l.Decode(nil, k, stored[c.StoredOff:c.StoredOff+c.StoredLen])
		if err == nil && int64(len(got)) != c.PlainLen {
			t.Fatalf("chunk %d: %d bytes", k, len(got))
		}
	}
}

// FuzzLayout unmarshals; a sound one is marshalled to the same bytes, and
// Decode holds whatever it says.
func FuzzLayout(f *testing.F) {
	stored := readFile(f, "symmetric/manifest.gpg")
	_, l, err := scanAll(stored, chain.OpenPGP, theKeys(), 100)
	if err != nil {
		f.Fatal(err)
	}
	add := func(l *Layout) {
		b, err := l.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	add(l)
	plain := sample(3000, 1)
	for _, layer := range layers {
		_, l := write(f, layer, testEncrypter(f), Options{Chunk: 512, pieceBits: 9}, plain)
		add(l)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var l Layout
		if l.UnmarshalBinary(b) != nil {
			return
		}
		again, err := l.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var l2 Layout
		if err := l2.UnmarshalBinary(again); err != nil {
			t.Fatal(err)
		}
		if l.PlainSize > 0 && l.Find(l.PlainSize-1) != l.Len()-1 {
			t.Fatal("the last byte is not found")
		}
		decodeAll(t, &l, stored)
		for k := range min(l.Len(), 100) {
			if c := l.Chunk(k); c.StoredLen < 1<<16 {
				_, _ = l.Decode(nil, k, make([]byte, c.StoredLen))
			}
		}
	})
}

// FuzzReader reads anything in every layer.
func FuzzReader(f *testing.F) {
	keys := theKeys()
	f.Add(readFile(f, "symmetric/manifest.gpg"), byte(chain.OpenPGP))
	f.Add(readFile(f, "plain.gz"), byte(chain.Gzip))
	gz, _ := write(f, chain.Gzip, nil, Options{Chunk: 512}, sample(1500, 1))
	f.Add(gz, byte(chain.Gzip))
	gz, _ = write(f, chain.OpenPGP, testEncrypter(f), Options{Chunk: 512, pieceBits: 9}, sample(1500, 1))
	f.Add(gz, byte(chain.OpenPGP))
	f.Fuzz(func(t *testing.T, b []byte, layer byte) {
		s, err := newScanner(context.Background(), bytes.NewReader(b), chain.Layer(layer), keys, "file", 200)
		if err != nil {
			return
		}
		plain, err := io.ReadAll(io.LimitReader(s, 1<<20))
		var corrupt *chain.CorruptError
		if err != nil && !errors.As(err, &corrupt) {
			t.Fatalf("not a CorruptError: %v", err)
		}
		if l, err := s.Layout(); err == nil {
			checkLayout(t, l, b, plain)
		}
	})
}
