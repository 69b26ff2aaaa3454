package backup

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"time"

	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/chain/index"
	"dupfs/chain/sigtar"
	"dupfs/chain/store"
)

// Interrupted is a run that did not end, as its journal tells of it.
type Interrupted struct {
	Set    chain.Set // its kind and times
	Layer  chain.Layer
	Source string // as given to Run, absolute
	Owner  string // as Options had it
	// Kept are the volumes that a run which goes on with it keeps: they have
	// arrived. The rest is made again.
	Kept []chain.Stored

	claim   string // token, "" for none
	path    string
	cut     int64    // where what the journal says of the kept volumes ends
	partial *partial // the file that goes on behind them; nil: none does
	back    []kept   // where else it can be gone on with, the last one to be tried first
}

// kept is an end of a volume up to which a set can be kept.
type kept struct {
	volumes int
	cut     int64
	partial *partial
}

// partial is a file of which the kept volumes hold the beginning.
type partial struct {
	path   chain.Path
	pieces int
	sum    trail
	bare   bool // without its xattrs
}

// trail is a hash of the pieces of a file up to one, and of its facts; zero:
// nobody can go on from there.
type trail [sha256.Size]byte

// add adds the next piece.
func (t *trail) add(m *difftar.Member, data []byte) {
	h := t.begin(m)
	h.Write(data)
	h.Sum(t[:0])
}

// begin returns the hash to which the data of the next piece is to be written.
func (t *trail) begin(m *difftar.Member) hash.Hash {
	h := sha256.New()
	if m.Piece == 1 {
		fmt.Fprintf(h, "%v %+v", m.Kind, m.Entry)
	} else {
		h.Write(t[:])
	}
	return h
}

// ErrMoved says that a file, of which a run that was interrupted had stored a
// part, is not the same any more. Nothing was done: see Interrupted.Back.
var ErrMoved = errors.New("it changed since the backup was interrupted")

// Back lets the set be gone on with from before the file that changed, and
// reports whether there is anything before it. Ready must be called again.
func (in *Interrupted) Back() bool {
	in.partial = nil
	if len(in.back) == 0 {
		in.Kept, in.cut = nil, 0
		return false
	}
	k := in.back[len(in.back)-1]
	in.back = in.back[:len(in.back)-1]
	in.Kept, in.cut, in.partial = in.Kept[:k.volumes], k.cut, k.partial
	return true
}

// ReadJournal tells of the run that left a journal. It is fs.ErrNotExist if
// there is none, and any other error if the file means nothing.
func ReadJournal(path string) (*Interrupted, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := newJournalReader(f)
	if err != nil {
		return nil, err
	}
	in := &Interrupted{path: path}
	e, err := r.next()
	if err != nil || e.Kind != evHead {
		return nil, ErrJournal
	}
	in.head(e.Head)
	return in, in.scan(r)
}

// head takes what the first event says.
func (in *Interrupted) head(h *journalHead) {
	in.Set = chain.Set{Full: h.Full, Start: time.Unix(h.Start, 0).UTC(), End: time.Unix(h.End, 0).UTC()}
	in.Layer, in.Source, in.Owner, in.claim = h.Layer, h.Source, h.Owner, h.Claim
}

// scan finds the last place in the journal at which every volume had arrived
// in the end, and the last such one at which no file was half placed.
func (in *Interrupted) scan(r *journalReader) error {
	var ends []kept
	arrived := make(map[int]bool)
	var open *partial
	for {
		e, err := r.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		switch e.Kind {
		case evPiece:
			open = &partial{e.Path, e.Number, trail(e.Sum), e.Bare}
		case evRecord:
			open = nil
		case evVolume:
			n := e.Volume.Row.Number
			if n != len(ends)+1 {
				return fmt.Errorf("%w: volume %d after %d", ErrJournal, n, len(ends))
			}
			name := chain.Name{Kind: chain.VolumeFile, Full: in.Set.Full, Start: in.Set.Start, End: in.Set.End,
				Volume: n, Layer: in.Layer, File: e.Volume.File}
			in.Kept = append(in.Kept, chain.Stored{Name: name, Size: e.Volume.Size})
			ends = append(ends, kept{n, r.off, open})
		case evUploaded:
			arrived[e.Number] = true
		case evKept:
			for n := range e.Number {
				arrived[n+1] = true
			}
		}
	}
	for i, v := range ends {
		if !arrived[i+1] {
			ends = ends[:i]
			break
		}
		if v.partial == nil {
			in.back = []kept{v}
		}
	}
	if n := len(ends); n > 0 && ends[n-1].partial != nil && ends[n-1].partial.sum != (trail{}) {
		in.back = append(in.back, ends[n-1])
	}
	in.Back()
	return nil
}

