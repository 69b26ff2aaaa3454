package selection

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// glob is a shell pattern as duplicity understands it. It selects the paths
// it matches and all below them. A pattern with a slash at its end selects
// directories (and all below them) only.
type glob struct {
	match   func(name string) (end int, ok bool) // leftmost match from the start, to "/" or the end
	scan    func(name string) bool               // name is, or is like, a directory above a match
	dirOnly bool
}

const ignoreCase = "ignorecase:"

// parseGlob reads a pattern. With fold, case does not matter.
func parseGlob(pattern string, fold bool) (*glob, error) {
	if len(pattern) >= len(ignoreCase) && strings.EqualFold(pattern[:len(ignoreCase)], ignoreCase) {
		fold, pattern = true, pattern[len(ignoreCase):]
	}
	if pattern == "" {
		return nil, fmt.Errorf("%w: it is empty", ErrGlob)
	}
	if pattern == "/" {
		pattern = "/**"
	}
	g := &glob{}
	pattern, g.dirOnly = strings.CutSuffix(decode(pattern), "/")
	if above, _, _ := strings.Cut(pattern, "**"); strings.Contains(above, "//") {
		return nil, fmt.Errorf("%w: two slashes in a row", ErrGlob)
	}
	if !fold && !strings.ContainsAny(pattern, "*?[") {
		g.literal(pattern)
		return g, nil
	}
	return g, g.compile(pattern, fold)
}

// parseLiteral reads a path in which no character is special. A slash at its
// end means nothing.
func parseLiteral(p string, fold bool) (*glob, error) {
	if p == "" {
		return nil, fmt.Errorf("%w: it is empty", ErrGlob)
	}
	g := &glob{}
	if len(p) > 1 {
		p = strings.TrimSuffix(p, "/")
	}
	p = decode(p)
	if !fold {
		g.literal(p)
		return g, nil
	}
	return g, g.compile(strings.NewReplacer("*", "[*]", "?", "[?]", "[", "[[]").Replace(p), true)
}

// literal sets up a pattern without special characters.
func (g *glob) literal(p string) {
	g.match = func(name string) (int, bool) {
		if !strings.HasPrefix(name, p) || len(name) > len(p) && name[len(p)] != '/' {
			return 0, false
		}
		return min(len(p)+1, len(name)), true
	}
	g.scan = func(name string) bool {
		if name == "/" {
			return strings.HasPrefix(p, "/")
		}
		return strings.HasPrefix(p, name) && (len(p) == len(name) || p[len(name)] == '/')
	}
}

// compile sets up a pattern with special characters.
func (g *glob) compile(p string, fold bool) error {
	flags := "(?s)"
	if fold {
		flags = "(?si)"
	}
	whole, err := expression(p)
	if err != nil {
		return err
	}
	re, err := regexp.Compile(flags + "^" + whole + "(?:$|/)")
	if err != nil {
		return fmt.Errorf("%w: %v", ErrGlob, err)
	}
	above, err := prefixes(p)
	if err != nil {
		return err
	}
	scan, err := regexp.Compile(flags + "^(?:" + strings.Join(above, "|") + ")$")
	if err != nil {
		return fmt.Errorf("%w: %v", ErrGlob, err)
	}
	g.match = func(name string) (int, bool) {
		m := re.FindStringIndex(name)
		if m == nil {
			return 0, false
		}
		return m[1], true
	}
	g.scan = scan.MatchString
	return nil
}

// prefixes returns the expressions of the directories that lie above matches
// of p: one for each slash, up to the first "**", which can stand for any
// number of directories.
func prefixes(p string) ([]string, error) {
	if i := strings.Index(p, "**"); i >= 0 {
		p = p[:i+2]
	}
	var list []string
	for i := 0; i <= len(p); i++ {
		if i < len(p) && p[i] != '/' {
			continue
		}
		prefix := p[:i]
		if i == 0 {
			prefix = "/"
		}
		e, err := expression(prefix)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

// expression returns the regular expression of a pattern.
func expression(p string) (string, error) {
	var b strings.Builder
	for p != "" {
		switch {
		case strings.HasPrefix(p, "**"):
			b.WriteString(".*")
			p = p[2:]
		case p[0] == '*':
			b.WriteString("[^/]*")
			p = p[1:]
		case p[0] == '?':
			b.WriteString("[^/]")
			p = p[1:]
		case p[0] == '[':
			n, err := class(&b, p)
			if err != nil {
				return "", err
			}
			p = p[n:]
		default:
			_, n := utf8.DecodeRuneInString(p)
			b.WriteString(regexp.QuoteMeta(p[:n]))
			p = p[n:]
		}
	}
	return b.String(), nil
}

// class writes the expression of the class that p begins with and returns
// its length. A "[" without its "]" stands for itself.
func class(b *strings.Builder, p string) (int, error) {
	i := 1
	negated := i < len(p) && (p[i] == '!' || p[i] == '^')
	if negated {
		i++
	}
	end := i
	if end < len(p) && p[end] == ']' {
		end++
	}
	n := strings.IndexByte(p[min(end, len(p)):], ']')
	if n < 0 {
		b.WriteString(`\[`)
		return 1, nil
	}
	end += n
	b.WriteByte('[')
	if negated {
		b.WriteByte('^')
	}
	members := []rune(p[i:end])
	for len(members) > 0 {
		lo, hi, used := members[0], members[0], 1
		if len(members) > 2 && members[1] == '-' {
			hi, used = members[2], 3
		}
		if lo > hi {
			return 0, fmt.Errorf("%w: range %c-%c is empty", ErrGlob, lo, hi)
		}
		fmt.Fprintf(b, `\x{%x}-\x{%x}`, lo, hi)
		members = members[used:]
	}
	b.WriteByte(']')
	return end + 1, nil
}

// decode makes a string valid UTF-8, so that expressions see characters: each
// byte that belongs to none becomes a character that no name has, for private
// use on the last plane.
func decode(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 {
			r = 0x10ff00 + rune(s[0])
		}
		b.WriteRune(r)
		s = s[n:]
	}
	return b.String()
}

// verdict returns what the pattern of an include rule says: Include, Scan, or
// nothing. A directory pattern that takes in a name to its end says nothing
// of what is no directory.
func (g *glob) verdict(name string, dir bool) (Verdict, bool) {
	end, ok := g.match(name)
	switch {
	case !ok:
		return Scan, g.scan(name)
	case g.dirOnly && !dir && end == len(name) && !strings.HasSuffix(name, "/"):
		return Exclude, false
	}
	return Include, true
}

// matches reports whether name is selected.
func (g *glob) matches(name string, dir bool) bool {
	v, ok := g.verdict(name, dir)
	return ok && v == Include
}
