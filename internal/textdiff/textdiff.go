// Package textdiff compares two texts line by line and writes the difference
// in the unified format that patch reads. Begin with Unified.
package textdiff

import (
	"bytes"
	"fmt"
	"io"
)

// MaxLines is the most lines of one text that are compared: memory grows with
// them, some 60 bytes for each.
const MaxLines = 1 << 20

// context is how many lines around a change are shown.
const context = 3

// IsText reports whether b looks like text: it has no NUL byte.
func IsText(b []byte) bool { return bytes.IndexByte(b, 0) < 0 }

// Lines counts the lines of a text; a last one without a line feed counts.
func Lines(b []byte) int {
	n := bytes.Count(b, []byte{'\n'})
	if len(b) > 0 && b[len(b)-1] != '\n' {
		n++
	}
	return n
}

// Unified writes the hunks of the difference between two texts, without the
// two lines that name them, and nothing if they are equal. The difference is
// right whatever it is, and the shortest unless the texts are very different.
func Unified(w io.Writer, a, b []byte) error {
	d := &differ{a: split(a), b: split(b)}
	ids := make(map[string]int32)
	d.ai, d.bi = number(ids, d.a), number(ids, d.b)
	d.gone, d.came = make([]bool, len(d.a)), make([]bool, len(d.b))
	d.limit = minCost
	for d.limit*d.limit < len(d.a)+len(d.b) {
		d.limit++
	}
	d.compare(0, len(d.a), 0, len(d.b))
	return d.write(w)
}

// split returns the lines of a text with their line feeds.
func split(b []byte) [][]byte {
	lines := make([][]byte, 0, Lines(b))
	for len(b) > 0 {
		n := bytes.IndexByte(b, '\n') + 1
		if n == 0 {
			n = len(b)
		}
		lines, b = append(lines, b[:n]), b[n:]
	}
	return lines
}

// number gives equal lines equal numbers.
func number(ids map[string]int32, lines [][]byte) []int32 {
	out := make([]int32, len(lines))
	for i, l := range lines {
		id, ok := ids[string(l)]
		if !ok {
			id = int32(len(ids))
			ids[string(l)] = id
		}
		out[i] = id
	}
	return out
}

// minCost is the number of edits up to which the shortest difference of a
// stretch is always found. Beyond that, and the square root of the length,
// what was found best is taken.
const minCost = 256

// differ compares by Myers' algorithm in linear space: it finds a point in the
// middle of a shortest path of edits, and goes on with both sides of it.
type differ struct {
	a, b       [][]byte
	ai, bi     []int32
	gone, came []bool // of lines of a and b: in the difference
	limit      int    // of edits in one search
	fwd, bwd   front  // reused
}

// compare marks the lines of a[a0:a1] and b[b0:b1] that differ.
func (d *differ) compare(a0, a1, b0, b1 int) {
	for {
		for a0 < a1 && b0 < b1 && d.ai[a0] == d.bi[b0] {
			a0, b0 = a0+1, b0+1
		}
		for a0 < a1 && b0 < b1 && d.ai[a1-1] == d.bi[b1-1] {
			a1, b1 = a1-1, b1-1
		}
		if a0 == a1 || b0 == b1 {
			for ; a0 < a1; a0++ {
				d.gone[a0] = true
			}
			for ; b0 < b1; b0++ {
				d.came[b0] = true
			}
			return
		}
		x, y := d.middle(a0, a1, b0, b1)
		if x+y == a0+b0 || x+y == a1+b1 { // cannot be; but it must end
			x, y = a1, b0
		}
		d.compare(a0, x, b0, y)
		a0, b0 = x, y
	}
}

// middle returns a point on a shortest path, or on a good one, from (a0, b0)
// to (a1, b1). The first lines of the two stretches differ, and the last ones.
func (d *differ) middle(a0, a1, b0, b1 int) (x, y int) {
	n, m := a1-a0, b1-b0
	limit := min(d.limit, (n+m+1)/2+1)
	d.fwd.reset(limit, n, m)
	d.bwd.reset(limit, n, m)
	delta := n - m
	for cost := 0; cost <= limit; cost++ {
		for k := -cost; k <= cost; k += 2 {
			x := d.fwd.step(k, cost)
			for x >= 0 && x < n && x-k < m && d.ai[a0+x] == d.bi[b0+x-k] {
				x++
			}
			d.fwd.set(k, x)
			if delta&1 != 0 && meet(&d.bwd, delta-k, cost-1, x, n) {
				return a0 + x, b0 + x - k
			}
		}
		for k := -cost; k <= cost; k += 2 {
			x := d.bwd.step(k, cost)
			for x >= 0 && x < n && x-k < m && d.ai[a1-1-x] == d.bi[b1-1-x+k] {
				x++
			}
			d.bwd.set(k, x)
			if delta&1 == 0 && meet(&d.fwd, delta-k, cost, x, n) {
				return a1 - x, b1 - x + k
			}
		}
	}
	x, y = d.fwd.best(limit)
	if u, v := d.bwd.best(limit); u+v > x+y {
		return a1 - u, b1 - v
	}
	return a0 + x, b0 + y
}

