package backup

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/chain/index"
	"dupfs/chain/manifest"
	"dupfs/chain/store"
	"dupfs/delta"
)

// RebuildOptions say whose journal Rebuild writes.
type RebuildOptions struct {
	Source   string // of the run that goes on with it: what a journal has, absolute
	Owner    string // as in Options
	MaxBlock int    // as in Options
	TempDir  string // as in Options
	// PieceSize is as in Options, for deltas: with another one they are all
	// applied to Base.
	PieceSize int
	// Base is what an increment was built on; nil for a full set.
	Base Base
	// Content opens the content of a file of Base, to apply a delta to; nil: no
	// delta is applied to what is not in the source.
	Content func(ctx context.Context, e *BaseEntry) (chain.Content, error)
}

// ErrNotRebuilt says that volumes do not tell enough to go on with them.
var ErrNotRebuilt = errors.New("what is stored does not tell enough to go on with it")

// Rebuild writes the journal of a backup that was interrupted, where the one that
// the run kept is lost or on another machine, from the volumes that are in the
// store. All of them are read and verified, up to the first one that is missing
// or damaged. ReadJournal then tells how many can be kept, which are none if the
// first one is of no use. Of what the volumes do not tell nothing is assumed: the
// next increment compares the content of every file in them. Claims to the set's
// second are removed: a run that stored one and lives gives way.
//
// What a delta makes is found out from the source, if the file's delta against
// the base is still the same, else from the base's content. What would cost more
// to fetch than 64 MiB, and than the set, ends what is kept. Temporary space: the
// largest delta of a file.
func Rebuild(ctx context.Context, st *store.Store, set *chain.Set, claims []chain.Stored, path string, o RebuildOptions) error {
	if set.Full != (o.Base == nil) || set.Manifest != nil {
		return fmt.Errorf("set %s is none that was interrupted on this base", set.Times())
	}
	if len(set.Volumes) == 0 || set.Volumes[0].Volume != 1 {
		return fmt.Errorf("set %s: %w", set.Times(), fs.ErrNotExist)
	}
	if f := set.Volumes[0]; f.Layer == chain.Plain {
		return fmt.Errorf("%s: neither compressed nor encrypted, it would not show damage: %w", f.File, ErrNotRebuilt)
	}
	head := &journalHead{Full: set.Full, Start: set.Start.Unix(), End: set.End.Unix(), Layer: set.Volumes[0].Layer, Source: o.Source, Owner: o.Owner}
	if !st.Excludes() {
		var token [8]byte
		rand.Read(token[:]) // never fails
		head.Claim = hex.EncodeToString(token[:])
	}
	part := path + ".part"
	o.PieceSize = Options{PieceSize: o.PieceSize}.withDefaults().PieceSize
	b := &rebuilder{ctx: ctx, o: o, full: set.Full, j: newJournal(part, head)}
	for _, v := range set.Volumes {
		b.stored += max(v.Size, 0)
	}
	if o.Base != nil {
		next, stop := ahead(ctx, o.Base.Walk)
		defer stop()
		b.next = next
	}
	err := b.volumes(ctx, st, set)
	b.close()
	err = errors.Join(err, b.j.close())
	for _, c := range claims {
		if err == nil && c.End.Equal(set.End) {
			if err = st.Delete(ctx, c); errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		}
	}
	if err == nil {
		err = os.Rename(part, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		err = errors.Join(err, forget(part))
	}
	return err
}

// rebuilder writes a journal from the members of volumes.
type rebuilder struct {
	ctx    context.Context // of Rebuild
	o      RebuildOptions
	full   bool
	stored int64 // bytes of all volumes
	j      *journal
	counts counts
	row    manifest.Volume

	last chain.Path // of the last entry
	any  bool       // last means something
	file *rebuilt   // the file whose pieces are read; nil: none
	// sealed is what tells of the last volume. It waits for the next one's first
	// member, which tells whether a file goes on.
	sealed *volumeNote
	alone  bool // the last volume has one member so far

	next   func() (*BaseEntry, error, bool) // of the base; nil: none, or its end
	peeked *BaseEntry                       // the next one
	old    *BaseEntry                       // what the base has of the last entry; nil: nothing
}

// rebuilt is a file of which pieces were read.
type rebuilt struct {
	entry  chain.Entry
	old    *BaseEntry
	delta  *rebuiltDelta // nil: the pieces are content
	pieces int
	trail  trail
	bare   bool
	size   int64
	sum    hash.Hash
	head   []byte        // content, while it is not known how long the blocks of the signature are
	signer *delta.Signer // from then on
	sig    *spool
}

// decided is a size, in bytes, from which on the length of blocks stays the same
// up to 8 GiB.
const decided = 4 << 20

// volumes reads the volumes, as far as they go.
func (b *rebuilder) volumes(ctx context.Context, st *store.Store, set *chain.Set) error {
	for i, v := range set.Volumes {
		if v.Volume != i+1 || v.Layer != set.Volumes[0].Layer {
			break
		}
		start, sealed, alone, open := b.j.offset(), b.sealed, b.alone, b.file != nil
		err := b.volume(ctx, st, v)
		if unusable(err) {
			// What was before it is kept, and nothing that it said is believed,
			// be it that the file before it had ended.
			b.sealed, b.alone = sealed, alone
			b.j.rewind(start)
			return b.seal(open)
		}
		if err != nil {
			return err
		}
	}
	open := b.file != nil
	if open && b.file.whole(b.o.Source) {
		err := b.ended()
		if err != nil && !unusable(err) {
			return err
		}
		open = err != nil
	}
	return b.seal(open)
}

// unusable reports whether an error says that what is stored is of no use from
// there on.
func unusable(err error) bool {
	var corrupt *chain.CorruptError
	return errors.As(err, &corrupt) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, errUnknowable)
}

