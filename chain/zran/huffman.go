package zran

import "math/bits"

// Limits of RFC 1951, section 3.2.5 to 3.2.7.
const (
	maxBits   = 15  // longest codeword
	maxLit    = 286 // literal and length symbols
	maxDist   = 30  // distance symbols
	endSymbol = 256
	windowLen = 32768
	maxMatch  = 258
)

// A table entry of the decoders:
//
//	bits 0-4    bits of the codeword
//	bits 8-11   extra bits of a length or distance; bits of a subtable's index
//	bits 16-30  literal, base of a length or distance, start of a subtable
//	bit 31      it is a literal
//	bits 12-15  it is special: one of the kinds below
const (
	entryLiteral = 1 << 31
	entrySpecial = 1 << 14
	entryEnd     = entrySpecial | 1<<12 // end of block
	entrySub     = entrySpecial | 1<<13 // go on in a subtable
	entryBad     = entrySpecial         // no such codeword

	litBits  = 10 // bits of the index of the first table
	distBits = 8
	codeBits = 7
)

// table decodes one Huffman code: the first table is indexed by the next bits
// of input, subtables by those after them.
type table struct {
	entries []uint32
	counts  [maxBits + 1]int
	next    [maxBits + 1]int
}

// build fills the table for codewords of the given lengths. meaning returns a
// symbol's entry without its length. It reports false if the lengths do not
// make a complete prefix code; a code of a single word of one bit, or of none,
// is allowed as everywhere.
func (t *table) build(lengths []uint8, rootBits int, meaning func(sym int) uint32) bool {
	longest := t.count(lengths)
	if longest == 0 {
		t.size(1 << rootBits)
		return true
	}
	code, total := 0, 0
	for n := 1; n <= longest; n++ {
		code <<= 1
		t.next[n] = code
		code += t.counts[n]
		total += t.counts[n]
	}
	if code != 1<<longest && !(total == 1 && longest == 1) {
		return false
	}
	t.size(1 << rootBits)
	for sym, n := range lengths {
		if n == 0 {
			continue
		}
		word := int(bits.Reverse16(uint16(t.next[n])) >> (16 - n))
		t.next[n]++
		t.put(word, int(n), rootBits, longest, meaning(sym)|uint32(n))
	}
	return true
}

// count counts codewords by length and returns the longest.
func (t *table) count(lengths []uint8) int {
	t.counts = [maxBits + 1]int{}
	longest := 0
	for _, n := range lengths {
		t.counts[n]++
		longest = max(longest, int(n))
	}
	t.counts[0] = 0
	return longest
}

// size makes n entries that stand for no codeword.
func (t *table) size(n int) {
	if cap(t.entries) < n {
		t.entries = make([]uint32, n, 4*n)
	}
	t.entries = t.entries[:n]
	for i := range t.entries {
		t.entries[i] = entryBad
	}
}

// put enters a codeword of n bits, reversed as it meets the input.
func (t *table) put(word, n, rootBits, longest int, entry uint32) {
	if n <= rootBits {
		for i := word; i < 1<<rootBits; i += 1 << n {
			t.entries[i] = entry
		}
		return
	}
	root := word & (1<<rootBits - 1)
	subBits := longest - rootBits
	if t.entries[root] == entryBad {
		start := len(t.entries)
		for range 1 << subBits {
			t.entries = append(t.entries, entryBad)
		}
		t.entries[root] = entrySub | uint32(start)<<16 | uint32(subBits)<<8 | uint32(rootBits)
	}
	start := int(t.entries[root] >> 16)
	for i := word >> rootBits; i < 1<<subBits; i += 1 << (n - rootBits) {
		t.entries[start+i] = entry
	}
}

// litMeaning is the entry of a literal or length symbol.
func litMeaning(sym int) uint32 {
	switch {
	case sym < endSymbol:
		return entryLiteral | uint32(sym)<<16
	case sym == endSymbol:
		return entryEnd
	case sym < 265:
		return uint32(sym-257+3) << 16
	case sym < 285:
		extra := uint32(sym-261) / 4
		return (uint32(sym-261)%4+4)<<extra<<16 + 3<<16 | extra<<8
	case sym == 285:
		return maxMatch << 16
	}
	return entryBad
}

// distMeaning is the entry of a distance symbol.
func distMeaning(sym int) uint32 {
	switch {
	case sym < 4:
		return uint32(sym+1) << 16
	case sym < maxDist:
		extra := uint32(sym-2) / 2
		return ((2+uint32(sym)%2)<<extra+1)<<16 | extra<<8
	}
	return entryBad
}

// codeMeaning is the entry of a symbol of the code for code lengths.
func codeMeaning(sym int) uint32 { return uint32(sym) << 16 }

// fixedLit and fixedDist are the code lengths of fixed blocks.
func fixedLit() []uint8 {
	lengths := make([]uint8, 288)
	for i := range lengths {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	return lengths
}

func fixedDist() []uint8 {
	lengths := make([]uint8, 32)
	for i := range lengths {
		lengths[i] = 5
	}
	return lengths
}
