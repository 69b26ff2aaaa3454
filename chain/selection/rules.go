package selection

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/dlclark/regexp2"

	"dupfs/chain"
)

// maxList bounds a list of patterns.
const maxList = 64 << 20

// opinion is what one rule says of an entry: nothing if ok is false.
type opinion func(e *entry) (v Verdict, ok bool)

// entry is what opinions look at.
type entry struct {
	name string // source and path joined
	text string // name as valid UTF-8
	Facts
}

// rule is an opinion and whether it can exclude.
type rule struct {
	opinion
	include bool
	text    string
}

// add appends the rules of one option to s.
func (s *Selection) add(r Rule) error {
	switch r.Kind {
	case Glob, Literal:
		return s.addGlob(r)
	case Filelist:
		return s.addList(r)
	case Regexp:
		return s.addRegexp(r)
	case IfPresent:
		s.front(r.Pattern, func(e *entry) (Verdict, bool) {
			return Exclude, e.Type == chain.Dir && e.Holds != nil && e.Holds(r.Pattern)
		})
	case DeviceFiles:
		s.front("device files", func(e *entry) (Verdict, bool) {
			return Exclude, e.Type == chain.CharDevice || e.Type == chain.BlockDevice
		})
	case OtherFilesystems:
		s.back("other filesystems", func(e *entry) (Verdict, bool) { return Exclude, e.OtherFS })
	case OlderThan:
		s.back("older than", func(e *entry) (Verdict, bool) {
			return Exclude, e.Type == chain.File && e.Mtime < r.Time
		})
	default:
		return &RuleError{r.Pattern, fmt.Errorf("unknown kind of rule %d", r.Kind)}
	}
	return nil
}

func (s *Selection) front(text string, o opinion) {
	s.rules = append([]rule{{o, false, text}}, s.rules...)
}

func (s *Selection) back(text string, o opinion) {
	s.rules = append(s.rules, rule{o, false, text})
}

// addGlob appends a pattern, which must be able to match something in the
// source.
func (s *Selection) addGlob(r Rule) error {
	parse := parseGlob
	if r.Kind == Literal {
		parse = parseLiteral
	}
	g, err := parse(r.Pattern, r.Fold)
	if err != nil {
		return &RuleError{r.Pattern, err}
	}
	if _, ok := g.verdict(decode(s.source), true); !ok {
		return &RuleError{r.Pattern, ErrOutside}
	}
	o := func(e *entry) (Verdict, bool) {
		return Exclude, g.matches(e.text, e.Type == chain.Dir)
	}
	if r.Include {
		o = func(e *entry) (Verdict, bool) { return g.verdict(e.text, e.Type == chain.Dir) }
	}
	s.rules = append(s.rules, rule{o, r.Include, r.Pattern})
	return nil
}

// addRegexp appends a regular expression of Python's.
func (s *Selection) addRegexp(r Rule) error {
	pattern := decode(r.Pattern)
	if r.Fold {
		pattern = "(?i)" + pattern
	}
	match, err := compileRegexp(pattern)
	if err != nil {
		return &RuleError{r.Pattern, fmt.Errorf("%w: %v", ErrRegexp, err)}
	}
	v := Exclude
	if r.Include {
		v = Include
	}
	s.rules = append(s.rules, rule{
		func(e *entry) (Verdict, bool) { return v, match(e.text) }, r.Include, r.Pattern,
	})
	return nil
}

// pythonBackref is how Python refers back to a group by name.
var pythonBackref = regexp.MustCompile(`\(\?P=(\w+)\)`)

// compileRegexp returns what tells whether an expression is found in a text.
// Go's own engine takes no more time than the text is long, but neither looks
// around nor refers back; only for those that do there is one that backtracks,
// as Python's. Python's \Z is the others' \z.
func compileRegexp(pattern string) (func(string) bool, error) {
	pattern = strings.ReplaceAll(pattern, `\Z`, `\z`)
	re, err := regexp.Compile(pattern)
	if err == nil {
		return re.MatchString, nil
	}
	pattern = strings.ReplaceAll(pythonBackref.ReplaceAllString(pattern, `\k<$1>`), "(?P<", "(?<")
	back, backErr := regexp2.Compile(pattern, regexp2.None)
	if backErr != nil {
		return nil, err
	}
	return func(text string) bool {
		found, err := back.MatchString(text)
		return found && err == nil // it fails only where it has a time limit
	}, nil
}

// addList appends the patterns of a list.
func (s *Selection) addList(r Rule) error {
	if r.Lines != Glob && r.Lines != Literal && r.Lines != Regexp {
		return &RuleError{r.Pattern, fmt.Errorf("lines cannot be of kind %d", r.Lines)}
	}
	if r.List == nil {
		return &RuleError{r.Pattern, fmt.Errorf("the list has no content")}
	}
	text, err := io.ReadAll(io.LimitReader(r.List, maxList+1))
	if err != nil {
		return &RuleError{r.Pattern, err}
	}
	if len(text) > maxList {
		return &RuleError{r.Pattern, fmt.Errorf("the list is larger than %d MiB", maxList>>20)}
	}
	end := []byte("\n")
	if r.Null {
		end = []byte{0}
	}
	for line := range bytes.SplitSeq(text, end) {
		pattern, include, ok := listLine(string(line), r.Include)
		if !ok {
			continue
		}
		one := Rule{Kind: r.Lines, Include: include, Fold: r.Fold, Pattern: pattern}
		if err := s.add(one); err != nil {
			return fmt.Errorf("%s: %w", r.Pattern, err)
		}
	}
	return nil
}

// listLine reads a line of a list, whose own sense is include. It reports
// false for empty lines and comments.
func listLine(line string, include bool) (pattern string, sense, ok bool) {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return "", false, false
	}
	switch {
	case strings.HasPrefix(line, "+ "):
		line, include = line[2:], true
	case strings.HasPrefix(line, "- "):
		line, include = line[2:], false
	}
	if n := len(line); n >= 2 && line[0] == line[n-1] && (line[0] == '"' || line[0] == '\'') {
		line = line[1 : n-1]
	}
	return line, include, true
}
