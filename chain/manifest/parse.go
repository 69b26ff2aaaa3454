package manifest

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"dupfs/chain"
)

// What bounds the memory for a manifest. Nothing reads a set that has more.
const (
	MaxVolumes = 1 << 18  // of a set
	MaxPaths   = 64 << 20 // bytes of all paths that volumes begin and end with
)

const (
	// maxLine bounds the lines that mean something. A path is at most some
	// 16 KiB when quoted. Longer lines are passed over.
	maxLine = 256 << 10
	// maxIndex bounds what is believed of an index's size.
	maxIndex = 1 << 50
)

// Parse reads a manifest to the end of r, as tolerantly as duplicity:
// unknown lines and words are passed over, field names may be in any case, and
// of two blocks for one volume the later counts. At least one volume must be
// named: duplicity never writes a set without one. The list of changed files is
// skipped. Errors in the text are *chain.CorruptError; errors of r are
// returned as they are.
func Parse(r io.Reader) (*Manifest, error) {
	p := parser{m: &Manifest{}, volumes: make(map[int]Volume)}
	lines := newLines(r)
	for {
		line, err := lines.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := p.line(line); err != nil {
			return nil, err
		}
	}
	if err := p.endVolume(); err != nil {
		return nil, err
	}
	m := p.finish()
	if len(m.Volumes) == 0 {
		return nil, corrupt("it names no volume")
	}
	return m, nil
}

// A parser takes the lines of a manifest one by one.
type parser struct {
	m                     *Manifest
	hasHostname, hasLocal bool
	volumes               map[int]Volume
	paths                 int // bytes of their paths
	last                  int // number of the last block in the text

	within            bool // a volume's block
	volume            Volume
	hasFirst, hasLast bool
}

func (p *parser) line(line string) error {
	if rest, ok := field(line, "volume"); ok {
		if err := p.endVolume(); err != nil {
			return err
		}
		return p.beginVolume(rest)
	}
	if rest, ok := field(line, "hostname"); ok && !p.hasHostname {
		p.m.Hostname, p.hasHostname = rest, true
	}
	if rest, ok := field(line, "localdir"); ok && !p.hasLocal {
		p.hasLocal = true
		if p.m.Localdir, ok = unquote(rest); !ok {
			p.m.Localdir = rest
		}
	}
	if p.within {
		return p.volumeLine(words(line))
	}
	if rest, ok := field(line, "dupfs-index"); ok && !p.m.HasIndex {
		p.index(words(rest))
	}
	if rest, ok := field(line, "dupfs-sigtar"); ok && p.m.SigtarSum == "" {
		if w := words(rest); len(w) == 1 && sumForm.MatchString(w[0]) {
			p.m.SigtarSum = w[0]
		}
	}
	return nil
}

// sumForm is what a store may tell of a file.
var sumForm = regexp.MustCompile(`^[0-9a-f]{32}(-[1-9][0-9]{0,5})?$`)

// index takes our own line. One that makes no sense is as good as none.
func (p *parser) index(words []string) {
	if len(words) < 2 {
		return
	}
	sum, err := hex.DecodeString(words[0])
	size, err2 := strconv.ParseInt(words[1], 10, 64)
	if err != nil || err2 != nil || len(sum) != 32 || size < 0 || size > maxIndex {
		return
	}
	p.m.IndexSHA256, p.m.IndexSize, p.m.HasIndex = [32]byte(sum), size, true
}

// beginVolume takes what follows "Volume ".
func (p *parser) beginVolume(rest string) error {
	num, _, ok := strings.Cut(rest, ":")
	n, err := strconv.ParseInt(strings.TrimLeftFunc(num, func(r rune) bool { return r < 0x80 && isSpace(byte(r)) }), 10, 32)
	if !ok || err != nil || n < 1 {
		return corrupt("a volume without its number")
	}
	if len(p.volumes) >= MaxVolumes || p.paths > MaxPaths {
		return corrupt("too many volumes")
	}
	p.within, p.hasFirst, p.hasLast = true, false, false
	p.volume = Volume{Number: int(n)}
	p.last = int(n)
	return nil
}

// volumeLine takes a line within a volume's block.
func (p *parser) volumeLine(words []string) error {
	if len(words) < 2 {
		return nil
	}
	v, err := &p.volume, error(nil)
	switch strings.ToLower(words[0]) {
	case "startingpath":
		p.hasFirst = true
		v.First, v.FirstBlock, err = p.place(words)
		p.paths += len(v.First)
	case "endingpath":
		p.hasLast = true
		v.Last, v.LastBlock, err = p.place(words)
		p.paths += len(v.Last)
	case "hash":
		if len(words) > 2 {
			v.hash(words[1], words[2])
		}
	}
	return err
}

