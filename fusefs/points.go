package fusefs

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"dupfs/chain"
)

// point is a point with the name it has in snapshots/.
type point struct {
	chain.Point
	name string
	root atomic.Pointer[chain.Node] // its top entry, once somebody asked
}

// pointList is one state of the list of points. It does not change.
type pointList struct {
	all      []*point // by time, then by number
	byName   map[string]*point
	byNumber map[uint32]*point
}

// timeName is the form of names in snapshots/: RFC 3339 in UTC.
const timeName = "2006-01-02T15:04:05Z"

// newPointList names the points, and takes over what old knows of them.
func newPointList(points []chain.Point, old *pointList, name func(time.Time) string) *pointList {
	l := &pointList{
		all:      make([]*point, 0, len(points)),
		byName:   make(map[string]*point, len(points)),
		byNumber: make(map[uint32]*point, len(points)),
	}
	for _, p := range points {
		q := &point{Point: p}
		if old != nil && old.byNumber[p.Number] != nil {
			q.root.Store(old.byNumber[p.Number].root.Load())
		}
		l.all = append(l.all, q)
		l.byNumber[p.Number] = q
	}
	sort.Slice(l.all, func(i, j int) bool {
		a, b := l.all[i], l.all[j]
		if !a.Time.Equal(b.Time) {
			return a.Time.Before(b.Time)
		}
		return a.Number < b.Number
	})
	same := make(map[string]int, len(l.all))
	for _, p := range l.all {
		if p.name = name(p.Time.UTC()); p.name == "" {
			p.name = p.Time.UTC().Format(timeName)
		}
		same[p.name]++
		if n := same[p.name]; n > 1 {
			p.name = fmt.Sprintf("%s~%d", p.name, n)
		}
		l.byName[p.name] = p
	}
	return l
}

// at returns the newest point that is not after t, nil if there is none.
func (l *pointList) at(t time.Time) *point {
	i := sort.Search(len(l.all), func(i int) bool { return l.all[i].Time.After(t) })
	if i == 0 {
		return nil
	}
	return l.all[i-1]
}

// newest returns the last point, nil if there is none.
func (l *pointList) newest() *point {
	if len(l.all) == 0 {
		return nil
	}
	return l.all[len(l.all)-1]
}

// points keeps the list of points fresh. A list that is too old is asked for
// again by whoever looks at it, but nobody waits longer than patience for a
// store that does not answer: then the old list serves, and so it does after a
// failure, until the next refresh is due.
type points struct {
	forest  chain.Forest
	base    context.Context
	every   time.Duration
	timeout time.Duration
	log     func(string, ...any)
	name    func(time.Time) string
	running sync.WaitGroup

	mu    sync.Mutex
	list  *pointList
	asked time.Time     // when the last refresh began
	busy  chan struct{} // closed when the running refresh ends; nil if none runs
}

const patience = 2 * time.Second

// load asks for the list and waits for it.
func (p *points) load() error {
	ctx, stop := context.WithTimeout(p.base, p.timeout)
	defer stop()
	asked := time.Now()
	found, err := p.forest.Points(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.list, p.asked = newPointList(found, p.list, p.name), asked
	return nil
}

// current returns the list, refreshed if that is due and does not take long.
func (p *points) current(ctx context.Context) *pointList {
	p.mu.Lock()
	if p.busy == nil {
		if time.Since(p.asked) < p.every || p.base.Err() != nil {
			defer p.mu.Unlock()
			return p.list
		}
		p.asked = time.Now()
		p.busy = make(chan struct{})
		p.running.Add(1)
		go p.refresh(p.busy)
	}
	busy, left := p.busy, patience-time.Since(p.asked)
	p.mu.Unlock()
	if left > 0 {
		timer := time.NewTimer(left)
		defer timer.Stop()
		select {
		case <-busy:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.list
}

func (p *points) refresh(done chan struct{}) {
	defer p.running.Done()
	ctx, stop := context.WithTimeout(p.base, p.timeout)
	defer stop()
	found, err := p.forest.Points(ctx)
	if err != nil && p.base.Err() == nil {
		p.log("list the points: %v", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.list = newPointList(found, p.list, p.name)
	}
	p.busy = nil
	close(done)
}
