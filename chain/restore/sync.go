package restore

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// mounts are the file systems that a restore has met, each by an open directory:
// one, unless it goes into directories which were there. Only the walk uses it.
type mounts struct {
	fds map[uint64]int // by device
}

// note remembers the file system of an open directory.
func (m *mounts) note(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return wrap("stat", err)
	}
	if _, known := m.fds[uint64(st.Dev)]; known {
		return nil
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return wrap("open directory", err)
	}
	if m.fds == nil {
		m.fds = make(map[uint64]int)
	}
	m.fds[uint64(st.Dev)] = dup
	return nil
}

// close lets go of the directories.
func (m *mounts) close() {
	for _, fd := range m.fds {
		unix.Close(fd)
	}
	m.fds = nil
}

// sync makes everything that was restored durable: contents, names and
// attributes. One call for each file system costs less than one for each file.
func (m *mounts) sync() error {
	for _, fd := range m.fds {
		if err := syncDisk(fd); err != nil {
			return err
		}
	}
	return nil
}

// syncDisk writes the file system that fd is open on to its disk.
func syncDisk(fd int) error {
	if err := syncFS(fd); err != nil {
		return fmt.Errorf("what was restored may not all be on the disk: %w", err)
	}
	return nil
}

// flusher has what is written to a large file begin its way to the disk at once,
// so that sync finds little to do.
type flusher struct {
	f        *os.File
	off      bool
	from, to int64 // written, and not on its way yet
}

// flushLen is how many bytes are sent together.
const flushLen = 8 << 20

// wrote tells of bytes that were written. That the system cannot do it costs time
// only: sync tells of errors.
func (w *flusher) wrote(off, n int64) {
	if w.off {
		return
	}
	if off != w.to {
		w.from = off
	}
	if w.to = off + n; w.to-w.from >= flushLen {
		beginWriting(int(w.f.Fd()), w.from, w.to-w.from)
		w.from = w.to
	}
}
