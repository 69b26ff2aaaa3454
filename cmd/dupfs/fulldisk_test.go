package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dupfs/internal/need"
)

// fullVariable asks for the long form: many sizes of disk, every command.
const fullVariable = "DUPFS_FULL_DISKS"

// fullDisk is what a disk is full of, or would be.
type fullDisk struct {
	name string // of the place
	dir  string // where it is, below the world
	env  []string
	base string // directory that is on it beforehand
}

// fullRun is a command that finds no space.
type fullRun struct {
	name, before string
	args         []string
	writes       string // the places that it cannot do without, as names of disks
	after        func(w *world)
	long         bool
}

// Whatever disk is full, and whenever: there is an error that says so, the
// archive is as good as before, and with space the same command does its work.
// Disks are given a little more until the command has enough, so that they are
// full at every stage. What is only a cache is done without.
func TestFullDisks(t *testing.T) {
	need.Root(t)
	long := os.Getenv(fullVariable) != ""
	w := newWorld(t)
	url := "file://" + w.path("disk-archive/a")
	w.sh(`mkdir disk-tmp disk-archive disk-cache disk-out
		mkdir src; for i in 1 2 3 4; do head -c 500000 /dev/urandom > src/file$i; done; cp -a src copy0`)
	w.dupfs("full", "--volsize", "1", "--current-time", at(0), "src", url)
	w.sh("cp -a disk-archive base0; cp -a home/.cache cache0; head -c 1500000 /dev/urandom > src/new; cp -a src copy1")
	w.dupfs("--volsize", "1", "--current-time", at(1), "src", url)
	w.sh("cp -a disk-archive base1; cp -a home/.cache cache1; rm -rf disk-archive/* home/.cache")
	w.stock("full", "--volsize", "1", "--current-time", at(0), "--archive-dir", w.path("stock"), "src", url)
	w.sh("cp -a disk-archive base2; rm -rf disk-archive/* stock; mkdir nothing")

	restored := func(copy string) func(w *world) {
		return func(w *world) {
			w.t.Helper()
			w.sh("diff -r disk-out/o " + copy)
		}
	}
	sound := func(w *world) {
		w.t.Helper()
		w.sh("rm -rf home/.cache")
		w.dupfs("verify", "--compare-data", url, "src")
		if out := w.dupfs("status", url); strings.Contains(out, "incomplete") || strings.Contains(out, "damaged") {
			w.t.Error(out)
		}
	}
	runs := []fullRun{
		{name: "full", before: "nothing", args: []string{"full", "--volsize", "1", "src", url}, writes: "archive tmp", after: sound},
		{name: "increment", before: "base0", args: []string{"--volsize", "1", "--current-time", at(1), "src", url}, writes: "archive tmp", after: sound},
		{name: "restore", before: "base1", args: []string{"restore", url, w.path("disk-out/o")}, writes: "out", after: restored("copy1")},
		{name: "verify", before: "base1", args: []string{"verify", url}},
		{name: "compact", before: "base1", args: []string{"compact", "--volsize", "1", url}, writes: "archive tmp", after: sound, long: true},
		{name: "index", before: "base2", args: []string{"index", "--upload", url}, writes: "archive tmp", after: sound, long: true},
		{name: "restore of duplicity's", before: "base2", args: []string{"restore", url, w.path("disk-out/o")}, writes: "out", after: restored("copy1"), long: true},
		{name: "verify --level volumes", before: "base2", args: []string{"verify", "--level", "volumes", url}, long: true},
		{name: "drill", before: "base1", args: []string{"drill", url}, writes: "tmp"},
	}
	disks := []fullDisk{
		{name: "tmp", dir: "disk-tmp", env: []string{"TMPDIR=" + w.path("disk-tmp")}},
		{name: "archive", dir: "disk-archive", base: "yes"},
		{name: "cache", dir: "disk-cache", env: []string{"XDG_CACHE_HOME=" + w.path("disk-cache")}},
		{name: "out", dir: "disk-out"},
	}
	for _, r := range runs {
		for _, d := range disks {
			if !long && (r.long || d.name != "cache" && !strings.Contains(r.writes, d.name)) || d.name == "out" && !strings.Contains(r.writes, "out") {
				continue
			}
			t.Run(r.name+"/"+d.name, func(t *testing.T) {
				w.t = t
				w.fullDisk(r, d, long)
			})
		}
	}
	w.t = t
}

// fullDisk runs a command on disks that grow until it has enough of it.
func (w *world) fullDisk(r fullRun, d fullDisk, long bool) {
	w.t.Helper()
	step := 8
	if long {
		step = 2
	}
	failed := 0
	for kib := 4; ; {
		if w.onDisk(r, d, kib) {
			break
		}
		if failed++; kib > 64<<10 {
			w.t.Fatal("it is never enough")
		}
		if kib < 512 && long || kib*step < 2048 {
			kib *= step
		} else {
			kib += kib / 2
		}
	}
	if failed == 0 && strings.Contains(r.writes, d.name) {
		w.t.Error("no disk was ever full")
	}
	if testing.Verbose() {
		w.t.Logf("%d disks were too small", failed)
	}
}

