package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// grammar is what arrange must know of the commands: which there are, and
// which options take a value.
type grammar struct {
	verbs   map[string]string // name or alias of a command → its name
	actions []string          // duplicity's action words: any unambiguous prefix will do
	options map[string]option // by every name, without dashes
}

// option is a command line option.
type option struct {
	name  string // its first name
	value bool   // takes a value
	pair  bool   // takes two, which arrange joins with pairSeparator
}

// pairSeparator is between the two values of an option.
const pairSeparator = "\x00"

// usageError is a mistake on the command line.
type usageError struct {
	text, hint string
	status     int // 0: exitUsage
}

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{text: fmt.Sprintf(format, args...)}
}

// urlForm is what duplicity takes for a URL.
var urlForm = regexp.MustCompile(`^[\w+]+://`)

func isURL(s string) bool { return urlForm.MatchString(s) }

// arrange turns a command line in duplicity's manner into what a parser with
// sub-commands takes: the verb, the options with their values attached, "--",
// then the positionals. Options may stand anywhere and be abbreviated to an
// unambiguous prefix; the verb may be left out where the order of source and
// URL implies it. Values of "-h" and "--version" pass unchanged. With an error
// come the options that were understood.
func (g *grammar) arrange(args []string) ([]string, error) {
	var options, positionals []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "--":
			positionals = append(positionals, args...)
			args = nil
		case len(arg) < 2 || arg[0] != '-':
			positionals = append(positionals, arg)
		default:
			opts, rest, err := g.option(arg, args)
			if err != nil {
				return options, err
			}
			options, args = append(options, opts...), rest
		}
	}
	verb, positionals, err := g.verb(positionals)
	if err != nil {
		return options, err
	}
	var out []string
	if verb != "" {
		out = append(out, verb)
	}
	out = append(out, options...)
	if len(positionals) > 0 {
		out = append(append(out, "--"), positionals...)
	}
	return out, nil
}

// option spells one option of the command line out; rest is args without its
// value.
func (g *grammar) option(arg string, args []string) (spelt, rest []string, err error) {
	if !strings.HasPrefix(arg, "--") {
		return g.short(arg, args)
	}
	name, value, attached := strings.Cut(arg[2:], "=")
	opt, err := g.long(name)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case !opt.value && attached:
		return nil, nil, usagef("option --%s takes no value", opt.name)
	case !opt.value:
		return []string{dashed(opt.name)}, args, nil
	case !attached && len(args) == 0:
		return nil, nil, usagef("option --%s needs a value", opt.name)
	case !attached:
		value, args = args[0], args[1:]
	}
	if opt.pair {
		if len(args) == 0 {
			return nil, nil, usagef("option --%s needs two values", opt.name)
		}
		value, args = value+pairSeparator+args[0], args[1:]
	}
	return []string{dashed(opt.name) + "=" + value}, args, nil
}

// short spells a group of one-letter options out: -v9, -v 9, -lR.
func (g *grammar) short(arg string, args []string) (spelt, rest []string, err error) {
	for i, c := range arg[1:] {
		opt, ok := g.options[string(c)]
		if !ok {
			return nil, nil, usagef("no such option: -%c", c)
		}
		if !opt.value {
			spelt = append(spelt, dashed(opt.name))
			continue
		}
		value := strings.TrimPrefix(arg[1+i+len(string(c)):], "=")
		if value == "" {
			if len(args) == 0 {
				return nil, nil, usagef("option -%c needs a value", c)
			}
			value, args = args[0], args[1:]
		}
		return append(spelt, dashed(opt.name)+"="+value), args, nil
	}
	return spelt, args, nil
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// long finds a long option by its name or an unambiguous prefix of it.
func (g *grammar) long(name string) (option, error) {
	if o, ok := g.options[name]; ok && len(name) > 1 {
		return o, nil
	}
	var found []string
	for full, o := range g.options {
		if len(full) > 1 && strings.HasPrefix(full, name) && !slices.Contains(found, o.name) {
			found = append(found, o.name)
		}
	}
	slices.Sort(found)
	if hint, ok := refusedOptions()[name]; ok {
		return option{}, &usageError{text: "option --" + name + " is not supported", hint: hint}
	}
	switch {
	case name == "" || len(found) == 0:
		return option{}, usagef("no such option: --%s", name)
	case len(found) > 1:
		return option{}, usagef("option --%s is not unique: it could be --%s", name, strings.Join(found, ", --"))
	}
	return g.options[found[0]], nil
}

// verb takes the verb off the positionals, or implies it.
func (g *grammar) verb(positionals []string) (string, []string, error) {
	if len(positionals) == 0 {
		return "", nil, nil
	}
	first := positionals[0]
	if v, ok := g.verbs[first]; ok {
		return v, positionals[1:], nil
	}
	var found []string
	for _, a := range g.actions {
		if strings.HasPrefix(a, first) {
			found = append(found, a)
		}
	}
	if len(found) == 1 && !(len(positionals) == 2 && isURL(positionals[1]) && !takesOneURL(found[0])) {
		return g.verbs[found[0]], positionals[1:], nil
	}
	if len(found) > 1 {
		return "", nil, usagef("command '%s' not unique, could be %s", first, strings.Join(found, ", "))
	}
	if len(positionals) == 2 {
		switch src, dst := isURL(positionals[0]), isURL(positionals[1]); {
		case !src && dst:
			return "backup", positionals, nil
		case src && !dst:
			return "restore", positionals, nil
		}
	}
	return "", nil, &usageError{
		text: fmt.Sprintf("no such command: %s", first),
		hint: "dupfs --help lists the commands; a backup is `dupfs SOURCE URL`, a restore `dupfs URL DIR`",
	}
}

// takesOneURL reports whether an action's only positional is a URL, so that
// "VERB URL" cannot mean the backup of a directory called VERB.
func takesOneURL(action string) bool {
	return action == "collection-status" || action == "list-current-files" || action == "cleanup"
}
