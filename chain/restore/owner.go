package restore

import (
	"os/user"
	"strconv"
	"sync"

	"dupfs/chain"
)

// maxNames bounds the names that owners remembers of each kind.
const maxNames = 4096

// owners turns owners of entries into numbers of this system. Safe for
// concurrent use.
type owners struct {
	numeric bool

	mu            sync.Mutex
	users, groups map[string]int // -1: unknown here
}

// newOwners returns owners; numeric ones never look at names.
func newOwners(numeric bool) *owners {
	return &owners{numeric: numeric, users: map[string]int{}, groups: map[string]int{}}
}

// of returns the owner and group that e has on this system: by name if that
// is known here, else by number.
func (o *owners) of(e *chain.Entry) (uid, gid uint32) {
	uid, gid = e.UID, e.GID
	if o.numeric {
		return uid, gid
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if id := cached(o.users, e.User, userID); id >= 0 {
		uid = uint32(id)
	}
	if id := cached(o.groups, e.Group, groupID); id >= 0 {
		gid = uint32(id)
	}
	return uid, gid
}

// cached looks name up in the cache, and else by find.
func cached(m map[string]int, name string, find func(string) string) int {
	if name == "" {
		return -1
	}
	if id, ok := m[name]; ok {
		return id
	}
	id := -1
	if v, err := strconv.ParseUint(find(name), 10, 32); err == nil {
		id = int(v)
	}
	if len(m) >= maxNames {
		clear(m)
	}
	m[name] = id
	return id
}

// userID returns the number of a user, "" if there is none.
func userID(name string) string {
	u, err := user.Lookup(name)
	if err != nil {
		return ""
	}
	return u.Uid
}

// groupID returns the number of a group, "" if there is none.
func groupID(name string) string {
	g, err := user.LookupGroup(name)
	if err != nil {
		return ""
	}
	return g.Gid
}

// Owners returns a function that turns owners of entries into numbers of this
// system as a restore does: by name if that is known here, else, or if numeric,
// by number. It is safe for concurrent use.
func Owners(numeric bool) func(*chain.Entry) (uid, gid uint32) { return newOwners(numeric).of }