// onDisk runs a command on a disk with so much space, and reports whether that
// was enough.
func (w *world) onDisk(r fullRun, d fullDisk, kib int) (enough bool) {
	w.t.Helper()
	w.sh(`rm -rf disk-*/* home/.cache; mkdir -p disk-tmp`)
	if strings.HasSuffix(r.before, "0") || strings.HasSuffix(r.before, "1") {
		w.sh("cp -a cache" + r.before[len(r.before)-1:] + " home/.cache")
	}
	if d.base == "" {
		w.sh("cp -a " + r.before + "/. disk-archive/")
		w.sh(fmt.Sprintf("mount -t tmpfs -o size=%dk tmpfs %s", kib, d.dir))
	} else {
		// What is there already is not what it is short of.
		w.sh(fmt.Sprintf(`mount -t tmpfs -o size=1g tmpfs %s; cp -a %s/. %[1]s/
			used=$(df -k --output=used %[1]s | tail -1); mount -o remount,size=$((used + %[3]d))k %[1]s`, d.dir, r.before, kib))
	}
	defer w.sh("umount " + d.dir)
	w.sh("cd disk-archive; find . -type f -exec sha256sum {} + > ../before")
	res := w.exec(d.env, binary, r.args...)
	must := strings.Contains(r.writes, d.name)
	say := func(format string, args ...any) {
		w.t.Helper()
		w.t.Errorf("%d KiB: exit %d: %s\n%.1500s", kib, res.code, fmt.Sprintf(format, args...), res.stderr)
	}
	if strings.Contains(res.stderr, "goroutine ") || res.code < 0 {
		say("it broke")
	}
	// What was in the archive before is untouched.
	w.sh("cd disk-archive; test ! -s ../before || sha256sum -c --quiet ../before")
	if res.code == 0 || res.code == exitIncomplete && !must {
		if r.after != nil {
			r.after(w)
		}
		return true
	}
	if !strings.Contains(res.stderr, "no space left on device") {
		say("it does not tell of the space")
	}
	if !strings.Contains(res.stderr, d.dir) && !strings.Contains(res.stderr, "temporary") && !strings.Contains(res.stderr, "archive") {
		say("it does not name what is full")
	}
	if !must && kib >= 64 {
		say("it does not do without the %s", d.name)
	}
	// With space it goes on.
	w.sh("mount -o remount,size=1g " + d.dir)
	args := r.args
	if r.name == "restore" || strings.HasPrefix(r.name, "restore ") {
		args = append([]string{"--force"}, args...)
	}
	if again := w.exec(d.env, binary, args...); again.code != 0 {
		w.t.Errorf("%d KiB, with space: exit %d\n%.1500s", kib, again.code, again.stderr)
	} else if r.after != nil {
		r.after(w)
	}
	return false
}

// A mount reads on when the disk of its cache, or of its temporary files, is
// full.
func TestFullDiskOfMount(t *testing.T) {
	need.Root(t)
	w := newWorld(t)
	url := w.url("archive")
	w.sh("mkdir src small; head -c 5000000 /dev/urandom > src/file")
	backups := map[string]func(){
		"dupfs":     func() { w.dupfs("full", "src", url) },
		"duplicity": func() { w.stock("full", "src", url) },
	}
	for _, who := range []string{"dupfs", "duplicity"} {
		w.sh("rm -rf archive")
		backups[who]()
		sizes := []int{4, 512}
		if os.Getenv(fullVariable) != "" {
			sizes = []int{4, 16, 64, 256, 512, 2048, 6000}
		}
		for _, kib := range sizes {
			for _, place := range []string{"XDG_CACHE_HOME", "TMPDIR"} {
				w.sh(fmt.Sprintf("rm -rf home/.cache; mount -t tmpfs -o size=%dk tmpfs small", kib))
				w.throughMount(who, url, fmt.Sprintf("%s=%s", place, w.path("small")))
				w.sh("umount small")
			}
		}
	}
}

func (w *world) throughMount(who, url, env string) {
	w.t.Helper()
	old := w.env
	w.env = append(append([]string{}, old...), env)
	defer func() { w.env = old }()
	dir, err := os.MkdirTemp(w.dir, "mnt")
	if err != nil {
		w.t.Fatal(err)
	}
	defer os.Remove(dir)
	if r := w.exec(nil, binary, "mount", url, dir); r.code != 0 {
		if !strings.Contains(r.stderr, "no space left") {
			w.t.Errorf("%s, %s: exit %d\n%s", who, env, r.code, r.stderr)
		}
		return
	}
	got, err := os.ReadFile(filepath.Join(dir, "snapshots/latest/file"))
	if want, _ := os.ReadFile(w.path("src/file")); err == nil && !bytes.Equal(got, want) {
		w.t.Errorf("%s, %s: wrong bytes", who, env)
	} else if err != nil && !strings.Contains(err.Error(), "input/output error") {
		w.t.Errorf("%s, %s: %v", who, env, err)
	}
	if testing.Verbose() {
		w.t.Logf("%s, %s: %v", who, env, err)
	}
	w.exec(nil, binary, "umount", dir)
}
