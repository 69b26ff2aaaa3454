// Package volume codes stored files: tar streams and other plaintext in a
// layer of OpenPGP, gzip or nothing. It knows the seekable form that dupfs
// writes, and makes seekable what others wrote. Pure arithmetic and streams:
// it does no I/O of its own.
//
// Write with NewWriter. Read in order with NewReader, which takes any origin;
// NewScanner does the same and notes the Layout of the file, by which
// any chunk can be decoded alone. ReadTrailer finds the Layout of a file of
// ours in two small reads.
package volume

import (
	"context"
	"errors"
	"io"

	"dupfs/chain"
	"dupfs/chain/pgp"
)

// errTodo stands where code is still to come.
var errTodo = errors.New("volume: not written yet")

var (
	// ErrForeign says that a stored file has no trailer of ours.
	ErrForeign = errors.New("no chunk table of dupfs in it")
	// ErrNotSeekable says that a stored file can only be read in order: it
	// is compressed by bzip2, or encrypted with OCB or without protection of
	// its integrity. Who needs ranges of it decodes it into a file first.
	ErrNotSeekable = errors.New("its format can only be read in order")
)

// Options say how a stored file is written. The zero value is good.
type Options struct {
	Chunk   int // plaintext bytes of a chunk; 0: 256 KiB
	Level   int // of deflate; 0: 6
	Workers int // goroutines that deflate; 0: as many as there are cores
	// NoTrailer leaves the chunk table out, for files whose end matters to
	// stock duplicity: manifests. Such a file is not seekable by itself.
	NoTrailer bool
}

// Chunk is a piece of a stored file that can be decoded alone.
type Chunk struct {
	PlainOff, PlainLen   int64 // of its plaintext
	StoredOff, StoredLen int64 // of the stored bytes that Decode needs; those of neighbours may overlap a little
}

// Layout is what is known of a stored file: enough to decode any chunk of it.
// It does not change once made. It contains the session key.
type Layout struct {
	Layer      chain.Layer
	StoredSize int64
	PlainSize  int64    // without our trailer, and with everything a stock volume holds
	SHA1       [20]byte // of the stored file; zero in a Layout of ReadTrailer
	Own        bool     // in the seekable form that dupfs writes
}

// Len returns the number of chunks.
func (l *Layout) Len() int { return 0 }

// Chunk returns chunk k, 0 <= k < Len.
func (l *Layout) Chunk(k int) Chunk { return Chunk{} }

// Find returns the chunk that holds the plaintext byte at plainOff, which must
// be less than PlainSize.
func (l *Layout) Find(plainOff int64) int { return 0 }

// Decode appends the plaintext of chunk k to dst. stored must be exactly the
// range that Chunk tells. It is verified before any of it is returned; damage
// is a *chain.CorruptError. Safe for concurrent use.
func (l *Layout) Decode(dst []byte, k int, stored []byte) ([]byte, error) { return nil, errTodo }

// Memory returns how many bytes the Layout occupies, roughly.
func (l *Layout) Memory() int64 { return 0 }

// MarshalBinary returns the Layout in a compact form of a few dozen bytes a
// chunk. It contains the session key.
func (l *Layout) MarshalBinary() ([]byte, error) { return nil, errTodo }

// UnmarshalBinary reads what MarshalBinary wrote.
func (l *Layout) UnmarshalBinary(b []byte) error { return errTodo }

// Writer writes a stored file. Use: Write, then Close; Abort to give up.
type Writer struct{}

// NewWriter returns a Writer to w. enc is for chain.OpenPGP only.
func NewWriter(w io.Writer, layer chain.Layer, enc *pgp.Encrypter, o Options) (*Writer, error) {
	return nil, errTodo
}

// Write adds plaintext.
func (w *Writer) Write(p []byte) (int, error) { return 0, errTodo }

// Off returns how much plaintext was written: the plainOff of what comes next.
func (w *Writer) Off() int64 { return 0 }

// CutBefore tells that n bytes follow which are likely to be read together,
// a member of a tar file. The chunk may end here.
func (w *Writer) CutBefore(n int64) {}

// StoredSize estimates the size of the stored file if it ended here. It may
// wait for chunks that are being deflated. It depends on nothing but the
// plaintext and the options that shape chunks, so not on Workers.
func (w *Writer) StoredSize() int64 { return 0 }

// Close ends the file and returns its Layout.
func (w *Writer) Close() (*Layout, error) { return nil, errTodo }

// Abort gives the file up and waits for what still works on it. After Close,
// or a second time, it does nothing.
func (w *Writer) Abort() {}

// Signature tells of a signature met in a stored file.
type Signature struct {
	KeyID uint64
	Good  bool // checked; false: the signer's public key is not at hand
}

// Reader is the plaintext of a stored file, in order.
type Reader struct{}

// NewReader returns the plaintext of a stored file of any origin. io.EOF
// means that all of it was verified: checksums, the modification detection
// code and those signatures whose public key is at hand. Damage is a
// *chain.CorruptError that names the file; a key that is missing is
// chain.ErrNoKey or chain.ErrNoPassphrase, wrapped with the name.
func NewReader(ctx context.Context, r io.Reader, layer chain.Layer, keys *pgp.Keys, name string) (*Reader, error) {
	return nil, errTodo
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) { return 0, errTodo }

// Close releases buffers. It does not close what the Reader reads from.
func (r *Reader) Close() error { return nil }

// Signatures returns the signatures met; complete after io.EOF.
func (r *Reader) Signatures() []Signature { return nil }

// Scanner is a Reader that also notes the Layout.
type Scanner struct{ Reader }

// NewScanner is NewReader, and after io.EOF Layout tells how to decode any
// chunk of the file.
func NewScanner(ctx context.Context, r io.Reader, layer chain.Layer, keys *pgp.Keys, name string) (*Scanner, error) {
	return nil, errTodo
}

// Layout returns the file's Layout, once Read has returned io.EOF.
// ErrNotSeekable if there is none.
func (s *Scanner) Layout() (*Layout, error) { return nil, errTodo }

// ReadTrailer finds the Layout of a file of ours by its head and its tail. get
// reads n bytes at off; size is that of the stored file. ErrForeign if the
// file has no trailer of ours. Unlike a Scanner's, the Layout has no SHA1.
func ReadTrailer(ctx context.Context, get func(ctx context.Context, off, n int64) ([]byte, error), size int64,
	layer chain.Layer, keys *pgp.Keys, name string) (*Layout, error) {
	return nil, errTodo
}
