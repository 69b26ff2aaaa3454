package chain

import (
	"strconv"
	"strings"
	"time"
)

// Layer is what lies between a stored file and its plaintext.
type Layer uint8

// The layers. The end of a file's name tells which one it has.
const (
	Plain Layer = iota
	Gzip
	OpenPGP
)

// Suffix returns what a file of that layer ends in: "", ".gz" or ".gpg".
func (l Layer) Suffix() string {
	switch l {
	case Gzip:
		return ".gz"
	case OpenPGP:
		return ".gpg"
	}
	return ""
}

// String returns the layer's name for messages.
func (l Layer) String() string {
	switch l {
	case Plain:
		return "plain"
	case Gzip:
		return "gzip"
	case OpenPGP:
		return "OpenPGP"
	}
	return "unknown layer"
}

// Kind is what a stored file is for. The zero Kind is a file that is none of
// ours and none of duplicity's.
type Kind uint8

// The kinds of stored files.
const (
	VolumeFile   Kind = iota + 1
	ManifestFile      // what is in which volume; a set exists once it has one
	SigtarFile        // metadata and signatures of a set's entries
	IndexFile         // ours: where each byte of the set is
	JSONStatFile      // statistics, by duplicity 2.1 and later
	ClaimFile         // ours: a run takes the second that its set ends in
)

// Prefixes are the user's file name prefixes, matched literally: All begins
// every name, one of the others comes after it.
type Prefixes struct {
	All, Archive, Manifest, Signature, JSONStat string
}

// Name is a stored file's name, understood.
type Name struct {
	Kind Kind
	Full bool
	// Start and End are the set's times, in UTC and whole seconds. A full set
	// has Start == End, an increment Start < End.
	Start, End time.Time
	Volume     int // number of a VolumeFile, from 1
	Layer      Layer
	Part       bool   // an unfinished file, as duplicity keeps them locally
	Token      string // whose a ClaimFile is: tokenLen hexadecimal digits
	File       string // the name as stored
}

// ParseName understands the name of a stored file by every scheme that
// duplicity has used, and the names of our index and claim files. For any other name it
// reports false and returns a Name with File alone.
//
// As for duplicity, anything may follow the end of a name after a dot, so
// "x.manifest.old" is a manifest too; Collect prefers the usual name. Files of
// the par2 wrapper, which end in ".par2", are not understood, nor is a volume
// 0, nor an increment that does not end after it starts.
func ParseName(file string, p Prefixes) (Name, bool) {
	unknown := Name{File: file}
	rest, ok := strings.CutPrefix(file, p.All)
	if !ok || strings.HasSuffix(file, ".par2") {
		return unknown, false
	}
	if r, ok := strings.CutPrefix(rest, claimHead); ok {
		n, ok := parseClaim(r)
		if !ok {
			return unknown, false
		}
		n.File = file
		return n, true
	}
	for _, s := range schemes() {
		r, ok := strings.CutPrefix(rest, p.of(s.kind))
		if !ok {
			continue
		}
		if n, ok := s.parse(r); ok {
			n.File, n.Layer = file, layerOf(file)
			return n, true
		}
	}
	return unknown, false
}

// Format returns the file name of n in the current scheme. n.File is not
// looked at.
func (p Prefixes) Format(n Name) string {
	var b strings.Builder
	b.WriteString(p.All)
	b.WriteString(p.of(n.Kind))
	switch {
	case n.Kind == ClaimFile:
		return b.String() + claimHead + FormatTime(n.End) + "." + n.Token
	case n.Kind == IndexFile:
		b.WriteString("dupfs-index.")
	case n.Kind == SigtarFile && n.Full:
		b.WriteString("duplicity-full-signatures.")
	case n.Kind == SigtarFile:
		b.WriteString("duplicity-new-signatures.")
	case n.Full:
		b.WriteString("duplicity-full.")
	default:
		b.WriteString("duplicity-inc.")
	}
	b.WriteString(times(n.Full, n.Start, n.End))
	switch n.Kind {
	case VolumeFile:
		b.WriteString(".vol" + strconv.Itoa(n.Volume) + ".difftar")
	case ManifestFile:
		b.WriteString(".manifest")
	case SigtarFile:
		b.WriteString(".sigtar")
	case JSONStatFile:
		b.WriteString(".jsonstat")
	}
	if n.Part {
		b.WriteString(".part")
	}
	b.WriteString(n.Layer.Suffix())
	return b.String()
}

