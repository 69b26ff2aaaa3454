package pgp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"dupfs/chain"
)

func TestLengths(t *testing.T) {
	for _, n := range []int64{0, 1, 191, 192, 193, 8383, 8384, 8385, 65535, 65536, 1 << 20, 1<<32 - 1} {
		b := AppendLength(nil, n)
		for i := range b {
			if _, m, err := ParseLength(b[:i]); m != 0 || err != nil {
				t.Errorf("%d cut at %d: %d, %v", n, i, m, err)
			}
		}
		l, m, err := ParseLength(append(b, 0))
		if err != nil || m != len(b) || l != (Length{N: n}) {
			t.Errorf("%d: %+v, %d, %v", n, l, m, err)
		}
	}
	for power := range 31 {
		l, n, err := ParseLength([]byte{Partial(power)})
		if err != nil || n != 1 || l != (Length{N: 1 << power, Partial: true}) {
			t.Errorf("1<<%d: %+v", power, l)
		}
	}
}

func TestHeaders(t *testing.T) {
	for _, c := range []struct {
		bytes string
		tag   int
		l     Length
	}{
		{"\x84\x05", 1, Length{N: 5}},
		{"\x85\x01\x02", 1, Length{N: 0x102}},
		{"\x86\x01\x02\x03\x04", 1, Length{N: 0x1020304}},
		{"\xa3", 8, Length{N: -1}},
		{"\xc3\x0d", 3, Length{N: 13}},
		{"\xd2\xed", 18, Length{N: 8192, Partial: true}},
		{"\xd2\xc0\x00", 18, Length{N: 192}},
		{"\xd2\xff\x00\x01\x00\x00", 18, Length{N: 65536}},
	} {
		for i := range c.bytes {
			if _, _, n, err := ParseHeader([]byte(c.bytes[:i])); n != 0 || err != nil {
				t.Errorf("%q cut at %d: %d, %v", c.bytes, i, n, err)
			}
			_, _, _, err := ReadHeader(bufio.NewReader(strings.NewReader(c.bytes[:i])))
			if want := io.ErrUnexpectedEOF; i > 0 && err != want || i == 0 && err != io.EOF {
				t.Errorf("%q cut at %d: %v", c.bytes, i, err)
			}
		}
		tag, l, n, err := ParseHeader([]byte(c.bytes + "more"))
		if err != nil || tag != c.tag || l != c.l || n != len(c.bytes) {
			t.Errorf("%q: %d %+v %d %v", c.bytes, tag, l, n, err)
		}
	}
	if _, _, _, err := ParseHeader([]byte("hello")); err != ErrPacket {
		t.Errorf("text: %v", err)
	}
}

