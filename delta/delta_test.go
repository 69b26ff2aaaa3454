package delta

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/crypto/blake2b"
	//lint:ignore SA1019 the oracle for our own
	"golang.org/x/crypto/md4"
)

// sign returns our signature of p.
func sign(t testing.TB, p []byte, block int) []byte {
	t.Helper()
	var b bytes.Buffer
	s := NewSigner(&b, block)
	if _, err := s.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// readSig reads a signature.
func readSig(t testing.TB, p []byte) *Signature {
	t.Helper()
	s, err := ReadSignature(bytes.NewReader(p), MaxBlocks)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkSink checks the rules of Sink on the way to an Encoder.
type checkSink struct {
	t   testing.TB
	e   *Encoder
	end int64 // of the last copy, -1 after a literal
}

func (c *checkSink) Copy(off, n int64) error {
	if n <= 0 || off < 0 || off == c.end {
		c.t.Errorf("copy of %d at %d after one to %d", n, off, c.end)
	}
	c.end = off + n
	return c.e.Copy(off, n)
}

func (c *checkSink) Literal(p []byte) error {
	if len(p) < 1 || len(p) > maxLiteral {
		c.t.Errorf("literal of %d bytes", len(p))
	}
	c.end = -1
	return c.e.Literal(p)
}

// diff returns the delta of content against a signature.
func diff(t testing.TB, s *Signature, content io.Reader) []byte {
	t.Helper()
	var b bytes.Buffer
	e := NewEncoder(&b)
	if err := Diff(s, content, &checkSink{t, e, -1}); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if e.Len() != int64(b.Len()) {
		t.Errorf("Len %d, is %d", e.Len(), b.Len())
	}
	return b.Bytes()
}

// patch applies a delta.
func patch(t testing.TB, old, d []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Patch(bytes.NewReader(old), int64(len(old)), bytes.NewReader(d), &out); err != nil {
		t.Fatalf("patch: %v", err)
	}
	return out.Bytes()
}

// random returns n bytes that depend on seed only.
func random(n int, seed uint64) []byte {
	p := make([]byte, n+8)
	r := rand.NewPCG(seed, 1)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], r.Uint64())
	}
	return p[:n]
}

// cat joins.
func cat(p ...[]byte) []byte { return bytes.Join(p, nil) }

func TestSignatureBytes(t *testing.T) {
	for _, row := range []struct{ in, want string }{
		{"hello\n", "72730136 00000200 00000008 0ad002d8 63481c78ae04c201"},
		{"", "72730136 00000200 00000008"},
	} {
		if got := hex.EncodeToString(sign(t, []byte(row.in), 512)); got != strings.ReplaceAll(row.want, " ", "") {
			t.Errorf("%q: %s, want %s", row.in, got, row.want)
		}
	}
}

func TestSignerPieces(t *testing.T) {
	p := random(300, 1)
	for _, block := range []int{1, 4, 63, 64, 65, 300, 512} {
		want := sign(t, p, block)
		for _, piece := range []int{1, 3, 64, 100} {
			var b bytes.Buffer
			s := NewSigner(&b, block)
			if _, err := io.CopyBuffer(s, onlyReader{bytes.NewReader(p)}, make([]byte, piece)); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b.Bytes(), want) {
				t.Errorf("block %d, written by %d: another signature", block, piece)
			}
			if err := s.Close(); err == nil {
				t.Error("second Close succeeds")
			}
		}
	}
	if _, err := NewSigner(io.Discard, 0).Write([]byte("x")); err == nil {
		t.Error("block length 0 accepted")
	}
}

func TestMD4(t *testing.T) {
	p := random(400, 2)
	for n := range p {
		h := md4.New()
		h.Write(p[:n])
		for _, cut := range []int{0, 1, 63, 64, 65} {
			var m md4State
			m.reset()
			m.write(p[:min(cut, n)])
			m.write(p[min(cut, n):n])
			if got := m.sum(); string(got[:]) != string(h.Sum(nil)) {
				t.Fatalf("%d bytes, cut at %d: %x", n, cut, got)
			}
		}
	}
}

