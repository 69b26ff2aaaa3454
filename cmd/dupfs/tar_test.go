package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dupfs/internal/need"
)

// everything prints all that tar and restore can bring back of a directory.
const everything = `cd "$1"; find . -print0 | sort -z | while IFS= read -r -d '' f; do
	printf '%q ' "$f"; stat -c '%F %a %u:%g %h %t,%T' "$f"
	stat -c %y "$f"; [ -d "$f" ] || stat -c %s "$f"
	[ ! -f "$f" ] || sha256sum < "$f"
	[ ! -L "$f" ] || readlink "$f"
	getfattr -h -d -m - -e hex --absolute-names "$f" 2>/dev/null | grep -v '^#' || true
done`

// GNU tar makes of the stream what restore makes of the archive.
func TestTar(t *testing.T) {
	need.Root(t)
	need.Program(t, "setfacl")
	w := newWorld(t)
	w.sh(`mkdir -p src/dir/deep src/empty; cd src
		echo one > one; ln one dir/two; ln one three; ln -s one link; ln link link2
		head -c 3000000 /dev/urandom > big; head -c 1048577 /dev/urandom > above
		touch -d '2001-02-03 04:05:06.123456789' one; touch -d '1960-02-03 04:05:06.25' dir/old
		touch -h -d '2002-02-02 02:02:02.5' link; touch -d '2040-01-01' future
		truncate -s 9000000 hole; truncate -s 5000000 sparse
		printf data | dd of=sparse bs=1 seek=2000000 conv=notrunc status=none
		head -c 5000 /dev/urandom | dd of=sparse bs=4096 seek=300 conv=notrunc status=none
		truncate -s 200000 smallhole; printf x >> smallhole
		mkfifo pipe; mknod null c 1 3; mknod block b 7 1
		name=$(printf 'n%.0s' $(seq 1 200)); mkdir -p "$name"; echo long > "$name/$name"; ln -s "$name/$name" longlink
		echo odd > $'odd\n\xff\033 name'; echo umlaut > ä; ln ä dir/ä
		if setfattr -n user.colour -v blue one 2>/dev/null; then # not every file system has them
			setfattr -n user.bytes -v 0x00ff0a3d one; setfattr -n user.a=b%c -v x above; setfattr -n trusted.x -v y dir
			setcap cap_net_raw+ep big 2>/dev/null || true
			setfacl -m u:12345:rw,g:54321:r one; setfacl -d -m u:12345:rwx,o::- dir; setfacl -m u:12345:rwx dir
		fi
		chown 1234:54321 big; chmod 6755 big; chmod 1777 empty; chmod 0 above`)
	url := w.url("archive")
	w.dupfs("full", "--volsize", "1", "src", url)
	w.sh("echo more >> src/one; echo x >> src/big")
	w.dupfs("incremental", "src", url)
	w.dupfs("restore", "--numeric-owner", url, "restored")
	extract := "tar -x -p --numeric-owner --xattrs --xattrs-include='*' --acls -C out"
	w.sh(fmt.Sprintf("mkdir out; set -o pipefail; %s tar %s | %s", binary, url, extract))
	restored, out := w.sh("set restored; "+everything), w.sh("set out; "+everything)
	if restored != out {
		w.write("a", restored)
		w.write("b", out)
		t.Errorf("what restore and tar made differ:\n%s", w.sh("diff -U 2 a b || true"))
	}
	attrs := strings.Contains(w.sh("getfattr -d src/one"), "user.colour")
	if attrs && (!strings.Contains(out, "user.bytes=0x00ff0a3d") || !strings.Contains(out, "system.posix_acl_default")) || strings.Count(out, "\n") < 80 {
		t.Errorf("that is not everything:\n%s", out)
	}
	for _, name := range []string{"hole", "sparse", "smallhole"} {
		if got, want := blocks(t, w.path("out", name)), blocks(t, w.path("src", name)); got > want {
			t.Errorf("%s has %d blocks, not %d: its holes were filled", name, got, want)
		}
	}
	testTarOutput(t, w, url)
}

func blocks(t *testing.T, name string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}

func testTarOutput(t *testing.T, w *world, url string) {
	w.dupfs("tar", "--output", "some.tar", url, "dir")
	if got := w.sh("tar -tf some.tar"); !strings.HasPrefix(got, "./dir/\n./dir/deep/\n") || strings.Contains(got, "./one\n") {
		t.Errorf("names:\n%s", got)
	}
	if info, err := os.Stat(w.path("some.tar")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if r := w.exec(nil, binary, "tar", "-o", "some.tar", url); r.code != exitTarget {
		t.Errorf("over a file: exit %d\n%s", r.code, r.stderr)
	}
	w.dupfs("tar", "--force", "-o", "some.tar", url, "above")
	if got := w.sh("tar -tf some.tar"); got != "./above\n" {
		t.Errorf("names:\n%s", got)
	}
	if r := w.exec(nil, binary, "tar", "-o", "none.tar", url, "missing"); r.code != exitNoPath {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if left, _ := filepath.Glob(w.path("none.tar")); len(left) > 0 {
		t.Error("it made a file of nothing")
	}
	if left, _ := filepath.Glob(w.path(".dupfs-output*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if r := w.exec(nil, "script", "-qec", binary+" tar "+url, "/dev/null"); r.code != exitUsage || !strings.Contains(r.stdout, "nothing for a terminal") {
		t.Errorf("to a terminal: exit %d\n%.200s", r.code, r.stdout)
	}
}

// A stream of a damaged archive ends well for tar, without the small files
// that are damaged, and says which are.
func TestTarDamaged(t *testing.T) {
	w := newWorld(t)
	w.sh("mkdir src; for i in 1 2 3; do head -c 300000 /dev/urandom > src/small$i; done; head -c 3000000 /dev/urandom > src/large; echo x > src/z")
	url := w.url("archive")
	w.dupfs("full", "--no-encryption", "--no-compression", "--volsize", "20", "src", url)
	volume := strings.TrimSpace(w.sh("ls archive/*.vol1.difftar"))
	text, err := os.ReadFile(w.path(volume))
	if err != nil {
		t.Fatal(err)
	}
	text[2_000_000] ^= 1 // in large
	text[3_450_000] ^= 1 // in small2, which ends one chunk; a neighbour may go with it
	w.write(volume, string(text))
	r := w.exec(nil, binary, "tar", "--no-encryption", "-o", "out.tar", url)
	if r.code != exitDamaged || !strings.Contains(r.stderr, "warning: large:") || !strings.Contains(r.stderr, "zeros in place") ||
		!strings.Contains(r.stderr, "warning: small2:") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	w.sh("mkdir out; tar -x -C out -f out.tar; cmp src/z out/z; test ! -e out/small2; cmp -n 1000000 src/large out/large; stat -c %s out/large | grep -qx 3000000")
}