// meet reports whether a path that came to x meets the other direction's on
// its diagonal k, which has got as far as cost.
func meet(other *front, k, cost, x, n int) bool {
	return x >= 0 && k >= -cost && k <= cost && other.get(k) >= 0 && x+other.get(k) >= n
}

// front is how far paths from one corner have come: on each diagonal k = x-y
// the greatest x, -1 for none. They stay within n and m.
type front struct {
	far   []int
	limit int
	n, m  int
}

func (f *front) reset(limit, n, m int) {
	if size := 2*limit + 3; cap(f.far) < size {
		f.far = make([]int, size)
	} else {
		f.far = f.far[:size]
	}
	for i := range f.far {
		f.far[i] = -1
	}
	f.limit, f.n, f.m = limit, n, m
}

func (f *front) get(k int) int { return f.far[k+f.limit+1] }

func (f *front) set(k, x int) { f.far[k+f.limit+1] = x }

// step returns how far diagonal k is reached with one edit more than its
// neighbours; -1 if it is not.
func (f *front) step(k, cost int) int {
	if cost == 0 {
		return 0
	}
	x := -1
	if right := f.get(k - 1); right >= 0 && right < f.n {
		x = right + 1
	}
	if down := f.get(k + 1); down >= 0 && down-k-1 < f.m {
		x = max(x, down)
	}
	return x
}

// best returns the point that is furthest from the corner.
func (f *front) best(cost int) (x, y int) {
	for k := -cost; k <= cost; k++ {
		if at := f.get(k); at >= 0 && 2*at-k > x+y {
			x, y = at, at-k
		}
	}
	return x, y
}

// write writes the marked lines in hunks.
func (d *differ) write(w io.Writer) error {
	out := &hunk{w: w}
	i, j, kept := 0, 0, 0 // kept: equal lines since the last change
	for i < len(d.a) || j < len(d.b) {
		gone, came := i < len(d.a) && d.gone[i], j < len(d.b) && d.came[j]
		if !gone && !came {
			if kept++; len(out.lines) > 0 {
				out.add(' ', d.a[i])
				if kept > 2*context {
					if err := out.end(kept - context); err != nil {
						return err
					}
				}
			}
			i, j = i+1, j+1
			continue
		}
		if len(out.lines) == 0 {
			before := min(kept, context)
			out.a, out.b = i-before, j-before
			for _, line := range d.a[i-before : i] {
				out.add(' ', line)
			}
		}
		kept = 0
		if gone {
			out.add('-', d.a[i])
			i++
		} else {
			out.add('+', d.b[j])
			j++
		}
	}
	return out.end(max(0, kept-context))
}

// hunk is a run of changes with the lines around them.
type hunk struct {
	w     io.Writer
	a, b  int // lines before it
	lines []line
}

type line struct {
	mark byte
	text []byte
}

func (h *hunk) add(mark byte, text []byte) { h.lines = append(h.lines, line{mark, text}) }

// end writes the hunk, if there is one, without its last lines.
func (h *hunk) end(drop int) error {
	if len(h.lines) == 0 {
		return nil
	}
	lines := h.lines[:len(h.lines)-drop]
	h.lines = nil
	old, new := 0, 0
	for _, l := range lines {
		if l.mark != '+' {
			old++
		}
		if l.mark != '-' {
			new++
		}
	}
	if _, err := fmt.Fprintf(h.w, "@@ -%s +%s @@\n", span(h.a, old), span(h.b, new)); err != nil {
		return err
	}
	for _, l := range lines {
		if _, err := fmt.Fprintf(h.w, "%c%s", l.mark, l.text); err != nil {
			return err
		}
		if l.text[len(l.text)-1] != '\n' {
			if _, err := io.WriteString(h.w, "\n\\ No newline at end of file\n"); err != nil {
				return err
			}
		}
	}
	return nil
}

// span writes where n lines after the first at lines are.
func span(at, n int) string {
	switch n {
	case 0:
		return fmt.Sprintf("%d,0", at)
	case 1:
		return fmt.Sprint(at + 1)
	}
	return fmt.Sprintf("%d,%d", at+1, n)
}
