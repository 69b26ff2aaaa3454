package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dupfs/internal/need"
)

// recovery is what both programs are told, so that stock takes seconds less:
// everything can be made anew, and out of few blocks.
var recovery = []string{"--par2-redundancy", "100", "--par2-options", "-b40"}

// healedDamages are what happens to the files of an archive, all at once.
var healedDamages = []struct {
	name   string
	damage func(t *testing.T, path string)
	points []int
	repair bool // let the doctor repair it, after the restores
	first  bool // or before them, since nothing can be restored
}{
	{"bit", func(t *testing.T, p string) {
		text := readFile(t, p)
		text[len(text)/2] ^= 1
		must(t, os.WriteFile(p, text, 0o600))
	}, []int{3, 1}, true, false},
	{"cut", func(t *testing.T, p string) {
		must(t, os.Truncate(p, int64(len(readFile(t, p))-50)))
	}, []int{3}, false, false},
	{"empty", func(t *testing.T, p string) { must(t, os.Truncate(p, 0)) }, []int{3}, false, false},
	{"gone but for manifests", func(t *testing.T, p string) {
		if !strings.Contains(p, ".manifest") {
			must(t, os.Remove(p))
		}
	}, []int{3}, true, false},
	{"manifests gone", func(t *testing.T, p string) {
		if strings.Contains(p, ".manifest") {
			must(t, os.Remove(p))
		}
	}, []int{3}, true, true},
	{"without NAME.par2", func(t *testing.T, p string) {
		text := readFile(t, p)
		text[len(text)/2] ^= 1
		must(t, os.WriteFile(p, text, 0o600))
		must(t, os.Remove(p+".par2"))
	}, []int{3}, false, false},
}

// A chain that both programs wrote in turn with par2+ is healed by both,
// whatever of it was damaged.
func TestPar2(t *testing.T) {
	need.Program(t, "par2")
	w := newWorld(t)
	w.env = append(w.env, "OMP_WAIT_POLICY=passive", "OMP_NUM_THREADS=1")
	url := "par2+" + w.url("archive")
	turn := []func(...string) string{w.stock, w.dupfs, w.stock, w.dupfs}
	w.sh("mkdir src; head -c 60000 /dev/urandom > src/a; head -c 30000 /dev/urandom > src/b; echo 0 > src/c; touch -d @1600000000 src")
	for n, backup := range turn {
		w.write("src/c", fmt.Sprint(n))
		w.sh(fmt.Sprintf(`printf %d | dd of=src/a bs=1 seek=30000 conv=notrunc status=none
			find src -exec touch -d @%d {} +; cp -a src copy%d`, n, 1600000000+n, n))
		backup(append([]string{"--current-time", at(n), "src", url}, recovery...)...)
	}
	w.sh("cp -a archive whole")
	var files []string
	for _, e := range dirOf(t, w.path("whole")) {
		if !strings.HasSuffix(e, ".par2") {
			if _, err := os.Stat(w.path("whole", e+".par2")); err != nil {
				t.Errorf("%s has no recovery files: %v", e, err)
			}
			files = append(files, e)
		}
	}
	if out := w.dupfs("doctor", "--deep", url); !strings.Contains(out, "Nothing is wrong") || !strings.Contains(out, "with recovery files of") {
		t.Errorf("doctor of the whole archive:\n%s", out)
	}
	for i, d := range healedDamages {
		t.Run(d.name, func(t *testing.T) {
			w := &world{t: t, dir: w.dir, env: append(w.env, "XDG_CACHE_HOME="+w.path(fmt.Sprint("cache", i)))}
			w.sh("rm -rf archive; cp -a whole archive")
			for _, f := range files {
				d.damage(t, w.path("archive", f))
			}
			if d.first {
				testDoctor(t, w, url)
			}
			for _, n := range d.points {
				out := w.path(fmt.Sprint("out", i, n))
				r := w.exec(nil, binary, "restore", "--time", at(n), url, out)
				if r.code != 0 {
					t.Fatalf("point %d: exit %d\n%s", n, r.code, r.stderr)
				}
				same(t, fmt.Sprint("point ", n), out, w.path(fmt.Sprint("copy", n)))
				if told := strings.Count(r.stderr, "it was healed from its recovery files"); (told == 0) != d.first && n == 3 {
					t.Errorf("told of %d files:\n%s", told, r.stderr)
				}
			}
			if i == 0 {
				out := w.path("stock")
				w.stock("restore", "--archive-dir", w.path("stockcache"), url, out)
				same(t, "stock", out, w.path("copy3"))
				testMountHealed(t, w, url)
			}
			if d.repair && !d.first {
				testDoctor(t, w, url)
			}
		})
	}
}

