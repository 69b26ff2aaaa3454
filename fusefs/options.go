package fusefs

import (
	"errors"
	"time"

	"dupfs/chain"
)

var (
	// ErrNotEmpty says that the mount point has entries, which a mount would
	// hide.
	ErrNotEmpty = errors.New("directory not empty")
	// ErrNotDir says that the mount point is not a directory.
	ErrNotDir = errors.New("not a directory")
	// ErrMounted says that a live mount of ours is at the mount point.
	ErrMounted = errors.New("already mounted")
	// ErrNotMounted says that there is nothing to unmount.
	ErrNotMounted = errors.New("not mounted")
	// ErrBusy says that a mount was in use when it was unmounted. It is
	// detached: nothing is left at its directory, and what was open stays
	// readable until it is closed or the serving process ends.
	ErrBusy = errors.New("still in use, detached")
)

// Layout is what the mount shows at its top.
type Layout uint8

// The layouts.
const (
	// Plain has snapshots/ and the views across points.
	Plain Layout = iota
	// Restic has ids/, tags/ and hosts/ beside these, as mounts of restic do.
	Restic
	// ZFS shows the newest tree itself, and .zfs/snapshot/ unlisted in it, as a
	// data set of ZFS does. The views are in .dupfs/, unlisted as well.
	ZFS
)

// Options say how to mount. The zero value is useful: a mount that only the
// user who made it can see, without at/.
type Options struct {
	// Source names the archive in the table of mounts: its URL without
	// secrets. "" is "dupfs".
	Source string
	// AllowOther lets other users in, as far as the recorded permissions and
	// access lists let them; the kernel checks these. Without it only the
	// mounting user sees the mount, and reads everything in it.
	AllowOther bool
	// NoXattrs says that no entry has extended attributes, nor will have while
	// it is mounted, as in archives of duplicity's own. The kernel is told
	// never to ask for them, which makes ls -l several times as fast: it asks
	// twice for each file.
	NoXattrs bool
	// Owner returns the owner to show of an entry; nil: the recorded one. Umask
	// is taken away from the permissions. Access lists stay as recorded.
	Owner func(e *chain.Entry) (uid, gid uint32)
	Umask uint32
	// Layout is what is at the top, and PointName what the points are called:
	// nil, or what gives nothing, is RFC 3339 in UTC. Of points with the same
	// name the second is called NAME~2. Host is the host that Restic shows.
	Layout    Layout
	PointName func(time.Time) string
	Host      string
	// Status returns what .dupfs/status.json holds, given the state of the
	// mount. Without it there is no such file. It must not wait.
	Status func(Health) []byte
	// InUse is told which points programs look at, or have something of open,
	// whenever that changes: before a program gets an answer from a point that
	// was not among them, and within some minutes after the last one.
	InUse func(points []uint32)
	// Idle is how long nobody may ask for anything, nothing being open, before
	// the mount unmounts itself. 0: it never does.
	Idle time.Duration
	// NonEmpty allows a mount point that has entries.
	NonEmpty bool
	// ParseTime reads the names in at/. Without it there is no at/.
	ParseTime func(string) (time.Time, error)
	// Refresh is how long a list of points is good before Forest.Points is
	// asked again. 0 is one minute.
	Refresh time.Duration
	// Timeout bounds each request; one that takes longer fails with EIO.
	// 0 is five minutes.
	Timeout time.Duration
	// Size returns the bytes that statfs shows as the size of the file
	// system. Without it, or if it returns less than one block, that is one.
	Size func() int64
	// Log is told why a request failed with EIO, once for each object and
	// reason, and of failures to refresh. It may be called concurrently.
	Log func(format string, args ...any)
}

// withDefaults returns o with every zero value replaced.
func (o Options) withDefaults() Options {
	if o.Source == "" {
		o.Source = "dupfs"
	}
	if o.Refresh <= 0 {
		o.Refresh = time.Minute
	}
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Minute
	}
	if o.PointName == nil {
		o.PointName = func(time.Time) string { return "" }
	}
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	return o
}
