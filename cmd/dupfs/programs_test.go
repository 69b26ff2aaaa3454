//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dupfs/internal/need"
)

// TestProgramsOnMount has the programs that people use look at mounted points,
// beside kept copies: what they say must be the same.
func TestProgramsOnMount(t *testing.T) {
	need.FUSE(t)
	need.Root(t) // others cannot make devices, nor read all attributes
	for _, p := range []string{"rsync", "git", "setfacl", "setfattr", "ncdu"} {
		need.Program(t, p)
	}
	w := newWorld(t)
	url := w.url("archive")
	r := rand.New(rand.NewPCG(8, 8))
	w.sh(`mkdir -p src/repo src/d/e; cd src
		git init -q repo; cd repo; git config user.name t; git config user.email t@example.org
		for i in $(seq 40); do echo "line $i needle" > f$i; done; git add .; git commit -qm one; git gc -q; echo changed >> f7; echo new > untracked; rm f9; cd ..
		echo linked > d/one; ln d/one d/e/two; ln -s ../d/one d/e/link; mkfifo d/fifo; mknod d/null c 1 3
		truncate -s 3M d/sparse; printf data | dd of=d/sparse bs=1 seek=1500000 conv=notrunc status=none
		setfacl -m u:1234:rx d/e; setfattr -n user.mood -v good d/one; chmod 4711 d/one`)
	w.write("src/big", string(randomBytes(r, 2<<20)))
	w.sh("cp -a --sparse=always src copy0")
	w.dupfs("backup", "--volsize", "1", "--current-time", at(0), "src", url)
	w.sh("cd src; echo more >> repo/f8; git -C repo commit -qam two; mv d/e d/f; printf x | dd of=big bs=1 seek=100000 conv=notrunc status=none; cd ..; cp -a --sparse=always src copy1")
	w.dupfs("backup", "--volsize", "1", "--current-time", at(1), "src", url)
	mnt, _ := w.mount(url)
	for n := range 2 {
		point := filepath.Join(mnt, "snapshots", time.Unix(epoch+int64(n)*86400, 0).UTC().Format(time.RFC3339))
		both := strings.NewReplacer("COPY", w.path(fmt.Sprint("copy", n)), "POINT", point)
		for _, script := range []string{
			"rsync -aHAXn --checksum --delete --itemize-changes --devices --specials COPY/ POINT/",
			"rsync -aHAXn --checksum --delete --itemize-changes --devices --specials POINT/ COPY/",
			"diff -r --no-dereference --exclude=fifo --exclude=null COPY POINT",
		} {
			if out := w.sh(both.Replace(script)); out != "" {
				t.Errorf("%s:\n%s", both.Replace(script), out)
			}
		}
		for _, script := range []string{
			"cd DIR; tar -cf - --sort=name --format=posix --pax-option=delete=atime,delete=ctime --acls --xattrs . | sha256sum",
			"git --no-optional-locks -c safe.directory='*' -C DIR/repo status --porcelain; git -c safe.directory='*' -C DIR/repo log --format=%H%s; git -c safe.directory='*' -C DIR/repo fsck 2>&1",
			"cd DIR; grep -r needle repo --include='f*' | sort | sha256sum",
			"cd DIR; find . -printf '%p %y %m %n %s %T@ %l\\n' | grep -v '^[^ ]* d' | sort",
			"stat -c %b DIR/d/sparse; getfacl -nR DIR 2>/dev/null | grep -c 1234; getfattr -dR --absolute-names DIR/d 2>/dev/null | grep -c mood",
			"rm -rf out; cp -a --sparse=auto DIR out; du -s --block-size=1 out/d/sparse; rm -r out",
		} {
			a := w.sh(strings.ReplaceAll(script, "DIR", w.path(fmt.Sprint("copy", n))))
			b := w.sh(strings.ReplaceAll(script, "DIR", point))
			if b = strings.ReplaceAll(b, point, w.path(fmt.Sprint("copy", n))); a != b {
				t.Errorf("point %d: %s\ncopy:  %s\nmount: %s", n, script, a, b)
			}
		}
	}
	for _, dir := range []string{mnt + "/snapshots/latest/.", w.path("copy1")} {
		countDisk(t, w, dir)
	}
	if s := status(t, mnt); s.Mount.Errors != 0 || s.Mount.Pending != 0 {
		t.Errorf("status: %+v", s.Mount)
	}
}

