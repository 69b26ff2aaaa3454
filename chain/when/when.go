// Package when reads times as duplicity's options spell them:
//
//	now                            the time of the run
//	1700000000                     seconds since 1970; "20231114" is one, too
//	20231114T221320Z               as in file names; without Z only where the
//	                               zone's standard time is UTC
//	2023-11-14T22:13:20Z           W3, also +05:30, or without a zone
//	3D64s                          an interval before now; M is 30 days, m minutes
//	2023-11-14, 2023/1/4, 11/14/2023, 1-4-2023, 20231114Z
//	                               midnight; the month comes first
//
// Its oddities are duplicity's: times without a zone are in the zone's
// standard time, in summer, too; a 31st rolls over in a shorter month; seconds
// go up to 61; a date with Z is in local time like any other; the minutes of an
// offset count eastward, so that -04:30 is three hours and a half west.
package when

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"dupfs/chain"
)

// maxSeconds bounds what numbers and intervals give: file names cannot spell
// later times.
const maxSeconds = 253402300799

// Parse reads a time. Those without a zone are in the standard time of loc.
// The result is in UTC and whole seconds.
func Parse(s string, now time.Time, loc *time.Location) (time.Time, error) {
	if s == "now" {
		return time.Unix(now.Unix(), 0).UTC(), nil
	}
	if isDigits(s) {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n > maxSeconds {
			return time.Time{}, bad(s)
		}
		return time.Unix(n, 0).UTC(), nil
	}
	if t, ok := parseStamp(s, now, loc); ok {
		return t, nil
	}
	if n, err := ParseInterval(s); err == nil {
		return time.Unix(now.Unix()-n, 0).UTC(), nil
	}
	if t, ok := parseDate(s, loc); ok {
		return t, nil
	}
	return time.Time{}, bad(s)
}

// ParseInterval reads an interval such as "3D64s" and returns its seconds.
func ParseInterval(s string) (seconds int64, err error) {
	rest := s
	for rest != "" {
		i := 0
		for i < len(rest) && isDigit(rest[i]) {
			i++
		}
		if i == 0 || i == len(rest) {
			return 0, bad(s)
		}
		n, err := strconv.ParseInt(rest[:i], 10, 64)
		unit := unitSeconds(rest[i])
		if err != nil || unit == 0 || n > maxSeconds/unit || seconds+n*unit > maxSeconds {
			return 0, bad(s)
		}
		seconds += n * unit
		rest = rest[i+1:]
	}
	if s == "" {
		return 0, bad(s)
	}
	return seconds, nil
}

// Format returns t as file names spell it, "20231114T221320Z".
func Format(t time.Time) string { return chain.FormatTime(t) }

func bad(s string) error {
	return fmt.Errorf("%q is no time: give an interval like 3D64s, a W3 time like 2002-04-26T04:22:01-07:00, seconds since 1970, or a date like 2002/04/26", s)
}

// unitSeconds returns the seconds in a unit, 0 if it is none.
func unitSeconds(c byte) int64 {
	switch c {
	case 's':
		return 1
	case 'm':
		return 60
	case 'h':
		return 3600
	case 'D':
		return 86400
	case 'W':
		return 7 * 86400
	case 'M':
		return 30 * 86400
	case 'Y':
		return 365 * 86400
	}
	return 0
}

// standardOffset returns the seconds east of UTC of the standard time of loc
// at a local time: if that is in summer, the standard time nearest to it.
func standardOffset(t time.Time) int {
	_, offset := t.Zone()
	if !t.IsDST() {
		return offset
	}
	start, end := t.ZoneBounds()
	before, after := start.Add(-time.Second), end
	if start.IsZero() || !end.IsZero() && end.Sub(t) < t.Sub(start) {
		before, after = after, before
	}
	for _, near := range []time.Time{before, after} {
		if !near.IsZero() && !near.IsDST() {
			_, offset = near.Zone()
			break
		}
	}
	return offset
}

// parseStamp reads the form of file names and the W3 form.
func parseStamp(s string, now time.Time, loc *time.Location) (time.Time, bool) {
	short := len(s) == 15
	if short {
		s += "Z"
	}
	if len(s) == 16 && strings.Count(s, "T") == 1 && s[8] == 'T' { // whatever the last character is
		n, ok := numbers(s[:4], s[4:6], s[6:8], s[9:11], s[11:13], s[13:15])
		if !ok {
			return time.Time{}, false
		}
		if short && standardOffset(now.In(loc)) != 0 {
			return time.Time{}, false
		}
		return moment(n, 0)
	}
	if len(s) < 19 || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' {
		return time.Time{}, false
	}
	n, ok := numbers(s[:4], s[5:7], s[8:10], s[11:13], s[14:16], s[17:19])
	if !ok {
		return time.Time{}, false
	}
	zone := local(n, loc)
	if s = s[19:]; s != "" {
		if zone, ok = parseZone(s); !ok {
			return time.Time{}, false
		}
	}
	return moment(n, zone)
}

// local returns the standard offset of loc at a year, month, day, hour, minute
// and second.
func local(n []int, loc *time.Location) int {
	return standardOffset(time.Date(n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], 0, loc))
}

// parseZone reads "Z" or "+05:30", and returns seconds east of UTC. Minutes
// are always added, even to hours west: so duplicity writes and reads them.
func parseZone(s string) (int, bool) {
	if s == "Z" {
		return 0, true
	}
	if len(s) != 6 || s[3] != ':' || s[0] != '+' && s[0] != '-' {
		return 0, false
	}
	n, ok := numbers(s[1:3], s[4:6])
	if !ok {
		return 0, false
	}
	if s[0] == '-' {
		n[0] = -n[0]
	}
	return (n[0]*60 + n[1]) * 60, true
}

// parseDate reads a date, and returns the midnight it begins with.
func parseDate(s string, loc *time.Location) (time.Time, bool) {
	if len(s) == 9 && s[8] == 'Z' {
		s = s[:4] + "-" + s[4:6] + "-" + s[6:8]
	}
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == '-' || r == '/' })
	if len(parts) != 3 || len(s) != len(parts[0])+len(parts[1])+len(parts[2])+2 {
		return time.Time{}, false
	}
	if len(parts[2]) == 4 { // month, day, year
		parts[0], parts[1], parts[2] = parts[2], parts[0], parts[1]
	}
	if len(parts[0]) != 4 || len(parts[1]) > 2 || len(parts[2]) > 2 {
		return time.Time{}, false
	}
	n, ok := numbers(parts...)
	if !ok {
		return time.Time{}, false
	}
	n = append(n, 0, 0, 0)
	return moment(n, local(n, loc))
}

// moment makes a time of year, month, day, hour, minute and second, zone
// seconds east of UTC, within duplicity's bounds.
func moment(n []int, zone int) (time.Time, bool) {
	y, mo, d, h, mi, s := n[0], n[1], n[2], n[3], n[4], n[5]
	if y < 1901 || y > 2099 || mo < 1 || mo > 12 || d < 1 || d > 31 || h > 23 || mi > 59 || s > 61 {
		return time.Time{}, false
	}
	return time.Date(y, time.Month(mo), d, h, mi, s-zone, 0, time.UTC), true
}

// numbers reads decimal numbers of a few digits.
func numbers(words ...string) ([]int, bool) {
	var ns []int
	for _, w := range words {
		n, err := strconv.Atoi(w)
		if err != nil || !isDigits(w) {
			return nil, false
		}
		ns = append(ns, n)
	}
	return ns, true
}

func isDigits(s string) bool {
	for i := range len(s) {
		if !isDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