// whole reports whether a file of which no more pieces are stored ended with the
// last one: a delta has an end, else it must be in the source as it was then, and
// have that size.
func (f *rebuilt) whole(source string) bool {
	if f.delta != nil {
		return f.delta.whole()
	}
	st, err := os.Lstat(filepath.Join(source, string(f.entry.Path)))
	return err == nil && st.Size() == f.size && st.ModTime().Equal(time.Unix(f.entry.Mtime.Sec, int64(f.entry.Mtime.Nsec)))
}

// volume reads a volume. What the journal says of one that turns out to be
// damaged does not count: its end is not noted.
func (b *rebuilder) volume(ctx context.Context, st *store.Store, v chain.Stored) error {
	sc, err := st.Scan(ctx, v)
	if err != nil {
		return err
	}
	defer sc.Close()
	b.row = manifest.Volume{Number: v.Volume, FirstBlock: -1, LastBlock: -1}
	if err := b.members(difftar.NewReader(sc)); err != nil {
		return fmt.Errorf("%s: %w", v.File, err)
	}
	if err := b.seal(b.file != nil); err != nil { // it has no members
		return err
	}
	layout, err := sc.Layout()
	if err != nil {
		return err
	}
	if !layout.Own {
		return fmt.Errorf("%s: it is not by dupfs: %w", v.File, ErrNotRebuilt)
	}
	text, err := layout.MarshalBinary()
	if err != nil {
		return err
	}
	b.row.SHA1, b.row.HasSHA1 = layout.SHA1, true
	b.sealed = &volumeNote{File: v.File, Size: layout.StoredSize, Row: b.row, Layout: text}
	return nil
}

// members reads the members of a volume.
func (b *rebuilder) members(r *difftar.Reader) error {
	for n := 0; ; n++ {
		m, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Drain()
		}
		if err != nil {
			return err
		}
		if b.full && m.Kind != difftar.Snapshot {
			return chain.Corrupt("member "+m.Entry.Path.String(), "no full set has a "+m.Kind.String())
		}
		if err := b.follows(m); err != nil {
			return err
		}
		if err := b.find(m.Entry.Path); err != nil {
			return err
		}
		if n == 0 {
			if err := b.seal(b.file != nil); err != nil {
				return err
			}
			b.row.First, b.row.FirstBlock = m.Entry.Path, blockOf(m)
		} else if n == 1 && b.file == nil {
			b.row.FirstBlock = -1
		}
		b.row.Last, b.row.LastBlock, b.alone = m.Entry.Path, blockOf(m), n == 0
		if err := b.member(m, r); err != nil {
			return err
		}
	}
}

