package fusefs

import (
	"errors"
	"time"
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
	if o.Log == nil {
		o.Log = func(string, ...any) {}
	}
	return o
}
