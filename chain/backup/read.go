package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/delta"
)

// result is what a worker found out about a file. Without pieces all of it is
// there when the item is ready, else only pieces and head, and the rest once
// pieces is closed.
type result struct {
	failed bool        // the run ends with an error of the worker
	lost   error       // it could not be read: the previous version stays
	same   bool        // its content is that of the base: nothing is to be stored
	head   chain.Entry // before it was read
	entry  chain.Entry // after it
	known  Known
	pieces chan piece // all but the last; nil if there is only one
	final  piece
	sig    *spool
	flaw   error // why the content is not as it should be; class says what
	class  Class
}

// errDiffers stops a comparison.
var errDiffers = errors.New("the content differs")

// reader reads one file.
type reader struct {
	*run
	ctx   context.Context
	it    *item
	f     *os.File    // nil for a file of an archive
	at    io.ReaderAt // f, or the content in the archive
	s     source      // as the open file is
	sig   *delta.Signature
	small []byte // the content if it fits into one piece, else nil
	cut   error  // a read error, which ended the content
	n     int64  // bytes read
}

// work prepares files until jobs is closed.
func (r *run) work(ctx context.Context, jobs <-chan *item) error {
	for {
		select {
		case it, ok := <-jobs:
			if !ok {
				return nil
			}
			if err := r.prepare(ctx, it); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// prepare fills the result of an item. An error ends the run; what only
// concerns the file is in the result.
func (r *run) prepare(ctx context.Context, it *item) error {
	defer it.src.dir.release()
	rd := &reader{run: r, ctx: ctx, it: it}
	err := rd.read()
	it.failed = err != nil
	if it.pieces != nil {
		close(it.pieces)
	} else {
		close(it.ready)
	}
	return err
}

// read reads the file, once more if it changed meanwhile and nothing of it has
// been passed on.
func (rd *reader) read() error {
	if rd.from != nil {
		return rd.readVersion()
	}
	var err error
	if rd.f, err = rd.it.src.openFile(); err != nil {
		return rd.lose(err)
	}
	rd.at = rd.f
	defer rd.f.Close() // only read: the error says nothing
	rd.o.hooks.opened(rd.it.path)
	for try := 1; ; try++ {
		again, err := rd.attempt()
		if err != nil || !again || try == 2 {
			return err
		}
	}
}

// lose gives the file up.
func (rd *reader) lose(err error) error {
	if cause := context.Cause(rd.ctx); cause != nil {
		return cause
	}
	rd.reset()
	rd.it.lost, rd.it.class = err, lostClass(err)
	return nil
}

// reset forgets what an attempt found out.
func (rd *reader) reset() {
	if rd.it.sig != nil {
		rd.it.sig.close()
	}
	rd.it.result = result{}
}

// attempt reads the file once. It reports whether another attempt is worth it.
func (rd *reader) attempt() (again bool, err error) {
	it := rd.it
	rd.reset()
	if err := rd.stat(); err != nil {
		return false, rd.lose(err)
	}
	if err := rd.load(); err != nil {
		return false, rd.lose(err)
	}
	if it.base != nil && rd.sig == nil {
		if err := rd.loadSignature(); err != nil {
			return false, err
		}
	}
	if it.check {
		same, err := rd.unchanged()
		if err != nil {
			return false, err
		}
		if same {
			it.same = true
			return rd.settle()
		}
	}
	if rd.o.DryRun {
		it.entry = rd.s.Entry
		return false, nil
	}
	if err := rd.encode(); err != nil {
		return false, err
	}
	return rd.settle()
}

// stat takes the facts of the open file.
func (rd *reader) stat() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(rd.f.Fd()), &st); err != nil {
		return err
	}
	if typeOf(uint32(st.Mode)) != chain.File {
		return fmt.Errorf("it became a %s: %w", typeOf(uint32(st.Mode)), os.ErrNotExist)
	}
	rd.s = *rd.it.src
	rd.facts.fill(&rd.s, &st)
	if rd.s.ctime != rd.it.src.ctime || rd.s.ino != rd.it.src.ino {
		var err error
		if rd.s.Xattrs, err = fileXattrs(rd.f, rd.isRoot); err != nil {
			return err
		}
	}
	rd.s.Data = nil
	if rd.s.blocks*512 < rd.s.Size {
		rd.s.Data = dataMap(rd.f, rd.s.Size)
	}
	return nil
}

// load reads a small file whole.
func (rd *reader) load() error {
	rd.small = nil
	if rd.s.Size > int64(rd.o.PieceSize) {
		return nil
	}
	buf := make([]byte, rd.s.Size)
	n, err := io.ReadFull(rd.open(), buf)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return err
	}
	rd.small = buf[:n]
	return rd.cut
}

