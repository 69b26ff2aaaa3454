package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// urlVariable names the archive, as a URL or by its name in the
// configuration, of commands that are given none.
const urlVariable = "DUPFS_URL"

// form is what positionals a command takes.
type form struct {
	url         int // place of the URL, -1 if it takes none
	least, most int
}

// formOf reads it from the command's usage, such as "URL PATTERN [PATH]".
func formOf(cmd *cli.Command) form {
	f := form{url: -1}
	for i, word := range strings.Fields(cmd.ArgsUsage) {
		if strings.Trim(word, "[]") == "URL" && f.url < 0 {
			f.url = i
		}
		f.most++
		if !strings.HasPrefix(word, "[") {
			f.least++
		}
		if strings.HasSuffix(strings.TrimSuffix(word, "]"), "...") {
			f.most = 1 << 20
		}
	}
	return f
}

// name puts the URL and the options of an archive in the place of its name on
// a command line that arrange has put in order. Where the URL is left out,
// that of DUPFS_URL is put in. What is a URL stays as it is.
func (e *environ) name(app *cli.App, argv []string) ([]string, error) {
	if len(argv) == 0 {
		return argv, nil
	}
	cmd := app.Command(argv[0])
	if cmd == nil || cmd.SkipFlagParsing {
		return argv, nil
	}
	f := formOf(cmd)
	options, positionals := argv[1:], []string(nil)
	if i := slices.Index(argv, "--"); i >= 0 {
		options, positionals = argv[1:i], argv[i+1:]
	}
	if f.url < 0 || slices.Contains(options, "--help") || slices.Contains(options, "-h") ||
		f.url < len(positionals) && isURL(positionals[f.url]) {
		return argv, nil
	}
	a, positionals, err := e.archiveOf(cmd, f, options, positionals)
	if err != nil || a == nil {
		return argv, err
	}
	conf, err := e.config()
	if err != nil {
		return nil, err
	}
	before, behind, err := conf.optionsFor(app, cmd, a)
	if err != nil {
		return nil, err
	}
	filters := func(o string) bool { return strings.HasPrefix(o, "--filter-") }
	if len(behind) > 0 && slices.ContainsFunc(options, filters) { // they were not for what the file has
		behind = slices.Concat([]string{"--filter-globbing", "--filter-strictcase"}, behind)
	}
	return slices.Concat(argv[:1], before, options, behind, []string{"--"}, positionals), nil
}

// archiveOf finds the archive that a command line without a URL means, and
// returns its positionals with the URL; nil if it means none.
func (e *environ) archiveOf(cmd *cli.Command, f form, options, positionals []string) (*namedArchive, []string, error) {
	conf, err := e.config()
	if err != nil {
		return nil, nil, err
	}
	if a, full, err := e.liveArchive(conf, cmd, positionals); a != nil || err != nil {
		return a, full, err
	}
	// A backup of a source that is configured: the name takes its place, too.
	if f.url == 1 && len(positionals) == 1 && cmd.ArgsUsage == "SOURCE URL" {
		if a, err := e.ownSource(conf, positionals[0]); a != nil || err != nil {
			return a, []string{a.sourceOr(""), a.urlOr("")}, err
		}
	}
	if f.url < len(positionals) {
		if a := conf.find(positionals[f.url]); a != nil {
			full := slices.Clone(positionals)
			full[f.url] = a.url
			return a, withSource(cmd, a, options, full), nil
		}
	}
	given := e.getenv(urlVariable)
	if given == "" || len(positionals) < f.least-1 || len(positionals) >= f.most {
		return nil, nil, unknownArchive(conf, cmd.Name, f, positionals)
	}
	a := conf.find(given)
	if a == nil {
		if a = (&namedArchive{url: given}); !isURL(given) {
			return nil, nil, usagef("%s is %q, neither a URL nor an archive in %s", urlVariable, given, conf.file)
		}
	}
	return a, slices.Insert(slices.Clone(positionals), min(f.url, len(positionals)), a.url), nil
}

func (a *namedArchive) sourceOr(s string) string {
	if a == nil {
		return s
	}
	return a.source
}

func (a *namedArchive) urlOr(s string) string {
	if a == nil {
		return s
	}
	return a.url
}

// ownSource returns the archive of a name that stands for source and URL.
func (e *environ) ownSource(conf *config, name string) (*namedArchive, error) {
	a := conf.find(name)
	if a == nil {
		return nil, nil
	}
	if a.source == "" {
		return nil, &usageError{
			text: fmt.Sprintf("[%s] in %s has no source", name, conf.file),
			hint: "add a line source = DIR, or name it: dupfs backup DIR " + name,
		}
	}
	if _, err := os.Lstat(name); err == nil && e.getenv(urlVariable) != "" {
		return nil, &usageError{
			text: fmt.Sprintf("%s is an archive in %s, and there is a file of that name here", name, conf.file),
			hint: fmt.Sprintf("write ./%s for the file, or unset %s", name, urlVariable),
		}
	}
	return a, nil
}

// withSource adds the source of an archive where a comparison with it is asked
// for.
func withSource(cmd *cli.Command, a *namedArchive, options, positionals []string) []string {
	if cmd.Name == "verify" && len(positionals) == 1 && a.source != "" && slices.Contains(options, "--compare-data") {
		return append(positionals, a.source)
	}
	return positionals
}

// unknownArchive explains a word in the place of a URL. It is nil where the
// command says better what is missing.
func unknownArchive(conf *config, verb string, f form, positionals []string) error {
	if f.url >= len(positionals) || len(positionals) < f.least || len(positionals) > f.most {
		return nil
	}
	err := &usageError{text: fmt.Sprintf("%s is neither a URL nor an archive in %s", positionals[f.url], conf.file)}
	if slices.Contains(duplicityActions()[5:], verb) { // those that have a URL alone
		err.status = exitBadURL
	}
	if names := conf.names(); len(names) > 0 {
		err.hint = "archives there: " + strings.Join(names, ", ")
	} else {
		err.hint = "a URL is like file:///mnt/disk/backup; names are given to archives in that file"
	}
	return err
}
