package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/chain/index"
	"dupfs/delta"
)

// rebuiltDelta is the delta of a file, as the volumes read so far hold it. As
// long as the file in the source makes the same one, what it holds is known as
// if the run that stored it were going on; else once all of it is there.
type rebuiltDelta struct {
	base   *BaseEntry
	body   *spool
	pieces []deltaPiece // 32 bytes for each MiB

	again func() (piece, error, bool) // the next piece that the source makes; nil: another one
	stop  func()                      // ends that
	done  bool                        // the source made the last piece
	known int64                       // bytes of the file whose runs are noted
}

// deltaPiece says where a part of a delta is stored.
type deltaPiece struct {
	end    int64 // in the delta
	volume int
	off    int64 // in the volume
}

// errUnknowable says that the content which a delta makes cannot be found out at
// a price that is worth it.
var errUnknowable = errors.New("its delta applies to what is not at hand")

// worthFetching is how many bytes of a previous version are fetched at least to
// find out what a delta made of it.
const worthFetching = 64 << 20

// delta begins the delta of a file.
func (b *rebuilder) delta(f *rebuilt) error {
	if f.old == nil || f.old.Type != chain.File {
		return chain.Corrupt("member "+f.entry.Path.String(), "a delta to what was no file")
	}
	d := &rebuiltDelta{base: f.old, body: &spool{dir: b.o.TempDir}}
	d.again, d.stop = iter.Pull2(b.redo(f))
	f.delta = d
	return nil
}

// close frees what it holds.
func (d *rebuiltDelta) close() {
	d.stop()
	d.body.close()
}

// redo yields the pieces of the delta that the file in the source makes now, and
// gives its content to the file; nothing, or an error, if it cannot be read.
func (b *rebuilder) redo(f *rebuilt) iter.Seq2[piece, error] {
	return func(yield func(piece, error) bool) {
		// Not what a symbolic link leads to, and never waiting for a fifo.
		file, err := os.OpenFile(filepath.Join(b.o.Source, string(f.entry.Path)), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return
		}
		defer file.Close()
		st, err := file.Stat()
		if err != nil || !st.Mode().IsRegular() {
			return
		}
		sig, err := b.signature(f.old)
		if err != nil {
			return
		}
		f.sign(st.Size(), b.o.MaxBlock)
		var buf []byte
		c := &cutter{size: b.o.PieceSize, alloc: func() []byte { return buf[:0] }}
		c.emit = func(p piece) error {
			if buf = p.data; !yield(p, nil) {
				return errDiffers
			}
			return nil
		}
		sink := &diffSink{c: c, enc: delta.NewEncoder(c)}
		content := &sourceReader{b.ctx, io.LimitReader(file, st.Size())}
		err = delta.Diff(sig, io.TeeReader(content, contentWriter{b}), sink)
		if err == nil {
			err = sink.enc.Close()
		}
		var last piece
		if err == nil {
			last, err = c.finish()
		}
		if !errors.Is(err, errDiffers) {
			yield(last, err)
		}
	}
}

// signature reads the signature of a file of the base.
func (b *rebuilder) signature(e *BaseEntry) (*delta.Signature, error) {
	if e.SigLen <= 12 {
		return nil, fs.ErrNotExist
	}
	r, err := b.o.Base.Signature(b.ctx, e)
	if err != nil {
		return nil, err
	}
	sig, err := delta.ReadSignature(r, delta.MaxBlocks)
	return sig, errors.Join(err, r.Close())
}

// take adds a piece of the delta of the current file.
func (b *rebuilder) take(m *difftar.Member, body io.Reader) error {
	f := b.file
	d := f.delta
	if m.Len > maxPiece {
		return chain.Corrupt("member "+m.Entry.Path.String(), fmt.Sprintf("a piece of %d bytes", m.Len))
	}
	data := make([]byte, m.Len)
	if _, err := io.ReadFull(body, data); err != nil {
		return err
	}
	if _, err := d.body.Write(data); err != nil {
		return err
	}
	d.pieces = append(d.pieces, deltaPiece{d.body.size(), b.row.Number, m.Off})
	f.trail.add(m, data)
	if d.again != nil {
		p, err, ok := d.again()
		if err != nil && !errors.Is(err, errDiffers) {
			return err
		}
		if !ok || err != nil || !bytes.Equal(p.data, data) {
			d.again = nil
			d.stop()
		} else {
			d.done = p.last
			d.note(b.j, m, b.row.Number, p)
		}
	}
	if d.again == nil { // nobody makes what goes on with it
		f.trail = trail{}
	}
	return nil
}

