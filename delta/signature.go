package delta

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
)

// Signature is the signature of an old file, indexed for Diff. It is immutable
// and safe for concurrent use.
//
// Memory: with 8 bytes of strong sum at most 40 bytes a block: the record (12,
// and up to a quarter more from growing), two hash tables (6 each) and a
// filter (4 to 8); longer strong sums add their length.
type Signature struct {
	kind     kind
	blockLen int
	strong   int    // bytes of strong sum in a record
	recs     []byte // n records of 4+strong bytes, as read
	n        int

	// weaks is a hash set of the weak sums, and blocks a hash table of the
	// records with weak and strong sum; of equal blocks the first. Two tables,
	// so that many blocks with one weak sum cost no more than others: after the
	// weak sum is found, the strong sum is computed once, and leads on. Both are
	// open addressing; zero is a free slot; hashed with a seed of their own, so
	// that nobody can prepare collisions.
	weaks    []uint32
	zeroWeak bool // the set holds 0
	blocks   []uint32
	seed     uint64

	// filter has the bit of each weak sum set; filterShift picks the bit from
	// the product with filterMult. Most positions of a scan end here.
	filter      []uint64
	filterShift uint
}

// filterMult spreads a weak sum, whose low half holds little information.
const filterMult uint32 = 0x9e3779b1

// ReadSignature reads a signature to the end of r. A damaged one is an error
// (io.ErrUnexpectedEOF if it ends inside a record); more than maxBlocks blocks,
// or blocks longer than MaxBlockLen, are ErrTooLarge; strong sums shorter than
// 8 bytes are ErrWeak.
func ReadSignature(r io.Reader, maxBlocks int) (*Signature, error) {
	br := bufio.NewReaderSize(r, 32<<10)
	s, err := readSignatureHeader(br)
	if err != nil {
		return nil, err
	}
	stride := 4 + s.strong
	limit := min(maxBlocks, 1<<31-2)
	var rec [4 + maxStrong]byte
	for {
		switch _, err := io.ReadFull(br, rec[:stride]); {
		case err == io.EOF:
			s.index()
			return s, nil
		case err != nil:
			return nil, fmt.Errorf("signature: %w", err)
		case s.n >= limit:
			return nil, fmt.Errorf("%w: more than %d blocks", ErrTooLarge, limit)
		}
		s.recs = append(s.recs, rec[:stride]...)
		s.n++
	}
}

// readSignatureHeader reads the first 12 bytes.
func readSignatureHeader(r io.Reader) (*Signature, error) {
	var h [12]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("signature: %w", err)
	}
	magic := binary.BigEndian.Uint32(h[0:])
	block := binary.BigEndian.Uint32(h[4:])
	strong := binary.BigEndian.Uint32(h[8:])
	k, ok := kindOf(magic)
	switch {
	case !ok:
		return nil, fmt.Errorf("signature: unknown magic %08x", magic)
	case block == 0:
		return nil, errors.New("signature: block length 0")
	case block > MaxBlockLen:
		return nil, fmt.Errorf("%w: blocks of %d bytes", ErrTooLarge, block)
	case strong > uint32(k.maxStrong()):
		return nil, fmt.Errorf("signature: strong sums of %d bytes", strong)
	case strong < strongLen:
		return nil, ErrWeak
	}
	return &Signature{kind: k, blockLen: int(block), strong: int(strong)}, nil
}

// BlockLen returns the length of the blocks in bytes.
func (s *Signature) BlockLen() int { return s.blockLen }

// Blocks returns the number of blocks; the file was longer than
// (Blocks-1)*BlockLen and at most Blocks*BlockLen bytes long.
func (s *Signature) Blocks() int { return s.n }

// rec returns the record of block i.
func (s *Signature) rec(i int) []byte {
	stride := 4 + s.strong
	return s.recs[i*stride : (i+1)*stride]
}

// weakOf returns the weak sum of block i.
func (s *Signature) weakOf(i int) uint32 {
	return binary.BigEndian.Uint32(s.recs[i*(4+s.strong):])
}

// index builds the tables from the records.
func (s *Signature) index() {
	s.seed = rand.Uint64() | 1
	size := s.n + s.n/2 + 8
	s.weaks = make([]uint32, size)
	s.blocks = make([]uint32, size)
	lg := max(13, bits.Len(uint(s.n))+5)
	s.filter = make([]uint64, 1<<(lg-6))
	s.filterShift = uint(32 - min(lg, 32))
	for i := range s.n {
		s.addWeak(s.weakOf(i))
		s.addBlock(i)
	}
}

// addWeak puts w into the filter and the set.
func (s *Signature) addWeak(w uint32) {
	bit := w * filterMult >> s.filterShift
	s.filter[bit>>6] |= 1 << (bit & 63)
	if w == 0 {
		s.zeroWeak = true
		return
	}
	for k := s.weakSlot(w); ; k++ {
		if k == len(s.weaks) {
			k = 0
		}
		switch s.weaks[k] {
		case w:
			return
		case 0:
			s.weaks[k] = w
			return
		}
	}
}

// weakSlot is where the search for w begins.
func (s *Signature) weakSlot(w uint32) int {
	h, _ := bits.Mul64(uint64(w)*s.seed, uint64(len(s.weaks)))
	return int(h)
}

// hasWeak reports whether a block has the weak sum w.
func (s *Signature) hasWeak(w uint32) bool {
	if w == 0 {
		return s.zeroWeak
	}
	for k := s.weakSlot(w); ; k++ {
		if k == len(s.weaks) {
			k = 0
		}
		switch s.weaks[k] {
		case w:
			return true
		case 0:
			return false
		}
	}
}

// blockSlot is where the search for a record begins.
func (s *Signature) blockSlot(rec []byte) int {
	w := uint64(binary.BigEndian.Uint32(rec))
	v := binary.LittleEndian.Uint64(rec[4:])
	h, _ := bits.Mul64((v^w*filterMult64)*s.seed, uint64(len(s.blocks)))
	return int(h)
}

// filterMult64 spreads a weak sum over 64 bits.
const filterMult64 = 0x9e3779b97f4a7c15

// addBlock puts block i into the table unless an equal one is there.
func (s *Signature) addBlock(i int) {
	rec := s.rec(i)
	for k := s.blockSlot(rec); ; k++ {
		if k == len(s.blocks) {
			k = 0
		}
		v := s.blocks[k]
		if v == 0 {
			s.blocks[k] = uint32(i) + 1
			return
		}
		if string(s.rec(int(v-1))) == string(rec) {
			return
		}
	}
}

// find returns the first block with that record, or -1.
func (s *Signature) find(rec []byte) int {
	for k := s.blockSlot(rec); ; k++ {
		if k == len(s.blocks) {
			k = 0
		}
		v := s.blocks[k]
		if v == 0 {
			return -1
		}
		if string(s.rec(int(v-1))) == string(rec) {
			return int(v - 1)
		}
	}
}
