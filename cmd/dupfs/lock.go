package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// lock makes this process the only one of the machine that writes to the
// archive, until unlock is called or the process ends, however it does. It is a
// lock on a file in the archive directory, of the kind that duplicity takes
// there. Reading and mounting take none.
func (a *archive) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(a.dir, "lockfile"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("archive directory: %w", err)
	}
	err = unix.FcntlFlock(f.Fd(), setLock, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
		who, _ := io.ReadAll(io.LimitReader(f, 32)) // only to be helpful
		f.Close()
		text := "another process of this machine"
		if pid := strings.TrimSpace(string(who)); pid != "" {
			text += " (" + pid + ")"
		}
		err := worded(fmt.Errorf("%s: %s is writing to this archive", a.shown, text), "",
			"Another duplicity instance is already running with this archive directory\n")
		return nil, fail(exitUser, err, "wait until it has ended, then run this again")
	case err != nil:
		a.env.note(fmt.Sprintf("no lock in %s, so take care that nothing else writes to this archive: %v", a.dir, err))
	default:
		if f.Truncate(0) == nil {
			_, _ = fmt.Fprintln(f, os.Getpid()) // only to be helpful
		}
	}
	return func() { f.Close() }, nil
}
