package scratch

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// As a child the program makes a directory, says so, and waits to be killed.
func TestMain(m *testing.M) {
	if parent := os.Getenv("SCRATCH_PARENT"); parent != "" {
		d, err := New(parent, "s-")
		if err == nil {
			err = os.WriteFile(filepath.Join(d.Path, "file"), nil, 0o600)
		}
		if err != nil {
			os.Exit(1)
		}
		os.Stdout.WriteString("x")
		select {}
	}
	os.Exit(m.Run())
}

// What a living process has stays, and what is not marked as its own; what a killed
// one has left goes.
func TestSweep(t *testing.T) {
	parent := t.TempDir()
	if err := os.Mkdir(filepath.Join(parent, "s-other"), 0o700); err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), "SCRATCH_PARENT="+parent)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if n, err := out.Read(make([]byte, 1)); n != 1 {
		t.Fatal(err)
	}
	names := func() int {
		t.Helper()
		list, err := os.ReadDir(parent)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	mine, err := New(parent, "s-")
	if err != nil || names() != 3 {
		t.Fatal(err, names())
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	second, err := New(parent, "s-")
	if err != nil || names() != 3 {
		t.Fatal(err, names())
	}
	for _, d := range []*Dir{mine, second} {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if names() != 1 {
		t.Error(names())
	}
}

// Many at once do not take each other's directories away.
func TestAtOnce(t *testing.T) {
	parent := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				d, err := New(parent, "s-")
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := os.Stat(d.Path); err != nil {
					t.Error(err)
				}
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
