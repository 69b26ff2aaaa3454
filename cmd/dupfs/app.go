package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
)

// actionWords are duplicity's actions, which may be shortened.
var actionWords = [...]string{
	"cleanup", "collection-status", "full", "incremental", "list-current-files",
	"remove-older-than", "remove-all-but-n-full", "remove-all-inc-of-but-n-full",
	"restore", "verify", "replicate",
}

// newApp returns the commands.
func newApp(e *environ) *cli.App {
	app := &cli.App{
		Name:                   "dupfs",
		Usage:                  "back up to duplicity's format, mount every point of any chain, travel in time",
		UsageText:              "dupfs COMMAND [OPTIONS] ARGUMENTS, or as duplicity: dupfs [OPTIONS] SOURCE URL, dupfs [OPTIONS] URL DIR",
		Description:            appDescription,
		Version:                version,
		HideHelpCommand:        true,
		UseShortOptionHandling: false,
		// A name of a key or a file may have a comma in it.
		DisableSliceFlagSeparator: true,
		Writer:                    e.stdout,
		ErrWriter:                 e.stderr,
		Commands: []*cli.Command{
			backupCommand(e, "backup", "back up SOURCE: an increment, or a full set if there is nothing to build on"),
			backupCommand(e, "full", "back up SOURCE into a new chain"),
			backupCommand(e, "incremental", "back up the changes of SOURCE; fails if there is nothing to build on"),
			mountCommand(e),
			umountCommand(e),
			lsCommand(e),
			findCommand(e),
			historyCommand(e),
			diffCommand(e),
			catCommand(e),
			tarCommand(e),
			costCommand(e),
			yesterdayCommand(e),
			completionCommand(e),
			manCommand(e),
			restoreCommand(e),
			verifyCommand(e),
			statusCommand(e),
			indexCommand(e),
			compactCommand(e),
			doctorCommand(e),
			drillCommand(e),
			listFilesCommand(e),
			collectionStatusCommand(e),
			removeOlderCommand(e),
			removeAllButCommand(e),
			removeIncCommand(e),
			cleanupCommand(e),
			pruneCommand(e),
			replicateCommand(e),
			rehydrateCommand(e),
			retierCommand(e),
		},
		// Errors are reported once, by run.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError: func(_ *cli.Context, err error, _ bool) error {
			return &usageError{text: strings.Replace(err.Error(), "flag provided but not defined: -", "this command has no option --", 1)}
		},
	}
	shareFlags(app)
	for _, c := range app.Commands {
		c.OnUsageError = app.OnUsageError
		c.HideHelpCommand = true
	}
	return app
}

const appDescription = `Examples:
  export PASSPHRASE=...                     what the archive is encrypted with
  dupfs backup ~/documents file:///mnt/disk/documents
  dupfs mount file:///mnt/disk/documents ~/back      every point as a directory tree
  ls ~/back/snapshots ; cp ~/back/at/3D/letter.txt . ; dupfs umount ~/back
  dupfs ls -l --time 2W file:///mnt/disk/documents letters
  dupfs restore --time 2026-11-01 --path-to-restore letters URL ./letters

Times are duplicity's: 2026-11-21T20:49:32Z, 2026-11-21, 3D (three days ago), now.
URLs: file:///dir, swift://container, azure://container, s3://bucket/prefix,
sftp://user@host//dir, webdav(s)://host/dir, rclone://remote:dir; par2+URL adds recovery files to any of them.`

// grammarOf derives from the commands what arrange must know.
func grammarOf(app *cli.App) *grammar {
	g := &grammar{verbs: map[string]string{}, actions: actionWords[:], options: map[string]option{}}
	for _, f := range []cli.Flag{cli.HelpFlag, cli.VersionFlag} {
		g.add(f)
	}
	for _, c := range app.Commands {
		for _, n := range append([]string{c.Name}, c.Aliases...) {
			g.verbs[n] = c.Name
		}
		for _, f := range c.Flags {
			g.add(f)
		}
	}
	delete(g.options, "v") // -v is duplicity's verbosity
	g.options["v"] = g.options["verbosity"]
	g.options["V"] = g.options["version"]
	return g
}

// appGrammar is the grammar of the commands, for tests.
func appGrammar() *grammar { return grammarOf(newApp(&environ{})) }

// add notes an option. An option of several commands means the same in all.
func (g *grammar) add(f cli.Flag) {
	names := f.Names()
	o := option{name: names[0]}
	if d, ok := f.(cli.DocGenerationFlag); ok {
		o.value = d.TakesValue()
	}
	o.pair = o.name == "rename"
	for _, n := range names {
		if old, ok := g.options[n]; ok && old != o {
			panic(fmt.Sprintf("option %s means two things", n))
		}
		g.options[n] = o
	}
}

// positionals checks the number of a command's arguments and returns them.
func positionals(c *cli.Context, least, most int, form string) ([]string, error) {
	args := c.Args().Slice()
	if len(args) < least || len(args) > most {
		want := fmt.Sprint(least)
		if most > least {
			want = fmt.Sprintf("%d to %d", least, most)
		}
		return nil, &usageError{
			text: fmt.Sprintf("%s: expected %s arguments, got %d", c.Command.Name, want, len(args)),
			hint: "dupfs " + c.Command.Name + " " + form,
		}
	}
	return args, nil
}

// printable makes text safe for a terminal: control characters and bytes that
// are not UTF-8 become escapes. Line breaks, too: a message is one line.
func printable(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := decodeRune(s)
		if r < 0 {
			fmt.Fprintf(&b, `\x%02x`, s[0])
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// printableLines is printable for a text of several lines.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = printable(strings.ReplaceAll(l, "\t", "    "))
	}
	return strings.Join(lines, "\n")
}
