package manifest

import (
	"encoding/hex"
	"strings"
)

// special reports whether a byte must not stand in a path as it is.
func special(c byte) bool {
	return isSpace(c) || c == '\\' || c == '"' || c == '\''
}

// isSpace reports whether c is white space in ASCII.
func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

// quote returns s as manifests have it: s itself, or within double quotes.
func quote(s string) string {
	plain := true
	for i := range len(s) {
		plain = plain && !special(s[i])
	}
	if plain {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		if c := s[i]; special(c) {
			b.WriteString(`\x` + hex.EncodeToString([]byte{c}))
		} else {
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// unquote undoes quote. It reports false if s begins with a double quote but
// is not rightly quoted.
func unquote(s string) (string, bool) {
	if !strings.HasPrefix(s, `"`) {
		return s, true
	}
	if len(s) < 2 || s[len(s)-1] != '"' {
		return "", false
	}
	s = s[1 : len(s)-1]
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, `\`)
		if strings.Contains(before, `"`) {
			return "", false
		}
		b.WriteString(before)
		if !found {
			return b.String(), true
		}
		if len(after) < 3 || after[0] != 'x' {
			return "", false
		}
		c, err := hex.DecodeString(after[1:3])
		if err != nil {
			return "", false
		}
		b.WriteByte(c[0])
		s = after[3:]
	}
}