func TestWeakSums(t *testing.T) {
	p := random(200, 3)
	for n := range p {
		var s1, s2 uint16
		h := uint32(1)
		for _, c := range p[:n] {
			s1 += uint16(c) + 31
			s2 += s1
			h = h*0x08104225 + uint32(c)
		}
		if got := (kind{}).weak(p[:n]); got != uint32(s2)<<16|uint32(s1) {
			t.Fatalf("rollsum of %d bytes: %08x", n, got)
		}
		if got := (kind{rk: true}).weak(p[:n]); got != h {
			t.Fatalf("RabinKarp of %d bytes: %08x, want %08x", n, got, h)
		}
	}
}

// foreignSign makes a signature of any kind, the slow way.
func foreignSign(magic uint32, p []byte, block, strong int) []byte {
	k, _ := kindOf(magic)
	out := binary.BigEndian.AppendUint32(nil, magic)
	out = binary.BigEndian.AppendUint32(out, uint32(block))
	out = binary.BigEndian.AppendUint32(out, uint32(strong))
	for ; len(p) > 0; p = p[min(block, len(p)):] {
		b := p[:min(block, len(p))]
		out = binary.BigEndian.AppendUint32(out, k.weak(b))
		sum := blake2b.Sum256(b)
		s := sum[:]
		if !k.blake {
			h := md4.New()
			h.Write(b)
			s = h.Sum(nil)
		}
		out = append(out, s[:strong]...)
	}
	return out
}

// change is an old and a new content, and the most that the delta may take.
type change struct {
	name     string
	old, new []byte
	most     int // -1: as much as it wants
}

// changes returns the cases for a block length.
func changes(b int) []change {
	r := random(40*b+b/2, 5)
	n := len(r)
	zero := make([]byte, 30*b)
	flip := bytes.Clone(r)
	flip[7*b] ^= 1
	return []change{
		{"both empty", nil, nil, 5},
		{"from empty", nil, r, n + 20},
		{"to empty", r, nil, 5},
		{"same", r, r, 10},
		{"same, whole blocks", r[:40*b], r[:40*b], 10},
		{"shorter than a block", r[:b-1], r[:b-1], 10},
		{"one block", r[:b], r[:b], 10},
		{"one block and a byte", r[:b+1], r[:b+1], 10},
		{"insert at the front", r, cat([]byte("abc"), r), 20},
		{"insert in a block", r, cat(r[:5*b+1], []byte("x"), r[5*b+1:]), b + 40},
		{"delete in a block", r, cat(r[:5*b], r[5*b+1:]), b + 40},
		{"delete blocks", r, cat(r[:5*b], r[9*b:]), 30},
		{"change in place", r, flip, b + 40},
		{"append", r, cat(r, []byte("tail")), b/2 + 30},
		{"append to whole blocks", r[:40*b], cat(r[:40*b], []byte("tail")), 30},
		{"cut in a block", r, r[:30*b+1], 30},
		{"halves swapped", r, cat(r[20*b:], r[:20*b]), b/2 + 40},
		{"halves swapped, whole blocks", r[:40*b], cat(r[20*b:40*b], r[:20*b]), 30},
		{"doubled", r[:40*b], cat(r[:40*b], r[:40*b]), 30},
		{"a block repeated", r[:40*b], bytes.Repeat(r[3*b:4*b], 5), 40},
		{"last short block alone", r, r[40*b:], 12},
		{"last short block after other bytes", r, cat([]byte("zz"), r[40*b:]), 20},
		{"zeros", zero, zero, 10},
		{"fewer zeros", zero, zero[:10*b+1], 20},
		{"more zeros", zero[:10*b], zero, 40},
		{"zeros and a byte", zero, cat(zero[:9*b], []byte{1}, zero[:9*b]), 40},
		{"zeros within", cat(r[:5*b], zero, r[5*b:]), cat(r[:5*b], zero, r[5*b:]), 12},
		{"zeros changed within", cat(r[:5*b], zero, r[5*b:]), cat(r[:5*b], zero[:9*b], r[:b/2], zero[9*b+b/2:], r[5*b:]), b + 50},
		{"nothing alike", r, random(33*b, 6), -1},
		{"two letters", bytes.Repeat([]byte("ab"), 9*b), bytes.Repeat([]byte("aab"), 9*b), -1},
	}
}

