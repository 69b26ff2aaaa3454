package sigtar

import (
	"container/heap"
	"errors"
	"fmt"
	"io"

	"dupfs/chain"
)

// ErrOrder says that the records of a sigtar are not in path order, each path
// once, as happens after a resumed run of duplicity 0.6.0: later records then
// replace earlier ones, which a merge in one pass cannot do. Read that sigtar
// by itself, and let each record replace an earlier one of its path.
var ErrOrder = errors.New("records are not in path order")

// Merged is the state at a point, from the sigtars of all sets up to it. It
// holds one record of each sigtar.
type Merged struct {
	heads   heads
	waiting []*head // taken off the heap; to be advanced
	current *Reader // of the record that Next returned
	readers []*Reader
	err     error
}

// A head is the next record of one sigtar.
type head struct {
	member *Member
	reader *Reader
	set    int
}

// heads is a heap: by path, the newest set first.
type heads []*head

func (h heads) Len() int { return len(h) }
func (h heads) Less(i, j int) bool {
	if c := h[i].member.Entry.Path.Compare(h[j].member.Entry.Path); c != 0 {
		return c < 0
	}
	return h[i].set > h[j].set
}
func (h heads) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *heads) Push(x any)   { *h = append(*h, x.(*head)) }
func (h *heads) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

// Merge merges sigtars, the oldest (that of the full set) first.
func Merge(readers ...*Reader) *Merged {
	m := &Merged{readers: readers}
	for i, r := range readers {
		m.waiting = append(m.waiting, &head{reader: r, set: i})
	}
	return m
}

// Next goes to the next entry in path order: the record of the newest sigtar
// that has the path. Deleted entries are left out. The int is the reader the
// record came from, from 0. It returns io.EOF at the end of all, and an error
// that wraps ErrOrder as said there. Other errors name the reader by number.
func (m *Merged) Next() (*Member, int, error) {
	for m.err == nil {
		if m.err = m.advance(); m.err != nil {
			break
		}
		if len(m.heads) == 0 {
			m.err = io.EOF
			break
		}
		if h := m.take(); h != nil {
			m.current = h.reader
			return h.member, h.set, nil
		}
	}
	m.current = nil
	return nil, 0, m.err
}

// Read reads the signature of the current entry.
func (m *Merged) Read(p []byte) (int, error) {
	if m.current == nil {
		return 0, io.EOF
	}
	return m.current.Read(p)
}

// Drain reads every sigtar to its end, so that checks made there are made. It
// returns the first error.
func (m *Merged) Drain() error {
	m.current = nil
	var errs []error
	for i, r := range m.readers {
		if err := r.Drain(); err != nil {
			errs = append(errs, fmt.Errorf("sigtar %d: %w", i, err))
		}
	}
	return errors.Join(errs...)
}

// advance brings the waiting heads back with their next records.
func (m *Merged) advance() error {
	for _, h := range m.waiting {
		next, err := h.reader.Next()
		if err == io.EOF {
			continue
		}
		if err == nil && h.member != nil && next.Entry.Path.Compare(h.member.Entry.Path) <= 0 {
			err = fmt.Errorf("%s after %s: %w", next.Entry.Path, h.member.Entry.Path, ErrOrder)
		}
		if err != nil {
			return fmt.Errorf("sigtar %d: %w", h.set, err)
		}
		h.member = next
		heap.Push(&m.heads, h)
	}
	m.waiting = m.waiting[:0]
	return nil
}

// take takes all heads of the first path, and returns the newest one, or nil
// if there is nothing at that path. A deleted root is passed over, as
// duplicity does.
func (m *Merged) take() *head {
	path := m.heads[0].member.Entry.Path
	var winner *head
	for len(m.heads) > 0 && m.heads[0].member.Entry.Path == path {
		h := heap.Pop(&m.heads).(*head)
		m.waiting = append(m.waiting, h)
		if winner == nil && !(h.member.Deleted && path == chain.Root) {
			winner = h
		}
	}
	if winner == nil || winner.member.Deleted {
		return nil
	}
	return winner
}