// place reads the path in a line, and the number after it if there is one.
func (p *parser) place(words []string) (path chain.Path, block int, err error) {
	path, ok := parsePath(words[1])
	if !ok {
		return "", 0, corrupt(fmt.Sprintf("volume %d: a path that is none", p.volume.Number))
	}
	block = -1
	if len(words) > 2 {
		if n, err := strconv.ParseInt(words[2], 10, 32); err == nil && n >= 0 {
			block = int(n)
		}
	}
	return path, block, nil
}

// parsePath reads a path that may be quoted.
func parsePath(word string) (chain.Path, bool) {
	s, ok := unquote(word)
	if !ok {
		return "", false
	}
	return chain.ParsePath(s)
}

// hash takes a hash that is known here.
func (v *Volume) hash(kind, digits string) {
	sum, err := hex.DecodeString(digits)
	if size, ok := strings.CutPrefix(strings.ToUpper(kind), "MD5-"); ok && len(sum) == len(v.Parts) {
		if n, nerr := strconv.ParseInt(size, 10, 64); err == nil && nerr == nil && n > 0 && strconv.FormatInt(n, 10) == size {
			v.Parts, v.PartSize = [16]byte(sum), n
		}
		return
	}
	switch strings.ToUpper(kind) {
	case "SHA1":
		v.SHA1, v.HasSHA1 = [20]byte{}, true
		if err == nil && len(sum) == len(v.SHA1) {
			v.SHA1 = [20]byte(sum)
		}
	case "MD5":
		v.MD5, v.HasMD5 = [16]byte{}, true
		if err == nil && len(sum) == len(v.MD5) {
			v.MD5 = [16]byte(sum)
		}
	}
}

// endVolume takes the block that ends here, if one does.
func (p *parser) endVolume() error {
	if !p.within {
		return nil
	}
	p.within = false
	if !p.hasFirst || !p.hasLast {
		return corrupt(fmt.Sprintf("volume %d: without its first or last path", p.volume.Number))
	}
	p.volumes[p.volume.Number] = p.volume
	return nil
}

// finish puts the volumes in order. A run that was resumed has written some of
// them twice; what is above the last one then is left over from before.
func (p *parser) finish() *Manifest {
	for n, v := range p.volumes {
		if n <= p.last {
			p.m.Volumes = append(p.m.Volumes, v)
		}
	}
	slices.SortFunc(p.m.Volumes, func(a, b Volume) int { return a.Number - b.Number })
	return p.m
}

// ParseFileList calls fn for each line of the list of changed files, in the
// order of the text, until fn returns an error, which it returns. It reads r
// to the end. Errors in the text are *chain.CorruptError.
func ParseFileList(r io.Reader, fn func(Change) error) error {
	lines, within := newLines(r), false
	for {
		line, err := lines.next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if _, ok := field(line, "filelist"); ok {
			within = true
			continue
		}
		if _, ok := field(line, "volume"); ok {
			within = false
		}
		w := words(line)
		if !within || len(w) < 2 || !isSpace(line[0]) || !knownKind(w[0]) {
			continue
		}
		path, ok := parsePath(w[1])
		if !ok {
			return corrupt("the list of files has a path that is none")
		}
		if err := fn(Change{w[0], path}); err != nil {
			return err
		}
	}
}

// field returns what follows a field's name and one white-space byte at the
// beginning of a line.
func field(line, name string) (rest string, ok bool) {
	n := len(name)
	if len(line) <= n || !isSpace(line[n]) || !strings.EqualFold(line[:n], name) {
		return "", false
	}
	return line[n+1:], true
}

// words splits a line at ASCII white space.
func words(line string) []string {
	return strings.FieldsFunc(line, func(r rune) bool { return r < 0x80 && isSpace(byte(r)) })
}

func corrupt(reason string) error { return chain.Corrupt("manifest", reason) }

// lines reads lines in bounded memory.
type lines struct{ br *bufio.Reader }

func newLines(r io.Reader) lines { return lines{bufio.NewReaderSize(r, 16<<10)} }

// next returns the next line without its end, LF or CR LF. A line that is too
// long to mean anything is returned as an empty one.
func (l lines) next() (string, error) {
	var line []byte
	long := false
	for {
		part, err := l.br.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			long = true
		}
		if !long {
			line = append(line, part...)
		}
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case err == io.EOF && len(line) == 0 && len(part) == 0 && !long:
			return "", io.EOF
		case err != nil && err != io.EOF:
			return "", err
		}
		if long {
			return "", nil
		}
		s := strings.TrimSuffix(string(line), "\n")
		return strings.TrimSuffix(s, "\r"), nil
	}
}
