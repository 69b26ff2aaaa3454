// Package delta makes and applies librsync signatures and deltas, the form in
// which duplicity stores what changed in a file. Bytes in, bytes out: it knows
// no archive.
//
// A backup calls NewSigner for each file it stores, and ReadSignature, Diff
// and NewEncoder for each file that changed. Reading calls ReadCommands, which
// says where each byte of the new file comes from, or Patch.
//
// # Formats
//
// All numbers are big-endian. A signature is
//
//	u32 magic | u32 block length B | u32 strong sum length S
//	{ u32 weak sum | S bytes of strong sum }     for each B bytes of the file
//
// where the last block may be shorter than B, which is not recorded. The magic
// tells the sums: 0x72730136 rollsum and MD4, ...37 rollsum and BLAKE2b-256,
// ...46 RabinKarp and MD4, ...47 RabinKarp and BLAKE2b-256. A strong sum is the
// first S bytes of the hash. duplicity always writes the first with S = 8.
//
// A delta is the magic 0x72730236 and commands up to END:
//
//	00        END
//	01 .. 40  literal of that many bytes; the data follow
//	41 .. 44  literal; length in 1, 2, 4 or 8 bytes, then the data
//	45 .. 54  copy from the old file (the basis): 45+4p+q has the offset in
//	          2^p and the length in 2^q bytes
//
// The rest is reserved.
package delta

import "errors"

// The magic numbers of signatures, and that of deltas.
const (
	// DefaultMagic is rollsum with MD4, the one that duplicity writes.
	DefaultMagic = 0x72730136

	magicRollBlake = 0x72730137
	magicRKMD4     = 0x72730146
	magicRKBlake   = 0x72730147

	deltaMagic = 0x72730236
)

const (
	// strongLen is the length of the strong sums that are written, and the
	// least that is read: with fewer bits two different blocks could well be
	// taken for the same, and a file be restored wrong.
	strongLen = 8
	// maxStrong is the longest strong sum there is, BLAKE2b-256.
	maxStrong = 32
	// MaxBlockLen is the longest block that is read: Diff holds one in memory.
	// Blocks of that length do for files of 256 TiB.
	MaxBlockLen = 64 << 20
	// MaxBlocks is the number of blocks that BlockLen aims not to exceed.
	MaxBlocks = 4 << 20
	// maxLiteral is the longest piece that Diff hands to a Sink.
	maxLiteral = 64 << 10
)

var (
	// ErrTooLarge says that a signature has more blocks than the caller
	// allows, or blocks longer than MaxBlockLen.
	ErrTooLarge = errors.New("signature too large")
	// ErrWeak says that a signature's strong sums are too short to trust.
	ErrWeak = errors.New("signature with strong sums of less than 8 bytes")
)

// BlockLen returns the block length for the signature of a file of size bytes:
// duplicity's choice (512 up to 2048000 bytes, then more, at most 2048), but
// more from 8 GiB on, so that a signature has at most MaxBlocks blocks. It is
// a multiple of 512.
func BlockLen(size int64) int {
	const unit = 512
	n := min(max(size/1024000, 1), 4) * unit
	if size > n*MaxBlocks {
		per := (size-1)/MaxBlocks + 1
		n = (per + unit - 1) / unit * unit
	}
	return int(min(n, MaxBlockLen))
}