// open returns the content, from the start. A read error ends it and is noted
// in cut, so that what is made of the content fits together.
func (rd *reader) open() io.Reader {
	var r io.Reader = io.NewSectionReader(rd.at, 0, rd.s.Size)
	if rd.s.Data != nil {
		r = &sparseReader{f: rd.at, data: rd.s.Data, size: rd.s.Size}
	}
	rd.n, rd.cut = 0, nil
	return &content{rd, r}
}

// content is what open returns.
type content struct {
	rd *reader
	r  io.Reader
}

func (c *content) Read(p []byte) (int, error) {
	rd := c.rd
	if rd.ctx.Err() != nil {
		return 0, context.Cause(rd.ctx)
	}
	err := rd.o.hooks.read(rd.it.path, rd.n)
	n := 0
	if err == nil {
		n, err = c.r.Read(p)
	}
	rd.n += int64(n)
	rd.o.Progress.BytesRead.Add(int64(n))
	if err != nil && err != io.EOF {
		rd.cut, err = err, io.EOF
	}
	return n, err
}

// again returns the content once more.
func (rd *reader) again() io.Reader {
	if rd.small != nil {
		return bytes.NewReader(rd.small)
	}
	return rd.open()
}

// loadSignature reads the signature of the file's previous version, if one is
// there to be used. One that cannot be read costs the delta, not the file.
func (rd *reader) loadSignature() error {
	b := rd.it.base
	if b.SigLen <= 12 || b.Type != chain.File || rd.o.DryRun && !rd.it.check {
		return nil
	}
	r, err := rd.base.Signature(rd.ctx, b)
	if err == nil {
		rd.sig, err = delta.ReadSignature(r, delta.MaxBlocks)
		err = errors.Join(err, r.Close())
	}
	switch {
	case rd.ctx.Err() != nil:
		return context.Cause(rd.ctx)
	case err != nil:
		rd.sig = nil
		if !errors.Is(err, delta.ErrTooLarge) {
			rd.notice(Notice{BadSignature, rd.it.path, err})
		}
	}
	return nil
}

// unchanged reports whether the content is that of the previous version.
func (rd *reader) unchanged() (bool, error) {
	b := rd.it.base
	if b.Size >= 0 && b.Size != rd.s.Size {
		return false, nil
	}
	var err error
	switch {
	case b.HasHash:
		h := sha256.New()
		_, err = io.Copy(h, rd.again())
		if err == nil && [32]byte(h.Sum(nil)) != b.Hash {
			err = errDiffers
		}
	case b.SigLen == 12:
		return rd.s.Size == 0, nil
	case rd.sig == nil:
		return false, nil
	default:
		c := &comparer{}
		err = delta.Diff(rd.sig, rd.again(), c)
		blocks := (c.off + int64(rd.sig.BlockLen()) - 1) / int64(rd.sig.BlockLen())
		if err == nil && (c.off != rd.s.Size || blocks != int64(rd.sig.Blocks())) {
			err = errDiffers
		}
	}
	if errors.Is(err, errDiffers) {
		return false, nil
	}
	return err == nil && rd.cut == nil, err
}

// comparer is a sink that takes only a copy of the whole.
type comparer struct{ off int64 }

func (c *comparer) Copy(off, n int64) error {
	if off != c.off {
		return errDiffers
	}
	c.off += n
	return nil
}

func (c *comparer) Literal([]byte) error { return errDiffers }

// encode makes the pieces and the signature.
func (rd *reader) encode() error {
	it := rd.it
	it.head = rd.s.Entry
	it.head.Size = -1
	it.sig = &spool{dir: rd.o.TempDir}
	it.kind = difftar.Snapshot
	if rd.sig != nil {
		it.kind = difftar.Diff
	}
	sum := sha256.New()
	signer := delta.NewSigner(it.sig, rd.blockLen(rd.s.Size))
	size, err := rd.split(io.MultiWriter(sum, signer))
	if err == nil {
		err = signer.Close()
	}
	if err != nil {
		return err
	}
	it.entry = it.head
	it.entry.Size = size
	it.entry.HasHash = true
	sum.Sum(it.entry.Hash[:0])
	return nil
}

// split makes the pieces, gives the content to w on the way, and returns its
// size. A delta of a small file that is no smaller gives way to the content.
func (rd *reader) split(w io.Writer) (size int64, err error) {
	it := rd.it
	if it.kind == difftar.Diff || rd.small == nil {
		c := &cutter{size: rd.o.PieceSize, alloc: rd.alloc, emit: rd.emit}
		if size, err = rd.fillAndHash(c, w); err != nil {
			return 0, err
		}
		if it.final, err = c.finish(); err != nil || it.pieces != nil || rd.small == nil {
			return size, err
		}
		if len(it.final.data) < len(rd.small) {
			return size, nil
		}
	} else if _, err := w.Write(rd.small); err != nil {
		return 0, err
	}
	it.kind = difftar.Snapshot
	it.final = piece{data: rd.small, last: true}
	if len(rd.small) > 0 {
		it.final.spans = []span{{n: int64(len(rd.small))}}
	}
	return int64(len(rd.small)), nil
}

