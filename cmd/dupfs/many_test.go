package main

import (
	"archive/tar"
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"dupfs/internal/need"
)

// entriesVariable says how many entries there are in the directory of
// TestManyEntries.
const entriesVariable = "DUPFS_ENTRIES"

// A directory of very many entries, out of an archive that nobody needs so many
// files for: each command has bounded memory.
func TestManyEntries(t *testing.T) {
	n := 20_000
	if v := os.Getenv(entriesVariable); v != "" {
		var err error
		n, err = strconv.Atoi(v)
		must(t, err)
	}
	w := newWorld(t)
	w.limit = time.Hour
	url := w.url("archive")
	began := time.Now()
	fill := func(kind, body string) func(b *bomb) {
		return func(b *bomb) {
			out := bufio.NewWriterSize(b, 4<<20)
			_, _ = out.Write(tarHeader(tar.TypeDir, "snapshot/", 0))
			pad := make([]byte, 512-len(body))
			for i := range n {
				_, _ = out.Write(tarHeader(tar.TypeReg, fmt.Sprintf("%s/f%08d", kind, i), int64(len(body))))
				_, _ = out.WriteString(body)
				_, _ = out.Write(pad)
			}
			_, _ = out.Write(make([]byte, 1024))
			must(t, out.Flush())
		}
	}
	w.forge(fill("snapshot", "x"), fill("signature", emptySignature), nil, nil)
	t.Logf("%d entries made in %v", n, time.Since(began))
	middle := fmt.Sprintf("f%08d", n/2)
	w.sh("mkdir src; echo x > src/" + middle)
	for _, c := range [][]string{
		{"ls", url}, {"ls", url}, {"find", url, middle}, {"ls", "-l", url, middle}, {"status", url},
		{"restore", "--path-to-restore", middle, url, "out/" + middle}, {"cat", url, middle}, {"history", url, middle},
		{"--allow-source-mismatch", "--current-time", at(1), "src", url}, {"diff", url, at(0), at(1)}, {"verify", "--level", "list", url},
	} {
		began := time.Now()
		r, mib := w.peakWithin(time.Hour, append(c, "--no-encryption")...)
		t.Logf("%-20.20s exit %d, %d MiB, %.1f s, %d lines", strings.Join(c, " "), r.code, mib, time.Since(began).Seconds(), strings.Count(r.stdout, "\n"))
		want := 0
		if c[0] == "diff" { // there are differences
			want = 1
		}
		if r.code != want || mib > bombMemory {
			t.Errorf("%.100s: exit %d, %d MiB\n%.1000s", r.line, r.code, mib, r.stderr)
		}
		if c[0] == "diff" && strings.Count(r.stdout, "\n") < n-1 {
			t.Errorf("%d differences", strings.Count(r.stdout, "\n"))
		}
		if c[0] == "ls" && len(c) == 2 && strings.Count(r.stdout, "\n") != n {
			t.Errorf("%d lines", strings.Count(r.stdout, "\n"))
		}
	}
	if text := readFile(t, w.path("out", middle)); string(text) != "x" {
		t.Errorf("restored %q", text)
	}
	w.manyMounted(url, n, middle)
}

// manyMounted lists the directory in a mount, and reads one file of it.
func (w *world) manyMounted(url string, n int, middle string) {
	w.t.Helper()
	need.FUSE(w.t)
	w.sh("mkdir mnt")
	cmd, out := w.start("mount", "-f", "--no-encryption", url, "mnt")
	dir := w.path("mnt/at", at(0))
	w.await("the mount", func() bool { _, err := os.Stat(filepath.Join(dir, middle)); return err == nil })
	began := time.Now()
	ls := exec.Command("/bin/sh", "-c", `ls -f "$1" | wc -l`, "sh", dir)
	got, err := ls.Output()
	if k, _ := strconv.Atoi(strings.TrimSpace(string(got))); err != nil || k != n+2 {
		w.t.Errorf("%v, %q", err, got)
	}
	if text, err := os.ReadFile(filepath.Join(dir, middle)); err != nil || string(text) != "x" {
		w.t.Errorf("%q, %v", text, err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	if err != nil {
		w.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	w.t.Logf("%-20.20s %d MiB, %.1f s", "mount, ls -f", kib>>10, time.Since(began).Seconds())
	if err != nil || kib>>10 > bombMemory {
		w.t.Errorf("the mount has taken %d MiB, %v", kib>>10, err)
	}
	w.dupfs("umount", "mnt")
	if code := w.ended(cmd); code != 0 {
		w.t.Errorf("exit %d\n%s", code, out)
	}
}
