package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dupfs/chain"
)

// A mount says in a file beside the catalog which sets the programs that use
// it need just now, so that no removal takes them away. The file is locked as
// long as the mount lives: whoever can lock it knows that it is left over. No
// mount ever holds up a backup, or a removal of what nobody looks at.

// leaseDir is where these files are, in the directory of the archive's cache.
const leaseDir = "mounts"

// lease is what a mount says.
type lease struct {
	PID   int       `json:"pid"`
	Dir   string    `json:"mounted_on"`
	Since time.Time `json:"since"`
	Sets  []string  `json:"sets"` // times of the sets in use, as file names spell them
}

// leaseFile is the file of a mount.
type leaseFile struct {
	mu sync.Mutex
	f  *os.File
	lease
}

// newLease makes the file of a mount on dir.
func (a *archive) newLease(dir string) (*leaseFile, error) {
	parent := filepath.Join(a.dir, leaseDir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(parent, "*.json")
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.ENOLCK) {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	l := &leaseFile{f: f, lease: lease{PID: os.Getpid(), Dir: dir, Since: a.env.now().UTC().Truncate(time.Second)}}
	return l, l.write(nil)
}

// write says which sets are in use.
func (l *leaseFile) write(sets []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Sets = sets
	b, err := json.Marshal(l.lease)
	if err != nil {
		return err
	}
	if _, err := l.f.WriteAt(b, 0); err != nil {
		return err
	}
	return l.f.Truncate(int64(len(b)))
}

// Close removes the file.
func (l *leaseFile) Close() error { return errors.Join(os.Remove(l.f.Name()), l.f.Close()) }

// inUse returns what a mount calls when other points are in use.
func (a *archive) inUse(l *leaseFile) func(points []uint32) {
	return func(points []uint32) {
		var sets []string
		seen := map[string]bool{}
		for _, p := range points {
			for _, s := range a.snapshot.Needed(p) {
				if t := s.Times(); !seen[t] {
					seen[t] = true
					sets = append(sets, t)
				}
			}
		}
		if err := l.write(sets); err != nil {
			a.env.note(fmt.Sprintf("%s: %v", l.f.Name(), err))
		}
	}
}

// leases returns what the living mounts of the archive say, and removes what
// dead ones left.
func (a *archive) leases() ([]lease, error) {
	names, err := filepath.Glob(filepath.Join(escapeGlob(a.dir), leaseDir, "*.json"))
	if err != nil {
		return nil, err
	}
	var all []lease
	for _, name := range names {
		l, alive, err := readLease(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if alive {
			all = append(all, l)
		}
	}
	return all, nil
}

// escapeGlob makes a path a pattern that matches it alone.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// readLease reads the file of a mount that is alive, or removes it.
func readLease(name string) (l lease, alive bool, err error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return l, false, nil
	}
	if err != nil {
		return l, false, err
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return l, false, os.Remove(name)
	}
	for try := 0; ; try++ { // it may be caught while it is being written
		b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
		if err == nil {
			err = json.Unmarshal(b, &l)
		}
		if err == nil || try == 20 {
			return l, true, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// refuseInUse refuses to delete files of sets that a living mount on this
// machine shows somebody just now.
func (a *archive) refuseInUse(files []chain.Stored) error {
	leases, err := a.leases()
	if err != nil {
		return err
	}
	deleted := map[string]chain.Stored{}
	for _, f := range files {
		s := chain.Set{Full: f.Full, Start: f.Start, End: f.End}
		deleted[s.Times()] = f
	}
	for _, l := range leases {
		for _, t := range l.Sets {
			f, ok := deleted[t]
			if !ok {
				continue
			}
			return fail(exitUser,
				fmt.Errorf("the backup of %s is in use: it is mounted on %s (process %d, since %s); nothing was deleted",
					stamp(f.End), printable(l.Dir), l.PID, l.Since.Format(time.RFC3339)),
				"close what is open there, or `dupfs umount "+printable(l.Dir)+"`; --ignore-mounts deletes it all the same")
		}
	}
	return nil
}