func dirOf(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// testMountHealed reads a mount of an archive every file of which is damaged.
func testMountHealed(t *testing.T, w *world, url string) {
	t.Helper()
	w.env = append(w.env, "XDG_CACHE_HOME="+w.path("mountcache"))
	mnt, unmount := w.mount(url)
	latest, err := filepath.EvalSymlinks(filepath.Join(mnt, "snapshots", "latest"))
	must(t, err)
	same(t, "mount", latest, w.path("copy3"))
	unmount()
	logs, err := filepath.Glob(w.path("mountcache", "dupfs", "*", "mount.log"))
	must(t, err)
	if len(logs) != 1 || !strings.Contains(string(readFile(t, logs[0])), "healed from its recovery files") {
		t.Errorf("nothing of it in the log of the mount: %q", logs)
	}
}

// testDoctor has an archive diagnosed and repaired to what it was.
func testDoctor(t *testing.T, w *world, url string) {
	t.Helper()
	r := w.exec(nil, binary, "verify", "--level", "volumes", url)
	if r.code != exitDamaged || !strings.Contains(r.stderr, "its recovery files make it whole") && !strings.Contains(r.stderr, "its recovery files may make it whole") {
		t.Errorf("verify: exit %d\n%s", r.code, r.stderr)
	}
	for i := 0; ; i++ { // what comes back brings other damage to light
		r = w.exec(nil, binary, "doctor", "--deep", "--repair", url)
		if r.code == 0 {
			break
		}
		if i == 2 {
			t.Fatalf("doctor: exit %d\n%s%s", r.code, r.stdout, r.stderr)
		}
	}
	w.sh("for f in whole/*; do case $f in *.par2) test -e archive/${f#whole/};; *) cmp $f archive/${f#whole/};; esac || exit 1; done")
}

// What recovery files cannot repair is named with the reason, and nothing of it
// is restored.
func TestPar2TooMuch(t *testing.T) {
	need.Program(t, "par2")
	w := newWorld(t)
	url := "par2+" + w.url("archive")
	w.sh("mkdir src; head -c 200000 /dev/urandom > src/a; echo b > src/b")
	w.dupfs("--current-time", at(0), "src", url)
	w.sh("cp -a archive whole; for f in archive/*.vol1.difftar.gpg; do truncate -s 1000 $f; done")
	w.env = append(w.env, "XDG_CACHE_HOME="+w.path("fresh"))
	r := w.exec(nil, binary, "restore", url, "out")
	if r.code != exitDamaged || !strings.Contains(r.stderr, "vol1.difftar.gpg: ") ||
		!strings.Contains(r.stderr, "it cannot be healed: it is damaged beyond what its recovery files can repair") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if _, err := os.Stat(w.path("out", "a")); !os.IsNotExist(err) {
		t.Errorf("something was restored: %v", err)
	}

	// Without par2+, the doctor says what would help.
	w.sh("rm -rf archive; cp -a whole archive; printf x | dd of=$(ls archive/*.vol1.difftar.gpg) bs=1 seek=50000 conv=notrunc status=none")
	r = w.exec(nil, binary, "doctor", "--deep", w.url("archive"))
	if r.code != exitDamaged || strings.Count(r.stdout, "with "+url+" they heal what is damaged") != 2 {
		t.Errorf("exit %d\n%s", r.code, r.stdout)
	}

	// A copy is healed on its way.
	r = w.exec(nil, binary, "replicate", url, w.url("second"))
	if r.code != 0 || !strings.Contains(r.stderr, "healed from its recovery files") {
		t.Errorf("replicate: exit %d\n%s", r.code, r.stderr)
	}
	w.dupfs("verify", "--level", "volumes", w.url("second"))
}

// Recovery files go with what they are of, and can be made later.
func TestPar2Removal(t *testing.T) {
	need.Program(t, "par2")
	w := newWorld(t)
	url := "par2+" + w.url("archive")
	w.write("src/a", "a\n")
	w.dupfs("--current-time", at(0), "src", w.url("archive"))
	if out := w.dupfs("doctor", url); !strings.Contains(out, "have no recovery files") {
		t.Errorf("doctor: %s", out)
	}
	w.dupfs("doctor", "--repair", url)
	if n := len(dirOf(t, w.path("archive"))); n != 12 {
		t.Errorf("%d files, of which 4 with 2 recovery files each", n)
	}
	w.dupfs("full", "--current-time", at(1), "src", url)
	if out := w.dupfs("status", url); !strings.Contains(out, "recovery files: ") {
		t.Errorf("status: %s", out)
	}
	w.dupfs("remove-all-but-n-full", "1", "--force", url)
	if files := dirOf(t, w.path("archive")); len(files) != 12 || strings.Contains(strings.Join(files, " "), "20231114T221320Z") {
		t.Errorf("left: %q", files)
	}
	w.sh("cd archive; for f in *; do case $f in *.par2) ;; *) rm $f;; esac; done")
	w.exec(nil, binary, "cleanup", "--force", url)
	if files := dirOf(t, w.path("archive")); len(files) != 0 {
		t.Errorf("left: %q", files)
	}
}

// Without the program nothing is written, and everything intact is read.
func TestPar2Missing(t *testing.T) {
	w := newWorld(t)
	w.write("src/a", "a\n")
	w.dupfs("--no-encryption", "src", w.url("archive"))
	before := dirOf(t, w.path("archive"))
	w.env = append(w.env, "PATH="+w.path("nowhere"))
	url := "par2+" + w.url("archive")
	r := w.exec(nil, binary, "full", "--no-encryption", "src", url)
	if r.code != exitUser || !strings.Contains(r.stderr, "the program par2 is not installed") || !strings.Contains(r.stderr, "hint: par2+URL needs it") {
		t.Errorf("exit %d\n%s", r.code, r.stderr)
	}
	if after := dirOf(t, w.path("archive")); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("%q became %q", before, after)
	}
	w.dupfs("restore", "--no-encryption", url, "out")
	for _, args := range [][]string{{"--par2-redundancy", "0"}, {"--par2-redundancy", "101"}, {"--par2-volumes", "0"}} {
		if r := w.exec(nil, binary, append(args, "src", url)...); r.code != exitUsage {
			t.Errorf("%q: exit %d\n%s", args, r.code, r.stderr)
		}
		w.dupfs(append([]string{"verify", "--no-encryption", w.url("archive")}, args...)...) // it means nothing there
	}
}

