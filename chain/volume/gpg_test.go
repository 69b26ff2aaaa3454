package volume

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dupfs/chain"
	"dupfs/chain/pgp"
	"dupfs/internal/need"
)

// gpgHome is a GnuPG with a home of its own.
type gpgHome struct {
	bin, home string
}

func newGPG(t testing.TB) *gpgHome {
	t.Helper()
	g := &gpgHome{bin: need.Program(t, "gpg")}
	// Not t.TempDir: the agent's socket must have a short name.
	var err error
	if g.home, err = os.MkdirTemp("", "gpg"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", g.home, "--kill", "all").Run()
		os.RemoveAll(g.home)
	})
	return g
}

// run runs gpg with in as input.
func (g *gpgHome) run(in []byte, args ...string) (out []byte, messages string, err error) {
	args = append([]string{
		"--homedir", g.home, "--batch", "--no-tty", "--yes", "--no-secmem-warning", "--trust-model", "always",
		"--pinentry-mode", "loopback", "--passphrase", passphrase,
	}, args...)
	cmd := exec.Command(g.bin, args...)
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err = cmd.Output()
	return out, stderr.String(), err
}

func (g *gpgHome) must(t testing.TB, in []byte, args ...string) []byte {
	t.Helper()
	out, messages, err := g.run(in, args...)
	if err != nil {
		t.Fatalf("gpg %s: %v\n%s", strings.Join(args, " "), err, messages)
	}
	return out
}

// What we write is what stock GnuPG reads, without a warning.
func TestGPGReadsOurs(t *testing.T) {
	g := newGPG(t)
	enc := testEncrypter(t)
	for _, bits := range []int{9, 20} {
		for i, n := range []int{0, 505, 506, 8191, 1<<20 + 1} {
			for _, bare := range []bool{false, true} {
				if bare && i%2 != bits%2 {
					continue // each costs GnuPG half a second
				}
				plain := sample(n, uint64(n))
				stored, l := write(t, chain.OpenPGP, enc, Options{Chunk: 16 << 10, NoTrailer: bare, pieceBits: bits}, plain)
				got, messages, err := g.run(stored, "--decrypt")
				if err != nil || strings.Contains(strings.ToLower(messages), "warning") {
					t.Fatalf("%d bytes, pieces of 1<<%d: %v\n%s", n, bits, err, messages)
				}
				if !bytes.HasPrefix(got, plain) || bare && len(got) != n {
					t.Fatalf("%d bytes, pieces of 1<<%d: gpg reads %d others", n, bits, len(got))
				}
				if tail := got[n:]; !bare && (!bytes.HasPrefix(tail, []byte(tableMagic)) || !bytes.HasSuffix(tail, []byte(footerMagic))) {
					t.Fatalf("behind the plaintext stands %q", tail)
				}
				list := string(g.must(t, stored, "--list-packets"))
				for _, want := range []string{":symkey enc packet: version 4, cipher 9,", "s2k 3, hash 8", ":encrypted data packet:", "mdc_method: 2", ":compressed packet: algo=1", ":literal data packet:"} {
					if !strings.Contains(list, want) {
						t.Fatalf("no %q in\n%s", want, list)
					}
				}
				_ = l
			}
		}
	}
}

func TestGzipReadsOurs(t *testing.T) {
	gzip := need.Program(t, "gzip")
	for _, n := range []int{0, 1, 505, 70_000, 1 << 20} {
		for _, bare := range []bool{false, true} {
			plain := sample(n, uint64(n))
			stored, _ := write(t, chain.Gzip, nil, Options{Chunk: 4096, NoTrailer: bare}, plain)
			for _, flag := range []string{"-t", "-dc"} {
				cmd := exec.Command(gzip, flag)
				cmd.Stdin = bytes.NewReader(stored)
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				got, err := cmd.Output()
				if err != nil || stderr.Len() > 0 || flag == "-dc" && !bytes.Equal(got, plain) {
					t.Fatalf("%d bytes: gzip %s: %v, %d bytes, %s", n, flag, err, len(got), &stderr)
				}
			}
		}
	}
}

// quick, with "1", makes GnuPG derive keys in the cheapest way.
const quick = "--s2k-mode"

// foreignSizes reach the edges of GnuPG's pieces of 8 KiB.
var foreignSizes = []int{0, 1, 100, 8100, 8180, 8185, 8186, 8187, 8192, 8200, 16384, 70_000}