func TestDiff(t *testing.T) {
	for _, b := range []int{4, 5, 7, 16, 63, 64, 512} {
		for _, c := range changes(b) {
			t.Run(fmt.Sprintf("%d/%s", b, c.name), func(t *testing.T) {
				sig := readSig(t, sign(t, c.old, b))
				d := diff(t, sig, bytes.NewReader(c.new))
				if got := patch(t, c.old, d); !bytes.Equal(got, c.new) {
					t.Fatalf("patched %d bytes, want %d", len(got), len(c.new))
				}
				// Blocks of 4 or 5 random bytes may lie closer together.
				if c.most >= 0 && len(d) > c.most {
					t.Errorf("delta of %d bytes, at most %d expected", len(d), c.most)
				}
				slow := diff(t, sig, iotest.OneByteReader(bytes.NewReader(c.new)))
				if !bytes.Equal(slow, d) {
					t.Error("read by single bytes, the delta is another")
				}
			})
		}
	}
}

func TestDiffAllKinds(t *testing.T) {
	const b = 16
	for _, magic := range []uint32{DefaultMagic, magicRollBlake, magicRKMD4, magicRKBlake} {
		k, _ := kindOf(magic)
		for _, strong := range []int{8, 13, k.maxStrong()} {
			for _, c := range changes(b) {
				sig := readSig(t, foreignSign(magic, c.old, b, strong))
				d := diff(t, sig, bytes.NewReader(c.new))
				if got := patch(t, c.old, d); !bytes.Equal(got, c.new) {
					t.Errorf("%08x/%d %s: wrong bytes", magic, strong, c.name)
				}
				if c.most >= 0 && len(d) > c.most {
					t.Errorf("%08x/%d %s: delta of %d bytes, at most %d expected", magic, strong, c.name, len(d), c.most)
				}
			}
		}
	}
}

