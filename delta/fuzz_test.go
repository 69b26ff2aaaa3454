package delta

import (
	"bytes"
	"io"
	"testing"
)

// FuzzRoundTrip checks that a new content comes back from its delta.
func FuzzRoundTrip(f *testing.F) {
	for _, c := range changes(4) {
		f.Add(c.old, c.new, byte(4), byte(0))
	}
	f.Add([]byte("hello world"), []byte("hello, world"), byte(3), byte(3))
	f.Fuzz(func(t *testing.T, old, fresh []byte, block, kinds byte) {
		b := int(block)%64 + 1
		magics := []uint32{DefaultMagic, magicRollBlake, magicRKMD4, magicRKBlake}
		magic := magics[kinds%4]
		raw := foreignSign(magic, old, b, 8)
		if magic == DefaultMagic && !bytes.Equal(raw, sign(t, old, b)) {
			t.Fatal("another signature")
		}
		d := diff(t, readSig(t, raw), bytes.NewReader(fresh))
		if got := patch(t, old, d); !bytes.Equal(got, fresh) {
			t.Fatalf("got %q, want %q", got, fresh)
		}
		var total int64
		for _, c := range commands(t, d) {
			total += c.Len
		}
		if total != int64(len(fresh)) {
			t.Fatalf("commands of %d bytes, want %d", total, len(fresh))
		}
	})
}

// FuzzReadSignature checks that what is read can be used.
func FuzzReadSignature(f *testing.F) {
	f.Add(sign(f, random(100, 1), 16))
	f.Add(foreignSign(magicRKBlake, random(100, 1), 16, 32))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := ReadSignature(bytes.NewReader(raw), 1000)
		if err != nil {
			return
		}
		if want := (len(raw) - 12) / (4 + s.strong); s.Blocks() != want {
			t.Fatalf("%d blocks of %d", s.Blocks(), want)
		}
		diff(t, s, bytes.NewReader(raw))
	})
}

// FuzzReadCommands checks that Patch and ReadCommands agree.
func FuzzReadCommands(f *testing.F) {
	f.Add(stream("72730236 02 6162 41 01 63 42 0001 64 43 00000001 65 44 0000000000000001 66 00"))
	f.Add(stream("72730236 45 01 02 4a 0003 0004 4f 00000005 00000006 54 0000000000000007 0000000000000008 00"))
	f.Add(stream("72730236 44 7fffffffffffff00 61"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var total int64
		inside := true
		err := ReadCommands(bytes.NewReader(raw), func(c Command) error {
			if c.Len <= 0 || c.Off < 0 || !c.Copy && c.Off > int64(len(raw)) {
				t.Fatalf("command %v", c)
			}
			if c.Copy && c.Off+c.Len > 100 {
				inside = false
			}
			total += c.Len
			return nil
		})
		if err == nil && total > 1<<20 {
			return
		}
		var out countWriter
		perr := Patch(bytes.NewReader(make([]byte, 100)), 100, bytes.NewReader(raw), &out)
		if (perr == nil) != (err == nil && inside) {
			t.Fatalf("ReadCommands %v, Patch %v", err, perr)
		}
		if perr == nil && int64(out) != total {
			t.Fatalf("wrote %d of %d", out, total)
		}
	})
}

// countWriter counts.
type countWriter int64

func (c *countWriter) Write(p []byte) (int, error) {
	*c += countWriter(len(p))
	return len(p), nil
}

var _ io.Writer = (*countWriter)(nil)
