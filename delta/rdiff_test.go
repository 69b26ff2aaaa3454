package delta

import (
	"bytes"
	"fmt"
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
func put(t *testing.T, dir, name string, p []byte) string {
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

// Larger than every buffer, with literals over 64 KiB.
func TestRdiffLarge(t *testing.T) {
	old := random(1500000, 1)
	checkRdiff(t, "md4", "rollsum", 8, 1024, change{
		old: old, new: cat(old[:700000], random(200000, 2), old[650001:], old[:1234]),
	})
}
