package volume

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dupfs/chain"
	"dupfs/chain/pgp"
)

// benchPlain is 16 MiB that deflate to about half, or not at all.
func benchPlain(noise bool) []byte {
	b := make([]byte, 16<<20)
	if noise {
		rand.NewChaCha8([32]byte{}).Read(b)
		return b
	}
	part := sample(1<<20, 1)
	for i := 0; i < len(b); i += len(part) {
		copy(b[i:], part)
	}
	return b
}

func BenchmarkWriter(b *testing.B) {
	enc := testEncrypter(b)
	for name, noise := range map[string]bool{"text": false, "noise": true} {
		plain := benchPlain(noise)
		for _, layer := range layers {
			b.Run(layer.String()+"/"+name, func(b *testing.B) {
				b.SetBytes(int64(len(plain)))
				defer cpu(b, int64(len(plain)))()
				for b.Loop() {
					w, err := NewWriter(io.Discard, layer, enc, Options{Workers: 1})
					if err != nil {
						b.Fatal(err)
					}
					w.Write(plain)
					l, err := w.Close()
					if err != nil {
						b.Fatal(err)
					}
					b.ReportMetric(float64(l.StoredSize)/float64(len(plain)), "ratio")
				}
			})
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	enc := testEncrypter(b)
	for name, noise := range map[string]bool{"text": false, "noise": true} {
		plain := benchPlain(noise)
		for _, layer := range layers {
			stored, l := write(b, layer, enc, Options{}, plain)
			b.Run(layer.String()+"/"+name, func(b *testing.B) { benchDecode(b, l, stored) })
		}
	}
}

func benchDecode(b *testing.B, l *Layout, stored []byte) {
	b.SetBytes(l.PlainSize)
	b.ReportAllocs()
	var dst []byte
	defer cpu(b, l.PlainSize)()
	for b.Loop() {
		for k := range l.Len() {
			c := l.Chunk(k)
			var err error
			if dst, err = l.Decode(dst[:0], k, stored[c.StoredOff:c.StoredOff+c.StoredLen]); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// cpu reports plaintext per second of processor time, which a busy machine
// does not falsify.
func cpu(b *testing.B, n int64) func() {
	var from unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &from)
	return func() {
		var to unix.Rusage
		_ = unix.Getrusage(unix.RUSAGE_SELF, &to)
		used := time.Duration(to.Utime.Nano() + to.Stime.Nano() - from.Utime.Nano() - from.Stime.Nano())
		b.ReportMetric(float64(n)*float64(b.N)/used.Seconds()/1e6, "MB/cpu-s")
	}
}

// foreign is what GnuPG would write: one deflate stream, pieces of 8 KiB.
func foreign(b *testing.B, plain []byte) []byte {
	packed := append([]byte{0xa3, packedZIP}, deflated(literal(plain))...)
	return seal(b, pgp.TagProtected, packed)
}

func BenchmarkScanner(b *testing.B) {
	keys := pgp.NewKeys(passphrase)
	plain := benchPlain(false)
	ours, _ := write(b, chain.OpenPGP, testEncrypter(b), Options{}, plain)
	for name, stored := range map[string][]byte{"ours": ours, "foreign": foreign(b, plain)} {
		if _, err := readAll(stored, chain.OpenPGP, keys); err != nil { // derives the key
			b.Fatal(err)
		}
		b.Run("read "+name, func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			defer cpu(b, int64(len(plain)))()
			for b.Loop() {
				r, err := NewReader(context.Background(), bytes.NewReader(stored), chain.OpenPGP, keys, "file")
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, r); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("scan "+name, func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			defer cpu(b, int64(len(plain)))()
			for b.Loop() {
				r, err := NewScanner(context.Background(), bytes.NewReader(stored), chain.OpenPGP, keys, "file")
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	theirs := foreign(b, plain)
	_, l, err := scanAll(theirs, chain.OpenPGP, keys, defaultSpacing)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("decode foreign", func(b *testing.B) { benchDecode(b, l, theirs) })
}