// commands returns the commands of a delta.
func commands(t testing.TB, d []byte) []Command {
	t.Helper()
	var out []Command
	err := ReadCommands(bytes.NewReader(d), func(c Command) error {
		out = append(out, c)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A change in a long run of equal blocks must not restart the copy at the
// first of them: the copy that follows lies where the last one leads.
func TestPrefersTheBlockThatGoesOn(t *testing.T) {
	const b = 64
	old := cat(random(b, 1), make([]byte, 100*b), random(b, 2))
	changed := bytes.Clone(old)
	changed[50*b] = 1
	got := commands(t, diff(t, readSig(t, sign(t, old, b)), bytes.NewReader(changed)))
	// The zeros after the byte match at once, one byte further on; but the
	// last blocks must again lie where they were.
	last := got[len(got)-1]
	if end := last.Off + last.Len; !last.Copy || end != int64(len(old)) || len(got) > 5 {
		t.Errorf("commands %v", got)
	}
}

// hashed counts what a Diff hashes in vain.
func hashed(t *testing.T, sig *Signature, p []byte) int64 {
	d := &differ{sig: sig, r: bytes.NewReader(p), sink: NewEncoder(io.Discard), b: sig.blockLen, pow: rkPow(sig.blockLen)}
	for {
		ok, err := d.have(d.b)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		d.start(d.buf[d.pos : d.pos+d.b])
		if err := d.scan(); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.tail(); err != nil {
		t.Fatal(err)
	}
	return d.spent
}

// The weak sum of the new content's every window is in the signature, but not
// its strong sum: without a limit every position would cost a block.
func TestHostileWeakSums(t *testing.T) {
	const b = 32 << 10
	old := make([]byte, 4*b)
	// Moving 1 from the ends to the middle keeps both parts of the sum.
	for i := range 4 {
		q := old[i*b : (i+1)*b]
		for j := range q {
			q[j] = 7
		}
		q[100+i]--
		q[200+i] += 2
		q[300+i]--
	}
	sig := readSig(t, sign(t, old, b))
	fresh := bytes.Repeat([]byte{7}, 4<<20)
	if !sig.hasWeak(kind{}.weak(fresh[:b])) {
		t.Fatal("the weak sums do not collide: the test is wrong")
	}
	spent := hashed(t, sig, fresh)
	if limit := int64(2*len(fresh) + 1<<20 + 9*b); spent > limit || spent < limit/2 {
		t.Errorf("hashed %d bytes in vain, limit %d", spent, limit)
	}
}

func TestDiffErrors(t *testing.T) {
	old := random(1000, 1)
	sig := readSig(t, sign(t, old, 16))
	bad := errors.New("bad")
	content := cat(old[:500], []byte("?"), old[500:], random(200000, 9))
	err := Diff(sig, io.MultiReader(bytes.NewReader(content), iotest.ErrReader(bad)), NewEncoder(io.Discard))
	if err != bad {
		t.Errorf("reader's error: %v", err)
	}
	for n := range 8 {
		if err := Diff(sig, bytes.NewReader(content), &failSink{n, bad}); err != bad && n < 6 {
			t.Errorf("sink's error at call %d: %v", n, err)
		}
	}
	if err := Diff(sig, iotest.DataErrReader(bytes.NewReader(content)), NewEncoder(io.Discard)); err != nil {
		t.Errorf("data with the end: %v", err)
	}
	if err := Diff(sig, idle{}, NewEncoder(io.Discard)); err != io.ErrNoProgress {
		t.Errorf("idle reader: %v", err)
	}
}

// failSink fails after n calls.
type failSink struct {
	n   int
	err error
}

func (f *failSink) Copy(int64, int64) error {
	if f.n--; f.n < 0 {
		return f.err
	}
	return nil
}
func (f *failSink) Literal([]byte) error { return f.Copy(0, 0) }

// idle reads nothing, for ever.
type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

func TestReadSignatureErrors(t *testing.T) {
	good := sign(t, random(100, 1), 16)
	head := func(magic, block, strong uint32) []byte {
		p := binary.BigEndian.AppendUint32(nil, magic)
		p = binary.BigEndian.AppendUint32(p, block)
		return binary.BigEndian.AppendUint32(p, strong)
	}
	for _, row := range []struct {
		name string
		in   []byte
		want error // nil: any
	}{
		{"empty", nil, io.ErrUnexpectedEOF},
		{"cut header", good[:11], io.ErrUnexpectedEOF},
		{"cut record", good[:len(good)-1], io.ErrUnexpectedEOF},
		{"cut to a byte of a record", good[:13], io.ErrUnexpectedEOF},
		{"magic", head(0x72730236, 16, 8), nil},
		{"block length 0", head(DefaultMagic, 0, 8), nil},
		{"giant block", head(DefaultMagic, 0xffffffff, 8), ErrTooLarge},
		{"no strong sum", head(DefaultMagic, 16, 0), ErrWeak},
		{"short strong sum", head(DefaultMagic, 16, 7), ErrWeak},
		{"long strong sum", head(DefaultMagic, 16, 17), nil},
		{"giant strong sum", head(magicRKBlake, 16, 0x80000000), nil},
	} {
		_, err := ReadSignature(bytes.NewReader(row.in), 100)
		if err == nil || row.want != nil && !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", row.name, err, row.want)
		}
	}
	if _, err := ReadSignature(bytes.NewReader(good), 6); !errors.Is(err, ErrTooLarge) {
		t.Errorf("7 blocks of 6: %v", err)
	}
	if s, err := ReadSignature(bytes.NewReader(good), 7); err != nil || s.Blocks() != 7 || s.BlockLen() != 16 {
		t.Errorf("7 blocks of 7: %v", err)
	}
}

func TestBlockLen(t *testing.T) {
	for _, row := range []struct {
		size int64
		want int
	}{
		{-1, 512}, {0, 512}, {1024000, 512}, {2047999, 512}, {2048000, 1024}, {3072000, 1536},
		{4095999, 1536}, {4096000, 2048}, {1 << 33, 2048}, {1<<33 + 1, 2560},
		{1 << 40, 256 << 10}, {math.MaxInt64, MaxBlockLen},
	} {
		got := BlockLen(row.size)
		if got != row.want {
			t.Errorf("%d: %d, want %d", row.size, got, row.want)
		}
		if row.size < 1<<47 && (row.size+int64(got)-1)/int64(got) > MaxBlocks {
			t.Errorf("%d: more than %d blocks", row.size, MaxBlocks)
		}
	}
}

func TestEncoder(t *testing.T) {
	var b bytes.Buffer
	e := NewEncoder(&b)
	var want []Command
	for _, off := range []int64{0, 1, 255, 256, 65535, 65536, 1<<32 - 1, 1 << 32, math.MaxInt64 >> 1} {
		for _, n := range []int64{1, 255, 256, 65535, 65536, 1<<32 - 1, 1 << 32} {
			if err := e.Copy(off, n); err != nil {
				t.Fatal(err)
			}
			want = append(want, Command{true, off, n})
		}
	}
	for _, n := range []int{0, 1, 64, 65, 255, 256, 65535, 65536, 70000} {
		if err := e.Literal(random(n, 1)); err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			want = append(want, Command{false, e.LiteralOff(), int64(n)})
		}
	}
	if err := errors.Join(e.Copy(7, 0), e.Close()); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(commands(t, b.Bytes())); got != fmt.Sprint(want) {
		t.Errorf("got  %s\nwant %v", got, want)
	}
	for _, c := range want[63:] {
		if p := b.Bytes()[c.Off : c.Off+c.Len]; !bytes.Equal(p, random(int(c.Len), 1)) {
			t.Errorf("literal of %d at %d holds other bytes", c.Len, c.Off)
		}
	}
	if e.Close() == nil || e.Copy(0, 1) == nil || NewEncoder(&b).Copy(-1, 1) == nil {
		t.Error("misuse succeeds")
	}
}

// stream makes a delta from hex.
func stream(s string) []byte {
	p, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return p
}

func TestReadCommands(t *testing.T) {
	for _, row := range []struct {
		name, in, want string // want: the commands, or part of the error
	}{
		{"empty file", "72730236 00", "[]"},
		{"literals", "72730236 02 6162 41 01 63 42 0001 64 43 00000001 65 44 0000000000000001 66 00",
			"[{false 5 2} {false 9 1} {false 13 1} {false 19 1} {false 29 1}]"},
		{"copies", "72730236 45 01 02 4a 0003 0004 4f 00000005 00000006 54 0000000000000007 0000000000000008 00",
			"[{true 1 2} {true 3 4} {true 5 6} {true 7 8}]"},
		{"mixed widths", "72730236 46 00 0bb8 51 0000000000000001 02 00", "[{true 0 3000} {true 1 2}]"},
		{"no length", "72730236 41 00 45 00 00 01 61 00", "[{false 10 1}]"},
		{"nothing", "", "unexpected EOF"},
		{"cut magic", "727302", "unexpected EOF"},
		{"no END", "72730236", "unexpected EOF"},
		{"no END after a command", "72730236 45 01 02", "unexpected EOF"},
		{"cut copy", "72730236 4a 0003 00", "unexpected EOF"},
		{"cut length", "72730236 44 00000000", "unexpected EOF"},
		{"cut literal", "72730236 03 6162", "unexpected EOF"},
		{"giant literal", "72730236 44 7fffffffffffff00 61", "unexpected EOF"},
		{"literal over 1<<63", "72730236 44 8000000000000000 61", "too large"},
		{"copy over 1<<63", "72730236 54 ffffffffffffffff 0000000000000001 00", "too large"},
		{"sum overflows", "72730236 48 00 7fffffffffffffff 45 00 01 00", "overflow"},
		{"end of copy overflows", "72730236 54 7fffffffffffffff 0000000000000001 00", "overflow"},
		{"reserved", "72730236 55 00", "reserved command 55"},
		{"reserved ff", "72730236 ff 00", "reserved command ff"},
		{"magic of a signature", "72730136 00", "magic 72730136"},
		{"goes on", "72730236 00 00", "goes on"},
	} {
		var got []Command
		err := ReadCommands(iotest.OneByteReader(bytes.NewReader(stream(row.in))), func(c Command) error {
			got = append(got, c)
			return nil
		})
		if err == nil && fmt.Sprint(got) != row.want || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, %v, want %s", row.name, got, err, row.want)
		}
		if strings.Contains(row.want, "EOF") && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v is not io.ErrUnexpectedEOF", row.name, err)
		}
	}
	bad := errors.New("bad")
	if err := ReadCommands(bytes.NewReader(stream("72730236 01 61 00")), func(Command) error { return bad }); err != bad {
		t.Errorf("error of fn: %v", err)
	}
	if err := ReadCommands(iotest.ErrReader(bad), func(Command) error { return nil }); !errors.Is(err, bad) {
		t.Errorf("error of the reader: %v", err)
	}
}

