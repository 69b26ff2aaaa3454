package index

import (
	"database/sql"
	"errors"
)

// spillSize is how many bytes of pages are kept in memory until it is known
// whose they are.
const spillSize = 1 << 20

// setAside is the version under which pages are kept beyond that.
const setAside = -1

// runSink takes the runs of one file after the other, of any number, and
// stores them once their version is known.
type runSink struct {
	tx      *sql.Tx
	insert  *sql.Stmt
	pager   pager
	spilled bool
}

func newRunSink(tx *sql.Tx) (*runSink, error) {
	insert, err := tx.Prepare(`INSERT OR REPLACE INTO runs(version, off, page) VALUES(?,?,?)`)
	return &runSink{tx: tx, insert: insert}, bad(err)
}

// add appends runs.
func (s *runSink) add(runs []Run) error {
	for _, r := range runs {
		s.pager.add(r)
	}
	if s.pager.bytes < spillSize {
		return nil
	}
	s.spilled = true
	for _, p := range s.pager.take() {
		if _, err := s.insert.Exec(setAside, p.off, p.buf); err != nil {
			return bad(err)
		}
	}
	return nil
}

// hold takes the runs away and returns the function that puts them back. What
// was spilled must not be touched in between.
func (s *runSink) hold() func() {
	pager, spilled := s.pager, s.spilled
	s.reset()
	return func() { s.pager, s.spilled = pager, spilled }
}

func (s *runSink) reset() { s.pager, s.spilled = pager{}, false }

// each calls fn for every page in order, and forgets them.
func (s *runSink) each(fn func(p page) error) error {
	s.pager.cut()
	defer s.reset()
	for off := int64(-1); s.spilled; {
		p := page{}
		err := s.tx.QueryRow("SELECT off, page FROM runs WHERE version=? AND off>? ORDER BY off LIMIT 1", setAside, off).Scan(&p.off, &p.buf)
		if errors.Is(err, sql.ErrNoRows) {
			break
		}
		if err != nil {
			return bad(err)
		}
		if err := fn(p); err != nil {
			return err
		}
		off = p.off
	}
	for _, p := range s.pager.done {
		if err := fn(p); err != nil {
			return err
		}
	}
	return s.unspill()
}

func (s *runSink) unspill() error {
	if !s.spilled {
		return nil
	}
	_, err := s.tx.Exec("DELETE FROM runs WHERE version=?", setAside)
	return bad(err)
}

// store keeps the runs under a version. If they are few, it returns them
// instead, for the version's row. sum is their sum.
func (s *runSink) store(version int64) (inline []byte, sum int64, err error) {
	sum = s.pager.off
	if sum == 0 {
		return nil, 0, nil
	}
	if p := &s.pager; p.n > 0 && p.cur.off == 0 && len(p.cur.buf) <= inlineSize {
		defer s.reset()
		return p.cur.buf, sum, nil
	}
	err = s.each(func(p page) error {
		_, err := s.insert.Exec(version, p.off, sealPage(version, p.off, p.buf))
		return bad(err)
	})
	return nil, sum, err
}

// discard forgets the runs.
func (s *runSink) discard() error {
	defer s.reset()
	return s.unspill()
}