// of returns the prefix that comes after All for files of kind k. Index files
// have none: nothing the user chose for other files should select them.
func (p Prefixes) of(k Kind) string {
	switch k {
	case VolumeFile:
		return p.Archive
	case ManifestFile:
		return p.Manifest
	case SigtarFile:
		return p.Signature
	case JSONStatFile:
		return p.JSONStat
	}
	return ""
}

// layerOf tells a file's layer by the end of its name, as duplicity does: no
// dot is needed before "gz".
func layerOf(file string) Layer {
	switch {
	case strings.HasSuffix(file, ".g"), strings.HasSuffix(file, ".gpg"):
		return OpenPGP
	case strings.HasSuffix(file, ".z"), strings.HasSuffix(file, "gz"):
		return Gzip
	}
	return Plain
}

// A scheme is one form of file name: head, a time, to and another time, num
// and a number, tail, perhaps part, and an end.
type scheme struct {
	kind      Kind
	head, to  string // to is "" for a full set
	num, tail string // num is "" where there is no number
	short     bool   // times and numbers in base 36
}

// schemes returns all forms, in the order in which duplicity tries them.
func schemes() [17]scheme {
	const vol, man, sig, jst = VolumeFile, ManifestFile, SigtarFile, JSONStatFile
	return [...]scheme{
		{kind: vol, head: "df.", num: ".", tail: ".dt", short: true},
		{kind: man, head: "df.", tail: ".m", short: true},
		{kind: vol, head: "di.", to: ".", num: ".", tail: ".dt", short: true},
		{kind: man, head: "di.", to: ".", tail: ".m", short: true},
		{kind: sig, head: "dfs.", tail: ".st", short: true},
		{kind: sig, head: "dns.", to: ".", tail: ".st", short: true},
		{kind: jst, head: "dfst.", tail: ".jst", short: true},
		{kind: jst, head: "dist.", to: ".to.", tail: ".jst", short: true},
		{kind: vol, head: "duplicity-full.", num: ".vol", tail: ".difftar"},
		{kind: man, head: "duplicity-full.", tail: ".manifest"},
		{kind: jst, head: "duplicity-full.", tail: ".jsonstat"},
		{kind: vol, head: "duplicity-inc.", to: ".to.", num: ".vol", tail: ".difftar"},
		{kind: man, head: "duplicity-inc.", to: ".to.", tail: ".manifest"},
		{kind: jst, head: "duplicity-inc.", to: ".to.", tail: ".jsonstat"},
		{kind: sig, head: "duplicity-full-signatures.", tail: ".sigtar"},
		{kind: sig, head: "duplicity-new-signatures.", to: ".to.", tail: ".sigtar"},
		{kind: IndexFile, head: "dupfs-index."},
	}
}

// parse understands s, a name without the user's prefixes.
func (c scheme) parse(s string) (Name, bool) {
	s, ok := strings.CutPrefix(s, c.head)
	if !ok {
		return Name{}, false
	}
	if c.kind == IndexFile {
		return parseIndex(s)
	}
	n := Name{Kind: c.kind, Full: c.to == ""}
	// No time holds what stands after it, so the first place is the one.
	if !n.Full {
		var start string
		if start, s, ok = strings.Cut(s, c.to); !ok {
			return n, false
		}
		if n.Start, ok = c.time(start); !ok {
			return n, false
		}
	}
	after := c.tail
	if c.num != "" {
		after = c.num
	}
	end, s, ok := strings.Cut(s, after)
	if !ok {
		return n, false
	}
	if n.End, ok = c.time(end); !ok {
		return n, false
	}
	if n.Full {
		n.Start = n.End
	} else if !n.Start.Before(n.End) {
		return n, false
	}
	if c.num != "" {
		if n.Volume, s, ok = c.number(s); !ok {
			return n, false
		}
		if s, ok = strings.CutPrefix(s, c.tail); !ok {
			return n, false
		}
	}
	n.Part, ok = c.end(s)
	return n, ok
}

