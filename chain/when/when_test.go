package when

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"dupfs/internal/need"
)

const now = 1700000000

// none stands for a string that is no time.
const none = -1 << 62

// table is what duplicity 0.8.22 made of each string at the time now in
// America/New_York, five hours behind UTC in winter.
func table() map[string]int64 {
	return map[string]int64{
		"now": now, "NOW": none, " now": none, "": none, " ": none,
		"1700000000": 1700000000, "0": 0, "00": 0, "1": 1, "20231114": 20231114, "99999999999": 99999999999, "253402300799": 253402300799,
		"-5": none, "+5": none, "1700000000.5": none, "0x10": none, "1_0": none, " 5": none, "5 ": none,
		"20231114T221320Z": now, "20231114t221320z": none, "20231114T221320": none, "20231114T221320EST": none, "20231114T221361Z": 1700000041,
		"20231114T221362Z": none, "20230231T221320Z": 1677881600, "20231114T241320Z": none, "20231114T236020Z": none, "19691231T235959Z": -1,
		"21000101T000000Z": none, "19000101T000000Z": none, "19010101T000000Z": -2177452800, "20991231T235961Z": 4102444801,
		"2023-11-14T22:13:20Z": now, "2023-11-14T22:13:20+05:30": 1699980200, "2023-11-14T22:13:20-05:00": 1700018000, "2023-11-14T18:43:20-04:30": now, "20231114T221320x": now,
		"2023-07-14T22:13:20": 1689390800, "2023-11-14T22:13:20": 1700018000, "2023-11-14T22:13": none, "2023-11-14T22:13:20+0530": none,
		"2023-11-14T22:13:20+14:30": 1699947800, "2023-11-14T22:13:20+99:59": 1699640060, "2023-11-14T22:13:20+05:60": 1699978400,
		"2023-11-14T22:13:20+5:30": none, "2023-11-14T22:13:20+05": none, "2023-11-14T22:13:20+": none, "2023-11-14T22:13:20+05:30x": none,
		"2023-11-14T22:13:20z": none, "2023-11-14t22:13:20Z": none, "2023-1-1T1:1:1Z": none, "2023-11-14T22_13_20Z": none,
		"2023-11-14T22:13:20.5Z": none, "2023-11-31T23:59:61Z": 1701475201, "2023-11-14T24:00:00Z": none, "2023-11-14T1:13:20Z": none,
		"3D64s": 1699740736, "2h30m": 1699991000, "1Y2M3W4D5h6m7s": 1661101633, "1D1D": 1699827200, "1m1M": 1697407940, "0s": now, "00s": now,
		"1s": now - 1, "00000000000000000000001D": now - 86400, "999Y": -29804464000,
		"3": 3, "D": none, "s": none, "3d": none, "-1D": none, "+1D": none, "1.5D": none, "1D1x": none, "x1D": none, "1D-1h": none, "3D ": none, "s1": none, "1s1": none,
		"2023-11-14": 1699938000, "2023/1/4": 1672808400, "11/14/2023": 1699938000, "11-14-2023": 1699938000, "20231114Z": 1699938000,
		"2023-7-4": 1688446800, "7/4/2023": 1688446800, "2023/11-14": 1699938000, "11/14-2023": 1699938000, "2023-07-14": 1689310800,
		"2023-02-31": 1677819600, "20230931Z": 1696136400, "2023-13-01": none, "2023-00-01": none, "2023-01-00": none, "2023-02-32": none,
		"32/1/2023": none, "1/32/2023": none, "1900-01-01": none, "1901-01-01": -2177434800, "2099-12-31": 4102376400, "2100-01-01": none,
		"2038-02-01": 2148613200, "1950-01-01": -631134000, "2023-11-14Z": none, "2023-11-14 ": none, "023-11-14": none, "12023-1-1": none,
		"2023-011-1": none, "2023-11-014": none, "1/1/99": none, "1/1/20230": none, "2023//1/1": none, "20231114z": none, "0231114Z": none,
		"202301011Z": none, "2023-1": none, "-2023-1-1": none, "2023-1-1-": none, "1/2/3": none, "١s": none, "５": none,
	}
}

func location(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		need.Missing(t, "no time zones: "+err.Error())
	}
	return loc
}

// parse returns seconds, none for an error.
func parse(s string, loc *time.Location) int64 {
	got, err := Parse(s, time.Unix(now, 999), loc)
	if err != nil {
		return none
	}
	return got.Unix()
}

func TestParse(t *testing.T) {
	loc := location(t, "America/New_York")
	for s, want := range table() {
		if got := parse(s, loc); got != want {
			t.Errorf("%q is %d, want %d", s, got, want)
		}
	}
	for _, test := range []struct {
		zone, s string
		want    int64
	}{
		{"UTC", "20231114T221320", now}, {"UTC", "2023-11-14", 1699920000},
		{"Europe/London", "20231114T221320", now}, {"Europe/London", "2023-07-14", 1689292800},
		{"Asia/Kolkata", "2023-11-14", 1699900200}, {"Australia/Sydney", "2023-01-14", 1673618400}, {"Australia/Sydney", "2023-07-14", 1689256800},
	} {
		if got := parse(test.s, location(t, test.zone)); got != test.want {
			t.Errorf("%s, %q is %d, want %d", test.zone, test.s, got, test.want)
		}
	}
}