// blockOf returns the number of a piece as manifests have it.
func blockOf(m *difftar.Member) int {
	if m.Piece == 0 {
		return -1
	}
	return m.Piece
}

// follows checks that a member may come after the last one, and ends the file
// that does not go on with it.
func (b *rebuilder) follows(m *difftar.Member) error {
	if f := b.file; f != nil && m.Piece > 0 && m.Entry.Path == b.last {
		if m.Piece != f.pieces+1 || (m.Kind == difftar.Diff) != (f.delta != nil) {
			return chain.Corrupt("member "+m.Entry.Path.String(), fmt.Sprintf("piece %d of a %v after %d", m.Piece, m.Kind, f.pieces))
		}
		return nil
	}
	if m.Piece > 1 || b.any && m.Entry.Path.Compare(b.last) <= 0 {
		return chain.Corrupt("member "+m.Entry.Path.String(), "it is not the next one in the order of a set")
	}
	return b.ended()
}

// find looks up what the base has of a path.
func (b *rebuilder) find(p chain.Path) error {
	for b.next != nil && (b.peeked == nil || b.peeked.Path.Compare(p) < 0) {
		e, err, ok := b.next()
		if err != nil {
			return fmt.Errorf("state of the last backup: %w", err)
		}
		if b.peeked = e; !ok {
			b.next = nil
		}
	}
	if b.old = nil; b.peeked != nil && b.peeked.Path == p {
		b.old = b.peeked
	}
	return nil
}

// seal notes the volume that was read before; open says that its last file may
// go on.
func (b *rebuilder) seal(open bool) error {
	v := b.sealed
	if v == nil {
		return nil
	}
	b.sealed, v.Counts = nil, b.counts
	if !open {
		v.Row.LastBlock = -1
		if b.alone {
			v.Row.FirstBlock = -1
		}
	}
	b.j.add(&event{Kind: evVolume, Volume: v})
	b.j.uploaded(v.Row.Number)
	return b.j.failure()
}

