package delta

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"dupfs/internal/need"
)

// rdiff runs librsync's program.
func rdiff(t *testing.T, args ...string) {
	t.Helper()
	out, err := exec.Command(need.Program(t, "rdiff"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("rdiff %q: %v\n%s", args, err, out)
	}
}

// put writes a file into dir.
func put(t testing.TB, dir, name string, p []byte) string {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := os.WriteFile(name, p, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// get reads a file.
func get(t *testing.T, name string) []byte {
	t.Helper()
	p, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// checkRdiff compares with rdiff for one kind of signature: its signature,
// its delta read by us, our delta read by it.
func checkRdiff(t *testing.T, hash, roll string, strong, block int, c change) {
	dir := t.TempDir()
	old, fresh := put(t, dir, "old", c.old), put(t, dir, "new", c.new)
	sigFile, out := filepath.Join(dir, "sig"), filepath.Join(dir, "out")
	rdiff(t, "-H", hash, "-R", roll, "-S", fmt.Sprint(strong), "-b", fmt.Sprint(block), "signature", old, sigFile)
	sigBytes := get(t, sigFile)
	if hash == "md4" && roll == "rollsum" && strong == 8 && !bytes.Equal(sigBytes, sign(t, c.old, block)) {
		t.Error("our signature is another")
	}
	ours := diff(t, readSig(t, sigBytes), bytes.NewReader(c.new))

	rdiff(t, "patch", old, put(t, dir, "ours", ours), out)
	if !bytes.Equal(get(t, out), c.new) {
		t.Error("rdiff makes other bytes of our delta")
	}
	os.Remove(out)

	theirFile := filepath.Join(dir, "theirs")
	rdiff(t, "delta", sigFile, fresh, theirFile)
	theirs := get(t, theirFile)
	if !bytes.Equal(patch(t, c.old, theirs), c.new) {
		t.Error("we make other bytes of rdiff's delta")
	}
	if len(ours) > len(theirs) {
		t.Errorf("our delta has %d bytes, rdiff's %d", len(ours), len(theirs))
	}
}

func TestRdiff(t *testing.T) {
	for _, block := range []int{4, 5, 16, 64} {
		for _, c := range changes(block) {
			t.Run(fmt.Sprintf("%d/%s", block, c.name), func(t *testing.T) {
				checkRdiff(t, "md4", "rollsum", 8, block, c)
			})
		}
	}
}

func TestRdiffKinds(t *testing.T) {
	for _, hash := range []string{"md4", "blake2"} {
		for _, roll := range []string{"rollsum", "rabinkarp"} {
			for _, strong := range []int{8, 16} {
				for _, c := range changes(16)[7:20:20] {
					t.Run(fmt.Sprintf("%s/%s/%d/%s", hash, roll, strong, c.name), func(t *testing.T) {
						checkRdiff(t, hash, roll, strong, 16, c)
					})
				}
			}
		}
	}
}

// pipe runs rdiff with in as its input, and returns what it writes.
func pipe(in []byte, bin string, args ...string) ([]byte, error) {
	cmd := exec.Command(bin, args...)
	cmd.Stdin = bytes.NewReader(in)
	return cmd.Output()
}

// FuzzRdiff lets rdiff apply our deltas, and us its, for signatures of each kind.
func FuzzRdiff(f *testing.F) {
	bin, dir := need.Program(f, "rdiff"), f.TempDir()
	for i, c := range changes(4) {
		f.Add(c.old, c.new, byte(i%7*5), byte(i))
	}
	f.Fuzz(func(t *testing.T, old, fresh []byte, block, kinds byte) {
		b := int(block)%64 + 1
		hash, roll := []string{"md4", "blake2"}[kinds%2], []string{"rollsum", "rabinkarp"}[kinds/2%2]
		args := []string{"-H", hash, "-R", roll, "-S", "8", "-b", fmt.Sprint(b)}
		sig, err := pipe(old, bin, append(args, "signature")...)
		if err != nil {
			t.Fatal(err)
		}
		if kinds%4 == 0 && !bytes.Equal(sig, sign(t, old, b)) {
			t.Fatal("our signature is another")
		}
		basis, sigFile := put(t, dir, "old", old), put(t, dir, "sig", sig)
		ours := diff(t, readSig(t, sig), bytes.NewReader(fresh))
		if got, err := pipe(ours, bin, "patch", basis); err != nil || !bytes.Equal(got, fresh) {
			t.Fatalf("rdiff makes %q of our delta, %v", got, err)
		}
		theirs, err := pipe(fresh, bin, "delta", sigFile)
		if err != nil {
			t.Fatal(err)
		}
		if got := patch(t, old, theirs); !bytes.Equal(got, fresh) {
			t.Fatalf("we make %q of rdiff's delta", got)
		}
	})
}

// FuzzRdiffPatch gives rdiff and us the same bytes as a delta: what we make of
// it is what rdiff makes of it. We refuse more: what goes on after its end, and
// what is cut; but for commands of no length, which rdiff refuses.
func FuzzRdiffPatch(f *testing.F) {
	bin := need.Program(f, "rdiff")
	old := random(100, 1)
	basis := put(f, f.TempDir(), "old", old)
	f.Add(diff(f, readSig(f, sign(f, old, 8)), bytes.NewReader(cat(old[20:60], []byte("literal"), old))))
	f.Add(stream("72730236 02 6162 41 01 63 42 0001 64 43 00000001 65 44 0000000000000001 66 00"))
	f.Add(stream("72730236 45 01 02 4a 0003 0004 4f 00000005 00000006 54 0000000000000007 0000000000000008 00"))
	f.Add(stream("72730236 45 10 70 00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var out bytes.Buffer
		err := Patch(bytes.NewReader(old), int64(len(old)), bytes.NewReader(raw), &limited{&out, 1 << 20})
		if err != nil {
			return // rdiff may have been of more use, but nothing wrong comes of it
		}
		if hasEmpty(raw) {
			return
		}
		if got, err := pipe(raw, bin, "patch", basis); err != nil || !bytes.Equal(got, out.Bytes()) {
			t.Fatalf("rdiff makes %q of it, %v, we %q", got, err, out.Bytes())
		}
	})
}

// hasEmpty reports whether a delta has a command of no length.
func hasEmpty(raw []byte) bool {
	p := newParser(bytes.NewReader(raw[4:]))
	for {
		c, end, err := p.next()
		if end || err != nil || c.Len == 0 {
			return !end && err == nil
		}
		if !c.Copy {
			if p.skip(c.Len) != nil {
				return false
			}
		}
	}
}

// limited is a writer that takes n bytes at most.
type limited struct {
	w io.Writer
	n int
}

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	if l.n -= len(p); l.n < 0 {
		return 0, io.ErrShortWrite
	}
	return l.w.Write(p)
}

// Larger than every buffer, with literals over 64 KiB.
func TestRdiffLarge(t *testing.T) {
	old := random(1500000, 1)
	checkRdiff(t, "md4", "rollsum", 8, 1024, change{
		old: old, new: cat(old[:700000], random(200000, 2), old[650001:], old[:1234]),
	})
}