// checkForeign reads a file of GnuPG's in every way.
func checkForeign(t *testing.T, stored, plain []byte, keys *pgp.Keys, seekable bool) {
	t.Helper()
	got, err := readAll(stored, chain.OpenPGP, keys)
	if err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("read: %d bytes of %d, %v", len(got), len(plain), err)
	}
	for _, spacing := range []int64{500, 30_000, 1 << 20} {
		got, l, err := scanAll(stored, chain.OpenPGP, keys, spacing)
		if !bytes.Equal(got, plain) {
			t.Fatalf("scanned: %d bytes of %d, %v", len(got), len(plain), err)
		}
		if err != nil || l.Own || l.Ordered == seekable {
			t.Fatalf("scanned: %+v, %v", l, err)
		}
		if spacing == 500 && seekable && len(plain) > 60_000 && l.Len() < 30 {
			t.Fatalf("only %d chunks", l.Len())
		}
		checkLayout(t, l, stored, plain)
	}
	if _, _, err := trailerOf(stored, chain.OpenPGP, keys); err == nil {
		t.Fatal("a trailer in a foreign file")
	}
}

func TestForeign(t *testing.T) {
	g := newGPG(t)
	keys := pgp.NewKeys("wrong", passphrase)
	for _, algo := range []string{"zip", "zlib", "bzip2", "none"} {
		for _, n := range foreignSizes {
			if algo == "bzip2" && n > 0 && n < 16384 {
				continue
			}
			t.Run(fmt.Sprint(algo, n), func(t *testing.T) {
				plain := sample(n, uint64(n))
				stored := g.must(t, plain, "--symmetric", "--force-mdc", quick, "1", "--compress-algo", algo)
				checkForeign(t, stored, plain, keys, algo != "bzip2")
			})
		}
	}
}

func TestForeignBig(t *testing.T) {
	g := newGPG(t)
	plain := sample(3_000_000, 9)
	keys := theKeys()
	for _, algo := range []string{"zip", "zlib", "bzip2", "none"} {
		stored := g.must(t, plain, "--symmetric", "--force-mdc", quick, "1", "--compress-algo", algo)
		got, l, err := scanAll(stored, chain.OpenPGP, keys, defaultSpacing)
		if !bytes.Equal(got, plain) {
			t.Fatalf("%s: %d bytes of %d, %v", algo, len(got), len(plain), err)
		}
		if err != nil || l.Ordered != (algo == "bzip2") || !l.Ordered && l.Len() != 3 || l.Ordered && l.Len() < 10 {
			t.Fatalf("%s: %v", algo, err)
		}
		checkLayout(t, l, stored, plain)
		if m := l.Memory(); m > 20_000 {
			t.Errorf("%s: the Layout takes %d bytes", algo, m)
		}
	}
}

// Every cipher, and every way to make a key of a passphrase.
func TestForeignCiphers(t *testing.T) {
	g := newGPG(t)
	plain := sample(20_000, 3)
	keys := theKeys()
	for _, c := range []string{"3DES", "CAST5", "BLOWFISH", "AES", "AES192", "AES256", "TWOFISH", "CAMELLIA128", "CAMELLIA192", "CAMELLIA256"} {
		t.Run(c, func(t *testing.T) {
			stored := g.must(t, plain, "--symmetric", "--force-mdc", quick, "1", "--cipher-algo", c)
			checkForeign(t, stored, plain, keys, true)
		})
	}
	for _, mode := range []string{"0", "1", "3"} {
		for _, digest := range []string{"SHA1", "SHA224", "SHA256", "SHA384", "SHA512"} {
			if mode == "3" && digest > "SHA256" {
				continue
			}
			stored := g.must(t, plain, "--symmetric", "--force-mdc", "--s2k-count", "1024", "--s2k-mode", mode, "--s2k-digest-algo", digest)
			if got, err := readAll(stored, chain.OpenPGP, keys); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("s2k mode %s, %s: %v", mode, digest, err)
			}
		}
	}
}

// fixtureKeys are the keys of testdata/keys.
func fixtureKeys(t testing.TB, files ...string) *pgp.Keys {
	t.Helper()
	keys := pgp.NewKeys()
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join("testdata", "keys", f))
		if err != nil {
			t.Fatal(err)
		}
		if err := keys.AddKeyFile(b); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}
