package main

import (
	"fmt"
	"io/fs"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"dupfs/chain"
)

// decodeRune returns the first character of s and its length; -1 and 1 if it
// is a control character, invisible, or no UTF-8.
func decodeRune(s string) (rune, int) {
	r, n := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError && n <= 1 || !unicode.IsPrint(r) {
		return -1, 1
	}
	return r, n
}

// size writes a number of bytes as people read it: three digits, powers of 1024.
func size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	f, unit := float64(n), -1
	for f >= 1024 && unit < 4 {
		f /= 1024
		unit++
	}
	digits := 2
	switch {
	case f >= 100:
		digits = 0
	case f >= 10:
		digits = 1
	}
	return fmt.Sprintf("%.*f %cB", digits, f, "KMGTP"[unit])
}

// modeText is the first column of ls -l.
func modeText(e chain.Entry) string {
	m := fs.FileMode(e.Mode & 0o777)
	text := []byte(m.String())
	text[0] = typeLetter(e.Type)
	special(text, 3, e.Mode&0o4000 != 0, 's', 'S')
	special(text, 6, e.Mode&0o2000 != 0, 's', 'S')
	special(text, 9, e.Mode&0o1000 != 0, 't', 'T')
	return string(text)
}

// special writes a setuid, setgid or sticky bit over the x at position i.
func special(text []byte, i int, set bool, withX, without byte) {
	switch {
	case !set:
	case text[i] == 'x':
		text[i] = withX
	default:
		text[i] = without
	}
}

func typeLetter(t chain.Type) byte {
	switch t {
	case chain.Dir:
		return 'd'
	case chain.Symlink:
		return 'l'
	case chain.Fifo:
		return 'p'
	case chain.CharDevice:
		return 'c'
	case chain.BlockDevice:
		return 'b'
	}
	return '-'
}

// owner returns a name if it is known, else the number.
func owner(name string, id uint32) string {
	if name != "" {
		return printable(name)
	}
	return fmt.Sprint(id)
}

// listingTime writes a time as listings show it, in the local zone.
func listingTime(t chain.Time) string {
	return time.Unix(t.Sec, int64(t.Nsec)).Local().Format("2006-01-02 15:04:05")
}

// asctime writes a time as duplicity does: Sat Nov 21 20:50:27 2026.
func asctime(t time.Time) string { return t.Local().Format(time.ANSIC) }

// stamp writes the time of a point, as a directory in the mount is called.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// plural writes a count with its noun.
func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "y") {
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(noun, "y"))
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
