package index

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"io"
	"os"

	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/chain/store"
	"dupfs/chain/volume"
	"dupfs/delta"
)

// A Pass is what was found by reading one volume to its end. It is kept in a
// temporary file, in the form of an index with two more frames:
//
//	P  the runs before it are not those of the file, but of its content or
//	   delta, of which the volume holds only a part: change, first and last
//	   piece, whether more may follow in the next volume
//	D  the runs before it are void, as the delta makes no sense: the reason
//
// Entries are in the order of the members, and the size of a file is -1 where
// it is not the sum of its runs.
type Pass struct {
	Volume chain.Stored
	Layout *volume.Layout
	file   *os.File // unlinked
}

const (
	tagPart   = 'P'
	tagDamage = 'D'
	tagVoid   = 'X'
)

// Close removes what was found.
func (p *Pass) Close() error { return p.file.Close() }

// ReadVolume reads a volume to its end and verifies it; sha1, if not nil, is
// what the stored file must hash to. last says that it is the last one of its
// set. dir is where the temporary file goes. Damage that cannot be healed is a
// *chain.CorruptError.
func ReadVolume(ctx context.Context, st *store.Store, f chain.Stored, sha1 []byte, last bool, dir string) (*Pass, error) {
	var p *Pass
	err := st.Healing(ctx, f.File, func() (err error) {
		p, err = readVolume(ctx, st, f, sha1, last, dir)
		return err
	})
	return p, err
}

func readVolume(ctx context.Context, st *store.Store, f chain.Stored, sha1 []byte, last bool, dir string) (*Pass, error) {
	sc, err := st.Scan(ctx, f)
	if err != nil {
		return nil, err
	}
	p := &Pass{Volume: f}
	if p.file, err = store.TempFile(dir); err != nil {
		return nil, closing(err, sc)
	}
	err = p.scan(ctx, sc, last)
	if err == nil {
		p.Layout, err = sc.Layout()
	}
	if err = closing(err, sc); err == nil && sha1 != nil && string(p.Layout.SHA1[:]) != string(sha1) {
		err = chain.Corrupt(f.File, "its SHA-1 is not that of the manifest")
	}
	if err != nil {
		return nil, closing(err, p)
	}
	return p, nil
}

// closing closes c and returns the first error.
func closing(err error, c io.Closer) error {
	if cerr := c.Close(); err == nil {
		err = cerr
	}
	return err
}

// scan writes what r holds to the file.
func (p *Pass) scan(ctx context.Context, r io.Reader, last bool) error {
	buf := bufio.NewWriter(p.file)
	s := &passScan{ctx: ctx, r: difftar.NewReader(r), w: newWriter(buf, "", true), volume: p.Volume.Volume, last: last}
	s.sum, s.buf = sha256.New(), make([]byte, 64<<10)
	if err := s.run(); err != nil {
		return err
	}
	if err := s.r.Drain(); err != nil {
		return err
	}
	if err := s.w.Close(nil, nil); err != nil {
		return err
	}
	return buf.Flush()
}

// passScan goes through the members of a volume.
type passScan struct {
	ctx    context.Context
	r      *difftar.Reader
	w      *Writer
	volume int
	last   bool

	sum hash.Hash // SHA-256 of the current file's content
	buf []byte

	m   *difftar.Member // the next one; nil at the end
	err error           // of reading it
}

// next goes to the next member.
func (s *passScan) next() {
	if s.err = s.ctx.Err(); s.err != nil {
		s.m = nil
		return
	}
	if s.m, s.err = s.r.Next(); s.err != nil {
		s.m = nil
		if errors.Is(s.err, io.EOF) {
			s.err = nil
		}
	}
}

func (s *passScan) run() error {
	for s.next(); s.m != nil; {
		rec := &Record{Entry: s.m.Entry, Change: s.m.Kind, SigLen: -1}
		var err error
		switch {
		case rec.Change == difftar.Deleted || rec.Type != chain.File:
			err = s.w.Entry(rec)
			s.next()
		case rec.Change == difftar.Diff:
			err = s.delta(rec)
		default:
			err = s.snapshot(rec)
		}
		if err != nil {
			return err
		}
	}
	return s.err
}

