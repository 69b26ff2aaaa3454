package backup

import (
	"os/user"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"dupfs/chain"
)

// maxFacts bounds each of the things that facts remembers.
const maxFacts = 1 << 16

// facts remembers the names of owners and the numbers of file systems. It is
// safe for concurrent use.
type facts struct {
	mu            sync.Mutex
	users, groups map[uint32]string // "" for ids without a name
	fsids         map[uint64]uint64 // by device number
}

// fill sets s from st, with the names of the owners and the link group.
func (f *facts) fill(s *source, st *unix.Stat_t) {
	s.set(st)
	f.mu.Lock()
	defer f.mu.Unlock()
	s.User = remember(&f.users, s.UID, userName)
	s.Group = remember(&f.groups, s.GID, groupName)
	s.LinkGroup = 0
	if s.Type == chain.File && s.nlink > 1 {
		id := remember(&f.fsids, s.dev, func(uint64) uint64 { return fsid(s) })
		s.LinkGroup = linkGroup(id, s.ino)
	}
}

// fsid names the file system of s: by its own number where it has one, as
// device numbers can change when the machine starts again.
func fsid(s *source) uint64 {
	var st unix.Stat_t
	var fs unix.Statfs_t
	if unix.Fstat(s.dir.fd(), &st) == nil && uint64(st.Dev) == s.dev && unix.Fstatfs(s.dir.fd(), &fs) == nil {
		if n := uint64(uint32(fs.Fsid.Val[0]))<<32 | uint64(uint32(fs.Fsid.Val[1])); n != 0 {
			return n
		}
	}
	return s.dev
}

func userName(id uint32) string {
	u, err := user.LookupId(strconv.FormatUint(uint64(id), 10))
	if err != nil {
		return ""
	}
	return u.Username
}

func groupName(id uint32) string {
	g, err := user.LookupGroupId(strconv.FormatUint(uint64(id), 10))
	if err != nil {
		return ""
	}
	return g.Name
}

// remember returns find(k), found once.
func remember[K comparable, V any](m *map[K]V, k K, find func(K) V) V {
	v, ok := (*m)[k]
	if !ok {
		if *m == nil || len(*m) >= maxFacts {
			*m = make(map[K]V)
		}
		v = find(k)
		(*m)[k] = v
	}
	return v
}
