package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// epoch is the time of a test's first set; the others follow a day apart.
const epoch = 1700000000

func at(n int) string { return fmt.Sprint(epoch + n*86400) }

// layers are the ways to write an archive, with the options for both programs.
var layers = map[string][]string{
	"encrypted": nil,
	"gzip":      {"--no-encryption"},
	"plain":     {"--no-encryption", "--no-compression"},
}

// grow makes the source of point n out of that of point n-1: odd names, a
// file of several volumes, changes of type, deletion and re-creation.
func (w *world) grow(n int) {
	w.t.Helper()
	src := w.path("src")
	switch n {
	case 0:
		w.write("src/small.txt", "hello\n")
		w.write("src/empty", "")
		w.write("src/dir/sub/deep.txt", "deep\n")
		w.write("src/dir.txt", "sorts between dir/ and dir0 as text, not as path\n")
		w.write("src/dir0", "x")
		w.write("src/gone", "will go and come back\n")
		w.write("src/turns/into/file", "a directory becomes a file\n")
		w.write("src/becomes-dir", "a file becomes a directory\n")
		w.write("src/becomes-link", "a file becomes a link\n")
		w.write("src/edge64k", strings.Repeat("e", 65536))
		w.write("src/edge1m", strings.Repeat("m", 1<<20))
		w.write("src/"+strings.Repeat("n", 255), "a name of 255 bytes\n")
		w.write("src/new\nline \"quoted\" \\back\t", "odd\n")
		w.write("src/bad\xff\xfe", "no UTF-8\n")
		w.write("src/ä/ö/ü", "umlauts\n")
		w.sh(`cd src; head -c 3500000 /dev/urandom > big.bin
			ln -s small.txt link; ln -s 'no where' "dead link"; mkfifo pipe
			chmod 4755 small.txt; chmod 1777 dir; chmod 0 empty; ln -s big.bin becomes-file`)
	case 1:
		w.write("src/small.txt", "hello again\n")
		w.write("src/new/file", "new\n")
		w.sh(`cd src; rm gone; rm -r turns; echo now a file > turns; rm becomes-dir becomes-link becomes-file
			mkdir becomes-dir; echo x > becomes-dir/child; ln -s dir becomes-link; echo plain > becomes-file
			printf changed | dd of=big.bin bs=1 seek=1700000 conv=notrunc status=none
			chmod 700 dir; chmod 4711 small.txt`)
	case 2:
		w.write("src/gone", "came back\n")
		w.sh(`cd src; (printf inserted; cat big.bin) > b && mv b big.bin; : > edge64k; truncate -s 1048577 edge1m; rm -r new`)
	case 3:
		w.sh(`cd src; truncate -s 100000 big.bin; echo last >> small.txt; rm -r ä; mkdir -p new; echo again > new/file`)
	}
	if err := os.RemoveAll(w.path(fmt.Sprint("copy", n))); err != nil {
		w.t.Fatal(err)
	}
	// Times that stock can hold: whole seconds. And the root's is set, too.
	w.sh(fmt.Sprintf(`find src -depth -exec touch -h -d @$((%d + %d * 1000)) {} + ; cp -a src copy%d`, epoch-100000, n, n))
	_ = src
}

// same compares two directories as far as stock can restore them.
func same(t *testing.T, what, got, want string) {
	t.Helper()
	compareLines(t, what, diskLines(t, got), diskLines(t, want))
}

// Chains written in turn by stock and by dupfs are right at every point, for
// both.
func TestAlternating(t *testing.T) {
	for layer, opts := range layers {
		for _, first := range []string{"dupfs", "stock"} {
			t.Run(layer+" "+first+" first", func(t *testing.T) { testAlternating(t, opts, first) })
		}
	}
}

func testAlternating(t *testing.T, opts []string, first string) {
	w := newWorld(t)
	url := w.url("archive")
	turn := map[bool]func(...string) string{true: w.dupfs, false: w.stock}
	ours := first == "dupfs"
	for n := range 4 {
		w.grow(n)
		args := append([]string{"--volsize", "1", "--current-time", at(n), "src", url}, opts...)
		turn[ours](args...)
		ours = !ours
	}
	mnt, _ := w.mount(url)
	for n := range 4 {
		want := w.path(fmt.Sprint("copy", n))
		stamp := strings.TrimSpace(w.sh("date -u -d @" + at(n) + " +%Y-%m-%dT%H:%M:%SZ"))
		same(t, fmt.Sprint("mount of ", n), filepath.Join(mnt, "snapshots", stamp), want)
		out := w.path(fmt.Sprint("ours", n))
		w.dupfs("restore", "--time", at(n), url, out)
		same(t, fmt.Sprint("dupfs restore of ", n), out, want)
		out = w.path(fmt.Sprint("stock", n))
		w.stock(append([]string{"restore", "--time", at(n), url, out}, opts...)...)
		same(t, fmt.Sprint("stock restore of ", n), out, want)
		w.stock(append([]string{"verify", "--compare-data", "--time", at(n), url, want}, opts...)...)
		w.dupfs("verify", "--compare-data", "--time", at(n), url, want)
	}
	if out := w.stock(append([]string{"cleanup", url}, opts...)...); !strings.Contains(out, "No extraneous files found") {
		t.Errorf("stock finds something to clean up:\n%s", out)
	}
}

