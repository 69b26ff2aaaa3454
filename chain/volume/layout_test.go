package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"dupfs/chain"
)

// A Layout that was stored and cut, or in which a byte has become another one,
// is refused, or leads to an error or the right bytes.
func TestLayoutDamage(t *testing.T) {
	plain := sample(3000, 1)
	files := map[string]struct {
		stored []byte
		l      *Layout
	}{}
	for _, layer := range layers {
		stored, l := write(t, layer, testEncrypter(t), Options{Chunk: 512, pieceBits: 9}, plain)
		files[layer.String()] = struct {
			stored []byte
			l      *Layout
		}{stored, l}
	}
	foreign := readFile(t, "symmetric/manifest.gpg")
	theirs, l, err := scanAll(foreign, chain.OpenPGP, theKeys(), 100)
	if err != nil {
		t.Fatal(err)
	}
	files["foreign"] = struct {
		stored []byte
		l      *Layout
	}{foreign, l}
	for name, f := range files {
		t.Run(name, func(t *testing.T) {
			plain := plain
			if name == "foreign" {
				plain = theirs
			}
			b, err := f.l.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			for n := range b {
				if new(Layout).UnmarshalBinary(b[:n]) == nil {
					t.Errorf("cut at %d of %d: accepted", n, len(b))
				}
			}
			refused := 0
			for i := range b {
				for _, v := range []byte{0, 1, 3, 0x7f, 0xff, b[i] + 1, b[i] ^ 0x40} {
					bad := bytes.Clone(b)
					bad[i] = v
					var l Layout
					if l.UnmarshalBinary(bad) != nil {
						refused++
						continue
					}
					checkBadLayout(t, &l, fmt.Sprintf("byte %d is %d", i, v), f.stored, plain)
				}
			}
			if refused == 0 {
				t.Error("nothing was refused")
			}
			if new(Layout).UnmarshalBinary(append(b, 0)) == nil {
				t.Error("with a byte too much: accepted")
			}
		})
	}
}

// checkBadLayout decodes what a damaged Layout tells of a file. Its first chunks
// are enough.
func checkBadLayout(t *testing.T, l *Layout, what string, stored, plain []byte) {
	t.Helper()
	for k := range min(l.Len(), 4) {
		c := l.Chunk(k)
		if c.StoredOff < 0 || c.StoredLen < 0 || c.StoredOff+c.StoredLen > int64(len(stored)) || c.PlainLen > 1<<20 {
			continue // it cannot be fetched
		}
		got, err := l.Decode(nil, k, stored[c.StoredOff:c.StoredOff+c.StoredLen])
		if err == nil && !bytes.Contains(plain, got) {
			t.Errorf("%s: wrong bytes of chunk %d", what, k)
		}
	}
}

// Whatever goes wrong with whichever request, a trailer is what it is, or there
// is an error; and a failing store is not damage, nor a foreign file.
func TestTrailerFaults(t *testing.T) {
	broken := errors.New("connection lost")
	plain := make([]byte, 2<<20) // with a table longer than one request
	rand.NewChaCha8([32]byte{1}).Read(plain)
	for _, layer := range layers[1:] {
		stored, want := write(t, layer, testEncrypter(t), Options{Chunk: 512, pieceBits: 16}, plain)
		_, gets, err := trailerOf(stored, layer, theKeys())
		if err != nil || gets < 2 {
			t.Fatalf("%v: %d requests, %v", layer, gets, err)
		}
		faults := map[string]func(b []byte) ([]byte, error){
			"failing":   func([]byte) ([]byte, error) { return nil, broken },
			"short":     func(b []byte) ([]byte, error) { return b[:len(b)-1], nil },
			"empty":     func([]byte) ([]byte, error) { return nil, nil },
			"too long":  func(b []byte) ([]byte, error) { return append(b, 0), nil },
			"wrong":     func(b []byte) ([]byte, error) { b[len(b)/2] ^= 1; return b, nil },
			"wrong end": func(b []byte) ([]byte, error) { b[len(b)-30] ^= 1; return b, nil },
		}
		for nth := range gets {
			for name, fault := range faults {
				n := 0
				get := func(_ context.Context, off, size int64) ([]byte, error) {
					b := bytes.Clone(stored[off : off+size])
					if n++; n-1 == nth {
						return fault(b)
					}
					return b, nil
				}
				l, err := ReadTrailer(t.Context(), get, int64(len(stored)), layer, theKeys(), "file")
				switch {
				case name == "failing":
					if !errors.Is(err, broken) || errors.Is(err, ErrForeign) {
						t.Errorf("%v, request %d: %v", layer, nth, err)
					}
				case err == nil && (l.PlainSize != want.PlainSize || l.Len() != want.Len()):
					t.Errorf("%v, %s answer to request %d: another layout", layer, name, nth)
				case err == nil && name != "wrong" && name != "wrong end": // not every bit tells something
					t.Errorf("%v, %s answer to request %d: accepted", layer, name, nth)
				}
			}
		}
	}
	// A file of which only the recovery files are left has no size.
	get := func(context.Context, int64, int64) ([]byte, error) { t.Fatal("asked"); return nil, nil }
	for _, layer := range layers {
		if _, err := ReadTrailer(t.Context(), get, -1, layer, theKeys(), "file"); !errors.Is(err, ErrForeign) {
			t.Errorf("%v without a size: %v", layer, err)
		}
	}
}
