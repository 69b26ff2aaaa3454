package volume

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"dupfs/chain"
	"dupfs/chain/pgp"
)

// Files of stock duplicity, and what gpg or gzip make of them.
func TestFixtures(t *testing.T) {
	symmetric := theKeys()
	secret := fixtureKeys(t, "enc.sec.asc", "sign.pub.asc")
	const volume = "5c166e029378e3af16b56ec7db54eabcf84e4a09452c49a806362fe9dcd4e15d"
	for _, f := range []struct {
		file  string
		layer chain.Layer
		keys  *pgp.Keys
		sum   string
	}{
		{"symmetric/vol1.gpg", chain.OpenPGP, symmetric, volume},
		{"symmetric/manifest.gpg", chain.OpenPGP, symmetric, "8097f642973ad1e6a3d0c51f683ece87a729ab5ce725a38f0b0f6e0cfe865e32"},
		{"pubkey-signed/vol1.gpg", chain.OpenPGP, secret, volume},
		{"pubkey-signed/manifest.gpg", chain.OpenPGP, secret, "4f39c4e5713e3af02e1b2792162a8af8b32b023fe9dda7e57c20f04cc5d8a3d0"},
		{"plain.gz", chain.Gzip, nil, "50444bd38dbb4260a6c6f620885b5ade712e95d0426b6535fe378c062cad721c"},
		{"multimember/vol1.gz", chain.Gzip, nil, "e37f669ef24e90df2ffa1fee6c22722dd6cbef396d5343d559b90175e15ebb89"},
	} {
		stored := readFile(t, f.file)
		plain, err := readAll(stored, f.layer, f.keys)
		if err != nil {
			t.Errorf("%s: %v", f.file, err)
			continue
		}
		if sum := sha256.Sum256(plain); hex.EncodeToString(sum[:]) != f.sum {
			t.Errorf("%s: sum %x", f.file, sum)
		}
		for _, spacing := range []int64{100, 5000, defaultSpacing} {
			_, l, err := scanAll(stored, f.layer, f.keys, spacing)
			if err != nil {
				t.Errorf("%s: %v", f.file, err)
				continue
			}
			checkLayout(t, l, stored, plain)
		}
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

func TestSignatures(t *testing.T) {
	stored := readFile(t, "pubkey-signed/vol1.gpg")
	const signer = 0xEF4DE3392CF58D4B
	for _, c := range []struct {
		files []string
		good  bool
	}{
		{[]string{"enc.sec.asc", "sign.pub.asc"}, true},
		{[]string{"enc.sec.asc"}, false},
	} {
		r, err := NewReader(context.Background(), bytes.NewReader(stored), chain.OpenPGP, fixtureKeys(t, c.files...), "file")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatal(err)
		}
		if got := r.Signatures(); len(got) != 1 || got[0].KeyID != signer || got[0].Good != c.good || (got[0].Fingerprint != "") != c.good {
			t.Errorf("%v: signatures %+v", c.files, got)
		}
	}
	_, err := readAll(stored, chain.OpenPGP, pgp.NewKeys(passphrase))
	if !errors.Is(err, chain.ErrNoKey) || !strings.Contains(err.Error(), "file") {
		t.Errorf("without the key: %v", err)
	}
	if _, err := readAll(stored, chain.OpenPGP, fixtureKeys(t, "sign.sec.asc")); !errors.Is(err, chain.ErrNoKey) {
		t.Errorf("with another key: %v", err)
	}
}

// seal writes an encrypted message by hand, with the given inner packets.
func seal(t testing.TB, tag int, inner []byte) []byte {
	t.Helper()
	enc := testEncrypter(t)
	esk, session, err := enc.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	block, err := pgp.Session{Cipher: pgp.AES256, Key: session}.Block()
	if err != nil {
		t.Fatal(err)
	}
	var body []byte
	switch tag {
	case pgp.TagProtected:
		plain := append(bytes.Repeat([]byte{7}, 18), inner...)
		plain = append(plain, mdcHead...)
		sum := sha1Sum(plain)
		plain = append(plain, sum...)
		pgp.NewCFB(block, make([]byte, 16)).Encrypt(plain)
		body = append([]byte{1}, plain...)
	case pgp.TagEncrypted:
		prefix := bytes.Repeat([]byte{7}, 18)
		pgp.NewCFB(block, make([]byte, 16)).Encrypt(prefix)
		rest := bytes.Clone(inner)
		pgp.NewCFB(block, prefix[2:]).Encrypt(rest)
		body = append(prefix, rest...)
	case pgp.TagAEAD:
		body = sealAEAD(t, session, inner)
	}
	out := append(esk, 0xc0|byte(tag))
	out = pgp.AppendLength(out, int64(len(body)))
	return append(out, body...)
}

// sealAEAD writes the body of GnuPG's AEAD packet with chunks of 64 bytes.
func sealAEAD(t testing.TB, session, inner []byte) []byte {
	t.Helper()
	block, _ := pgp.Session{Cipher: pgp.AES256, Key: session}.Block()
	aead, err := pgp.NewAEAD(block, 2)
	if err != nil {
		t.Fatal(err)
	}
	head := []byte{0xd4, 1, pgp.AES256, 2, 0}
	nonce := bytes.Repeat([]byte{9}, 15)
	body := append(bytes.Clone(head[1:]), nonce...)
	index := uint64(0)
	one := func(p, extra []byte) {
		n := bytes.Clone(nonce)
		binary.BigEndian.PutUint64(n[7:], binary.BigEndian.Uint64(n[7:])^index)
		ad := binary.BigEndian.AppendUint64(bytes.Clone(head), index)
		body = aead.Seal(body, n, p, append(ad, extra...))
		index++
	}
	for rest := inner; len(rest) > 0; {
		n := min(len(rest), 64)
		one(rest[:n], nil)
		rest = rest[n:]
	}
	one(nil, binary.BigEndian.AppendUint64(nil, uint64(len(inner))))
	return body
}

// literal is a literal packet.
func literal(plain []byte) []byte {
	b := pgp.AppendLength([]byte{0xc0 | pgp.TagLiteral}, int64(len(plain)+literalHead))
	return append(append(b, literalStart...), plain...)
}

func TestAEAD(t *testing.T) {
	g := newGPG(t)
	keys := theKeys()
	for _, n := range []int{0, 1, 48, 55, 56, 57, 119, 120, 121, 5000} {
		plain := sample(n, 1)
		stored := seal(t, pgp.TagAEAD, literal(plain))
		if n == 5000 { // GnuPG 2.2 reads this form, though it does not write it
			if got := g.must(t, stored, "--decrypt"); !bytes.Equal(got, plain) {
				t.Fatal("gpg reads something else")
			}
		}
		got, err := readAll(stored, chain.OpenPGP, keys)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%d bytes: %d, %v", n, len(got), err)
		}
		if _, l, err := scanAll(stored, chain.OpenPGP, keys, 1000); err != nil || !l.Ordered {
			t.Fatalf("%d bytes: scanned: %v", n, err)
		} else {
			checkLayout(t, l, stored, plain)
		}
		for i := 50; i < len(stored); i += 1 + len(stored)/40 {
			bad := bytes.Clone(stored)
			bad[i] ^= 1
			if got, err := readAll(bad, chain.OpenPGP, keys); err == nil || !bytes.HasPrefix(plain, got) {
				t.Fatalf("%d bytes: damage at %d: %v", n, i, err)
			}
			if got, err := readAll(stored[:i], chain.OpenPGP, keys); err == nil || !bytes.HasPrefix(plain, got) {
				t.Fatalf("%d bytes: cut at %d: %v", n, i, err)
			}
		}
	}
}

