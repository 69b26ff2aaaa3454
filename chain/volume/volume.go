// Package volume codes stored files: tar streams and other plaintext in a
// layer of OpenPGP, gzip or nothing. It knows the seekable form that dupfs
// writes, and makes seekable what others wrote. Pure arithmetic and streams:
// it does no I/O of its own.
//
// Write with NewWriter. Read in order with NewReader, which takes any origin;
// NewScanner does the same and notes the Layout of the file, by which
// any chunk can be decoded alone. ReadTrailer finds the Layout of a file of
// ours in two small reads.
//
// # The seekable form
//
// An OpenPGP file of ours is an ordinary message: session key packets; an
// encrypted packet with a modification detection code (tag 18), in pieces of
// 1 MiB; in it a compressed packet of indeterminate length, as GnuPG writes it,
// so that nothing stands between the cipher and the deflate stream; in that one
// literal packet. The deflate stream is cut into chunks that do not
// refer to each other and end at a byte; each begins at a length of the literal
// packet. So a chunk is found by adding up lengths, decrypted from the
// block of ciphertext before it, checked by its hash, and inflated, all alone.
//
// If it is signed, an announcement stands before the literal packet and the
// signature, over all of its content with the trailer, behind it. Chunks do not
// tell whether it is good: where a signature is demanded, a file's own trailer is
// not believed, only what was noted when all of it was read, or is noted in an
// index that is signed itself.
//
// A gzip file of ours has one member a chunk. Plain files have chunks of equal
// length. What the chunks are is told by the Layout, and by a trailer within
// the file (see trailer.go).
package volume

import "errors"

var (
	// ErrForeign says that a stored file has no trailer of ours.
	ErrForeign = errors.New("no chunk table of dupfs in it")
	// ErrNotSeekable says that a stored file can only be read in order, and
	// not even a Layout of a copy of its plaintext can be made.
	ErrNotSeekable = errors.New("its format can only be read in order")
)

// Options say how a stored file is written. The zero value is good.
type Options struct {
	Chunk   int // plaintext bytes of a chunk, 512 to 16 MiB; 0: 256 KiB
	Level   int // of deflate, 1 to 9; 0: 6
	Workers int // goroutines that deflate; 0: as many as there are cores
	// NoTrailer leaves the chunk table out, for files whose end matters to
	// stock duplicity: manifests. Such a file is not seekable by itself.
	NoTrailer bool

	pieceBits int // the encrypted packet's pieces have 1<<pieceBits bytes; 0: 20
}

const (
	defaultChunk     = 256 << 10
	minChunk         = 512
	maxChunk         = 16 << 20
	defaultPieceBits = 20
)