// end understands what follows the tail: nothing, or a dot and anything.
func (c scheme) end(s string) (part, ok bool) {
	word := ".part"
	if c.short {
		word = ".p"
	}
	if rest, found := strings.CutPrefix(s, word); found && (rest == "" || rest[0] == '.') {
		return true, true
	}
	return false, s == "" || s[0] == '.'
}

// number cuts a volume number, 1 to 999,999,999, off s.
func (c scheme) number(s string) (n int, rest string, ok bool) {
	base, i := c.base(), 0
	for i < len(s) && digit(s[i]) < base {
		i++
	}
	v, err := strconv.ParseInt(s[:i], base, 64)
	return int(v), s[i:], err == nil && v >= 1 && v <= 999_999_999
}

// time reads a time of this scheme.
func (c scheme) time(s string) (time.Time, bool) {
	if !c.short {
		return ParseTime(s)
	}
	for i := range len(s) {
		if digit(s[i]) >= 36 {
			return time.Time{}, false
		}
	}
	v, err := strconv.ParseInt(s, 36, 64)
	if err != nil || v < 1 || v > maxTime {
		return time.Time{}, false
	}
	return time.Unix(v, 0).UTC(), true
}

func (c scheme) base() int {
	if c.short {
		return 36
	}
	return 10
}

// digit returns the value of a digit in lower case, 36 for anything else.
func digit(b byte) int {
	switch {
	case '0' <= b && b <= '9':
		return int(b - '0')
	case 'a' <= b && b <= 'z':
		return int(b-'a') + 10
	}
	return 36
}

// parseIndex understands what follows "dupfs-index.". Nothing but the suffix
// of a layer may follow the times: these names are ours alone.
func parseIndex(s string) (Name, bool) {
	n := Name{Kind: IndexFile}
	for _, l := range []Layer{OpenPGP, Gzip} {
		if rest, ok := strings.CutSuffix(s, l.Suffix()); ok {
			s = rest
			break
		}
	}
	start, end, inc := strings.Cut(s, ".to.")
	if !inc {
		end = start
	}
	var ok1, ok2 bool
	n.Start, ok1 = parseUTC(start)
	n.End, ok2 = parseUTC(end)
	n.Full = !inc
	return n, ok1 && ok2 && (n.Full || n.Start.Before(n.End))
}

const (
	claimHead = "dupfs-claim."
	tokenLen  = 16
)

// parseClaim understands what follows claimHead: a time and a token.
func parseClaim(s string) (Name, bool) {
	end, token, _ := strings.Cut(s, ".")
	t, ok := parseUTC(end)
	if !ok || len(token) != tokenLen || strings.Trim(token, "0123456789abcdef") != "" {
		return Name{}, false
	}
	return Name{Kind: ClaimFile, Full: true, Start: t, End: t, Token: token}, true
}

// usual returns how far the name is from what duplicity writes: 0 for the
// current scheme, 1 for an older one, 2 for a name that only the rule about
// ends lets through.
func (n Name) usual() int {
	if strings.HasSuffix(n.File, Prefixes{}.Format(n)) {
		return 0
	}
	s := n.File
	for _, suffix := range []string{".gpg", ".gz", ".g", ".z"} {
		if rest, ok := strings.CutSuffix(s, suffix); ok {
			s = rest
			break
		}
	}
	for _, c := range schemes() {
		if c.kind == n.Kind && c.tail != "" && strings.HasSuffix(s, c.tail) {
			return 1
		}
	}
	return 2
}