func TestUnauthenticated(t *testing.T) {
	g := newGPG(t)
	plain := sample(5000, 1)
	stored := seal(t, pgp.TagEncrypted, literal(plain))
	if got, _, _ := g.run(stored, "--ignore-mdc-error", "--decrypt"); !bytes.Equal(got, plain) {
		t.Fatal("gpg reads something else")
	}
	keys := theKeys()
	if _, err := readAll(stored, chain.OpenPGP, keys); err == nil || !strings.Contains(err.Error(), "integrity") {
		t.Fatalf("read: %v", err)
	}
	keys = pgp.NewKeys(passphrase)
	keys.AcceptUnauthenticated = true
	if got, err := readAll(stored, chain.OpenPGP, keys); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	_, l, err := scanAll(stored, chain.OpenPGP, keys, 1000)
	if err != nil || !l.Ordered {
		t.Fatalf("scanned: %v", err)
	}
	checkLayout(t, l, stored, plain)
}

// Forms that GnuPG does not write, but others may; and ones that nobody may.
func TestOddMessages(t *testing.T) {
	keys := theKeys()
	plain := sample(9000, 2)
	packed := func(partial bool) []byte {
		b := append([]byte{packedZIP}, deflated(literal(plain))...)
		if !partial {
			return append(pgp.AppendLength([]byte{0xc0 | pgp.TagCompressed}, int64(len(b))), b...)
		}
		out := []byte{0xc0 | pgp.TagCompressed}
		for len(b) > 512 {
			out = append(append(out, pgp.Partial(9)), b[:512]...)
			b = b[512:]
		}
		return append(pgp.AppendLength(out, int64(len(b))), b...)
	}
	marker := []byte{0xc0 | pgp.TagMarker, 3, 'P', 'G', 'P'}
	endless := append(append([]byte{0x80 | pgp.TagLiteral<<2 | 3}, literalStart...), plain...)
	private := append([]byte{0xc0 | 60, 4}, "dups"...)
	for name, inner := range map[string][]byte{
		"compressed, one length":      packed(false),
		"compressed, partial lengths": packed(true),
		"markers":                     bytes.Join([][]byte{marker, literal(plain), marker}, nil),
		"private packet":              bytes.Join([][]byte{private, literal(plain), private}, nil),
		"literal without length":      endless,
	} {
		stored := seal(t, pgp.TagProtected, inner)
		got, err := readAll(stored, chain.OpenPGP, keys)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
			continue
		}
		_, l, err := scanAll(stored, chain.OpenPGP, keys, 700)
		if err != nil || l.Len() < 5 {
			t.Errorf("%s: scanned: %v", name, err)
			continue
		}
		checkLayout(t, l, stored, plain)
	}
	for name, inner := range map[string][]byte{
		"no literal":       marker,
		"two literals":     append(literal(plain), literal(plain)...),
		"nested":           seal(t, pgp.TagProtected, literal(plain)),
		"nothing":          {},
		"user id":          append([]byte{0xc0 | 13, 1, 'x'}, literal(plain)...),
		"literal cut":      literal(plain)[:5000],
		"rest of a header": append(literal(plain), 0xcb),
		"text mode":        []byte("\xcb\x0at\x00\x00\x00\x00\x00a\rb\n"),
	} {
		if _, err := readAll(seal(t, pgp.TagProtected, inner), chain.OpenPGP, keys); err == nil {
			t.Errorf("%s: read without an error", name)
		}
	}
	stored := seal(t, pgp.TagProtected, literal(plain))
	for name, c := range map[string]struct {
		tail string
		ok   bool
	}{
		"garbage": {"garbage", false}, "zero": {"\x00", false}, "marker": {"\xca\x03PGP", true},
		"private": {"\xfc\x02xx", true}, "literal": {"\xcb\x01b", false}, "twice": {string(stored), false},
		"half a marker": {"\xca\x03P", false},
	} {
		got, err := readAll(append(bytes.Clone(stored), c.tail...), chain.OpenPGP, keys)
		if (err == nil) != c.ok || !bytes.HasPrefix(plain, got) {
			t.Errorf("followed by %s: %v", name, err)
		}
	}
	for name, whole := range map[string]string{"empty": "", "not encrypted": string(literal(plain)), "text": "hello"} {
		var corrupt *chain.CorruptError
		if _, err := readAll([]byte(whole), chain.OpenPGP, keys); !errors.As(err, &corrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestForeignGzip(t *testing.T) {
	one := func(plain []byte, head gzip.Header, level int) []byte {
		var b bytes.Buffer
		w, _ := gzip.NewWriterLevel(&b, level)
		w.Header = head
		w.Write(plain)
		w.Close()
		return b.Bytes()
	}
	plain := sample(50_000, 4)
	all := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	named := gzip.Header{Name: "a name", Comment: "a comment", Extra: []byte("XXyy")}
	many := []byte{}
	for i := 0; i < len(plain); i += 1000 {
		many = append(many, one(plain[i:i+1000], gzip.Header{}, 1)...)
	}
	for name, c := range map[string]struct{ stored, plain []byte }{
		"no bytes":       {nil, nil},
		"empty":          {one(nil, gzip.Header{}, 6), nil},
		"one":            {one(plain, gzip.Header{}, 6), plain},
		"named":          {one(plain, named, 9), plain},
		"level 0":        {one(plain, gzip.Header{}, 0), plain},
		"zeros behind":   {all(one(plain, named, 1), make([]byte, 700)), plain},
		"zeros between":  {all(one(plain, named, 1), make([]byte, 7), one(plain, named, 6)), all(plain, plain)},
		"two":            {all(one(plain[:20_000], named, 1), one(plain[20_000:], named, 9)), plain},
		"many":           {many, plain},
		"empty between":  {all(one(nil, named, 1), one(plain, named, 1), one(nil, named, 1), one(nil, named, 1), one(plain, named, 6)), all(plain, plain)},
		"header's CRC":   {withHeaderCRC(one(plain, gzip.Header{}, 6)), plain},
		"ours, a second": {all(many, gzipTrailerOf(1)), plain},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readAll(c.stored, chain.Gzip, nil)
			if err != nil || !bytes.Equal(got, c.plain) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			for _, spacing := range []int64{300, 1000, 3000, 1 << 20} {
				_, l, err := scanAll(c.stored, chain.Gzip, nil, spacing)
				if err != nil || l.Own {
					t.Fatalf("scanned: %v", err)
				}
				checkLayout(t, l, c.stored, c.plain)
			}
			if _, _, err := trailerOf(c.stored, chain.Gzip, nil); !errors.Is(err, ErrForeign) && !errors.Is(err, errTrailer) {
				t.Fatalf("trailer: %v", err)
			}
		})
	}
	for name, stored := range map[string][]byte{
		"garbage behind": append(one(plain, named, 1), "garbage"...),
		"zeros first":    append([]byte{0}, one(plain, named, 1)...),
		"no gzip":        []byte("hello, world: not gzip"),
		"wrong CRC":      flip(one(plain, named, 1), -8),
		"wrong size":     flip(one(plain, named, 1), -1),
		"header's CRC":   flip(withHeaderCRC(one(plain, gzip.Header{}, 6)), 10),
	} {
		var corrupt *chain.CorruptError
		if got, err := readAll(stored, chain.Gzip, nil); !errors.As(err, &corrupt) || !bytes.HasPrefix(plain, got) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// flip damages the byte at i, from the end if negative.
func flip(b []byte, i int) []byte {
	if i < 0 {
		i += len(b)
	}
	b[i] ^= 1
	return b
}

// withHeaderCRC adds a checksum to the header of a member without a name.
func withHeaderCRC(b []byte) []byte {
	head := bytes.Clone(b[:10])
	head[3] |= flagHeaderCRC
	sum := crc(head)
	return append(append(head, byte(sum), byte(sum>>8)), b[10:]...)
}

// gzipTrailerOf is a sound trailer of another file, of n bytes in one chunk.
func gzipTrailerOf(n int64) []byte {
	t := trailer{plainSize: n, sizes: []chunkSize{{stored: 30, plain: n}}}
	return t.gzipTrailer()
}

// Foreign chunks that were damaged later are found out by their hash.
func TestForeignDamage(t *testing.T) {
	g := newGPG(t)
	keys := theKeys()
	plain := sample(30_000, 4)
	for _, algo := range []string{"zip", "zlib", "none"} {
		stored := g.must(t, plain, "--symmetric", "--force-mdc", quick, "1", "--compress-algo", algo)
		_, l, err := scanAll(stored, chain.OpenPGP, keys, 4000)
		if err != nil {
			t.Fatal(err)
		}
		for k := range l.Len() {
			c := l.Chunk(k)
			part := stored[c.StoredOff : c.StoredOff+c.StoredLen]
			for i := 0; i < len(part); i += 97 {
				got, err := l.Decode(nil, k, flip(bytes.Clone(part), i))
				if err == nil && !bytes.Equal(got, plain[c.PlainOff:c.PlainOff+c.PlainLen]) {
					t.Fatalf("%s: chunk %d, byte %d: wrong bytes", algo, k, i)
				}
			}
			if _, err := l.Decode(nil, k, part[1:]); err == nil {
				t.Errorf("%s: too few bytes were taken", algo)
			}
		}
	}
}

// go-crypto reads what we write, too.
func TestGoCryptoReadsOurs(t *testing.T) {
	plain := sample(70_000, 4)
	stored, l := write(t, chain.OpenPGP, testEncrypter(t), Options{Chunk: 4096, pieceBits: 12}, plain)
	r := bytes.NewReader(stored)
	if _, err := packet.Read(r); err != nil {
		t.Fatal(err)
	}
	p, err := packet.Read(r)
	if err != nil {
		t.Fatal(err)
	}
	body, err := p.(*packet.SymmetricallyEncrypted).Decrypt(packet.CipherAES256, l.msg.session.Key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := packet.Read(body)
	if err != nil {
		t.Fatal(err)
	}
	lit, err := packet.Read(c.(*packet.Compressed).Body)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(lit.(*packet.LiteralData).Body)
	if err != nil || !bytes.HasPrefix(got, plain) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}