// group is a file's members in one volume.
type group struct {
	first, last int  // numbers of pieces; 0 if the member is whole
	ordered     bool // the numbers go up by one
	open        bool // the volume ends with it, so that more may follow
}

// follows reports whether s.m is the next piece of the group of rec.
func (s *passScan) follows(rec *Record, g *group) bool {
	if s.m == nil || g.last == 0 || s.m.Piece == 0 || s.m.Kind != rec.Change || s.m.Entry.Path != rec.Path {
		return false
	}
	g.ordered = g.ordered && s.m.Piece == g.last+1
	g.last = s.m.Piece
	return true
}

// whole reports whether a group that ended is all of the file.
func (s *passScan) whole(g *group) bool {
	g.open = g.last > 0 && s.m == nil && !s.last
	return g.first <= 1 && !g.open
}

// snapshot notes a file's content.
func (s *passScan) snapshot(rec *Record) error {
	g := group{first: s.m.Piece, last: s.m.Piece, ordered: true}
	var off int64
	for {
		if s.m.Len > 0 {
			if err := s.w.Runs(Run{FileOff: off, Len: s.m.Len, Volume: s.volume, Off: s.m.Off}); err != nil {
				return err
			}
			off += s.m.Len
		}
		if err := s.hash(); err != nil {
			return err
		}
		s.next()
		if !s.follows(rec, &g) {
			break
		}
	}
	if s.err != nil {
		return s.err
	}
	if !rec.HasHash && s.whole(&g) {
		rec.HasHash = true
		s.sum.Sum(rec.Hash[:0])
	}
	s.sum.Reset()
	return s.finish(rec, &g, off, "")
}

