package fusefs

import (
	"sync"
	"sync/atomic"
	"time"
)

// Health is how a mount fares.
type Health struct {
	Pending   int64     `json:"pending"`      // requests of programs under way
	OpenFiles int       `json:"open_files"`   // handles on files and directories
	Points    int       `json:"points"`       // shown now
	Listed    time.Time `json:"points_as_of"` // when the archive was asked for its points last
	Errors    int64     `json:"errors"`       // requests that failed for a reason that is in the log
	LastError string    `json:"last_error,omitempty"`
	LastAt    time.Time `json:"last_error_at,omitzero"`
	LastUse   time.Time `json:"last_use"` // when a program asked something last
}

// health collects what Health tells. Its zero value is ready.
type health struct {
	pending atomic.Int64
	used    atomic.Int64 // Unix time in ns of the last request

	mu      sync.Mutex
	errors  int64
	last    string
	at      time.Time
	damaged map[uint64]string // why reading a node failed, at most maxFaults of them
}

// note remembers why a request for the node id failed.
func (h *health) note(id uint64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.errors++
	h.last, h.at = err.Error(), time.Now()
	if !isVersion(id) || !isCorrupt(err) {
		return
	}
	if h.damaged == nil || len(h.damaged) >= maxFaults {
		h.damaged = make(map[uint64]string)
	}
	h.damaged[id] = err.Error()
}

// damage returns why reading a node failed last, "" if it did not.
func (h *health) damage(id uint64) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.damaged[id]
}

// healthNow returns the state of the mount.
func (f *fileSystem) healthNow() Health {
	f.points.mu.Lock()
	points, listed := 0, f.points.asked
	if f.points.list != nil {
		points = len(f.points.list.all)
	}
	f.points.mu.Unlock()
	h := &f.health
	h.mu.Lock()
	defer h.mu.Unlock()
	return Health{
		Pending: h.pending.Load(), OpenFiles: f.files.len() + f.dirs.len(), Points: points, Listed: listed.UTC().Truncate(time.Second),
		Errors: h.errors, LastError: h.last, LastAt: h.at, LastUse: time.Unix(0, h.used.Load()).UTC().Truncate(time.Second),
	}
}
