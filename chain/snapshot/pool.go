package snapshot

import (
	"container/list"
	"errors"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"dupfs/chain/index"
	"dupfs/chain/store"
)

// maxOpen is how many catalogs stay open that nobody uses.
const maxOpen = 4

// pool holds open catalogs, the ones used last.
type pool struct {
	mu     sync.Mutex
	open   map[*line]*entry
	unused *list.List // of *entry, the latest first
	closed bool
}

// entry is an open catalog. It is used by users, or in unused.
type entry struct {
	line  *line
	cat   *index.Catalog
	users int
	place *list.Element // in unused
	gone  bool          // to be closed by its last user
}

func newPool() *pool { return &pool{open: map[*line]*entry{}, unused: list.New()} }

var errClosed = errors.New("the archive is closed")

// use returns the line's catalog if it is open.
func (p *pool) use(l *line) *entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.open[l]
	if e != nil {
		p.hold(e)
	}
	return e
}

// hold counts a user. The lock is held.
func (p *pool) hold(e *entry) {
	e.users++
	if e.place != nil {
		p.unused.Remove(e.place)
		e.place = nil
	}
}

// add puts a catalog that was just opened in, and uses it.
func (p *pool) add(l *line, cat *index.Catalog) (*entry, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errors.Join(errClosed, cat.Close())
	}
	e := &entry{line: l, cat: cat, users: 1}
	p.open[l] = e
	return e, nil
}

// release ends a use. Errors of closing say nothing: what was committed is
// safe, and the rest was given up.
func (p *pool) release(e *entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.users--; e.users > 0 {
		return
	}
	if e.gone || p.closed {
		_ = e.cat.Close()
		return
	}
	e.place = p.unused.PushFront(e)
	for p.unused.Len() > maxOpen {
		old := p.unused.Remove(p.unused.Back()).(*entry)
		delete(p.open, old.line)
		_ = old.cat.Close()
	}
}

// forget takes a catalog out that is used: its last user closes it.
func (p *pool) forget(e *entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e.gone = true
	if p.open[e.line] == e {
		delete(p.open, e.line)
	}
}

// forgetLine takes the catalog of a line out, if it is open.
func (p *pool) forgetLine(l *line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.open[l]
	if e == nil {
		return
	}
	e.gone = true
	delete(p.open, l)
	if e.place != nil {
		p.unused.Remove(e.place)
		e.place = nil
		_ = e.cat.Close()
	}
}

// isGone reports whether a catalog that is used was taken out.
func (p *pool) isGone(e *entry) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return e.gone
}

// close closes all catalogs; those in use, when they are released.
func (p *pool) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	var errs []error
	for p.unused.Len() > 0 {
		e := p.unused.Remove(p.unused.Back()).(*entry)
		errs = append(errs, e.cat.Close())
	}
	return errors.Join(errs...)
}

// layoutBudget bounds the layouts of volumes in memory, in bytes.
const layoutBudget = 16 << 20

// volumeKey names a volume.
type volumeKey struct {
	line        *line
	ord, number int
}

// layoutCache keeps the layouts of volumes, those used last.
type layoutCache struct {
	mu   sync.Mutex
	lru  *simplelru.LRU[volumeKey, *store.File]
	used int64
}

func newLayoutCache() *layoutCache {
	c := &layoutCache{}
	lru, err := simplelru.NewLRU(1<<31-1, func(_ volumeKey, f *store.File) { c.used -= f.Layout.Memory() })
	if err != nil {
		panic(err) // only for a size below 1
	}
	c.lru = lru
	return c
}

func (c *layoutCache) get(k volumeKey) *store.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, _ := c.lru.Get(k)
	return f
}

func (c *layoutCache) add(k volumeKey, f *store.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lru.Remove(k)
	c.lru.Add(k, f)
	c.used += f.Layout.Memory()
	for c.used > layoutBudget && c.lru.Len() > 1 {
		c.lru.RemoveOldest()
	}
}

// drop forgets the layouts of a line.
func (c *layoutCache) drop(l *line) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.lru.Keys() {
		if k.line == l {
			c.lru.Remove(k)
		}
	}
}