// TestLimits holds what is refused on purpose, though duplicity takes it: file
// names could not spell these times.
func TestLimits(t *testing.T) {
	for _, s := range []string{"253402300800", "9999999999999999999999", "99999999999Y", "999999999999s", "9223372036854775807Y", "253402300799s1s", "5\n", "2023-11-14\n"} {
		if got := parse(s, time.UTC); got != none {
			t.Errorf("%q is %d", s, got)
		}
	}
}

func TestInterval(t *testing.T) {
	for s, want := range map[string]int64{"1s": 1, "2m": 120, "1h": 3600, "1D": 86400, "1W": 604800, "1M": 2592000, "1Y": 31536000, "1h1s1h": 7201} {
		if got, err := ParseInterval(s); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "s", "5", "5x", "5s5", "-5s", "5S", "5 s"} {
		if got, err := ParseInterval(s); err == nil {
			t.Errorf("%q is %d", s, got)
		}
	}
	if got := Format(time.Unix(now, 5).In(location(t, "Asia/Kolkata"))); got != "20231114T221320Z" {
		t.Error(got)
	}
}

const oracle = `
import json, sys
from duplicity import dup_time
dup_time.setcurtime(1700000000)
def parse(s):
    try:
        return dup_time.genstrtotime(s, 1700000000)
    except Exception:
        return None
json.dump({s: parse(s) for s in json.load(sys.stdin)}, sys.stdout)
`

// TestStock runs the table, and what comes of changing a character in it,
// through the installed duplicity.
func TestStock(t *testing.T) {
	need.Program(t, "duplicity")
	var words, mutants []string
	for s := range table() {
		words = append(words, s)
		for i := range len(s) {
			for _, c := range []string{"", "0", "9", "-", "/", ":", "T", "Z", "D", "M"} {
				mutants = append(mutants, s[:i]+c+s[i+1:])
			}
		}
	}
	for _, year := range []string{"1905", "1970", "1985", "2009", "2012", "2015", "2023", "2050"} {
		words = append(words, year+"-01-15", year+"-04-15", year+"-07-15", year+"-10-20", year+"0715T120000", year+"-07-15T12:00:00")
	}
	words = append(words, mutants...)
	for i, zone := range []string{"America/New_York", "UTC", "Asia/Kolkata", "Europe/London", "Europe/Moscow", "Australia/Sydney", "America/St_Johns"} {
		if i == 2 {
			words = words[:len(words)-len(mutants)]
		}
		in, err := json.Marshal(words)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/usr/bin/python3", "-c", oracle)
		cmd.Env = append(os.Environ(), "TZ="+zone)
		cmd.Stdin = bytes.NewReader(in)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		var want map[string]*json.Number
		if err := json.Unmarshal(out, &want); err != nil {
			t.Fatal(err)
		}
		loc := location(t, zone)
		for _, s := range words {
			if !ascii(s) || minus(s) || len(s) == 15 && strings.Index(s, "T") == 7 {
				continue // the last: a day of one digit, where there is no zone
			}
			stock := int64(none)
			if n := want[s]; n != nil {
				if stock, err = n.Int64(); err != nil || stock > maxSeconds || stock < now-maxSeconds {
					stock = none
				}
			}
			if got := parse(s, loc); got != stock {
				t.Errorf("%s: %q is %d, duplicity says %d", zone, s, got, stock)
			}
		}
	}
}

// minus reports whether a sign stands before a number of the time of day,
// which Python takes for a part of it: "-0" is 0.
func minus(s string) bool {
	_, day, _ := strings.Cut(s, "T")
	for i := range len(day) {
		if day[i] == '-' && (i != 8 || len(s) == 16) {
			return true
		}
	}
	return strings.HasSuffix(s, ":-0")
}

func ascii(s string) bool { return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 }) }

func FuzzWhen(f *testing.F) {
	for s := range table() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Parse(s, time.Unix(now, 0), time.UTC)
		if err != nil {
			return
		}
		if n := got.Unix(); got.Location() != time.UTC || n > maxSeconds || n < now-maxSeconds || got.Nanosecond() != 0 {
			t.Fatalf("%q is %v", s, got)
		}
		// What file names can spell is read back from there.
		if y := got.Year(); y > 1901 && y < 2099 {
			if again, err := Parse(Format(got), time.Unix(0, 0), time.UTC); err != nil || !again.Equal(got) {
				t.Fatalf("%q is %v, again %v, %v", s, got, again, err)
			}
		}
	})
}