// member takes a member. Of a file in pieces only the next member shows which
// one was the last.
func (b *rebuilder) member(m *difftar.Member, body io.Reader) error {
	b.last, b.any = m.Entry.Path, true
	if m.Kind == difftar.Deleted || m.Entry.Type != chain.File {
		b.header(m)
		return nil
	}
	if b.file == nil {
		f, err := b.begin(m)
		if err != nil {
			return err
		}
		b.file = f
	}
	f := b.file
	if f.delta != nil {
		if err := b.take(m, body); err != nil {
			return err
		}
		return b.piece(m)
	}
	t := f.trail.begin(m)
	if m.Len > 0 {
		b.j.add(&event{Kind: evRuns, Runs: []index.Run{{FileOff: f.size, Len: m.Len, Volume: b.row.Number, Off: m.Off}}})
	}
	n, err := io.Copy(io.MultiWriter(t, contentWriter{b}), body)
	if err == nil && n != m.Len {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	t.Sum(f.trail[:0])
	return b.piece(m)
}

// header takes an entry without content, or a deletion.
func (b *rebuilder) header(m *difftar.Member) {
	if m.Kind == difftar.Deleted {
		b.counts.DeltaEntries++
		b.counts.DeletedFiles++
		b.j.record(&index.Record{Entry: chain.Entry{Path: m.Entry.Path}, Change: difftar.Deleted, SigLen: -1})
		if b.old != nil && b.old.Type == chain.File {
			b.j.add(&event{Kind: evChange, Word: "deleted", Path: m.Entry.Path})
		}
		return
	}
	b.count(&m.Entry, false)
	b.j.record(&index.Record{Entry: m.Entry, Change: difftar.Snapshot, SigLen: -1})
}

// piece notes that a piece of the file was taken.
func (b *rebuilder) piece(m *difftar.Member) error {
	f := b.file
	f.pieces = m.Piece
	if m.Piece == 0 {
		return b.ended()
	}
	b.j.add(&event{Kind: evPiece, Path: m.Entry.Path, Number: m.Piece, Sum: f.trail[:], Bare: f.bare})
	return nil
}

// begin begins a file.
func (b *rebuilder) begin(m *difftar.Member) (f *rebuilt, err error) {
	f = &rebuilt{entry: m.Entry, old: b.old, sum: sha256.New(), sig: &spool{dir: b.o.TempDir}, bare: len(m.Entry.Xattrs) == 0}
	if m.Kind == difftar.Diff {
		err = b.delta(f)
	} else if m.Piece == 0 {
		f.sign(m.Len, b.o.MaxBlock)
	}
	return f, err
}

// sign begins the signature of a file of size bytes.
func (f *rebuilt) sign(size int64, maxBlock int) {
	f.signer = delta.NewSigner(f.sig, blockLen(size, maxBlock))
}

// content takes a part of the content. Of a big file the size is not known before
// the end; blocks can have any length, so it is taken to be that in the source.
func (b *rebuilder) content(p []byte) (int, error) {
	f := b.file
	f.sum.Write(p)
	f.size += int64(len(p))
	if f.signer != nil {
		return f.signer.Write(p)
	}
	f.head = append(f.head, p...)
	if len(f.head) < decided {
		return len(p), nil
	}
	size := int64(len(f.head))
	if st, err := os.Lstat(filepath.Join(b.o.Source, string(f.entry.Path))); err == nil {
		size = max(size, st.Size())
	}
	f.sign(size, b.o.MaxBlock)
	_, err := f.signer.Write(f.head)
	f.head = nil
	return len(p), err
}

// contentWriter is a rebuilder as the writer of the current file's content.
type contentWriter struct{ *rebuilder }

// Write implements io.Writer.
func (w contentWriter) Write(p []byte) (int, error) { return w.content(p) }

// ended notes the file that was read, if there is one.
func (b *rebuilder) ended() error {
	f := b.file
	if f == nil {
		return nil
	}
	defer b.close()
	stored, kind := f.size, difftar.Snapshot
	if f.delta != nil {
		stored, kind = f.delta.body.size(), difftar.Diff
		if err := b.patched(); err != nil {
			return err
		}
	} else if f.signer == nil {
		f.sign(f.size, b.o.MaxBlock)
		if _, err := f.signer.Write(f.head); err != nil {
			return err
		}
	}
	if err := f.signer.Close(); err != nil {
		return err
	}
	f.entry.Size, f.entry.HasHash = f.size, true
	f.sum.Sum(f.entry.Hash[:0])
	changed, word := f.old != nil && f.old.Type == chain.File, "new"
	b.count(&f.entry, changed)
	b.counts.RawDeltaSize += stored
	if changed {
		b.counts.ChangedDeltaSize += stored
		word = "changed"
	}
	b.j.add(&event{Kind: evChange, Word: word, Path: f.entry.Path})
	b.j.record(&index.Record{Entry: f.entry, Change: kind, SigLen: f.sig.size()})
	if _, err := io.Copy(b.j, f.sig.reader()); err != nil {
		return err
	}
	b.j.add(&event{Kind: evKnown, Known: &Known{Path: f.entry.Path, Ctime: -1}}) // of no file system
	return nil
}

// close frees the file that was read.
func (b *rebuilder) close() {
	if b.file == nil {
		return
	}
	b.file.sig.close()
	if b.file.delta != nil {
		b.file.delta.close()
	}
	b.file = nil
}

// count adds an entry to the statistics.
func (b *rebuilder) count(e *chain.Entry, changed bool) {
	b.counts.DeltaEntries++
	if changed {
		b.counts.ChangedFiles++
		b.counts.ChangedFileSize += max(e.Size, 0)
		return
	}
	b.counts.NewFiles++
	b.counts.NewFileSize += max(e.Size, 0)
}