// countDisk adds up what ncdu exports, which must be what du says.
func countDisk(t *testing.T, w *world, dir string) {
	t.Helper()
	var export []json.RawMessage
	if err := json.Unmarshal([]byte(w.sh("ncdu -0 -o - "+dir)), &export); err != nil || len(export) != 4 {
		t.Fatalf("ncdu exports %d parts, %v", len(export), err)
	}
	linked := map[uint64]bool{}
	var size, disk int64
	var add func(raw json.RawMessage)
	add = func(raw json.RawMessage) {
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) == nil { // a directory: itself, and what is in it
			for _, r := range list {
				add(r)
			}
			return
		}
		var e struct {
			Asize, Dsize int64
			Ino          uint64
			Hlnkc        bool
			ReadError    bool `json:"read_error"`
		}
		if err := json.Unmarshal(raw, &e); err != nil || e.ReadError {
			t.Errorf("ncdu: %s, %v", raw, err)
		}
		if !e.Hlnkc || !linked[e.Ino] {
			size, disk = size+e.Asize, disk+e.Dsize
		}
		linked[e.Ino] = linked[e.Ino] || e.Hlnkc
	}
	add(export[3])
	want := w.sh("du -s --block-size=1 --apparent-size " + dir + " | cut -f1; du -s --block-size=1 " + dir + " | cut -f1")
	if got := fmt.Sprintf("%d\n%d\n", size, disk); got != want || size == 0 || disk == 0 || len(linked) < 2 {
		t.Errorf("%s: ncdu counts %q, du %q, %d linked", dir, got, want, len(linked))
	}
}

// TestSignalStorm has fifty readers that are signalled all the time read a
// mount that has one processor, and two: no error, no wrong byte, nothing left.
func TestSignalStorm(t *testing.T) {
	need.FUSE(t)
	w := newWorld(t)
	url := w.url("archive")
	r := rand.New(rand.NewPCG(9, 9))
	for i := range 60 {
		w.write(fmt.Sprintf("src/d%d/f%d", i%7, i), string(randomBytes(r, 1<<uint(r.IntN(18)))))
	}
	w.dupfs("backup", "--volsize", "1", "--current-time", at(0), "src", url)
	w.sh("cp -a src copy")
	for _, procs := range []int{1, 2} {
		env := w.env
		w.env = append(slices.Clone(env), fmt.Sprint("GOMAXPROCS=", procs))
		mnt, unmount := w.mount(url, "--memory", "1M")
		w.env = env
		signalStorm(t, filepath.Join(mnt, "snapshots/latest"), w.path("copy"))
		s := statusClosed(t, mnt)
		if s.Mount.Errors != 0 || s.Mount.OpenFiles != 0 {
			t.Errorf("GOMAXPROCS=%d: status %+v", procs, s.Mount)
		}
		unmount()
	}
}

// signalStorm reads all files of a point in fifty threads, each in its own order.
func signalStorm(t *testing.T, point, kept string) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGUSR1)
	defer signal.Stop(signals)
	var names []string
	_ = filepath.WalkDir(kept, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(kept, name)
			names = append(names, rel)
		}
		return err
	})
	const readers = 50
	var tids [readers]atomic.Int32
	var group sync.WaitGroup
	for i := range readers {
		group.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			tids[i].Store(int32(unix.Gettid()))
			defer tids[i].Store(0)
			for k := range len(names) {
				name := names[(k*7+i)%len(names)]
				got, err := os.ReadFile(filepath.Join(point, name))
				want, _ := os.ReadFile(filepath.Join(kept, name))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(want), err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { group.Wait(); close(done) }()
	for n := 0; ; n++ {
		select {
		case <-done:
			return
		case <-signals:
		default:
			if tid := tids[n%readers].Load(); tid != 0 {
				_ = unix.Tgkill(os.Getpid(), int(tid), unix.SIGUSR1)
			}
			if n%readers == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}
}