// Ready makes sure that the set can be gone on with: it has no manifest, and
// what is to be kept is there. What else there is of it is removed. files is a
// fresh listing.
func (in *Interrupted) Ready(ctx context.Context, st *store.Store, files []chain.Stored) error {
	if done, err := in.complete(ctx, st, files); err != nil {
		return err
	} else if done {
		return ErrComplete
	}
	if len(in.Kept) == 0 {
		return errors.New("nothing of it was stored yet")
	}
	there := make(map[string]int64, len(files))
	for _, f := range files {
		there[f.File] = f.Size
	}
	kept := make(map[string]bool, len(in.Kept))
	for _, f := range in.Kept {
		if size, ok := there[f.File]; !ok || size >= 0 && size != f.Size {
			if err := st.Check(ctx, f); err != nil { // a listing can be behind what is stored
				return fmt.Errorf("%s is not there as it was stored: %w", f.File, err)
			}
		}
		kept[f.File] = true
	}
	for _, f := range in.files(files) {
		if !kept[f.File] {
			if err := st.Delete(ctx, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// ErrComplete says that the run which left a journal was complete after all.
var ErrComplete = errors.New("it is complete")

// complete reports whether the set has its manifest. A listing can be behind
// what is stored, so the file itself is asked for.
func (in *Interrupted) complete(ctx context.Context, st *store.Store, files []chain.Stored) (bool, error) {
	for _, f := range in.files(files) {
		if f.Kind == chain.ManifestFile {
			return true, nil
		}
	}
	n := manifestName(chain.Name{Full: in.Set.Full, Start: in.Set.Start, End: in.Set.End, Layer: in.Layer})
	body, err := st.Backend().Open(ctx, st.Prefixes().Format(n), 0, 1)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, body.Close()
}

// files returns which files are of the set.
func (in *Interrupted) files(files []chain.Stored) []chain.Stored {
	var own []chain.Stored
	for _, f := range files {
		if f.Kind != 0 && f.Kind != chain.ClaimFile && f.Full == in.Set.Full && f.Start.Equal(in.Set.Start) && f.End.Equal(in.Set.End) {
			own = append(own, f)
		}
	}
	return own
}

// Discard removes what the run left in the store, unless it was complete after
// all, and its journal.
func (in *Interrupted) Discard(ctx context.Context, st *store.Store, files []chain.Stored) error {
	done, err := in.complete(ctx, st, files)
	if err != nil {
		return err
	}
	if !done {
		for _, f := range in.files(files) {
			if err := st.Delete(ctx, f); err != nil {
				return err
			}
		}
	}
	if in.claim != "" {
		if err := st.Delete(ctx, chain.Stored{Name: claimName(st, in.Set.End, in.claim)}); err != nil {
			return err
		}
	}
	return in.Forget()
}

// Forget removes the journal.
func (in *Interrupted) Forget() error { return forget(in.path) }

func forget(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// resumed is what a run that goes on with another knows of the entries that
// are stored already.
type resumed struct {
	after chain.Path // up to here, in path order, everything is in the kept volumes
	any   bool       // after means something
	// lid is a path that the set holds as deleted, or as no directory, while
	// after is that path or below it: nothing may be stored below it.
	lid    chain.Path
	hasLid bool
	// partial is the file that is to be gone on with, nil if there is none or
	// its stored pieces were seen.
	partial *partial
}

// has reports whether a piece is stored already; sum is that of all pieces up
// to it. It is ErrMoved if other ones are stored.
func (r *resumed) has(m *difftar.Member, sum *trail) (bool, error) {
	p := r.partial
	switch {
	case p == nil, m.Entry.Path != p.path:
		return false, nil
	case m.Piece < p.pieces:
		return true, nil
	case *sum != p.sum:
		return false, fmt.Errorf("%s: %w", p.path, ErrMoved)
	}
	if r.partial = nil; p.bare {
		m.Entry.Xattrs = nil
	}
	return true, nil
}

// skips reports whether nothing is to be stored of a path any more.
func (r *resumed) skips(p chain.Path) bool {
	return r.any && p.Compare(r.after) <= 0 || r.hasLid && r.lid.Has(p)
}

// entry notes an entry that is stored.
func (r *resumed) entry(rec *index.Record) {
	r.after, r.any = rec.Path, true
	if r.hasLid && !r.lid.Has(rec.Path) {
		r.hasLid = false
	}
	if !r.hasLid && rec.Type != chain.Dir { // or deleted, which has no type
		r.lid, r.hasLid = rec.Path, true
	}
}

// replay brings a new set to where the interrupted one was.
func (s *setWriter) replay(in *Interrupted) error {
	f, err := os.Open(in.path)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := newJournalReader(io.LimitReader(f, in.cut))
	if err != nil {
		return err
	}
	p := replayer{s: s}
	for err == nil {
		var e *event
		if e, err = r.next(); err == nil {
			err = p.event(e)
		}
	}
	if err != io.EOF {
		return fmt.Errorf("journal of the interrupted run: %w", err)
	}
	if r.off != in.cut || p.left > 0 || len(s.rows) != len(in.Kept) {
		return fmt.Errorf("%w: it ends too early", ErrJournal)
	}
	s.started = append(s.started, in.Kept...)
	s.resumed.partial = in.partial
	s.o.Progress.Volumes.Add(int64(len(in.Kept)))
	return nil
}

// replayer takes the events of a journal.
type replayer struct {
	s    *setWriter
	rec  *index.Record
	left int64 // bytes of its signature still to come
}

func (p *replayer) event(e *event) error {
	s := p.s
	switch e.Kind {
	case evRuns:
		return s.index.Runs(e.Runs...)
	case evRecord:
		return p.record(e.Record)
	case evSig:
		if p.left -= int64(len(e.Sig)); p.left < 0 {
			return ErrJournal
		}
		if _, err := s.sigs.Write(e.Sig); err != nil {
			return err
		}
		return p.entry()
	case evChange:
		return s.changes.add(e.Word, e.Path)
	case evKnown:
		if s.o.OnKnown == nil {
			return nil
		}
		k := *e.Known
		k.ID = 0 // of another walk of the base
		return s.o.OnKnown(k)
	case evVolume:
		s.sealed(e.Volume.Row)
		e.Volume.Counts.apply(&s.stats)
		_, err := s.layouts.Write(append(binary.AppendUvarint(nil, uint64(len(e.Volume.Layout))), e.Volume.Layout...))
		return err
	}
	return nil
}

func (p *replayer) record(rec *index.Record) error {
	m := sigtar.Member{Entry: rec.Entry, Deleted: rec.Change == difftar.Deleted, Len: max(rec.SigLen, 0)}
	off, err := p.s.sigs.Header(&m)
	if err != nil {
		return err
	}
	if rec.SigLen >= 0 {
		rec.SigOff = off
	}
	p.rec, p.left = rec, max(rec.SigLen, 0)
	return p.entry()
}

// entry adds the record to the index once all of it is there.
func (p *replayer) entry() error {
	if p.left > 0 {
		return nil
	}
	p.s.resumed.entry(p.rec)
	return p.s.index.Entry(p.rec)
}
