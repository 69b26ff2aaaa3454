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

// Between these a file of ours tells how the key is derived from the
// passphrase. Damage there is slow to find, so only some of it is tried.
const deriveAt, deriveEnd = 3, 15

// Every bit that flips is found, by whichever way the file is read, and never
// does a wrong byte come out.
func TestEveryBit(t *testing.T) {
	enc, keys := testEncrypter(t), theKeys()
	for _, layer := range layers[1:] {
		for _, n := range []int{30, 1300} {
			plain := sample(n, 1)
			stored, layout := write(t, layer, enc, Options{Chunk: 512, pieceBits: 9}, plain)
			for bit := range 8 * len(stored) {
				if layer == chain.OpenPGP && bit/8 >= deriveAt && bit/8 < deriveEnd && (bit%8 != 0 || n > 30) {
					continue
				}
				bad := bytes.Clone(stored)
				bad[bit/8] ^= 1 << (bit % 8)
				checkDamaged(t, bit/8, bad, layer, keys, plain, layout)
			}
		}
	}
}

func checkDamaged(t *testing.T, at int, bad []byte, layer chain.Layer, keys *pgp.Keys, plain []byte, layout *Layout) {
	t.Helper()
	got, err := readAll(bad, layer, keys)
	// Some bits of a gzip file say nothing of its content.
	if err == nil && (layer == chain.OpenPGP || !bytes.Equal(got, plain)) {
		t.Fatalf("%v: byte %d damaged: read without an error", layer, at)
	}
	var corrupt *chain.CorruptError
	if layer == chain.Gzip && err != nil && !errors.As(err, &corrupt) {
		t.Fatalf("byte %d damaged: %v", at, err)
	}
	// The Layout that was made when it was written.
	for k := range layout.Len() {
		c := layout.Chunk(k)
		got, err := layout.Decode(nil, k, bad[c.StoredOff:c.StoredOff+c.StoredLen])
		if err == nil && !bytes.Equal(got, plain[c.PlainOff:c.PlainOff+c.PlainLen]) {
			t.Fatalf("byte %d damaged: wrong bytes of chunk %d", at, k)
		}
		if err != nil && !errors.As(err, &corrupt) {
			t.Fatalf("byte %d damaged: chunk %d: %v", at, k, err)
		}
	}
	// The one that the damaged file tells.
	l, _, err := trailerOf(bad, layer, keys)
	if err != nil {
		return
	}
	if l.PlainSize != int64(len(plain)) {
		t.Fatalf("byte %d damaged: a trailer of %d bytes", at, l.PlainSize)
	}
	for k := range l.Len() {
		c := l.Chunk(k)
		if c.StoredOff+c.StoredLen > int64(len(bad)) {
			t.Fatalf("byte %d damaged: chunk %d beyond the end", at, k)
		}
		got, err := l.Decode(nil, k, bad[c.StoredOff:c.StoredOff+c.StoredLen])
		if err == nil && !bytes.Equal(got, plain[c.PlainOff:c.PlainOff+c.PlainLen]) {
			t.Fatalf("byte %d damaged: wrong bytes of chunk %d", at, k)
		}
	}
}

// A file that was cut anywhere is found out, and what comes before the error
// is right.
func TestTruncated(t *testing.T) {
	enc, keys := testEncrypter(t), theKeys()
	for _, layer := range layers[1:] {
		plain := sample(1300, 1)
		stored, _ := write(t, layer, enc, Options{Chunk: 512, pieceBits: 9}, plain)
		for n := 1; n < len(stored); n++ {
			got, err := readAll(stored[:n], layer, keys)
			var corrupt *chain.CorruptError
			if !errors.As(err, &corrupt) || corrupt.Name != "file" {
				t.Fatalf("%v cut at %d of %d: %v", layer, n, len(stored), err)
			}
			if !bytes.HasPrefix(plain, got) {
				t.Fatalf("%v cut at %d: wrong bytes", layer, n)
			}
			if _, _, err := trailerOf(stored[:n], layer, keys); err == nil {
				t.Fatalf("%v cut at %d: a trailer was found", layer, n)
			}
		}
	}
}

// A read error comes through as it is; it is not damage.
func TestReadErrors(t *testing.T) {
	enc, keys := testEncrypter(t), theKeys()
	broken := errors.New("connection lost")
	for _, layer := range layers {
		plain := sample(200_000, 1)
		stored, _ := write(t, layer, enc, Options{Chunk: 4096}, plain)
		for n := 0; n < len(stored); n += len(stored)/9 + 1 {
			src := io.MultiReader(bytes.NewReader(stored[:n]), &brokenReader{broken})
			r, err := NewReader(context.Background(), src, layer, keys, "file")
			if err == nil {
				_, err = io.Copy(io.Discard, r)
				r.Close()
			}
			var corrupt *chain.CorruptError
			if !errors.Is(err, broken) || errors.As(err, &corrupt) {
				t.Fatalf("%v after %d: %v", layer, n, err)
			}
		}
		r, err := NewReader(context.Background(), bytes.NewReader(stored), layer, keys, "file")
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		if _, err := r.Read(make([]byte, 10)); err == nil || err == io.EOF {
			t.Errorf("%v: read after Close: %v", layer, err)
		}
	}
}

type brokenReader struct{ err error }

func (b *brokenReader) Read([]byte) (int, error) { return 0, b.err }

func TestPassphrases(t *testing.T) {
	g := newGPG(t)
	plain := sample(5000, 1)
	ours, _ := write(t, chain.OpenPGP, testEncrypter(t), Options{}, plain)
	theirs := g.must(t, plain, "--symmetric", "--force-mdc")
	for name, stored := range map[string][]byte{"ours": ours, "theirs": theirs} {
		if _, err := readAll(stored, chain.OpenPGP, pgp.NewKeys("no", "neither")); !errors.Is(err, chain.ErrNoKey) {
			t.Errorf("%s, wrong passphrases: %v", name, err)
		}
		if _, err := readAll(stored, chain.OpenPGP, pgp.NewKeys()); !errors.Is(err, chain.ErrNoPassphrase) {
			t.Errorf("%s, no passphrase: %v", name, err)
		}
		if _, err := readAll(stored, chain.OpenPGP, nil); !errors.Is(err, chain.ErrNoPassphrase) {
			t.Errorf("%s, no keys: %v", name, err)
		}
		asked := 0
		keys := pgp.NewKeys()
		keys.Ask = func(context.Context) (string, error) { asked++; return passphrase, nil }
		for range 3 {
			if got, err := readAll(stored, chain.OpenPGP, keys); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%s, asked: %v", name, err)
			}
		}
		if asked != 1 {
			t.Errorf("asked %d times", asked)
		}
	}
}

// A bomb is read in bounded memory, and its chunks stay small.
func TestBomb(t *testing.T) {
	g := newGPG(t)
	plain := make([]byte, 24<<20)
	keys := theKeys()
	for _, algo := range []string{"zip", "zlib"} {
		stored := g.must(t, plain, "--symmetric", "--force-mdc", quick, "1", "--compress-algo", algo)
		s, err := NewScanner(context.Background(), bytes.NewReader(stored), chain.OpenPGP, keys, "file")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, s); err != nil || n != int64(len(plain)) {
			t.Fatal(n, err)
		}
		l, err := s.Layout()
		if err != nil {
			t.Fatal(err)
		}
		for k := range l.Len() {
			if c := l.Chunk(k); c.PlainLen > 2*defaultSpacing+4096 {
				t.Errorf("chunk %d has %d bytes", k, c.PlainLen)
			}
		}
		checkLayout(t, l, stored, plain)
	}
}
