package index

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"sort"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	pageRuns   = 512 // runs in a page
	inlineSize = 48  // bytes of runs that stay in the row of a version
	pageBudget = 8 << 20
	runSize    = 40 // bytes of a Run in memory
)

// castagnoli returns the polynomial of the checksums. The table is made once
// by the package crc32, with the processor's instruction where there is one.
func checksum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// sealPage appends the checksum that binds a page to its place.
func sealPage(version, off int64, page []byte) []byte {
	return binary.LittleEndian.AppendUint32(page, pageSum(version, off, page))
}

func pageSum(version, off int64, page []byte) uint32 {
	var place [16]byte
	binary.LittleEndian.PutUint64(place[:], uint64(version))
	binary.LittleEndian.PutUint64(place[8:], uint64(off))
	return crc32.Update(checksum(place[:]), crc32.MakeTable(crc32.Castagnoli), page)
}

// openPage checks a page and returns its runs.
func openPage(version, off int64, sealed []byte) ([]Run, error) {
	n := len(sealed) - 4
	if n < 0 || binary.LittleEndian.Uint32(sealed[n:]) != pageSum(version, off, sealed[:n]) {
		return nil, fmt.Errorf("%w: a page of runs has a wrong checksum", ErrBadCatalog)
	}
	return decodePage(off, sealed[:n])
}

// decodePage returns the runs of a page whose first one begins at off.
func decodePage(off int64, page []byte) ([]Run, error) {
	d := &decoder{b: page}
	var c runCoder
	var runs []Run
	for d.err == nil && len(d.b) > 0 {
		r := c.read(d, off)
		off += r.Len
		runs = append(runs, r)
	}
	if d.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadCatalog, d.err)
	}
	return runs, nil
}

// page is a page under way, or one that is finished.
type page struct {
	off int64 // fileOff of its first run
	buf []byte
}

// pager cuts runs into pages.
type pager struct {
	coder runCoder
	n     int
	off   int64 // fileOff where the next run begins
	done  []page
	cur   page
	bytes int // of done
}

// add appends a run.
func (p *pager) add(r Run) {
	if p.n == 0 {
		p.cur = page{off: p.off}
		p.coder = runCoder{}
	}
	p.cur.buf = p.coder.append(p.cur.buf, r)
	p.off += r.Len
	if p.n++; p.n == pageRuns {
		p.cut()
	}
}

// cut finishes the current page.
func (p *pager) cut() {
	if p.n > 0 {
		p.done = append(p.done, p.cur)
		p.bytes += len(p.cur.buf)
		p.n = 0
	}
}

// take returns the finished pages and forgets them.
func (p *pager) take() []page {
	done := p.done
	p.done, p.bytes = nil, 0
	return done
}

// pageCache keeps decoded pages of versions, in a budget of bytes.
type pageCache struct {
	mu     sync.Mutex
	lru    *simplelru.LRU[int64, *content]
	budget int
	used   int
}

// content is what is cached of one version's runs.
type content struct {
	base  int64   // the version before; 0 if none
	size  int64   // of the file
	pages [][]Run // not empty, ascending
	bytes int
}

func newPageCache(budget int) *pageCache {
	c := &pageCache{budget: budget}
	lru, err := simplelru.NewLRU(1<<31-1, func(_ int64, v *content) { c.used -= v.bytes })
	if err != nil {
		panic(err) // only for a size below 1
	}
	c.lru = lru
	return c
}

// find returns what is cached of a version: ok with its base and size, and the
// page that covers off, if that is cached as well.
func (c *pageCache) find(version, off int64) (v content, runs []Run, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.lru.Get(version)
	if !ok {
		return content{}, nil, false
	}
	i := sort.Search(len(e.pages), func(i int) bool { return e.pages[i][0].FileOff > off }) - 1
	if i >= 0 {
		if last := e.pages[i][len(e.pages[i])-1]; off < last.FileOff+last.Len {
			runs = e.pages[i]
		}
	}
	return content{base: e.base, size: e.size}, runs, true
}

// add keeps a page of a version, which may be empty.
func (c *pageCache) add(version int64, v content, runs []Run) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.lru.Get(version)
	if !ok {
		e = &content{base: v.base, size: v.size, bytes: 200}
		c.used += e.bytes
		c.lru.Add(version, e)
	}
	if n := len(runs) * runSize; n > 0 {
		if e.bytes+n > c.budget/2 { // one file must not push out all others
			c.used -= e.bytes
			e.pages, e.bytes = nil, 200
			c.used += e.bytes
		}
		if e.insert(runs) {
			e.bytes += n
			c.used += n
		}
	}
	for c.used > c.budget && c.lru.Len() > 1 {
		c.lru.RemoveOldest()
	}
}

// insert puts a page in its place, and reports false if it is there.
func (e *content) insert(runs []Run) bool {
	i := sort.Search(len(e.pages), func(i int) bool { return e.pages[i][0].FileOff >= runs[0].FileOff })
	if i < len(e.pages) && e.pages[i][0].FileOff == runs[0].FileOff {
		return false
	}
	e.pages = append(e.pages, nil)
	copy(e.pages[i+1:], e.pages[i:])
	e.pages[i] = runs
	return true
}