// What stock cannot hold comes back from our own sets: nanoseconds, times
// before 1970, extended attributes, ACLs, hard links, holes.
func TestBeyondStock(t *testing.T) {
	w := newWorld(t)
	w.sh(`mkdir src; cd src; echo a > ns; touch -d '2023-01-01 12:00:00.123456789' ns
		echo b > last; touch -d '2023-01-01 12:00:00.999999999' last
		echo c > old; touch -d '1960-06-01 12:00:00.5' old
		echo d > one; ln one two; mkdir sub; ln one sub/three
		truncate -s 5M sparse; printf data | dd of=sparse bs=1 seek=2M conv=notrunc status=none
		setfattr -n user.colour -v blue one 2>/dev/null || true
		setfacl -m u:12345:rw ns 2>/dev/null || true
		touch -h -d '2001-02-03 04:05:06.789' one; ln -s ns link; touch -h -d '2002-02-03 04:05:06.7' link
		touch -d '2003-01-01 00:00:00.25' sub .`)
	w.dupfs("backup", "--current-time", at(0), "src", w.url("archive"))
	mnt, _ := w.mount(w.url("archive"))
	w.dupfs("restore", w.url("archive"), w.path("out"))
	for _, dir := range []string{w.path("out"), filepath.Join(mnt, "snapshots", "latest") + "/"} {
		if out := w.exec(nil, "rsync", "-aHAXn", "--itemize-changes", "--checksum", w.path("src")+"/", strings.TrimSuffix(dir, "/")+"/"); out.stdout != "" || out.code != 0 {
			t.Errorf("%s differs:\n%s%s", dir, out.stdout, out.stderr)
		}
		for _, name := range []string{"ns", "last", "old", "link", "sub"} {
			want, got := lstat(t, w.path("src", name)), lstat(t, filepath.Join(dir, name))
			if got.Mtim != want.Mtim {
				t.Errorf("%s/%s: mtime %v, want %v", dir, name, got.Mtim, want.Mtim)
			}
		}
		if one, three := lstat(t, filepath.Join(dir, "one")), lstat(t, filepath.Join(dir, "sub/three")); one.Ino != three.Ino || one.Nlink != 3 {
			t.Errorf("%s: hard links: %d and %d, nlink %d", dir, one.Ino, three.Ino, one.Nlink)
		}
		if st := lstat(t, filepath.Join(dir, "sparse")); st.Blocks*512 > 1<<20 {
			t.Errorf("%s: the sparse file takes %d bytes", dir, st.Blocks*512)
		}
	}
}

func lstat(t *testing.T, name string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return st
}

// A file whose size or nanoseconds changed is saved even if its whole second
// did not, and one whose mtime was put back as well.
func TestChangeWithinSecond(t *testing.T) {
	w := newWorld(t)
	url := w.url("archive")
	w.sh(`mkdir src; cd src
		for f in size ns stealth; do echo one > $f; touch -d '2023-01-01 12:00:00.1' $f; done`)
	w.dupfs("backup", "--current-time", at(0), "src", url)
	w.sh(`cd src; echo longer > size; touch -d '2023-01-01 12:00:00.1' size
		echo two > ns; touch -d '2023-01-01 12:00:00.2' ns
		echo new > stealth; touch -d '2023-01-01 12:00:00.1' stealth`)
	w.dupfs("backup", "--current-time", at(1), "src", url)
	for name, want := range map[string]string{"size": "longer\n", "ns": "two\n", "stealth": "new\n"} {
		if got := w.dupfs("cat", url, name); got != want {
			t.Errorf("%s: %q", name, got)
		}
		if got := w.dupfs("cat", "--time", at(0), url, name); got != "one\n" {
			t.Errorf("%s before: %q", name, got)
		}
	}
}