// Recovery files go with their files, whatever removes these, and what a killed
// process has left in temporary space goes with the next run.
func TestPar2Pairs(t *testing.T) {
	need.Program(t, "par2")
	w := newWorld(t)
	w.env = append(w.env, "OMP_WAIT_POLICY=passive", "OMP_NUM_THREADS=1")
	url := "par2+" + w.url("archive")
	w.sh("mkdir src tmp/dupfs-par2-held-left; echo x > tmp/dupfs-par2-held-left/file")
	paired := func(what string) {
		t.Helper()
		names := dirOf(t, w.path("archive"))
		all := strings.Join(names, "\n") + "\n"
		for _, n := range names {
			if strings.HasSuffix(n, ".par2") {
				of := strings.TrimSuffix(n, ".par2")
				if i := strings.LastIndex(of, ".vol"); i >= 0 && strings.Contains(of[i:], "+") {
					of = of[:i]
				}
				if !strings.Contains(all, of+"\n") {
					t.Errorf("%s: %s is of no file", what, n)
				}
			} else if !strings.Contains(all, n+".par2\n") && !strings.Contains(n, "dupfs-claim") {
				t.Errorf("%s: %s has no recovery files", what, n)
			}
		}
	}
	for n := range 4 {
		w.write("src/file", fmt.Sprint("content ", n))
		kind := "incremental"
		if n%2 == 0 {
			kind = "full"
		}
		w.dupfs(append([]string{kind, "--current-time", at(n), "src", url}, recovery...)...)
	}
	paired("backups")
	if _, err := os.Stat(w.path("tmp/dupfs-par2-held-left")); err == nil {
		t.Error("what a killed process left is still there")
	}
	count := func() int { return len(dirOf(t, w.path("archive"))) }
	for _, args := range [][]string{
		{"prune", "--keep-last", "1", "--force", url}, append([]string{"compact", url}, recovery...),
		{"remove-all-but-n-full", "1", "--force", url},
	} {
		before := count()
		w.dupfs(args...)
		if count() == before {
			t.Errorf("%v: nothing has changed", args)
		}
		paired(args[0])
	}
	w.dupfs("verify", url)
	// A set without its manifest is cleaned up with its recovery files.
	w.write("src/file", "content 9")
	w.dupfs(append([]string{"--current-time", at(9), "src", url}, recovery...)...)
	w.sh("rm archive/*.to.20231123*.manifest*; rm -r home/.cache")
	w.dupfs("cleanup", "--force", url)
	paired("cleanup")
	if left := w.archiveNames("archive", ".to.20231123"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	w.dupfs("verify", url)
}
