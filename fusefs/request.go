package fusefs

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// request is the context of one FUSE request. It ends at the deadline, when
// the mount goes, and when the caller is being stopped.
//
// The kernel tells of any signal that the caller gets while it waits, and then
// waits on for the reply, deaf to SIGKILL. To end the call for each of them
// would make programs fail that are signalled all the time (the Go runtime
// preempts itself with SIGURG, others have timers and children) and do not
// expect EINTR from a file; not to end it would leave processes that nobody
// can kill while the network is slow. So after an interrupt the signals
// pending for the caller decide: only those by which one asks a program to
// stop end the request. The same channel tells that the mount has gone.
//
// Most requests never wait, so nothing is started before Done is called.
type request struct {
	base     context.Context
	deadline time.Time
	cancel   <-chan struct{} // closed by an interrupt
	pid      uint32          // thread that made the call; 0 if it is not known here
	giveUp   bool            // end at any interrupt if pid tells nothing
	gone     func() bool     // reports whether the mount has gone
	pending  *atomic.Int64   // counts requests under way

	mu      sync.Mutex
	inner   context.Context // nil until Done is called
	stop    context.CancelFunc
	watched chan struct{} // closed when watch has returned
}

// pollCaller is how often a caller is looked at after an interrupt.
const pollCaller = 100 * time.Millisecond

// begin returns the context of a request. It must be ended.
func (f *fileSystem) begin(cancel <-chan struct{}, pid uint32) *request {
	f.health.pending.Add(1)
	now := time.Now()
	f.health.used.Store(now.UnixNano())
	return &request{
		base: f.base, deadline: now.Add(f.opts.Timeout), cancel: cancel, pid: pid, gone: f.gone, pending: &f.health.pending,
	}
}

// end frees what the request holds.
func (r *request) end() {
	r.mu.Lock()
	stop, watched := r.stop, r.watched
	r.mu.Unlock()
	if r.pending != nil {
		r.pending.Add(-1)
	}
	if stop != nil {
		stop()
		<-watched
	}
}

// Deadline meets context.Context.
func (r *request) Deadline() (time.Time, bool) { return r.deadline, true }

// Done meets context.Context.
func (r *request) Done() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inner == nil {
		r.inner, r.stop = context.WithDeadline(r.base, r.deadline)
		r.watched = make(chan struct{})
		go r.watch(r.inner, r.stop)
	}
	return r.inner.Done()
}

// Err meets context.Context.
func (r *request) Err() error {
	r.mu.Lock()
	inner := r.inner
	r.mu.Unlock()
	switch {
	case inner != nil:
		return inner.Err()
	case r.base.Err() != nil:
		return r.base.Err()
	case time.Now().After(r.deadline):
		return context.DeadlineExceeded
	}
	return nil
}

// Value meets context.Context.
func (r *request) Value(key any) any {
	r.mu.Lock()
	inner := r.inner
	r.mu.Unlock()
	if inner != nil {
		return inner.Value(key) // lets contexts made from this one join it without a goroutine
	}
	return r.base.Value(key)
}

// watch ends the request once its caller is being stopped.
func (r *request) watch(ctx context.Context, stop context.CancelFunc) {
	defer close(r.watched)
	select {
	case <-ctx.Done():
		return
	case <-r.cancel:
	}
	tick := time.NewTicker(pollCaller)
	defer tick.Stop()
	for {
		stopping, known := beingStopped(r.pid)
		if stopping || !known && r.giveUp || r.gone() {
			stop()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// stopSignals are the signals that ask a program to stop. Any other that is
// fatal shows as a pending SIGKILL, but for those that dump core.
const stopSignals = 1<<(unix.SIGHUP-1) | 1<<(unix.SIGINT-1) | 1<<(unix.SIGQUIT-1) |
	1<<(unix.SIGABRT-1) | 1<<(unix.SIGKILL-1) | 1<<(unix.SIGTERM-1)

// beingStopped reports whether a thread has a signal pending that asks it to
// stop. A thread that has ended is; known is false if nothing can be told.
func beingStopped(pid uint32) (stopping, known bool) {
	if pid == 0 {
		return false, false
	}
	status, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(pid), 10) + "/status")
	if os.IsNotExist(err) {
		_, err := os.Stat("/proc/self/status")
		return err == nil, err == nil
	}
	if err != nil {
		return false, false
	}
	return stopPending(status)
}

// stopPending reads a status file of /proc.
func stopPending(status []byte) (stopping, known bool) {
	var pending, blocked uint64
	fields := 0
	for line := range bytes.Lines(status) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch string(name) {
		case "SigPnd", "ShdPnd", "SigBlk":
		default:
			continue
		}
		mask, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 16, 64)
		if err != nil {
			return false, false
		}
		fields++
		if string(name) == "SigBlk" {
			blocked = mask
		} else {
			pending |= mask
		}
	}
	return pending&^blocked&stopSignals != 0, fields == 3
}
