package fusefs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// mountInfo is what the kernel's table of mounts says of one.
type mountInfo struct {
	dev    string // major:minor, or what tells mounts apart here
	dir    string
	fstype string
}

// resolve returns the absolute path of a mount point without symbolic links,
// also if a dead mount is there.
func resolve(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	if err == nil || !deadError(err) {
		return real, err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", err
	}
	return filepath.Join(parent, filepath.Base(abs)), nil
}

// deadError reports whether err is what a mount answers whose serving process
// has ended.
func deadError(err error) bool {
	return errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.ECONNABORTED)
}

// IsDead reports whether a mount is left at dir whose serving process has
// ended.
func IsDead(dir string) bool {
	var st unix.Statfs_t // stat could be answered from the kernel's memory
	return deadError(unix.Statfs(dir, &st))
}

// checkDir finds out whether dir is fit to mount on, and clears away dead
// mounts of ours.
func checkDir(dir string, nonEmpty bool) error {
	for {
		m, found, err := mountAt(dir)
		if err != nil {
			return err
		}
		if !found || !m.ours() {
			break
		}
		if !IsDead(dir) {
			return fmt.Errorf("%s: %w", dir, ErrMounted)
		}
		if err := detach(dir); err != nil {
			return fmt.Errorf("%s: remove the dead mount: %w", dir, err)
		}
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s: %w", dir, ErrNotDir)
	}
	if nonEmpty {
		return nil
	}
	return checkEmpty(dir)
}

func checkEmpty(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if names, _ := d.Readdirnames(1); len(names) > 0 {
		return fmt.Errorf("%s: %w", dir, ErrNotEmpty)
	}
	return nil
}
