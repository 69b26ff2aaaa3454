package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"dupfs/backends/all"
)

// config is the configuration file: archives by their names.
//
//	# what stands before the first name is for all archives
//	cache-size = 5G
//
//	[home]
//	url = sftp://backup@nas//srv/home
//	source = ~
//	passphrase-file = ~/.config/dupfs/home.passphrase
//	exclude = **/.cache
//	volsize = 100
//
// Keys are url, source and the options of the commands, without dashes; each
// command takes those that it knows. Options on the command line count more.
// A line that begins with # or ; is a remark; a value goes to the end of its
// line, and may be in double quotes; "~/" at its beginning is the home
// directory. The order of lines is that of options.
type config struct {
	file     string
	common   []setting
	archives []namedArchive
}

// namedArchive is a section of the configuration file.
type namedArchive struct {
	name, url, source string
	options           []setting
}

// setting is a line.
type setting struct {
	key, value string
	line       int
}

// nameForm is what an archive may be called: neither a URL nor a path.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

// configFile returns where the configuration file is, "" if nobody can say.
func (e *environ) configFile() string {
	dir := e.getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home := e.getenv("HOME")
		if home == "" {
			return ""
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "dupfs", "config")
}

// config reads the configuration file, once in a run. None is an empty one.
func (e *environ) config() (*config, error) {
	if e.configRead != nil {
		return e.configRead, nil
	}
	file := e.configFile()
	c := &config{file: file}
	f, err := os.Open(file)
	switch {
	case file == "" || errors.Is(err, fs.ErrNotExist):
		e.configRead = c
		return c, nil
	case err != nil:
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	if err := c.parse(io.LimitReader(f, 1<<20), e.getenv("HOME")); err != nil {
		return nil, err
	}
	if err := c.private(f); err != nil {
		return nil, err
	}
	e.configRead = c
	return c, nil
}

// wrong is a mistake in the file.
func (c *config) wrong(line int, hint, format string, args ...any) error {
	return &usageError{text: fmt.Sprintf("%s:%d: ", c.file, line) + fmt.Sprintf(format, args...), hint: hint}
}

// parse reads the file.
func (c *config) parse(r io.Reader, home string) error {
	scan := bufio.NewScanner(r)
	for n := 1; scan.Scan(); n++ {
		text := strings.TrimSpace(scan.Text())
		switch {
		case text == "" || text[0] == '#' || text[0] == ';':
		case text[0] == '[':
			if err := c.section(n, text); err != nil {
				return err
			}
		default:
			if err := c.setting(n, text, home); err != nil {
				return err
			}
		}
	}
	if err := scan.Err(); err != nil {
		return fmt.Errorf("%s: %w", c.file, err)
	}
	for _, a := range c.archives {
		if a.url == "" {
			return &usageError{text: fmt.Sprintf("%s: [%s] has no url", c.file, a.name), hint: "give it a line such as: url = file:///mnt/disk/backup"}
		}
	}
	return nil
}

// section begins an archive.
func (c *config) section(n int, text string) error {
	name, ok := strings.CutSuffix(text[1:], "]")
	name = strings.TrimSpace(name)
	if !ok || !nameForm.MatchString(name) {
		return c.wrong(n, "a name is of letters, digits, _, - and .", "%s is no [NAME] of an archive", text)
	}
	if c.find(name) != nil {
		return c.wrong(n, "", "there is an archive [%s] already", name)
	}
	c.archives = append(c.archives, namedArchive{name: name})
	return nil
}

// setting takes a line with a key and a value.
func (c *config) setting(n int, text, home string) error {
	key, value, ok := strings.Cut(text, "=")
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	if !ok || key == "" {
		return c.wrong(n, "lines are [NAME], KEY = VALUE, or begin with #", "no KEY = VALUE: %s", text)
	}
	if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
		value = value[1 : len(value)-1]
	}
	if rest, ok := strings.CutPrefix(value, "~"); ok && home != "" && (rest == "" || rest[0] == '/') {
		value = home + rest
	}
	switch key {
	case "passphrase", "password", "sign-passphrase":
		return c.wrong(n, "put it into a file that only you can read, and name it: passphrase-file = FILE", "secrets do not belong into this file")
	case "url", "source":
		return c.place(n, key, value)
	}
	s := setting{key, value, n}
	if len(c.archives) == 0 {
		c.common = append(c.common, s)
		return nil
	}
	a := &c.archives[len(c.archives)-1]
	a.options = append(a.options, s)
	return nil
}

