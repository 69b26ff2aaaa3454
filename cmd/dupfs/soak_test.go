package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// soak is an archive in a random life.
type soak struct {
	*world
	t      *testing.T
	r      *rand.Rand
	url    string
	stock  func(args ...string) string // nil where stock cannot reach the store
	tick   int                         // of the archive's clock
	copies map[int64]string            // of each point, by its time
	log    []string
}

// A random life of an archive: backups by dupfs and by stock in turn, killed
// backups, compaction, removal, cleaning up, mounts that are read meanwhile; after
// each step some point, and in the end every point, is what it was. It is short;
// DUPFS_SOAK=1h makes it long, and adds Swift and Azure.
func TestSoak(t *testing.T) {
	limit, err := time.ParseDuration(os.Getenv("DUPFS_SOAK"))
	long := err == nil
	stores := map[string]func(w *world) *soak{"local": func(w *world) *soak {
		return &soak{world: w, url: w.url("archive"), stock: w.stock}
	}}
	if long {
		stores["swift"] = func(w *world) *soak {
			w.env = append(w.env, swiftEnv(t, "")...)
			return &soak{world: w, url: fmt.Sprintf("swift://soak-%d/some", os.Getpid()), stock: w.stockSwift}
		}
		stores["azure"] = func(w *world) *soak {
			w.env = append(w.env, azureEnv(t, "")...)
			return &soak{world: w, url: fmt.Sprintf("azure://soak-%d", os.Getpid())}
		}
	}
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(newWorld(t))
			s.t, s.copies = t, map[int64]string{}
			seed := uint64(11)
			if long {
				seed = uint64(time.Now().UnixNano())
			}
			s.r = rand.New(rand.NewPCG(seed, 0))
			end := time.Now().Add(limit)
			s.sh("mkdir src copies")
			for step := 0; step < 8 || long && time.Now().Before(end); step++ {
				s.step(step)
				if t.Failed() {
					break
				}
			}
			s.compareAll()
			if t.Failed() || long {
				t.Logf("seed %d, %d steps, %d points\n%s", seed, len(s.log), len(s.copies), strings.Join(s.log, "\n"))
			}
		})
	}
}

func (s *soak) note(format string, args ...any) { s.log = append(s.log, fmt.Sprintf(format, args...)) }

// now returns the archive's time, and goes on.
func (s *soak) now() int64 {
	s.tick++
	return epoch + int64(s.tick)*3600
}

// step does one thing.
func (s *soak) step(n int) {
	what := s.r.IntN(10)
	if n < 2 {
		what = n // something to begin with
	}
	switch {
	case what < 2 || s.stock == nil && what < 4:
		s.backup("dupfs", s.world.dupfs)
	case what < 4:
		s.backup("stock", s.stock)
	case what == 4:
		s.killed()
	case what == 5:
		s.note("compact")
		s.world.dupfs("compact", "--current-time", fmt.Sprint(s.now()), s.url)
	case what == 6:
		s.remove()
	case what == 7:
		s.note("verify samples")
		s.world.dupfs("verify", "--level", "volumes", "--sample", "30%", s.url)
	default:
		s.mounted()
	}
}

// backup changes the source and backs it up, twice in three times as an increment.
func (s *soak) backup(who string, run func(...string) string) {
	s.mutate(s.r, 1+s.r.IntN(10))
	at := s.now()
	// Whole seconds, which stock can hold, never those of the version before.
	s.sh(fmt.Sprintf(`find src -newermt @%d -exec touch -h -d @%d {} + ; find src -depth -type d -exec touch -d @%d {} +`, at, at-1800, at-1800))
	verb := "incremental"
	if len(s.copies) == 0 || s.r.IntN(6) == 0 {
		verb = "full"
	}
	s.note("%s %s at %d", who, verb, at)
	run(verb, "--volsize", "1", "--current-time", fmt.Sprint(at), "src", s.url)
	s.copies[at] = s.path("copies", fmt.Sprint(at))
	s.sh(fmt.Sprintf("cp -a src copies/%d", at))
}

// killed begins a backup, kills it somewhere, and lets dupfs back up again.
func (s *soak) killed() {
	s.mutate(s.r, 10)
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, binary, "backup", "--volsize", "1", "--current-time", fmt.Sprint(s.now()), "src", s.url)
	cmd.Dir, cmd.Env = s.dir, s.env
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	delay := time.Duration(s.r.IntN(400)) * time.Millisecond
	time.Sleep(delay)
	cancel() // SIGKILL
	err := cmd.Wait()
	s.note("killed after %v: %v", delay, err)
	if err == nil { // it was quicker: that is a point like any other
		s.copies[epoch+int64(s.tick)*3600] = s.path("copies", fmt.Sprint(epoch+int64(s.tick)*3600))
		s.sh(fmt.Sprintf("cp -a src copies/%d", epoch+int64(s.tick)*3600))
	}
	s.backup("dupfs", s.world.dupfs)
	s.world.dupfs("cleanup", "--force", s.url)
}

// remove leaves two chains.
func (s *soak) remove() {
	out := s.world.dupfs("remove-all-but-n-full", "2", "--force", s.url)
	s.note("remove: %s", strings.ReplaceAll(strings.TrimSpace(out), "\n", "; "))
	for at := range s.copies {
		if !strings.Contains(s.world.dupfs("status", s.url), time.Unix(at, 0).UTC().Format(time.RFC3339)) {
			delete(s.copies, at)
		}
	}
}

// mounted reads somewhere in the mount, backs up meanwhile, and finds the new
// point by its time.
func (s *soak) mounted() {
	s.note("mount")
	mnt, unmount := s.mount(s.url)
	defer unmount()
	for at, dir := range s.copies {
		point := filepath.Join(mnt, "snapshots", time.Unix(at, 0).UTC().Format(time.RFC3339))
		for range 20 {
			readSomewhere(s.t, s.r, point, dir)
		}
		if s.r.IntN(3) == 0 {
			same(s.t, fmt.Sprint("mount of ", at), point, dir)
		}
	}
}

// compareAll restores every point.
func (s *soak) compareAll() {
	for at, dir := range s.copies {
		out := s.path("out")
		s.sh("rm -rf out")
		s.world.dupfs("restore", "--time", fmt.Sprint(at), s.url, out)
		same(s.t, fmt.Sprint("restore of ", at), out, dir)
	}
	if s.stock != nil && len(s.copies) > 0 {
		newest := int64(0)
		for at := range s.copies {
			newest = max(newest, at)
		}
		s.sh("rm -rf out")
		s.stock("restore", "--time", fmt.Sprint(newest), s.url, s.path("out"))
		same(s.t, "stock restore of the newest", s.path("out"), s.copies[newest])
	}
	s.world.dupfs("verify", "--all-points", s.url)
}