// hash hashes the body of the member.
func (s *passScan) hash() error {
	for {
		n, err := s.r.Read(s.buf)
		s.sum.Write(s.buf[:n])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// finish ends a group whose runs were noted. reason says why they are void.
func (s *passScan) finish(rec *Record, g *group, size int64, reason string) error {
	if !g.ordered && reason == "" {
		reason = "pieces of it are missing or out of order"
	}
	switch {
	case reason != "":
		s.w.flushRuns()
		s.w.frame(tagDamage, []byte(reason))
		rec.Size = -1
	case s.whole(g):
		rec.Size = size
	default:
		s.w.flushRuns()
		s.w.frame(tagPart, g.append(nil, rec.Change))
		rec.Size = -1
	}
	return s.w.Entry(rec)
}

func (g *group) append(b []byte, change difftar.Kind) []byte {
	b = append(b, byte(change), 0)
	if g.open {
		b[1] = 1
	}
	b = binary.AppendUvarint(b, uint64(g.first))
	return binary.AppendUvarint(b, uint64(g.last))
}

// delta notes a file's delta: its commands if the delta is whole, else where
// its pieces are.
func (s *passScan) delta(rec *Record) error {
	j := &joined{s: s, rec: rec, group: group{first: s.m.Piece, last: s.m.Piece, ordered: true}}
	j.begin()
	if j.group.first > 1 {
		if _, err := io.Copy(io.Discard, j); err != nil {
			return err
		}
		return s.parts(rec, j)
	}
	c := &commands{emit: func(r Run) error { return s.w.Runs(r) }, pieces: &j.pieces}
	err := delta.ReadCommands(j, c.add)
	if err == nil {
		err = c.flush()
	}
	switch {
	case j.err != nil:
		return j.err
	case s.w.err != nil:
		return s.w.err
	case err == nil:
		return s.finishDelta(rec, j, c.size)
	}
	if _, cerr := io.Copy(io.Discard, j); cerr != nil {
		return cerr
	}
	if errors.Is(err, io.ErrUnexpectedEOF) && j.group.last > 0 && s.m == nil && !s.last {
		s.w.void()
		return s.parts(rec, j)
	}
	return s.finish(rec, &j.group, 0, err.Error())
}

// finishDelta ends a delta that is whole, whatever the next volume has.
func (s *passScan) finishDelta(rec *Record, j *joined, size int64) error {
	rec.Size = size
	if !j.group.ordered {
		return s.finish(rec, &j.group, 0, "")
	}
	return s.w.Entry(rec)
}

// parts notes where the pieces of a delta are.
func (s *passScan) parts(rec *Record, j *joined) error {
	d := &decoder{b: j.raw}
	var c runCoder
	var off int64
	for len(d.b) > 0 && d.err == nil {
		r := c.read(d, off)
		off += r.Len
		if err := s.w.Runs(r); err != nil {
			return err
		}
	}
	if d.err != nil {
		return d.err
	}
	return s.finish(rec, &j.group, off, "")
}

// joined reads the pieces of a delta as one stream, up to the end of the
// volume, and goes to the member after them.
type joined struct {
	s      *passScan
	rec    *Record
	group  group
	pieces pieces
	raw    []byte // all pieces, coded
	coder  runCoder
	ended  bool
	err    error
}

// begin takes the member that s is at.
func (j *joined) begin() {
	m := j.s.m
	if m.Len == 0 {
		return
	}
	r := Run{Len: m.Len, Volume: j.s.volume, Off: m.Off}
	j.pieces.add(r)
	if j.group.last > 0 {
		j.raw = j.coder.append(j.raw, r)
	}
}

// Read implements io.Reader.
func (j *joined) Read(p []byte) (int, error) {
	for !j.ended {
		n, err := j.s.r.Read(p)
		if n > 0 || len(p) == 0 {
			return n, nil
		}
		if err != nil && err != io.EOF {
			j.ended, j.err = true, err
			return 0, err
		}
		if err == nil {
			continue
		}
		j.s.next()
		if j.s.err != nil {
			j.ended, j.err = true, j.s.err
			return 0, j.err
		}
		if !j.s.follows(j.rec, &j.group) {
			j.ended = true
			break
		}
		j.begin()
	}
	if j.err != nil {
		return 0, j.err
	}
	return 0, io.EOF
}

// pieces maps offsets of a delta stream to where they are. It forgets what
// lies before the last range asked for.
type pieces struct {
	list []Run // FileOff is the offset in the delta
	end  int64
}

// add appends a piece.
func (p *pieces) add(r Run) {
	r.FileOff = p.end
	p.end += r.Len
	p.list = append(p.list, r)
}

// find calls fn for each part of off..off+n of the delta, in order.
func (p *pieces) find(off, n int64, fn func(volume int, at, n int64) error) error {
	i := 0
	for i < len(p.list)-1 && p.list[i].FileOff+p.list[i].Len <= off {
		i++
	}
	p.list = p.list[i:]
	for _, r := range p.list {
		skip := off - r.FileOff
		if n == 0 || skip < 0 {
			break
		}
		k := min(n, r.Len-skip)
		if k <= 0 {
			continue
		}
		if err := fn(r.Volume, r.Off+skip, k); err != nil {
			return err
		}
		off, n = off+k, n-k
	}
	if n > 0 {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// commands makes runs of the commands of a delta. The place of a literal is
// looked up when the next command comes, for only then all its pieces are known.
type commands struct {
	emit    func(Run) error
	pieces  *pieces
	size    int64
	literal delta.Command
}

// add takes a command.
func (c *commands) add(cmd delta.Command) error {
	if err := c.flush(); err != nil {
		return err
	}
	if !cmd.Copy {
		c.literal = cmd
		return nil
	}
	r := Run{FileOff: c.size, Len: cmd.Len, Off: cmd.Off}
	c.size += cmd.Len
	return c.emit(r)
}

// flush ends a literal.
func (c *commands) flush() error {
	lit := c.literal
	if lit.Len == 0 {
		return nil
	}
	c.literal = delta.Command{}
	return c.pieces.find(lit.Off, lit.Len, func(volume int, at, n int64) error {
		r := Run{FileOff: c.size, Len: n, Volume: volume, Off: at}
		c.size += n
		return c.emit(r)
	})
}