// fillAndHash is fill, giving the content to w on the way: beside it if it is
// a big one, so that one file keeps two cores busy.
func (rd *reader) fillAndHash(c *cutter, w io.Writer) (int64, error) {
	if rd.small != nil {
		return rd.fill(c, io.TeeReader(rd.again(), w))
	}
	f := newFork(rd.again(), w)
	size, err := rd.fill(c, f)
	if failed := f.close(); err == nil {
		err = failed
	}
	return size, err
}

// emit passes a piece on to the packer.
func (rd *reader) emit(p piece) error {
	it := rd.it
	if it.pieces == nil {
		it.pieces = make(chan piece, 1)
		close(it.ready)
	}
	return give(rd.ctx, it.pieces, p)
}

// fill writes the content or the delta to c and returns the content's size.
func (rd *reader) fill(c *cutter, r io.Reader) (int64, error) {
	if rd.sig == nil {
		return copyPieces(c, r)
	}
	sink := &diffSink{c: c, enc: delta.NewEncoder(c)}
	err := delta.Diff(rd.sig, r, sink)
	if err == nil {
		err = sink.enc.Close()
	}
	return sink.off, err
}

// copyPieces writes a content to c.
func copyPieces(c *cutter, r io.Reader) (int64, error) {
	buf := make([]byte, 128<<10)
	for off := int64(0); ; {
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := c.Write(buf[:n]); err != nil {
				return off, err
			}
			c.span(span{fileOff: off, n: int64(n), off: off})
			off += int64(n)
			if err := c.cut(); err != nil {
				return off, err
			}
		}
		switch {
		case err == io.EOF:
			return off, nil
		case err != nil:
			return off, err
		}
	}
}

// diffSink encodes a delta into a cutter.
type diffSink struct {
	c   *cutter
	enc *delta.Encoder
	off int64 // in the new file
}

func (d *diffSink) Copy(off, n int64) error {
	if err := d.enc.Copy(off, n); err != nil {
		return err
	}
	d.c.span(span{fileOff: d.off, n: n, off: off, basis: true})
	d.off += n
	return d.c.cut()
}

func (d *diffSink) Literal(p []byte) error {
	if err := d.enc.Literal(p); err != nil {
		return err
	}
	d.c.span(span{fileOff: d.off, n: int64(len(p)), off: d.enc.LiteralOff()})
	d.off += int64(len(p))
	return d.c.cut()
}

// settle looks at the file once more after reading and judges what was read.
// It reports whether reading it again can help.
func (rd *reader) settle() (again bool, err error) {
	it := rd.it
	if rd.cut != nil && it.pieces == nil {
		return false, rd.lose(rd.cut)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(rd.f.Fd()), &st); err != nil && it.pieces == nil {
		return false, rd.lose(err)
	}
	var now source
	now.set(&st)
	it.known = Known{Path: it.path, Ctime: now.ctime, Ino: now.ino}
	changed := now.ctime != rd.s.ctime || now.Mtime != rd.s.Mtime || now.Size != rd.s.Size
	if !changed && rd.cut == nil {
		if fresh(now.ctime, time.Now()) {
			it.known.Ctime = -1
		}
		return false, nil
	}
	it.known.Ctime = -1
	if it.same {
		return true, nil
	}
	it.flaw, it.class = rd.cut, Cut
	if it.flaw == nil {
		it.flaw, it.class = errors.New("it changed while it was read"), Changing
	}
	unsettle(&it.entry, now.Mtime)
	return it.pieces == nil, nil
}

// unsettle gives a flawed entry an mtime that the file has not, also in whole
// seconds, so that every next run, be it duplicity's, stores it again.
func unsettle(e *chain.Entry, now chain.Time) {
	if max(e.Mtime.Sec, 0) != max(now.Sec, 0) {
		return
	}
	e.Mtime = chain.Time{Sec: now.Sec - 1, Nsec: 999999999}
	if now.Sec <= 0 {
		e.Mtime = chain.Time{Sec: 1}
	}
}

// fresh reports whether a file could change once more without its ctime
// telling: the clock of a file system ticks every 10 ms or so, that of some
// every two seconds.
func fresh(ctime int64, now time.Time) bool {
	tick := 50 * time.Millisecond
	if ctime%1e9 == 0 {
		tick = 2100 * time.Millisecond
	}
	return now.UnixNano()-ctime < int64(tick)
}
