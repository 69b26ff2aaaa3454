package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mountInfo is what the kernel's table of mounts says of one.
type mountInfo struct {
	dev    string // major:minor
	dir    string
	fstype string
}

// mountAt returns the mount that is on top at dir, an absolute path without
// symbolic links. It does not touch the mount itself, which may be dead.
func mountAt(dir string) (m mountInfo, ok bool, err error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return m, false, err
	}
	for line := range bytes.Lines(table) {
		if x, valid := parseMountInfo(string(line)); valid && x.dir == dir {
			m, ok = x, true // the last one is on top
		}
	}
	return m, ok, nil
}

// mounted reports whether the file system with that device number is mounted
// anywhere.
func mounted(dev string) (bool, error) {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	for line := range bytes.Lines(table) {
		if m, valid := parseMountInfo(string(line)); valid && m.dev == dev {
			return true, nil
		}
	}
	return false, nil
}

// parseMountInfo reads a line of /proc/self/mountinfo; see proc(5).
func parseMountInfo(line string) (m mountInfo, ok bool) {
	left, right, found := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
	l, r := strings.Split(left, " "), strings.Split(right, " ")
	if !found || len(l) < 6 || r[0] == "" {
		return m, false
	}
	return mountInfo{dev: l[2], dir: unescape(l[4]), fstype: r[0]}, true
}

// unescape undoes the octal escapes of blanks and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
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
		if !found || m.fstype != "fuse."+subtype {
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
