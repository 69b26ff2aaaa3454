package volume

import (
	"bufio"
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"dupfs/chain"
	"dupfs/chain/pgp"
)

// sessionOf returns GnuPG's option to open what we sealed, which spares it the
// passphrase and its agent.
func sessionOf(t testing.TB, stored []byte) []string {
	t.Helper()
	m, err := theKeys().Open(t.Context(), bufio.NewReader(bytes.NewReader(stored)), "file")
	if err != nil {
		t.Fatal(err)
	}
	return []string{"--override-session-key", fmt.Sprintf("%d:%X", m.Session.Cipher, m.Session.Key), "--decrypt"}
}

// stricter are reasons of GnuPG's to refuse a message that make no difference for
// the content: markers of another text, signatures that are none and that nobody
// asked for, and packet 63, which is its own.
var stricter = regexp.MustCompile(`invalid marker packet|packet\((2|4)\) too short|Invalid digest algorithm|ambiguous signature|multiple plaintexts seen`)

// FuzzGPGMessage gives GnuPG and us the same packets in a message that is
// authentic: what we read of it without an error is what GnuPG reads of it. GnuPG
// accepts more: see TestOddMessages for what is refused here.
func FuzzGPGMessage(f *testing.F) {
	g := newGPG(f)
	f.Add(literal([]byte("hello")))
	f.Add(append(literal(nil), 0xca, 3, 'P', 'G', 'P'))
	f.Add(append([]byte{0xca, 3, 'P', 'G', 'P'}, literal([]byte("hello"))...))
	f.Add([]byte("\xcb\xe9b\x00\x00\x00\x00\x00"))
	f.Add([]byte("\xafb\x00\x00\x00\x00\x00endless"))
	f.Add([]byte("\xcb\x0bt\x00\x00\x00\x00\x00a\r\nb"))
	f.Add([]byte("\xcb\x0cu\x03abc\x00\x00\x00\x00x\n"))
	packed := append([]byte{packedZIP}, deflated(literal(sample(700, 4)))...)
	f.Add(append(pgp.AppendLength([]byte{0xc0 | pgp.TagCompressed}, int64(len(packed))), packed...))
	f.Add(append([]byte{0x80 | pgp.TagCompressed<<2 | 3}, packed...))
	partial := append([]byte{0xc0 | pgp.TagLiteral, pgp.Partial(9)}, literal(sample(600, 2))[3:][:512]...)
	f.Add(append(partial, 3, 'e', 'n', 'd'))
	f.Fuzz(func(t *testing.T, inner []byte) {
		stored := seal(t, pgp.TagProtected, inner)
		ours, err := readAll(stored, chain.OpenPGP, theKeys())
		if err != nil {
			return
		}
		theirs, messages, err := g.run(stored, sessionOf(t, stored)...)
		if err != nil && stricter.MatchString(messages) {
			return
		}
		if err != nil || !bytes.Equal(ours, theirs) {
			t.Fatalf("we read %q, GnuPG %q, %v\n%s", ours, theirs, err, messages)
		}
	})
}

// FuzzGPGReads lets GnuPG read what we write, of any content, in chunks and pieces
// of any length.
func FuzzGPGReads(f *testing.F) {
	g := newGPG(f)
	f.Add([]byte("hello"), uint16(1), byte(9), true)
	f.Add(sample(5000, 1), uint16(512), byte(9), false)
	f.Add(sample(20_000, 2), uint16(3000), byte(13), true)
	f.Fuzz(func(t *testing.T, plain []byte, chunk uint16, bits byte, bare bool) {
		o := Options{Chunk: max(512, int(chunk)), NoTrailer: bare, pieceBits: 9 + int(bits)%12}
		stored, _ := write(t, chain.OpenPGP, testEncrypter(t), o, plain, int(chunk)%(len(plain)+1))
		got, messages, err := g.run(stored, sessionOf(t, stored)...)
		if err != nil || strings.Contains(strings.ToLower(messages), "warning") || !bytes.HasPrefix(got, plain) {
			t.Fatalf("GnuPG reads %d bytes of %d, %v\n%s", len(got), len(plain), err, messages)
		}
		if tail := got[len(plain):]; bare && len(tail) > 0 || !bare && !bytes.HasPrefix(tail, []byte(tableMagic)) {
			t.Fatalf("behind the plaintext stands %q", tail)
		}
		if back, err := readAll(stored, chain.OpenPGP, theKeys()); err != nil || !bytes.Equal(back, plain) {
			t.Fatalf("we read %d bytes of %d back, %v", len(back), len(plain), err)
		}
	})
}

// FuzzGPGWrites reads what GnuPG writes, of any content, with any of its ciphers
// and ways to compress.
func FuzzGPGWrites(f *testing.F) {
	g := newGPG(f)
	keys := theKeys()
	ciphers := []string{"AES256", "AES", "AES192", "TWOFISH", "CAMELLIA256", "CAST5", "3DES", "BLOWFISH"}
	algos := []string{"zip", "zlib", "none", "bzip2"}
	f.Add([]byte("hello"), byte(0), byte(0), byte(6))
	f.Add(sample(8190, 1), byte(1), byte(2), byte(0))
	f.Add(sample(30_000, 2), byte(5), byte(1), byte(9))
	f.Fuzz(func(t *testing.T, plain []byte, cipher, algo, level byte) {
		packing := algos[int(algo)%len(algos)]
		stored := g.must(t, plain, "--symmetric", "--force-mdc", quick, "1", "--cipher-algo", ciphers[int(cipher)%len(ciphers)],
			"--compress-algo", packing, "--compress-level", fmt.Sprint(level%9+1), "--bzip2-compress-level", fmt.Sprint(level%9+1))
		got, err := readAll(stored, chain.OpenPGP, keys)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%d bytes of %d, %v", len(got), len(plain), err)
		}
		got, l, err := scanAll(stored, chain.OpenPGP, keys, 1000)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("scanned: %d bytes of %d, %v", len(got), len(plain), err)
		}
		if !l.Ordered {
			checkLayout(t, l, stored, plain)
		}
	})
}