// note notes what a piece of the source's delta tells of the file.
func (d *rebuiltDelta) note(j *journal, m *difftar.Member, volume int, p piece) {
	runs := make([]index.Run, len(p.spans))
	for i, s := range p.spans {
		runs[i] = index.Run{FileOff: s.fileOff, Len: s.n, Volume: volume, Off: m.Off + s.off}
		if s.basis {
			runs[i].Volume, runs[i].Off = 0, s.off
		}
		d.known = s.fileOff + s.n
	}
	if len(runs) > 0 {
		j.add(&event{Kind: evRuns, Runs: runs})
	}
}

// whole reports whether the delta has its end.
func (d *rebuiltDelta) whole() bool {
	return delta.ReadCommands(d.body.reader(), func(delta.Command) error { return nil }) == nil
}

// sizes returns the size of what the delta makes, how much of it is copied, and
// how long what it applies to must be.
func (d *rebuiltDelta) sizes() (size, copied, basis int64, err error) {
	err = delta.ReadCommands(d.body.reader(), func(c delta.Command) error {
		size += c.Len
		if c.Copy {
			copied += c.Len
			basis = max(basis, c.Off+c.Len)
		}
		return nil
	})
	return size, copied, basis, err
}

// patched finds out what the delta of the current file makes: what the file in
// the source holds, if that makes the same one, else what comes of the previous
// version as the store has it.
func (b *rebuilder) patched() error {
	f := b.file
	d := f.delta
	if d.again != nil && d.done {
		return nil
	}
	size, copied, basis, err := d.sizes()
	if err != nil {
		return chain.Corrupt("member "+f.entry.Path.String(), err.Error())
	}
	if b.o.Content == nil || copied > max(worthFetching, b.stored) {
		return fmt.Errorf("%s: %w", f.entry.Path, errUnknowable)
	}
	f.sig.close()
	f.sum, f.size = sha256.New(), 0
	f.sign(size, b.o.MaxBlock)
	if err := b.ofBase(d, basis, contentWriter{b}); err != nil {
		return err
	}
	return d.runs(func(runs []index.Run) { b.j.add(&event{Kind: evRuns, Runs: runs}) })
}

// ofBase writes what the delta makes of the previous version, of which it needs
// basis bytes, to w.
func (b *rebuilder) ofBase(d *rebuiltDelta, basis int64, w io.Writer) error {
	content, err := b.o.Content(b.ctx, d.base)
	if err != nil {
		return err
	}
	if basis > content.Size() {
		return chain.Corrupt("member "+d.base.Path.String(), fmt.Sprintf("its delta copies up to byte %d of %d", basis, content.Size()))
	}
	return delta.Patch(contentAt{b.ctx, content}, content.Size(), d.body.reader(), w)
}

// runBatch is how many runs are given on at a time.
const runBatch = 1024

// runs tells where the content that the delta makes is stored: literals in the
// volumes, copies in the previous version, which is volume 0. What is known is
// left out.
func (d *rebuiltDelta) runs(add func([]index.Run)) error {
	var runs []index.Run
	var off int64 // in the file
	put := func(r index.Run) {
		r.FileOff = off
		off += r.Len
		if cut := min(d.known-r.FileOff, r.Len); cut > 0 {
			r.FileOff, r.Off, r.Len = r.FileOff+cut, r.Off+cut, r.Len-cut
		}
		if r.Len == 0 {
			return
		}
		if runs = append(runs, r); len(runs) == runBatch {
			add(runs)
			runs = nil
		}
	}
	k, start := 0, int64(0) // the piece, and where it begins in the delta
	err := delta.ReadCommands(d.body.reader(), func(c delta.Command) error {
		if c.Copy {
			put(index.Run{Len: c.Len, Off: c.Off})
			return nil
		}
		for at, end := c.Off, c.Off+c.Len; at < end; {
			for d.pieces[k].end <= at {
				k, start = k+1, d.pieces[k].end
			}
			p := d.pieces[k]
			n := min(end, p.end) - at
			put(index.Run{Len: n, Volume: p.volume, Off: p.off + at - start})
			at += n
		}
		return nil
	})
	if err == nil && len(runs) > 0 {
		add(runs)
	}
	return err
}

// sourceReader reads a file of the source while ctx lasts. One that cannot be
// read is as good as another one.
type sourceReader struct {
	ctx context.Context // of Rebuild
	r   io.Reader
}

// Read implements io.Reader.
func (s *sourceReader) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	n, err := s.r.Read(p)
	if err != nil && err != io.EOF {
		err = errDiffers
	}
	return n, err
}
