// Package need says what a test cannot do without.
package need

import (
	"os"
	"os/exec"
	"testing"
)

// strict reports whether something missing fails a test rather than skips it.
func strict() bool { return os.Getenv("CI") != "" || os.Getenv("DUPFS_REQUIRE") != "" }

// Missing skips the test with the reason, or fails it where nothing may be
// skipped: under CI, or with DUPFS_REQUIRE set.
func Missing(t testing.TB, reason string) {
	t.Helper()
	if strict() {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// Program returns the path of a program, or does as Missing.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, name+" is not installed")
	}
	return path
}

// Root skips a test that only root can run.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "needs root")
	}
}

// FUSE returns if a FUSE mount can be made here, or does as Missing.
func FUSE(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		Missing(t, err.Error())
	}
	f.Close()
	Program(t, "fusermount3")
}