// place takes the URL or the source of an archive.
func (c *config) place(n int, key, value string) error {
	if len(c.archives) == 0 {
		return c.wrong(n, "", "%s stands before the first [NAME]", key)
	}
	a := &c.archives[len(c.archives)-1]
	switch {
	case key == "url" && !isURL(value):
		return c.wrong(n, "", "%s is not a URL", value)
	case key == "url":
		a.url = value
	case !filepath.IsAbs(value):
		return c.wrong(n, "", "source %s is not an absolute path", value)
	default:
		a.source = filepath.Clean(value)
	}
	return nil
}

// private refuses a file that others could read a password in, or write a
// command to.
func (c *config) private(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	bits, what := info.Mode().Perm(), ""
	all := slices.Clone(c.common)
	for _, a := range c.archives {
		all = append(all, a.options...)
		if secretIn(a.url) && bits&0o077 != 0 {
			what = "a URL in it has a password"
		}
	}
	for _, s := range all {
		if s.key == "password-command" && bits&0o022 != 0 {
			what = "it says which command to run"
		}
	}
	if what == "" {
		return nil
	}
	return fail(exitUser, fmt.Errorf("%s is open to others (mode %04o), and %s", c.file, bits, what), "chmod 600 "+c.file)
}

// secretIn reports whether a URL has a password in it.
func secretIn(url string) bool { return all.Redact(url) != url }

// find returns the archive of a name, nil if there is none.
func (c *config) find(name string) *namedArchive {
	for i := range c.archives {
		if c.archives[i].name == name {
			return &c.archives[i]
		}
	}
	return nil
}

// names lists the archives.
func (c *config) names() []string {
	var names []string
	for _, a := range c.archives {
		names = append(names, a.name)
	}
	return names
}

// optionsFor returns the options of an archive that a command takes: those
// that go before the ones on the command line, which are stronger so, and
// those that go behind, as the first counts most.
func (c *config) optionsFor(app *cli.App, cmd *cli.Command, a *namedArchive) (before, behind []string, err error) {
	known, takes := map[string]bool{}, map[string]cli.Flag{}
	for _, other := range app.Commands {
		for _, f := range other.Flags {
			for _, n := range f.Names() {
				known[n] = true
			}
		}
	}
	for _, f := range cmd.Flags {
		for _, n := range f.Names() {
			takes[n] = f
		}
	}
	settings := a.options
	if a.name != "" { // one that is not in the file has nothing of it
		settings = slices.Concat(c.common, a.options)
	}
	for _, s := range settings {
		if hint, refused := refusedOptions()[s.key]; refused {
			return nil, nil, c.wrong(s.line, hint, "option %s is not supported", s.key)
		}
		if !known[s.key] || len(s.key) == 1 {
			return nil, nil, c.wrong(s.line, "keys are url, source and the options that `dupfs COMMAND --help` shows, without dashes", "there is no option %s", s.key)
		}
		f := takes[s.key]
		switch f := f.(type) {
		case nil:
		case *cli.BoolFlag:
			on, err := yes(s.value)
			if err != nil {
				return nil, nil, c.wrong(s.line, "", "%s: %v", s.key, err)
			}
			if on {
				before = append(before, "--"+s.key)
			}
		case placed:
			on, err := yes(s.value)
			if err != nil {
				return nil, nil, c.wrong(s.line, "", "%s: %v", s.key, err)
			}
			if on {
				behind = append(behind, "--"+s.key)
			}
		case *cli.StringSliceFlag, *cli.GenericFlag:
			behind = append(behind, "--"+s.key+"="+s.value)
		default:
			before = append(before, "--"+f.Names()[0]+"="+s.value)
		}
	}
	return before, behind, nil
}

// yes reads a switch.
func yes(value string) (bool, error) {
	switch strings.ToLower(value) {
	case "yes", "on":
		return true, nil
	case "no", "off":
		return false, nil
	}
	on, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("%q is neither yes nor no", value)
	}
	return on, nil
}
