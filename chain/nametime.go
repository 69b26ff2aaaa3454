package chain

import (
	"time"
	"unicode/utf8"
)

// maxTime is the last second that four digits of year can spell.
const maxTime = 253402300799

// FormatTime returns t as file names spell it, "20231114T221320Z".
func FormatTime(t time.Time) string {
	return t.UTC().Format("20060102T150405Z")
}

// ParseTime reads a time as file names spell it: the current form, UTC, as
// "20231114T221320Z", or the W3 form, as "2023-11-14T17:13:20-05:00", where
// any character but "-" may stand for each ":". "T" and "Z" may be in lower
// case. Times up to 1970-01-01T00:00:00Z are not accepted, as duplicity takes
// that one for none. The result is in UTC.
func ParseTime(s string) (time.Time, bool) {
	if t, ok := parseUTC(s); ok {
		return t, true
	}
	return parseW3(s)
}

// parseUTC reads "20231114T221320Z".
func parseUTC(s string) (time.Time, bool) {
	c := scanner{s: s}
	y, mo, d := c.digits(4), c.digits(2), c.digits(2)
	c.either('T', 't')
	h, mi, sec := c.digits(2), c.digits(2), c.digits(2)
	c.either('Z', 'z')
	if c.bad || c.s != "" {
		return time.Time{}, false
	}
	return utc(y, mo, d, h, mi, sec, 0)
}

// parseW3 reads "2023-11-14T22:13:20" and "Z" or an offset.
func parseW3(s string) (time.Time, bool) {
	c := scanner{s: s}
	y := c.digits(4)
	c.either('-', '-')
	mo := c.digits(2)
	c.either('-', '-')
	d := c.digits(2)
	c.either('T', 't')
	h := c.digits(2)
	sep := c.separator()
	mi := c.digits(2)
	c.literal(sep)
	sec := c.digits(2)
	offset := c.offset(sep)
	if c.bad || c.s != "" {
		return time.Time{}, false
	}
	return utc(y, mo, d, h, mi, sec, offset)
}

// utc makes a time, offset seconds east of UTC, if it exists.
func utc(y, mo, d, h, mi, sec, offset int) (time.Time, bool) {
	t := time.Date(y, time.Month(mo), d, h, mi, sec, 0, time.UTC)
	if t.Day() != d || t.Month() != time.Month(mo) || h > 23 || mi > 59 || sec > 59 {
		return time.Time{}, false
	}
	t = t.Add(-time.Duration(offset) * time.Second)
	return t, t.Unix() > 0 && t.Unix() <= maxTime
}

// A scanner takes pieces off the front of s; bad once one was not there.
type scanner struct {
	s   string
	bad bool
}

// digits takes n decimal digits.
func (c *scanner) digits(n int) (v int) {
	if len(c.s) < n {
		c.bad = true
		return 0
	}
	for i := range n {
		if c.s[i] < '0' || c.s[i] > '9' {
			c.bad = true
			return 0
		}
		v = v*10 + int(c.s[i]-'0')
	}
	c.s = c.s[n:]
	return v
}

// either takes one byte, a or b, and returns it.
func (c *scanner) either(a, b byte) byte {
	if c.s == "" || c.s[0] != a && c.s[0] != b {
		c.bad = true
		return 0
	}
	first := c.s[0]
	c.s = c.s[1:]
	return first
}

// separator takes one character that is not "-".
func (c *scanner) separator() string {
	_, n := utf8.DecodeRuneInString(c.s)
	if n == 0 || c.s[0] == '-' {
		c.bad = true
		return ""
	}
	sep := c.s[:n]
	c.s = c.s[n:]
	return sep
}

// literal takes s.
func (c *scanner) literal(s string) {
	if len(c.s) < len(s) || c.s[:len(s)] != s {
		c.bad = true
		return
	}
	c.s = c.s[len(s):]
}

// offset takes "Z", or "+HH:MM" with that separator, and returns seconds east.
// Minutes are always added, even to hours west: duplicity writes three hours
// and a half west as "-04:30", and reads it so.
func (c *scanner) offset(sep string) int {
	if c.s == "Z" || c.s == "z" {
		c.s = ""
		return 0
	}
	sign := c.either('+', '-')
	h := c.digits(2)
	c.literal(sep)
	m := c.digits(2)
	if h > 23 || m > 59 {
		c.bad = true
	}
	if sign == '-' {
		h = -h
	}
	return (h*60 + m) * 60
}
