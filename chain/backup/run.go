package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"dupfs/chain"
	"dupfs/chain/store"
	"dupfs/delta"
)

// run is what all parts of a run share.
type run struct {
	o       Options
	src     string
	base    Base
	from    *Origin // instead of src, nil for a backup
	name    chain.Name
	token   string // of the claim, "" if none is stored
	isRoot  bool   // the effective user is root
	facts   facts
	budget  *semaphore.Weighted
	journal *journal // nil: none
	resumed resumed
	fail    context.CancelCauseFunc // ends the run with an error
	pieces  chan []byte             // buffers for reuse

	noticeMu sync.Mutex
	errors   int64 // under noticeMu
	stats    Stats // of the packer and, for the Source fields, of the planner
}

// Defaults of Options.
const (
	defaultVolSize = 200 << 20
	maxPiece       = 1 << 20
	defaultMemory  = 96 << 20
	queue          = 128 // items between planner and packer
)

func (o Options) withDefaults() Options {
	def := func(n *int, v int) {
		if *n <= 0 {
			*n = v
		}
	}
	def(&o.PieceSize, maxPiece)
	def(&o.Workers, max(2, runtime.GOMAXPROCS(0)))
	def(&o.Uploads, 1)
	o.PieceSize = min(o.PieceSize, maxPiece)
	if o.VolSize <= 0 {
		o.VolSize = defaultVolSize
	}
	if o.Memory <= 0 {
		o.Memory = defaultMemory
	}
	if o.Progress == nil {
		o.Progress = new(Progress)
	}
	return o
}

// Run backs up src into a new set: an increment on base, or a full set if base
// is nil. It returns Stats also with an error, as far as they go. Entries that
// could not be read are counted in Stats.Errors and do not fail the run. When
// Run fails or ctx ends it removes what it has uploaded, which can take some
// time more, at most two minutes.
func Run(ctx context.Context, src string, st *store.Store, base Base, o Options) (*Stats, error) {
	return newRun(src, base, o).do(ctx, st)
}

func newRun(src string, base Base, o Options) *run {
	r := &run{o: o.withDefaults(), src: src, base: base, isRoot: os.Geteuid() == 0}
	r.budget = semaphore.NewWeighted(r.o.Memory)
	r.pieces = make(chan []byte, 16)
	return r
}

// do does the run and returns its statistics.
func (r *run) do(ctx context.Context, st *store.Store) (*Stats, error) {
	r.stats.StartTime = time.Now()
	err := r.times()
	if err == nil {
		err = r.all(ctx, st)
	}
	r.stats.EndTime = time.Now()
	r.stats.Errors = r.errors
	r.stats.JournalErr = r.journal.close()
	return &r.stats, err
}

// maxAhead is how far the newest set may be ahead of the clock.
const maxAhead = 5 * time.Second

// times sets the times of the set: they strictly increase.
func (r *run) times() error {
	if in := r.o.Resume; in != nil {
		if in.Set.Full != (r.base == nil) {
			return errors.New("backup: the interrupted run was of the other kind")
		}
		r.name = chain.Name{Full: in.Set.Full, Start: in.Set.Start, End: in.Set.End, Layer: in.Layer}
		return nil
	}
	end := r.o.Now.UTC().Truncate(time.Second)
	last := r.o.Last.UTC().Truncate(time.Second)
	if r.base != nil && r.o.Last.IsZero() {
		return errors.New("backup: an increment needs the time of the last set")
	}
	if !r.o.Last.IsZero() && !end.After(last) {
		if last.Sub(end) > maxAhead {
			return fmt.Errorf("%w: it shows %s, that was %s", ErrClock, chain.FormatTime(end), chain.FormatTime(last))
		}
		end = last.Add(time.Second)
	}
	for slices.ContainsFunc(r.o.Taken, end.Equal) {
		end = end.Add(time.Second)
	}
	r.name = chain.Name{Full: r.base == nil, Start: end, End: end, Layer: r.o.Layer}
	if r.base != nil {
		r.name.Start = last
	}
	return nil
}

// all does the run.
func (r *run) all(parent context.Context, st *store.Store) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	r.fail = cancel
	if r.o.DryRun {
		return r.pipeline(ctx, &packer{run: r})
	}
	defer r.unclaim(parent, st)
	if err := r.begin(ctx, st); err != nil {
		if r.journal != nil && r.o.Resume == nil { // nothing was stored
			r.journal.close()
			err = errors.Join(err, (&Interrupted{path: r.o.Journal}).Forget())
		}
		return err
	}
	set, err := newSetWriter(ctx, r, st)
	if err != nil {
		return err
	}
	defer set.abort()
	err = r.pipeline(ctx, &packer{run: r, set: set})
	if err == nil && r.resumed.partial != nil {
		err = fmt.Errorf("%s: %w", r.resumed.partial.path, ErrMoved)
	}
	if err == nil && r.o.SkipEmpty && set.empty() {
		return r.endJournal()
	}
	if err == nil {
		err = set.commit(ctx)
	}
	if err != nil {
		cancel(err)
		cause := context.Cause(ctx)
		_ = set.uploads.Wait() // its error is the cause, or comes after it
		return errors.Join(cause, set.retreat(parent, cause))
	}
	if err := r.endJournal(); err != nil {
		r.stats.JournalErr = err
	}
	r.stats.Set, r.stats.DestinationSize = set.stored()
	if set.spool != nil {
		r.stats.IndexErr = r.o.OnIndex(parent, set.spool.reader())
	}
	return nil
}

