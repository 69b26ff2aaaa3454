package fusefs

import (
	"bytes"
	"os"
	"strconv"
	"strings"
)

// ours reports whether it is a mount of dupfs.
func (m mountInfo) ours() bool { return m.fstype == "fuse."+subtype }

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
