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
}

// ErrNotRebuilt says that volumes do not tell enough to go on with them.
var ErrNotRebuilt = errors.New("what is stored does not tell enough to go on with it")

// Rebuild writes the journal of a full backup that was interrupted, where the
// one that the run kept is lost or on another machine, from the volumes that
// are in the store. All of them are read and verified, up to the first one that
// is missing or damaged. ReadJournal then tells how many can be kept, which are
// none if the first one is of no use. Of what the volumes do not tell nothing is
// assumed: the next increment compares every file's content. Claims to the set's
// second are removed: a run that stored one and lives gives way.
//
// Increments are not rebuilt: a delta's signature needs what it applies to, and
// what there is of one is made anew as quickly.
func Rebuild(ctx context.Context, st *store.Store, set *chain.Set, claims []chain.Stored, path string, o RebuildOptions) error {
	if !set.Full || set.Manifest != nil {
		return fmt.Errorf("set %s is no full set that was interrupted", set.Times())
	}
	if len(set.Volumes) == 0 || set.Volumes[0].Volume != 1 {
		return fmt.Errorf("set %s: %w", set.Times(), fs.ErrNotExist)
	}
	if f := set.Volumes[0]; f.Layer == chain.Plain {
		return fmt.Errorf("%s: neither compressed nor encrypted, it would not show damage: %w", f.File, ErrNotRebuilt)
	}
	head := &journalHead{Full: true, Start: set.Start.Unix(), End: set.End.Unix(), Layer: set.Volumes[0].Layer, Source: o.Source, Owner: o.Owner}
	if !st.Excludes() {
		var token [8]byte
		rand.Read(token[:]) // never fails
		head.Claim = hex.EncodeToString(token[:])
	}
	part := path + ".part"
	b := &rebuilder{o: o, j: newJournal(part, head)}
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
	o      RebuildOptions
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
}

// rebuilt is a file of which pieces were read.
type rebuilt struct {
	entry  chain.Entry
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
		var corrupt *chain.CorruptError
		if errors.As(err, &corrupt) || errors.Is(err, fs.ErrNotExist) {
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
	if f := b.file; f != nil && f.whole(b.o.Source) {
		if err := b.ended(); err != nil {
			return err
		}
	}
	return b.seal(b.file != nil)
}

// whole reports whether a file of which no more pieces are stored ended with the
// last one: if it is in the source as it was then, and has that size.
func (f *rebuilt) whole(source string) bool {
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
	b.sealed = &volumeNote{File: v.File, Size: layout.StoredSize, Row: b.row, Layout: text, Counts: b.counts}
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
		if m.Kind != difftar.Snapshot {
			return chain.Corrupt("member "+m.Entry.Path.String(), "no full set has a "+m.Kind.String())
		}
		if err := b.follows(m); err != nil {
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
		if m.Piece != f.pieces+1 {
			return chain.Corrupt("member "+m.Entry.Path.String(), fmt.Sprintf("piece %d after %d", m.Piece, f.pieces))
		}
		return nil
	}
	if m.Piece > 1 || b.any && m.Entry.Path.Compare(b.last) <= 0 {
		return chain.Corrupt("member "+m.Entry.Path.String(), "it is not the next one in the order of a set")
	}
	return b.ended()
}

// seal notes the volume that was read before; open says that its last file may
// go on.
func (b *rebuilder) seal(open bool) error {
	v := b.sealed
	if v == nil {
		return nil
	}
	b.sealed = nil
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
	if m.Entry.Type != chain.File {
		b.count(&m.Entry)
		b.j.record(&index.Record{Entry: m.Entry, Change: difftar.Snapshot, SigLen: -1})
		return nil
	}
	if b.file == nil {
		b.file = b.begin(m)
	}
	f := b.file
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
	f.pieces = m.Piece
	if m.Piece == 0 {
		return b.ended()
	}
	b.j.add(&event{Kind: evPiece, Path: m.Entry.Path, Number: m.Piece, Sum: f.trail[:], Bare: f.bare})
	return nil
}

// begin begins a file.
func (b *rebuilder) begin(m *difftar.Member) *rebuilt {
	f := &rebuilt{entry: m.Entry, sum: sha256.New(), sig: &spool{dir: b.o.TempDir}, bare: len(m.Entry.Xattrs) == 0}
	if m.Piece == 0 {
		f.sign(m.Len, b.o.MaxBlock)
	}
	return f
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
	if f.signer == nil {
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
	b.count(&f.entry)
	b.counts.RawDeltaSize += f.size
	b.j.add(&event{Kind: evChange, Word: "new", Path: f.entry.Path})
	b.j.record(&index.Record{Entry: f.entry, Change: difftar.Snapshot, SigLen: f.sig.size()})
	if _, err := io.Copy(b.j, f.sig.reader()); err != nil {
		return err
	}
	b.j.add(&event{Kind: evKnown, Known: &Known{Path: f.entry.Path, Ctime: -1}}) // of no file system
	return nil
}

// close frees the file that was read.
func (b *rebuilder) close() {
	if b.file != nil {
		b.file.sig.close()
		b.file = nil
	}
}

func (b *rebuilder) count(e *chain.Entry) {
	b.counts.DeltaEntries++
	b.counts.NewFiles++
	b.counts.NewFileSize += max(e.Size, 0)
}