// openJournal begins the journal, if one is wanted. Only a run that is to be
// resumed needs it.
func (r *run) openJournal() error {
	if in := r.o.Resume; in != nil {
		r.journal = resumeJournal(in)
		return r.journal.failure()
	}
	if r.o.Journal == "" {
		return nil
	}
	source := Compacted(r.o.Now)
	if r.from == nil {
		var err error
		if source, err = filepath.Abs(r.src); err != nil {
			return err
		}
	}
	r.journal = newJournal(r.o.Journal, &journalHead{
		Full: r.name.Full, Start: r.name.Start.Unix(), End: r.name.End.Unix(),
		Layer: r.name.Layer, Source: source, Owner: r.o.Owner, Claim: r.token,
	})
	return nil
}

// endJournal removes the journal of a run that is done.
func (r *run) endJournal() error {
	if r.journal == nil {
		return nil
	}
	err := r.journal.close()
	return errors.Join(err, os.Remove(r.journalPath()))
}

// journalPath returns where the journal is.
func (r *run) journalPath() string {
	if r.o.Resume != nil {
		return r.o.Resume.path
	}
	return r.o.Journal
}

// pipeline walks, prepares and packs, and waits for all of it.
func (r *run) pipeline(ctx context.Context, p *packer) error {
	g, ctx := errgroup.WithContext(ctx)
	items, jobs := make(chan *item, queue), make(chan *item)
	g.Go(func() error {
		defer close(items)
		defer close(jobs)
		if r.from != nil {
			return r.planTree(ctx, items, jobs)
		}
		return r.plan(ctx, items, jobs)
	})
	for range r.o.Workers {
		g.Go(func() error { return r.work(ctx, jobs) })
	}
	g.Go(func() error { return p.pack(ctx, items) })
	err := g.Wait()
	if err == nil {
		r.o.Progress.Packed.Store(r.stats.SourceFileSize)
	}
	return err
}

// plan walks the source beside the base.
func (r *run) plan(ctx context.Context, items, jobs chan<- *item) error {
	p := &planner{run: r, out: items, jobs: jobs, ctx: ctx, done: r.base == nil}
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		p.proc = r.src
	}
	if r.base != nil {
		next, stop := ahead(ctx, r.base.Walk)
		defer stop()
		p.next = next
		err := p.advance()
		for err == nil && p.cur != nil && r.resumed.any && p.cur.Path.Compare(r.resumed.after) <= 0 {
			err = p.advance()
		}
		if err != nil {
			return err
		}
	}
	w := &walker{sel: r.o.Selection, v: p, facts: &r.facts, hooks: r.o.hooks, follow: r.o.CopyLinks, only: r.o.Only}
	if err := w.walk(ctx, r.src); err != nil {
		return err
	}
	r.o.Only.missing(func(path chain.Path) { r.notice(Notice{Unreadable, path, fs.ErrNotExist}) })
	r.o.Progress.Walked.Store(true)
	return p.finish()
}

// walked counts an entry of the source.
func (p *planner) walked(s *source) {
	p.stats.SourceFiles++
	p.stats.SourceFileSize += s.statSize
	p.o.Progress.Entries.Add(1)
	p.o.Progress.Bytes.Add(s.Size)
}

// notice passes a notice on, one at a time.
func (r *run) notice(n Notice) {
	r.noticeMu.Lock()
	defer r.noticeMu.Unlock()
	if n.Warning() {
		r.errors++
	}
	if r.o.Notice != nil {
		r.o.Notice(n)
	}
}

// alloc returns an empty buffer for a piece.
func (r *run) alloc() []byte {
	select {
	case b := <-r.pieces:
		return b[:0]
	default:
		return make([]byte, 0, r.o.PieceSize)
	}
}

// free takes back a buffer of alloc.
func (r *run) free(b []byte) {
	select {
	case r.pieces <- b:
	default:
	}
}

// blockLen returns the block length of the signature of a file of size bytes:
// duplicity's choice, with another cap if one is asked for.
func (r *run) blockLen(size int64) int { return blockLen(size, r.o.MaxBlock) }

func blockLen(size int64, maxBlock int) int {
	b := int64(delta.BlockLen(size))
	if limit := int64(maxBlock); limit > 0 {
		b = max(b, size/1024000*512)
		if c := min(b, limit); c >= 1 && (size+c-1)/c <= delta.MaxBlocks {
			b = c
		}
	}
	return int(min(b, delta.MaxBlockLen))
}
