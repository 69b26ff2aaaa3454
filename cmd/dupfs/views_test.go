package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// kept is what a copy of a source holds: the text of each file by its path,
// which is enough to tell versions apart, and "dir" for a directory.
type kept map[string]string

// keep reads a tree. Versions of files differ by content or time.
func keep(t *testing.T, dir string) kept {
	t.Helper()
	k := kept{}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, name)
		if d.IsDir() {
			k[rel] = "dir"
			return nil
		}
		k[rel] = fileText(t, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func fileText(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(info.ModTime().UnixNano(), " ", string(b))
}

// files returns the files of k, or those for which fits holds.
func (k kept) files(fits func(name, text string) bool) kept {
	out := kept{}
	for name, text := range k {
		if text != "dir" && (fits == nil || fits(name, text)) {
			out[name] = text
		}
	}
	return out
}

func compareKept(t *testing.T, what string, got, want kept) {
	t.Helper()
	for name, text := range want {
		if g, ok := got[name]; !ok {
			t.Errorf("%s lacks %s", what, name)
		} else if g != text {
			t.Errorf("%s: %s is another version", what, name)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s has %s", what, name)
		}
	}
}

// TestViews compares every view across points with what kept copies of a
// random history say: one chain, and two with directories that become files.
func TestViews(t *testing.T) {
	for _, fullAt := range []int{0, 4} {
		t.Run(fmt.Sprint("full at ", fullAt), func(t *testing.T) { testViews(t, fullAt) })
	}
}

func testViews(t *testing.T, fullAt int) {
	w := newWorld(t)
	r := rand.New(rand.NewPCG(uint64(fullAt), 11))
	url := w.url("archive")
	w.sh("mkdir src src/same; echo x > src/same/file; touch -d @1000 src/same/file")
	const sets = 6
	var copies []kept
	var points []string
	for n := range sets {
		w.mutate(r, 8)
		switch n {
		case 2:
			w.sh("rm -rf src/gone src/flip; mkdir -p src/gone/deep; echo 1 > src/gone/deep/file; echo f > src/flip")
		case 3:
			w.sh("rm -r src/gone src/flip; mkdir src/flip; echo below > src/flip/below; mkdir -p src/turn/deep src/all/left; echo a > src/turn/deep/file; echo b > src/all/left/file")
		case 5:
			w.sh("rm -r src/turn; echo f > src/turn; rm src/all/left/file; mkdir src/empty")
		}
		verb := "backup"
		if n == fullAt && n > 0 {
			verb = "full"
		}
		w.dupfs(verb, "--no-encryption", "--current-time", at(n), "src", url)
		copies = append(copies, keep(t, w.path("src")))
		points = append(points, time.Unix(epoch+int64(n)*86400, 0).UTC().Format(time.RFC3339))
	}
	mnt, _ := w.mount(url, "--no-encryption")
	checkVersions(t, mnt, copies, points)
	checkDeleted(t, mnt, copies)
	for _, pair := range [][2]int{{0, 1}, {1, 2}, {2, 3}, {3, 4}, {0, 5}, {5, 1}} {
		checkChanges(t, mnt, copies, points, pair[0], pair[1])
	}
	if got := keep(t, filepath.Join(mnt, "changes", at(2)+"..latest", "added")).files(nil); len(got) == 0 {
		t.Error("changes from a time to latest show nothing added")
	}
	for _, name := range []string{"changes/x..y", "changes/" + points[0], "versions/none", "deleted/same/file", "versions/same/file/" + points[1]} {
		if _, err := os.Lstat(filepath.Join(mnt, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.sh("cd " + mnt + " && find versions deleted changes -ls > ../walk 2>&1 && ! grep -i loop ../walk")
}

// checkVersions: each file has the versions of the copies, each once, under
// the first point that has it, and with the inode it has there.
func checkVersions(t *testing.T, mnt string, copies []kept, points []string) {
	t.Helper()
	want := kept{}
	last := map[string]string{}
	for n, k := range copies {
		for name, text := range k.files(nil) {
			if last[name] == text {
				continue
			}
			last[name] = text
			want[name+"/"+points[n]] = text
			a, b := inode(t, filepath.Join(mnt, "versions", name, points[n])), inode(t, filepath.Join(mnt, "snapshots", points[n], name))
			if a != b {
				t.Errorf("versions/%s/%s has inode %d, not %d", name, points[n], a, b)
			}
		}
	}
	compareKept(t, "versions", keep(t, filepath.Join(mnt, "versions")).files(nil), want)
}

// checkDeleted: what some copy has and the last one has not, as it was last.
func checkDeleted(t *testing.T, mnt string, copies []kept) {
	t.Helper()
	now := copies[len(copies)-1]
	want := kept{}
	for _, k := range copies {
		for name, text := range k.files(func(name, _ string) bool { return now[name] == "" }) {
			want[name] = text
		}
	}
	if len(want) == 0 {
		t.Fatal("the history deletes nothing")
	}
	for name := range maps.Clone(want) {
		for name = filepath.Dir(name); name != "."; name = filepath.Dir(name) {
			want[name] = "dir" // only those
		}
	}
	for _, name := range []string{"turn/deep/file", "all/left/file", "gone/deep/file"} {
		if want[name] == "" {
			t.Errorf("the history does not delete %s", name)
		}
	}
	compareKept(t, "deleted", keep(t, filepath.Join(mnt, "deleted")), want)
}

// checkChanges compares changes/FROM..TO with what the copies say.
func checkChanges(t *testing.T, mnt string, copies []kept, points []string, from, to int) {
	t.Helper()
	dir := filepath.Join(mnt, "changes", points[from]+".."+points[to])
	old, now := copies[from], copies[to]
	is := func(k kept, name string) bool { return k[name] != "" && k[name] != "dir" }
	for class, want := range map[string]kept{
		"added":    now.files(func(name, _ string) bool { return !is(old, name) }),
		"modified": now.files(func(name, text string) bool { return is(old, name) && old[name] != text }),
		"deleted":  old.files(func(name, _ string) bool { return !is(now, name) }),
	} {
		got := keep(t, filepath.Join(dir, class))
		compareKept(t, fmt.Sprintf("changes %d..%d %s", from, to, class), got.files(nil), want)
		for name, text := range got {
			if text != "dir" || class == "added" && old[name] != "dir" || class == "deleted" && now[name] != "dir" {
				continue // a directory itself was added or deleted
			}
			if !slices.ContainsFunc(slices.Collect(maps.Keys(got)), func(n string) bool { return strings.HasPrefix(n, name+"/") }) {
				t.Errorf("changes %d..%d %s shows the directory %s, in which nothing was", from, to, class, name)
			}
		}
	}
}

func inode(t *testing.T, name string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		t.Error(name, err)
	}
	return st.Ino
}

// fact reads an attribute that the mount makes, "" if there is none.
func fact(t *testing.T, name, attr string) string {
	t.Helper()
	buf := make([]byte, 1<<16)
	n, err := unix.Lgetxattr(name, "user.dupfs."+attr, buf)
	if err == unix.ENODATA {
		return ""
	}
	if err != nil {
		t.Errorf("%s: %s: %v", name, attr, err)
	}
	return string(buf[:max(n, 0)])
}

// TestFacts: the attributes tell what a read costs, before and after, and what
// is damaged; no copy gets them; the status file counts.
func TestFacts(t *testing.T) {
	w := newWorld(t)
	url := w.url("archive")
	r := rand.New(rand.NewPCG(5, 5))
	w.write("src/big", string(randomBytes(r, 3<<20)))
	w.write("src/empty", "")
	w.write("src/a/small", "small")
	w.dupfs("backup", "--volsize", "1", "--no-encryption", "--current-time", at(0), "src", url)
	vols, _ := filepath.Glob(w.path("archive", "*difftar*"))
	mnt, unmount := w.mount(url, "--no-encryption")
	big := filepath.Join(mnt, "snapshots/latest/big")
	if got := strings.Split(fact(t, big, "volumes"), "\n"); len(got) < 2 || len(got) > len(vols) || !strings.Contains(got[0], "vol1.difftar") {
		t.Errorf("volumes %q of %d", got, len(vols))
	}
	before := number(t, fact(t, big, "bytes_to_fetch"))
	if fact(t, big, "cached") != "0" || before < 1<<20 {
		t.Errorf("before: cached %q, to fetch %d", fact(t, big, "cached"), before)
	}
	if fact(t, big, "set") != "20231114T221320Z" || fact(t, big, "tier") != "" || fact(t, big, "damaged") != "" {
		t.Errorf("set %q tier %q damaged %q", fact(t, big, "set"), fact(t, big, "tier"), fact(t, big, "damaged"))
	}
	if s := status(t, mnt); s.Store.Misses != 0 || s.Health != "ok" || s.Mount.Points != 1 || s.Dir != mnt {
		t.Errorf("status before reading: %+v", s)
	}
	w.sh("mkdir out; cp -a " + mnt + "/snapshots/latest/. out; cmp out/big src/big")
	if after := number(t, fact(t, big, "bytes_to_fetch")); after != 0 || number(t, fact(t, big, "cached")) != before {
		t.Errorf("after: to fetch %d, cached %q", after, fact(t, big, "cached"))
	}
	if s := status(t, mnt); s.Store.Fetched < before || s.Store.Misses == 0 {
		t.Errorf("status after reading: %+v", s.Store)
	}
	for _, name := range []string{big, w.path("out/big")} {
		if n, err := unix.Llistxattr(name, nil); n != 0 || err != nil {
			t.Errorf("%s lists attributes of %d bytes, %v", name, n, err)
		}
	}
	unmount()
	testDamageFacts(t, w, url)
}

// testDamageFacts takes a volume away that the large file needs.
func testDamageFacts(t *testing.T, w *world, url string) {
	w.sh("rm archive/*vol2.difftar*")
	mnt, _ := w.mount(url, "--no-encryption")
	big := filepath.Join(mnt, "snapshots/latest/big")
	if reason := fact(t, big, "damaged"); !strings.Contains(reason, "volume 2 of set") {
		t.Errorf("damaged: %q", reason)
	}
	if _, err := os.ReadFile(big); !errors.Is(err, unix.EIO) {
		t.Errorf("reading it: %v", err)
	}
	small := filepath.Join(mnt, "snapshots/latest/a/small")
	if b, err := os.ReadFile(small); err != nil || string(b) != "small" || fact(t, small, "damaged") != "" {
		t.Errorf("the intact file: %q, %v, damaged %q", b, err, fact(t, small, "damaged"))
	}
	s := status(t, mnt)
	if s.Health != "failing" || s.Mount.Errors == 0 || !slices.ContainsFunc(s.Damaged, func(d string) bool { return strings.Contains(d, "volume 2") }) {
		t.Errorf("status: %+v", s)
	}
}

func status(t *testing.T, mnt string) (s mountState) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(mnt, ".dupfs/status.json"))
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// statusClosed is status once no file is open, or after ten seconds: the kernel
// tells of closed files later.
func statusClosed(t *testing.T, mnt string) mountState {
	t.Helper()
	s := status(t, mnt)
	for n := 0; s.Mount.OpenFiles > 0 && n < 100; n++ {
		time.Sleep(100 * time.Millisecond)
		s = status(t, mnt)
	}
	return s
}

func number(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Error(err)
	}
	return n
}