func TestBody(t *testing.T) {
	content := []byte(strings.Repeat("0123456789", 100))
	pieces := append([]byte{Partial(9)}, content[:512]...)
	pieces = append(append(pieces, Partial(0)), content[512])
	pieces = append(append(pieces, Partial(8)), content[513:769]...)
	pieces = append(AppendLength(pieces, int64(len(content)-769)), content[769:]...)
	open := func(b []byte, l Length) *Body {
		return NewBody(bufio.NewReader(iotest.HalfReader(bytes.NewReader(b))), l)
	}
	for name, b := range map[string]*Body{
		"pieces":  open(pieces[1:], Length{N: 512, Partial: true}),
		"one":     open(append(content, "behind"...), Length{N: int64(len(content))}),
		"endless": open(content, Length{N: -1}),
	} {
		var seen []int64
		b.OnPiece = func(header int, n int64) { seen = append(seen, int64(header), n) }
		if head, err := b.Peek(700); err != nil || !bytes.Equal(head, content[:700]) {
			t.Errorf("%s: peeked %d, %v", name, len(head), err)
		}
		if head, err := b.Peek(5); err != nil || len(head) < 5 || !bytes.Equal(head, content[:len(head)]) {
			t.Errorf("%s: peeked again %q, %v", name, head, err)
		}
		if got, err := b.ReadAll(1000); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if name == "pieces" && fmt.Sprint(seen) != "[1 1 1 256 2 231]" {
			t.Errorf("pieces %v", seen)
		}
	}
	for n := range len(pieces) - 1 {
		b := open(pieces[1:1+n], Length{N: 512, Partial: true})
		if _, err := io.Copy(io.Discard, b); err != io.ErrUnexpectedEOF {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	if _, err := open(pieces[1:], Length{N: 512, Partial: true}).ReadAll(999); err == nil {
		t.Error("more than the limit was read")
	}
	short := open(content[:10], Length{N: 10})
	if head, err := short.Peek(20); err != nil || len(head) != 10 {
		t.Errorf("peeked %d of 10, %v", len(head), err)
	}
}

// CFB is held against the standard library, in steps of any length.
func TestCFB(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for number := range byte(14) {
		spec := specOf(number)
		if spec.newCipher == nil {
			continue
		}
		key, iv, plain := make([]byte, spec.key), make([]byte, spec.block), make([]byte, 1000)
		for _, b := range [][]byte{key, iv, plain} {
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
		}
		block, _ := spec.newCipher(key)
		want := make([]byte, len(plain))
		//lint:ignore SA1019 the mode that OpenPGP prescribes
		cipher.NewCFBEncrypter(block, iv).XORKeyStream(want, plain) //nolint:staticcheck // the oracle
		got := bytes.Clone(plain)
		c := NewCFB(block, iv)
		for rest := got; len(rest) > 0; {
			n := min(rng.IntN(40), len(rest))
			c.Encrypt(rest[:n])
			rest = rest[n:]
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: encrypted otherwise", spec.name)
		}
		for range 50 {
			from := rng.IntN(len(plain)/spec.block) * spec.block
			to := from + rng.IntN(len(plain)-from)
			iv := iv
			if from > 0 {
				iv = want[from-spec.block : from]
			}
			got := make([]byte, to-from)
			if DecryptCFB(block, got, want[from:to], iv); !bytes.Equal(got, plain[from:to]) {
				t.Errorf("%s: %d..%d decrypted otherwise", spec.name, from, to)
			}
		}
	}
}

// TestDecryptCFB holds what is decrypted side by side against the standard
// library: all lengths around the groups, keys of all sizes, any alignment, and
// not a byte beyond the end.
func TestDecryptCFB(t *testing.T) {
	rng := rand.NewChaCha8([32]byte{1})
	for _, keyLen := range []int{16, 24, 32} {
		for n := range 600 {
			if n > 300 && n%7 > 0 {
				continue
			}
			key, iv, plain := make([]byte, keyLen), make([]byte, aes.BlockSize), make([]byte, n)
			for _, b := range [][]byte{key, iv, plain} {
				rng.Read(b)
			}
			block, err := aes.NewCipher(key)
			if err != nil {
				t.Fatal(err)
			}
			stored := make([]byte, n+n%16)[n%16:]
			//lint:ignore SA1019 the mode that OpenPGP prescribes
			cipher.NewCFBEncrypter(block, iv).XORKeyStream(stored, plain) //nolint:staticcheck // the oracle
			ours, err := newAES(key)
			if err != nil {
				t.Fatal(err)
			}
			out := bytes.Repeat([]byte{0xa5}, n+40)
			if DecryptCFB(ours, out[:n:n], stored, iv); !bytes.Equal(out[:n], plain) {
				t.Errorf("AES-%d, %d bytes: decrypted otherwise", 8*keyLen, n)
			}
			if !bytes.Equal(out[n:], bytes.Repeat([]byte{0xa5}, 40)) {
				t.Errorf("AES-%d, %d bytes: written beyond the end", 8*keyLen, n)
			}
		}
	}
}

// BenchmarkDecryptCFB decrypts what a chunk holds.
func BenchmarkDecryptCFB(b *testing.B) {
	block, err := Session{AES256, make([]byte, 32)}.Block()
	if err != nil {
		b.Fatal(err)
	}
	src, dst, iv := make([]byte, 160<<10), make([]byte, 160<<10), make([]byte, 16)
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		DecryptCFB(block, dst, src, iv)
	}
}

// message is a message with a session key of e's and some text.
func message(t testing.TB, e *Encrypter, inner string) []byte {
	t.Helper()
	esk, key, err := e.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	block, _ := aes.NewCipher(key)
	body := append(bytes.Repeat([]byte{3}, 18), inner...)
	NewCFB(block, make([]byte, 16)).Encrypt(body)
	b := append(esk, 0xc0|TagProtected)
	return append(append(AppendLength(b, int64(len(body)+1)), 1), body...)
}

func open(k *Keys, b []byte) (*Message, error) {
	return k.Open(context.Background(), bufio.NewReader(bytes.NewReader(b)), "file")
}

const inner = "\xcb\x40b\x00\x00\x00\x00\x00literal"

func TestOpen(t *testing.T) {
	e, err := NewEncrypter("right")
	if err != nil {
		t.Fatal(err)
	}
	one, two := message(t, e, inner), message(t, e, inner)
	keys := NewKeys("wrong", "right")
	m1, err := open(keys, one)
	if err != nil {
		t.Fatal(err)
	}
	m2, err := open(keys, two)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(m1.Session.Key, m2.Session.Key) {
		t.Error("two files with one session key")
	}
	if len(keys.derived) != 2 {
		t.Errorf("%d keys derived for two passphrases of one run", len(keys.derived))
	}
	if m1.Tag != TagProtected || m1.LengthOff != 49 || m1.LengthLen != 1 {
		t.Errorf("%+v", m1)
	}
	if _, err := open(NewKeys("wrong"), one); !errors.Is(err, chain.ErrNoKey) || !strings.HasPrefix(err.Error(), "file: wrong passphrase") {
		t.Errorf("wrong passphrase: %v", err)
	}
	if _, err := open(NewKeys(), one); !errors.Is(err, chain.ErrNoPassphrase) {
		t.Errorf("no passphrase: %v", err)
	}
	// Two recipients by passphrase: either opens.
	other, _ := NewEncrypter("other")
	esk, _, _ := other.NewSession()
	if _, err := open(keys, append(esk, one...)); err != nil {
		t.Errorf("second of two session keys: %v", err)
	}
	if _, err := NewEncrypter(""); err == nil {
		t.Error("an empty passphrase was taken")
	}
}

func TestOpenRefuses(t *testing.T) {
	e, _ := NewEncrypter("right")
	sound := message(t, e, inner)
	keys := NewKeys("right")
	for name, c := range map[string]struct {
		b       []byte
		corrupt bool
	}{
		"nothing":           {nil, true},
		"cut":               {sound[:40], true},
		"cut in the header": {sound[:49], true},
		"text":              {[]byte("hello, this is no OpenPGP message"), true},
		"not encrypted":     {[]byte(inner), true},
		"a user id":         {append([]byte{0xc0 | 13, 1, 'x'}, sound...), true},
		"no session key":    {sound[48:], false},
		"version 2":         {append(append([]byte{}, sound[:50]...), append([]byte{2}, sound[51:]...)...), false},
		"partial":           {append([]byte{0xc3, Partial(4)}, sound...), true},
		"too many":          {bytes.Repeat([]byte{0xc3, 3, 4, 9, 0}, maxESKs+1), true},
		"Argon2 of 2 TiB":   {append([]byte("\xc3\x16\x04\x09\x04"+strings.Repeat("s", 16)+"\x01\x01\x1f"), sound[48:]...), false},
		"Argon2 of hours":   {append([]byte("\xc3\x16\x04\x09\x04"+strings.Repeat("s", 16)+"\xff\x01\x0f"), sound[48:]...), false},
		"17 passphrases":    {append(bytes.Repeat(sound[:48], maxSKESKs+1), sound[48:]...), true},
	} {
		_, err := open(keys, c.b)
		var corrupt *chain.CorruptError
		if err == nil || !strings.Contains(err.Error(), "file") || errors.As(err, &corrupt) != c.corrupt {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := errors.New("broken")
	r := bufio.NewReader(io.MultiReader(bytes.NewReader(sound[:20]), iotest.ErrReader(broken)))
	if _, err := keys.Open(context.Background(), r, "file"); !errors.Is(err, broken) {
		t.Errorf("read error: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := keys.Open(ctx, bufio.NewReader(bytes.NewReader(sound)), "file"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestAsk(t *testing.T) {
	e, _ := NewEncrypter("right")
	sound := message(t, e, inner)
	var mu sync.Mutex
	asked := 0
	keys := NewKeys()
	keys.Ask = func(context.Context) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		return "right", nil
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := open(keys, sound); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	nobody := errors.New("nobody there")
	keys = NewKeys()
	keys.Ask = func(context.Context) (string, error) { return "", nobody }
	if _, err := open(keys, sound); !errors.Is(err, nobody) {
		t.Errorf("nobody answers: %v", err)
	}
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// testdata/locked.gpg and hidden.gpg are encrypted by GnuPG to the key of
// locked.sec.asc, whose passphrase is "secret"; the latter hides whose it is.
func TestSecretKeys(t *testing.T) {
	for _, file := range []string{"locked.gpg", "hidden.gpg"} {
		b := readFile(t, file)
		keys := NewKeys("wrong", "secret")
		if _, err := open(keys, b); !errors.Is(err, chain.ErrNoKey) || !strings.Contains(err.Error(), "encrypted to key") {
			t.Errorf("%s without the key: %v", file, err)
		}
		if err := keys.AddKeyFile(append(readFile(t, "enc.sec.asc"), readFile(t, "locked.sec.asc")...)); err != nil {
			t.Fatal(err)
		}
		if _, err := open(keys, b); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		locked := NewKeys("wrong")
		if err := locked.AddKeyFile(readFile(t, "locked.sec.asc")); err != nil {
			t.Fatal(err)
		}
		if _, err := open(locked, b); !errors.Is(err, chain.ErrNoKey) {
			t.Errorf("%s, wrong passphrase: %v", file, err)
		}
	}
	for name, file := range map[string]string{"text": "hello", "half": string(readFile(t, "enc.sec.asc")[:900]), "nothing": ""} {
		if err := NewKeys().AddKeyFile([]byte(file)); err == nil && name != "nothing" {
			t.Errorf("%s was taken for a key file", name)
		}
	}
}

// agent is a Decrypter that knows one session key.
type agent struct {
	session Session
	err     error
	ids     []uint64
}

func (a *agent) SessionKey(_ context.Context, r Recipient) (Session, error) {
	a.ids = append(a.ids, r.KeyID)
	return a.session, a.err
}

func TestDecrypter(t *testing.T) {
	b := readFile(t, "locked.gpg")
	keys := NewKeys("secret")
	if err := keys.AddKeyFile(readFile(t, "locked.sec.asc")); err != nil {
		t.Fatal(err)
	}
	m, err := open(keys, b)
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("no agent")
	for _, c := range []struct {
		a    agent
		want error
	}{
		{agent{session: m.Session}, nil},
		{agent{err: fmt.Errorf("none: %w", chain.ErrNoKey)}, chain.ErrNoKey},
		{agent{err: broken}, broken},
		{agent{session: Session{AES256, make([]byte, 32)}}, chain.ErrNoKey},
		{agent{session: Session{99, nil}}, chain.ErrNoKey},
	} {
		keys := NewKeys()
		keys.Decrypter = &c.a
		if _, err := open(keys, b); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%v, not %v", err, c.want)
		}
		if len(c.a.ids) != 1 || c.a.ids[0] == 0 {
			t.Errorf("asked for %x", c.a.ids)
		}
	}
}

func FuzzOpen(f *testing.F) {
	e, _ := NewEncrypter("right")
	f.Add(message(f, e, inner))
	f.Add(readFile(f, "locked.gpg"))
	f.Add(readFile(f, "hidden.gpg"))
	keys := NewKeys("right", "secret")
	if err := keys.AddKeyFile(readFile(f, "locked.sec.asc")); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := open(keys, b)
		if err == nil {
			if _, err := m.Session.Block(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Signatures without end are refused, wherever they come.
func TestTooManySignatures(t *testing.T) {
	onepass := []byte("\x03\x00\x0a\x01\xef\x4d\xe3\x39\x2c\xf5\x8d\x4b\x01")
	sig := []byte{4, 0, 1, 10, 0, 0}
	for name, next := range map[string]func(v *Verifier) error{
		"announced": func(v *Verifier) error { return v.OnePass(onepass) },
		"before":    func(v *Verifier) error { return v.Signature(sig) },
		"after": func(v *Verifier) error {
			v.Write([]byte("content"))
			return v.Signature(sig)
		},
	} {
		v := NewKeys().NewVerifier()
		n, err := 0, error(nil)
		for ; n < 10_000 && err == nil; n++ {
			err = next(v)
		}
		if !errors.Is(err, ErrPacket) || n > maxSignatures+1 {
			t.Errorf("%s: %d signatures, %v", name, n, err)
		}
	}
}

func FuzzVerifier(f *testing.F) {
	f.Add([]byte("\x03\x00\x0a\x01\xef\x4d\xe3\x39\x2c\xf5\x8d\x4b\x01"), []byte{4, 0, 1, 10, 0, 0})
	keys := NewKeys()
	if err := keys.AddKeyFile(readFile(f, "sign.pub.asc")); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, onepass, sig []byte) {
		v := keys.NewVerifier()
		_ = v.Signature(sig)
		_ = v.OnePass(onepass)
		v.Write([]byte("content"))
		_ = v.Signature(sig)
		_ = v.Signature(sig)
		_ = v.Finish()
		for _, s := range v.Results() {
			if s.Good {
				t.Fatal("a signature out of nothing")
			}
		}
	})
}
