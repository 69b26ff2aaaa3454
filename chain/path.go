package chain

import "strings"

// Path is the path of an entry below the root of the backup: raw bytes,
// components joined by "/", no leading or trailing slash. The root is "".
// No component is empty, "." or "..", or holds a NUL.
type Path string

// MaxPath bounds paths, in bytes. The system has no such bound, but nobody could
// restore or look at what lies deeper, and a path of a MiB could name half a
// million directories.
const MaxPath = 64 << 10

// MaxDepth bounds how many directories lie above an entry, the root among them:
// names of one byte reach it at the length where the kernel takes no longer path.
const MaxDepth = 2048

// Root is the path of the backup's top entry.
const Root Path = ""

// ParsePath cleans a path as a user types it or a member name spells it: "."
// and empty components are dropped. It reports false if a component is ".."
// or holds a NUL byte.
func ParsePath(s string) (Path, bool) {
	if strings.IndexByte(s, 0) >= 0 {
		return "", false
	}
	if clean(s) {
		return Path(s), true
	}
	parts := make([]string, 0, strings.Count(s, "/")+1)
	for _, c := range strings.Split(s, "/") {
		switch c {
		case "", ".":
		case "..":
			return "", false
		default:
			parts = append(parts, c)
		}
	}
	return Path(strings.Join(parts, "/")), true
}

// clean reports whether s is a Path as it stands, without allocating.
func clean(s string) bool {
	for s != "" {
		c, rest, more := strings.Cut(s, "/")
		if c == "" || c == "." || c == ".." || more && rest == "" {
			return false
		}
		s = rest
	}
	return true
}

// Compare orders paths as duplicity does: by components, as byte strings, a
// parent before its children, so "a/b" sorts before "a b".
// It returns -1, 0 or +1.
func (p Path) Compare(q Path) int {
	n := min(len(p), len(q))
	for i := 0; i < n; i++ {
		a, b := p[i], q[i]
		switch {
		case a == b:
			continue
		case a == '/':
			return -1
		case b == '/':
			return 1
		case a < b:
			return -1
		}
		return 1
	}
	switch {
	case len(p) < len(q):
		return -1
	case len(p) > len(q):
		return 1
	}
	return 0
}

// Parent returns the directory of p. The root is its own parent.
func (p Path) Parent() Path {
	i := strings.LastIndexByte(string(p), '/')
	if i < 0 {
		return Root
	}
	return p[:i]
}

// Base returns the last component of p, "" for the root.
func (p Path) Base() string {
	return string(p[strings.LastIndexByte(string(p), '/')+1:])
}

// Join returns the path of the child called name.
func (p Path) Join(name string) Path {
	if p == Root {
		return Path(name)
	}
	return p + "/" + Path(name)
}

// Components returns the components of p; the root has none.
func (p Path) Components() []string {
	if p == Root {
		return nil
	}
	return strings.Split(string(p), "/")
}

// Has reports whether q is p or lies below it.
func (p Path) Has(q Path) bool {
	return p == Root || p == q || len(q) > len(p) && q[len(p)] == '/' && q[:len(p)] == p
}

// String returns p as duplicity prints it: "." for the root.
func (p Path) String() string {
	if p == Root {
		return "."
	}
	return string(p)
}
