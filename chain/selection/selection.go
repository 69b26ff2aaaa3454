// Package selection decides which entries of a source are backed up, by the
// rules of duplicity's selection options. It is pure: a path and a few facts
// in, a verdict out.
//
// Build a Selection with New from the options in the order of the command
// line, then ask Judge for each entry on the way down a walk: what lies below
// an excluded directory is not asked for.
package selection

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"dupfs/chain"
)

// Verdict is the answer for one entry.
type Verdict uint8

// The verdicts. A directory to Scan is walked, and stored only if something
// below it is included. Only directories are to be scanned.
const (
	Exclude Verdict = iota
	Include
	Scan
)

// Kind is the kind of a selection option.
type Kind uint8

// The kinds of options. Globs and regular expressions are matched against the
// source as given joined with the path of the entry.
const (
	// Glob is --include and --exclude: a shell pattern that selects what it
	// matches and everything below that.
	Glob Kind = iota
	// Regexp is --include-regexp and --exclude-regexp: searched in the path.
	Regexp
	// Literal is --include and --exclude after --filter-literal: a path in
	// which no character is special. It selects what is below it, too.
	Literal
	// Filelist is --include-filelist and --exclude-filelist: a Glob, Literal or
	// Regexp a line.
	Filelist
	// IfPresent is --exclude-if-present: directories that hold that name.
	// It goes before all other rules.
	IfPresent
	// DeviceFiles is --exclude-device-files. It goes before all other rules.
	DeviceFiles
	// OtherFilesystems is --exclude-other-filesystems.
	OtherFilesystems
	// OlderThan is --exclude-older-than: regular files modified before Time.
	OlderThan
)

// Rule is one option of the command line.
type Rule struct {
	Kind    Kind
	Include bool      // Glob, Regexp, Literal and Filelist; the others always exclude
	Fold    bool      // Glob, Regexp, Literal and Filelist: case does not matter
	Pattern string    // Glob, Regexp, Literal: the pattern. IfPresent: the name. Filelist: its name for errors
	List    io.Reader // Filelist: its content, read by New
	Lines   Kind      // Filelist: what its lines are
	Null    bool      // Filelist: lines end in NUL, not LF
	Time    int64     // OlderThan: seconds since 1970
}

// Facts is what the rules look at besides the path.
type Facts struct {
	Type  chain.Type // 0 for what is never stored, such as a socket
	Mtime int64      // seconds since 1970
	// OtherFS says that it is not on the file system of the source.
	OtherFS bool
	// Holds reports whether a directory has an entry of that name. It is
	// called only for directories, and only if there is an IfPresent rule.
	Holds func(name string) bool
}

// Errors of New. Each ends a run with its own exit status.
var (
	// ErrOutside marks a pattern that can match nothing in the source
	// (duplicity's exit status 14).
	ErrOutside = errors.New("cannot match any files in the source directory")
	// ErrGlob marks a malformed pattern (duplicity's exit status 15).
	ErrGlob = errors.New("bad pattern")
	// ErrRegexp marks a regular expression that cannot be used.
	ErrRegexp = errors.New("bad regular expression")
	// ErrRedundant marks a last rule that includes, which has no effect
	// (duplicity's exit status 16).
	ErrRedundant = errors.New("the last rule is an include, so all of them have no effect")
)

// RuleError says which rule New did not accept.
type RuleError struct {
	Rule string // the option's pattern, or line of a list
	Err  error  // wraps ErrOutside, ErrGlob, ErrRedundant, or says what else
}

func (e *RuleError) Error() string { return fmt.Sprintf("selection %q: %v", e.Rule, e.Err) }

// Unwrap returns the class.
func (e *RuleError) Unwrap() error { return e.Err }

// Selection is a list of rules for one source. It is safe for concurrent use.
type Selection struct {
	source string
	rules  []rule
}

// New returns the selection of these rules, in order, for a source as the
// user typed it. Without rules everything is included. Filelists are read
// here, at most 64 MiB each. Errors are or wrap a *RuleError.
func New(source string, rules []Rule) (*Selection, error) {
	s := &Selection{source: Source(source)}
	for _, r := range rules {
		if err := s.add(r); err != nil {
			return nil, err
		}
	}
	if n := len(s.rules); n > 0 && s.rules[n-1].include {
		return nil, &RuleError{s.rules[n-1].text, ErrRedundant}
	}
	return s, nil
}

// Judge returns the verdict on the entry at p. The root is always included.
// It must be asked on the way down: p's parent was not excluded.
func (s *Selection) Judge(p chain.Path, f Facts) Verdict {
	if p == chain.Root || len(s.rules) == 0 {
		return Include
	}
	e := entry{name: s.Name(p), Facts: f}
	e.text = decode(e.name)
	scan := false
	for i := range s.rules {
		v, ok := s.rules[i].opinion(&e)
		switch {
		case !ok:
		case v == Scan:
			scan = true
		case v == Exclude && scan:
			return s.scanned(f)
		default:
			return v
		}
	}
	if scan {
		return s.scanned(f)
	}
	return Include
}

// scanned returns the verdict on what a rule would scan: only directories can
// have something below them.
func (s *Selection) scanned(f Facts) Verdict {
	if f.Type == chain.Dir {
		return Scan
	}
	return Exclude
}

// Name returns the path as patterns see it: the source joined with p.
func (s *Selection) Name(p chain.Path) string {
	switch {
	case p == chain.Root:
		return s.source
	case strings.HasSuffix(s.source, "/"):
		return s.source + string(p)
	}
	return s.source + "/" + string(p)
}

// Source returns the source as patterns and the manifest's Localdir have it:
// as typed, without "." components and trailing slashes.
func Source(typed string) string {
	var parts []string
	for _, c := range strings.Split(typed, "/") {
		if c != "" && c != "." {
			parts = append(parts, c)
		}
	}
	s := strings.Join(parts, "/")
	switch {
	case strings.HasPrefix(typed, "/"):
		return "/" + s
	case s == "":
		return "."
	}
	return s
}
