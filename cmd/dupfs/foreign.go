package main

import (
	"encoding/csv"
	"fmt"
	"net/http"
	"strings"

	"github.com/urfave/cli/v2"

	"dupfs/backends"
)

// ignoredFlags are options of duplicity that change nothing here, because what
// they tune does not exist, is done always, or concerns a store that a URL
// cannot name here. They are accepted so that scripts run.
func ignoredFlags() []cli.Flag {
	var out []cli.Flag
	for _, name := range strings.Fields(`
		asynchronous-upload b2-hide-files ftp-passive ftp-regular gio idr-fakeroot
		ignore-errors imap-full-address log-timestamp mf-purge no-check-remote
		old-filenames progress pydevd use-agent s3-european-buckets s3-use-multiprocessing
		s3-use-new-style short-filenames ssh-askpass`) {
		out = append(out, &cli.BoolFlag{Name: name, Hidden: true})
	}
	for _, name := range strings.Fields(`
		cf-backend config-dir encrypt-secret-keyring gpg-binary gpg-options file-prefix-jsonstat imap-mailbox log-fd
		log-file rsync-options scp-command sftp-command time-separator`) {
		out = append(out, &cli.StringFlag{Name: name, Hidden: true})
	}
	for _, name := range strings.Fields("copy-blocksize progress-rate s3-multipart-max-timeout") {
		out = append(out, &cli.IntFlag{Name: name, Hidden: true})
	}
	return append(out, &cli.GenericFlag{Name: "metadata-sync-mode", Hidden: true, Value: syncMode{}})
}

// syncMode is the value of --metadata-sync-mode: there is no copy to bring up
// to date, but a mistake is one.
type syncMode struct{}

func (syncMode) String() string { return "" }

// Set implements flag.Value.
func (syncMode) Set(s string) error {
	if s != "full" && s != "partial" {
		return fmt.Errorf("it is full or partial")
	}
	return nil
}

// refusedOptions are options of duplicity that ask for something that is not
// done here. To ignore them could cost data, so they are an error with a hint.
func refusedOptions() map[string]string {
	return map[string]string{
		"exclude-filelist-stdin": "give --exclude-filelist /dev/stdin",
		"include-filelist-stdin": "give --include-filelist /dev/stdin",
		"fail-on-volume":         "this is for duplicity's own tests",
		"skip-volume":            "this is for duplicity's own tests",
		"use-gpgsm":              "archives are in OpenPGP, not S/MIME",
	}
}

// duplicityActions are the commands that duplicity has, too: there every
// option may be given to every action, and wrappers do.
func duplicityActions() []string {
	return []string{
		"backup", "full", "incremental", "restore", "verify", "list-current-files",
		"collection-status", "remove-older-than", "remove-all-but-n-full",
		"remove-all-inc-of-but-n-full", "cleanup",
	}
}

// shareFlags gives every command that opens an archive the options that are
// ignored, and duplicity's actions each other's. Those that mean nothing for an
// action are hidden there, and ignored.
func shareFlags(app *cli.App) {
	for _, c := range app.Commands {
		if has := flagNames(c); has["archive-dir"] {
			for _, f := range ignoredFlags() {
				if !has[f.Names()[0]] {
					c.Flags = append(c.Flags, f)
				}
			}
		}
	}
	var common []cli.Flag
	seen := map[string]bool{}
	for _, name := range duplicityActions() {
		for _, f := range app.Command(name).Flags {
			if n := f.Names()[0]; !seen[n] {
				seen[n] = true
				common = append(common, f)
			}
		}
	}
	for _, name := range duplicityActions() {
		c := app.Command(name)
		has := flagNames(c)
		for _, f := range common {
			if n := f.Names()[0]; !has[n] {
				c.Flags = append(c.Flags, silent(f))
			}
		}
	}
}

// flagNames returns the first name of each option that a command has.
func flagNames(c *cli.Command) map[string]bool {
	names := map[string]bool{}
	for _, f := range c.Flags {
		names[f.Names()[0]] = true
	}
	return names
}

// silent returns a flag with the names of f that changes nothing.
func silent(f cli.Flag) cli.Flag {
	names := f.Names()
	if d, ok := f.(cli.DocGenerationFlag); ok && d.TakesValue() {
		return &cli.GenericFlag{Name: names[0], Aliases: names[1:], Hidden: true, Value: &ignored{}}
	}
	return &cli.BoolFlag{Name: names[0], Aliases: names[1:], Hidden: true}
}

// ignored is the value of an option that is not looked at. It may be given any
// number of times.
type ignored struct{}

func (*ignored) String() string   { return "" }
func (*ignored) Set(string) error { return nil }

// levels are the words for --verbosity, as duplicity has them.
func levels() map[string]int {
	return map[string]int{
		"e": 0, "error": 0, "w": 2, "warning": 2, "n": 3, "notice": 3,
		"i": 5, "info": 5, "d": 9, "debug": 9,
	}
}

// parseVerbosity reads a level: 0 to 9 or a word.
func parseVerbosity(text string) (int, error) {
	if text == "" {
		return levelNotice, nil
	}
	if n, ok := levels()[strings.ToLower(text)]; ok {
		return n, nil
	}
	if len(text) == 1 && text[0] >= '0' && text[0] <= '9' {
		return int(text[0] - '0'), nil
	}
	return 0, &usageError{
		text: fmt.Sprintf("--verbosity: %q is no level", text),
		hint: "levels are 0 to 9, error, warning, notice, info and debug",
	}
}

// retried tells of a try that failed and is repeated, where --verbosity asks
// for it. Only what ends well is told here; the last failure is an error.
func (e *environ) retried(a backends.Attempt) {
	if a.Last {
		return
	}
	what := a.Op
	if a.Name != "" {
		what += " " + a.Name
	}
	why := strings.TrimPrefix(a.Err.Error(), what+": ")
	e.note(fmt.Sprintf("%s: try %d failed, next in %.1f s: %s", what, a.N, a.Wait.Seconds(), why))
}

// webdavHeaders reads duplicity's --webdav-headers: name,value,name,value.
func webdavHeaders(text string) (http.Header, error) {
	if text == "" {
		return nil, nil
	}
	r := csv.NewReader(strings.NewReader(text))
	r.TrimLeadingSpace = true
	fields, err := r.Read()
	if err != nil || len(fields)%2 != 0 {
		return nil, usagef("--webdav-headers: %q is not of the form NAME,VALUE,NAME,VALUE", text)
	}
	h := http.Header{}
	for i := 0; i < len(fields); i += 2 {
		h.Add(fields[i], fields[i+1])
	}
	return h, nil
}
