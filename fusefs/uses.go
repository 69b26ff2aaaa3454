package fusefs

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// useFor is how long a point counts as in use after a program looked at it, if
// nothing of it is open.
const useFor = 5 * time.Minute

// uses notes which points programs look at.
type uses struct {
	tell func(points []uint32) // nil: nobody wants to know

	last sync.Map // of *atomic.Int64, Unix time in ns, by point
	mu   sync.Mutex
	told []uint32
}

// touch notes that a program looks at a point.
func (u *uses) touch(point uint32) {
	if u.tell == nil {
		return
	}
	now := time.Now().UnixNano()
	if v, ok := u.last.Load(point); ok {
		v.(*atomic.Int64).Store(now)
		return
	}
	v := new(atomic.Int64)
	v.Store(now)
	u.last.Store(point, v)
	u.sayAll()
}

// sayAll tells which points are in use, if that has changed.
func (u *uses) sayAll() {
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []uint32
	u.last.Range(func(point, _ any) bool {
		all = append(all, point.(uint32))
		return true
	})
	slices.Sort(all)
	if !slices.Equal(all, u.told) {
		u.told = all
		u.tell(all)
	}
}

// expire forgets the points that were last looked at before a time, but for
// those that are open.
func (u *uses) expire(before time.Time, open map[uint32]bool) {
	if u.tell == nil {
		return
	}
	u.last.Range(func(point, v any) bool {
		if !open[point.(uint32)] && v.(*atomic.Int64).Load() < before.UnixNano() {
			u.last.Delete(point)
		}
		return true
	})
	u.sayAll()
}

// openPoints returns the points of what is open.
func (f *fileSystem) openPoints() map[uint32]bool {
	open := map[uint32]bool{}
	f.files.each(func(file *openFile) {
		if file.pinned {
			open[file.point] = true
		}
	})
	f.dirs.each(func(dir *openDir) {
		if dir.pinned {
			open[dir.point] = true
		}
	})
	return open
}

// pin notes that a version is open.
func (f *fileSystem) pin(ctx context.Context, file *openFile, version uint64) {
	if f.past == nil || f.uses.tell == nil {
		return
	}
	if p, err := f.past.PointOf(ctx, version); err == nil {
		file.point, file.pinned = p, true
		f.uses.touch(p)
	}
}

// each calls fn for everything that is open.
func (t *table[T]) each(fn func(T)) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, v := range t.open {
		fn(v)
	}
}

// watch ends an idle mount and expires uses, until ctx ends.
func (s *Server) watch(ctx context.Context, f *fileSystem) {
	every := time.Minute
	if idle := f.opts.Idle; idle > 0 {
		every = min(every, max(idle/4, 50*time.Millisecond))
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			f.uses.expire(now.Add(-useFor), f.openPoints())
			if f.idle(now) && release(s.dir) == nil {
				return // a program that has its working directory there keeps the mount
			}
		}
	}
}

// idle reports whether nothing was asked for as long as Options.Idle says, and
// nothing is open.
func (f *fileSystem) idle(now time.Time) bool {
	last := time.Unix(0, max(f.health.used.Load(), f.started.UnixNano()))
	return f.opts.Idle > 0 && now.Sub(last) >= f.opts.Idle && f.health.pending.Load() == 0 &&
		f.files.len() == 0 && f.dirs.len() == 0
}