func TestPatchErrors(t *testing.T) {
	bad := errors.New("bad")
	for _, row := range []struct {
		name, delta string
		size        int64
		want        string
	}{
		{"in the basis", "72730236 45 02 08 00", 10, ""},
		{"beyond by one", "72730236 45 03 08 00", 10, "copy of 8 bytes at 3 of a file of 10"},
		{"begins beyond", "72730236 45 0b 01 00", 10, "copy of 1"},
		{"giant", "72730236 54 0000000000000001 7ffffffffffffff0 00", 10, "copy of"},
		{"basis shorter than said", "72730236 45 02 09 00", 11, "unexpected EOF"},
		{"cut literal", "72730236 05 61", 10, "unexpected EOF"},
		{"no END", "72730236 01 61", 10, "unexpected EOF"},
	} {
		err := Patch(strings.NewReader("0123456789"), row.size, bytes.NewReader(stream(row.delta)), io.Discard)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
	for _, d := range []string{"72730236 45 00 01 00", "72730236 01 61 00"} {
		if err := Patch(strings.NewReader("0"), 1, bytes.NewReader(stream(d)), failWriter{bad}); err != bad {
			t.Errorf("%s: error of the writer: %v", d, err)
		}
	}
}

// failWriter fails.
type failWriter struct{ err error }

func (f failWriter) Write([]byte) (int, error) { return 0, f.err }

func TestWriterErrors(t *testing.T) {
	bad := errors.New("bad")
	s := NewSigner(failWriter{bad}, 4)
	s.Write(random(100000, 1))
	if err := s.Close(); err != bad {
		t.Errorf("Signer: %v", err)
	}
	e := NewEncoder(failWriter{bad})
	e.Literal(random(100, 1))
	if err := e.Close(); err != bad {
		t.Errorf("Encoder: %v", err)
	}
}

// One byte of memory a position would be seen here, and a table of slices.
func TestSignatureMemory(t *testing.T) {
	const n = 1 << 16
	s := readSig(t, sign(t, random(n*4, 1), 4))
	total := cap(s.recs) + 4*cap(s.weaks) + 4*cap(s.blocks) + 8*cap(s.filter)
	if s.Blocks() != n || total > 40*n {
		t.Errorf("%d bytes for %d blocks", total, s.Blocks())
	}
}
