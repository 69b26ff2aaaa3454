package volume

import (
	"errors"
	"sort"
)

// framing maps offsets in the body of an OpenPGP packet to offsets in what
// carries it: the body is cut into pieces, each with its length in front.
// Pieces of one kind in a row are one run: GnuPG's 8 KiB pieces make four runs
// of a volume, ours two.
type framing struct {
	base int64 // offset of the first length
	runs []run
	size int64 // of the body so far
	end  int64 // offset behind the last piece
}

// run is count pieces of n bytes, each behind a length of header bytes.
type run struct {
	header int64
	n      int64
	count  int64
	body   int64 // offset in the body of the first one
	at     int64 // offset outside of its length
}

// maxRuns bounds the memory of a framing. Only a file made for the purpose
// has more.
const maxRuns = 1 << 20

var errRuns = errors.New("too many pieces of different lengths")

// newFraming begins a body whose first length is at base.
func newFraming(base int64) framing { return framing{base: base, end: base} }

// endless is the length of what goes on to the end.
const endless = 1 << 60

// whole is the framing of a body that has no lengths, as it begins at base and
// goes on to the end of what carries it.
func whole(base int64) framing {
	f := newFraming(base)
	f.add(0, endless, 1)
	return f
}

// add appends pieces.
func (f *framing) add(header, n, count int64) {
	if count == 0 {
		return
	}
	if k := len(f.runs) - 1; k >= 0 && f.runs[k].n == n && f.runs[k].header == header {
		f.runs[k].count += count
	} else {
		f.runs = append(f.runs, run{header, n, count, f.size, f.end})
	}
	f.size += n * count
	f.end += (n + header) * count
}

// find returns the run of the body's byte at off.
func (f *framing) find(off int64) int {
	return sort.Search(len(f.runs), func(i int) bool { return f.runs[i].body > off }) - 1
}

// to returns the offset outside of the body's byte at off.
func (f *framing) to(off int64) int64 {
	r := f.runs[f.find(off)]
	in := off - r.body
	i := in / max(r.n, 1)
	return r.at + i*(r.n+r.header) + r.header + in - i*r.n
}

// strip appends the body from..to to dst. b is what carries it, beginning with
// the body's byte at from.
func (f *framing) strip(dst, b []byte, from, to int64) []byte {
	if from == to {
		return dst
	}
	base := f.to(from)
	for k := f.find(from); from < to; k++ {
		r := f.runs[k]
		for i := (from - r.body) / max(r.n, 1); i < r.count && from < to; i++ {
			n := min(r.body+(i+1)*r.n, to) - from
			at := r.at + i*(r.n+r.header) + r.header + (from - r.body - i*r.n) - base
			dst = append(dst, b[at:at+n]...)
			from += n
		}
	}
	return dst
}
