package restore

import (
	"context"
	"errors"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// links finds the first name of a file that has several, without remembering
// any: while more are to come, it has one more name in a directory of its own
// in the target, which is the number of its version. Only what is being
// restored just now is in memory.
type links struct {
	root int    // the target
	name string // of the directory in root

	mu   sync.Mutex
	fd   int // of the directory, -1 until it is needed
	busy map[uint64]chan struct{}
}

// newLinks returns links; the directory is made when it is needed.
func newLinks(root int, name string) *links {
	return &links{root: root, name: name, fd: -1, busy: map[uint64]chan struct{}{}}
}

// claim waits until nobody else restores a name of that version. Call the
// function it returns when done.
func (l *links) claim(ctx context.Context, version uint64) (func(), error) {
	for {
		l.mu.Lock()
		other := l.busy[version]
		if other == nil {
			mine := make(chan struct{})
			l.busy[version] = mine
			l.mu.Unlock()
			return func() {
				l.mu.Lock()
				delete(l.busy, version)
				l.mu.Unlock()
				close(mine)
			}, nil
		}
		l.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// dir opens the directory, and makes it the first time.
func (l *links) dir() (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fd >= 0 {
		return l.fd, nil
	}
	fd, err := makeDir(l.root, l.name, false)
	if err == nil {
		l.fd = fd
	}
	return fd, err
}

// get makes name in dir a further name of the version, and reports false if
// none was restored yet. count is the number of names of the file; with the
// last one it is forgotten.
func (l *links) get(version uint64, count uint32, dir int, name string) (bool, error) {
	fd, err := l.dir()
	if err != nil {
		return false, err
	}
	key := strconv.FormatUint(version, 16)
	err = unix.Linkat(fd, key, dir, name, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return false, nil
	case err != nil:
		_ = unix.Unlinkat(fd, key, 0) // the next copy is the one to link to
		return false, err
	}
	var st unix.Stat_t
	if unix.Fstatat(fd, key, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && uint64(st.Nlink) > uint64(count) {
		_ = unix.Unlinkat(fd, key, 0) // close removes what is left
	}
	return true, nil
}

// put keeps name in dir as the name of the version to link to.
func (l *links) put(version uint64, dir int, name string) error {
	fd, err := l.dir()
	if err != nil {
		return err
	}
	return unix.Linkat(dir, name, fd, strconv.FormatUint(version, 16), 0)
}

// close removes the directory and what is in it.
func (l *links) close() error {
	if l.fd < 0 {
		return nil
	}
	f := os.NewFile(uintptr(l.fd), l.name)
	defer f.Close()
	for {
		names, err := f.Readdirnames(pageLen)
		for _, name := range names {
			if err := unix.Unlinkat(l.fd, name, 0); err != nil {
				return wrap("remove "+l.name, err)
			}
		}
		if err != nil || len(names) == 0 {
			return wrap("remove "+l.name, unix.Unlinkat(l.root, l.name, unix.AT_REMOVEDIR))
		}
	}
}
