package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
)

// completeVerb is the hidden command by which shells ask for completions. It
// answers from local state only: no request, no question.
const completeVerb = "__complete"

// maxCandidates bounds an answer.
const maxCandidates = 2000

// completion is an answer: candidates for the word, or what the shell should
// complete by itself.
type completion struct {
	kind string // of the first line: words, nospace, files, dirs
	all  []candidate
}

type candidate struct{ word, note string }

func (k *completion) add(prefix, word, note string) {
	if strings.HasPrefix(word, prefix) && word == printable(word) && len(k.all) < maxCandidates {
		k.all = append(k.all, candidate{word, note})
	}
}

// complete answers a shell: "words WORD..." with the words after dupfs, the
// last being the one to complete, or "bash LINE POINT CUR" with bash's
// COMP_LINE, COMP_POINT and current word.
func (e *environ) complete(ctx context.Context, args []string) int {
	e.stderr = io.Discard
	if len(args) == 0 {
		return exitUsage
	}
	switch {
	case args[0] == "words" && len(args) > 1:
		e.completeWords(ctx, args[1:]).print(e.stdout)
	case args[0] == "bash" && len(args) == 4:
		words, quote := splitLine(args[1], args[2])
		k := e.completeWords(ctx, words[min(1, len(words)-1):])
		k.forBash(words[len(words)-1], args[3], quote)
		k.print(e.stdout)
	default:
		return exitUsage
	}
	return exitOK
}

func (k *completion) print(w io.Writer) {
	var b strings.Builder
	fmt.Fprintln(&b, k.kind)
	for _, c := range k.all {
		b.WriteString(c.word)
		if c.note != "" {
			b.WriteString("\t" + printable(c.note))
		}
		b.WriteByte('\n')
	}
	_, _ = io.WriteString(w, b.String())
}

// completeWords completes the last word.
func (e *environ) completeWords(ctx context.Context, words []string) *completion {
	k := &completion{kind: "words"}
	last := len(words) - 1
	cur, before := words[last], words[:last]
	app := newApp(e)
	g := grammarOf(app)
	if opt, ok := awaitsValue(g, before); ok {
		e.completeValue(ctx, k, app, g, opt, cur, before[:len(before)-1])
		return k
	}
	if name, value, ok := strings.Cut(cur, "="); ok && strings.HasPrefix(name, "--") {
		if opt, err := g.long(name[2:]); err == nil && opt.value {
			e.completeValue(ctx, k, app, g, opt, value, before)
			for i := range k.all {
				k.all[i].word = name + "=" + k.all[i].word
			}
		}
		return k
	}
	cmd := verbOf(app, g, before)
	switch {
	case cmd != nil && strings.HasPrefix(cur, "-"):
		k.options(cmd.Flags, cur)
	case cmd != nil:
		e.completeArgument(ctx, k, app, g, cmd, before, cur)
	case strings.HasPrefix(cur, "-"):
		k.options(nil, cur)
	default:
		for _, c := range app.Commands {
			if !c.Hidden {
				k.add(cur, c.Name, c.Usage)
			}
		}
		if len(k.all) == 0 { // dupfs SOURCE URL
			k.kind = "files"
		}
	}
	return k
}

// awaitsValue reports whether the last word is an option whose value comes
// next.
func awaitsValue(g *grammar, words []string) (option, bool) {
	if len(words) == 0 || slices.Contains(words, "--") {
		return option{}, false
	}
	word := words[len(words)-1]
	if name, ok := strings.CutPrefix(word, "--"); ok && !strings.Contains(name, "=") {
		opt, err := g.long(name)
		return opt, err == nil && opt.value
	}
	if len(word) > 1 && word[0] == '-' {
		opt, ok := g.options[word[len(word)-1:]]
		return opt, ok && opt.value && len(word) == 2
	}
	return option{}, false
}

// verbOf returns the command of a line, nil if there is none yet.
func verbOf(app *cli.App, g *grammar, words []string) *cli.Command {
	for i, w := range words {
		if strings.HasPrefix(w, "-") {
			continue
		}
		if _, value := awaitsValue(g, words[:i]); value {
			continue
		}
		return app.Command(g.verbs[w])
	}
	return nil
}

// options adds the options that help shows.
func (k *completion) options(flags []cli.Flag, cur string) {
	for _, f := range append(slices.Clone(flags), cli.HelpFlag) {
		if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() {
			continue
		}
		d, _ := f.(cli.DocGenerationFlag)
		usage := ""
		if d != nil {
			usage = strings.ReplaceAll(d.GetUsage(), "`", "")
		}
		for _, n := range f.Names() {
			if len(n) > 1 {
				k.add(cur, "--"+n, usage)
			}
		}
	}
	slices.SortFunc(k.all, func(a, b candidate) int { return strings.Compare(a.word, b.word) })
}

// completeValue completes the value of an option.
func (e *environ) completeValue(ctx context.Context, k *completion, app *cli.App, g *grammar, opt option, cur string, before []string) {
	usage := ""
	for _, c := range app.Commands {
		for _, f := range c.Flags {
			if d, ok := f.(cli.DocGenerationFlag); ok && f.Names()[0] == opt.name && usage == "" {
				usage = d.GetUsage()
			}
		}
	}
	_, form, _ := strings.Cut(usage, "`")
	form, _, _ = strings.Cut(form, "`")
	words := map[string]string{
		"color": "auto always never", "verbosity": "error warning notice info debug", "level": "list volumes files",
		"priority": "Standard High",
	}[opt.name]
	switch {
	case words != "":
	case form == "TIER":
		words = "Hot Cool Cold Archive"
	case form == "FILE" || form == "PATH" && opt.name != "path-to-restore":
		k.kind = "files"
	case form == "DIR":
		k.kind = "dirs"
	case form == "TIME" || opt.name == "path-to-restore":
		cmd := verbOf(app, g, before)
		if cmd == nil {
			return
		}
		a, c, _ := e.completionArchive(ctx, app, g, cmd, before)
		if a == nil {
			return
		}
		defer a.Close()
		if form == "TIME" {
			a.completePoints(ctx, k, cur)
		} else {
			a.completePaths(ctx, c, k, cur)
		}
	}
	for _, w := range strings.Fields(words) {
		k.add(cur, w, "")
	}
}

// completeArgument completes a positional.
func (e *environ) completeArgument(ctx context.Context, k *completion, app *cli.App, g *grammar, cmd *cli.Command, before []string, cur string) {
	if cmd.Name == "yesterday" || cmd.Name == "history" && (strings.HasPrefix(cur, "/") || strings.HasPrefix(cur, ".")) {
		k.kind = "files"
		return
	}
	words := strings.Fields(cmd.ArgsUsage)
	a, c, places := e.completionArchive(ctx, app, g, cmd, append(slices.Clone(before), "--", cur))
	if a != nil {
		defer a.Close()
	}
	place := places.typed
	if a != nil {
		place = places.meant
	}
	if len(words) == 0 {
		return
	}
	role := strings.Trim(words[min(max(place, 0), len(words)-1)], "[].")
	if places.typed == formOf(cmd).url || role == "URL" {
		e.completeURL(k, cur)
	}
	switch {
	case role == "SOURCE" || role == "DIR":
		if conf, err := e.config(); err == nil && role == "SOURCE" {
			for _, s := range conf.archives {
				k.add(cur, s.name, s.url)
			}
		}
		if len(k.all) == 0 {
			k.kind = "dirs"
		}
	case role == "FILE":
		k.kind = "files"
	case role == "TIER":
		for _, t := range []string{"Hot", "Cool", "Cold", "Archive"} {
			k.add(cur, t, "")
		}
	case strings.HasPrefix(role, "TIME") && a != nil:
		a.completePoints(ctx, k, cur)
	case (role == "PATH" || role == "PATTERN") && a != nil:
		a.completePaths(ctx, c, k, cur)
	}
}

// places are where a word stands among the positionals: as typed, and when a
// URL that was left out is put in.
type places struct{ typed, meant int }

// completionArchive opens what is kept of the archive that a line means, with
// the options of the line and of the configuration; nil if that cannot be.
func (e *environ) completionArchive(ctx context.Context, app *cli.App, g *grammar, cmd *cli.Command, words []string) (*archive, *cli.Context, places) {
	argv, err := g.arrange(words)
	if err != nil {
		return nil, nil, places{}
	}
	p := places{typed: lastPlace(argv)}
	p.meant = p.typed
	f := formOf(cmd)
	// What is yet to be typed, so that a URL that is left out is put in.
	more := max(0, f.least-2-p.typed)
	if slices.Contains(argv, "--") {
		argv = append(slices.Clone(argv), make([]string, more)...)
	} else {
		argv = append(append(slices.Clone(argv), "--"), make([]string, more)...)
	}
	named, err := e.name(app, argv)
	if err != nil || f.url < 0 {
		return nil, nil, p
	}
	p.meant = lastPlace(named) - more
	i := slices.Index(named, "--")
	if i < 0 || i+1+f.url >= len(named) || !isURL(named[i+1+f.url]) {
		return nil, nil, p
	}
	url := named[i+1+f.url]
	var got *cli.Context
	probe := newApp(e)
	probe.Writer, probe.ErrWriter = io.Discard, io.Discard
	probe.Command(cmd.Name).Action = func(c *cli.Context) error { got = c; return nil }
	if err := probe.RunContext(ctx, append([]string{"dupfs"}, named...)); err != nil || got == nil {
		return nil, nil, p
	}
	a, _, err := e.openKept(got, url)
	if err != nil {
		return nil, nil, p
	}
	return a, got, p
}

// lastPlace is the place of the last positional.
func lastPlace(argv []string) int {
	i := slices.Index(argv, "--")
	if i < 0 {
		return -1
	}
	return len(argv) - i - 2
}

// completeURL completes names of archives and the beginnings of URLs, and
// directories after file://.
func (e *environ) completeURL(k *completion, cur string) {
	if path, ok := strings.CutPrefix(cur, "file://"); ok {
		dir, _ := filepath.Split(path)
		list, _ := os.ReadDir(dir)
		for _, d := range list {
			if d.IsDir() {
				k.kind = "nospace"
				k.add(cur, "file://"+dir+d.Name()+"/", "")
			}
		}
		return
	}
	if conf, err := e.config(); err == nil {
		for _, a := range conf.archives {
			k.add(cur, a.name, a.url)
		}
	}
	if cur != "" && len(k.all) == 0 {
		for _, s := range []string{"file:///", "swift://", "azure://", "s3://", "sftp://", "webdav://", "webdavs://", "rclone://"} {
			k.add(cur, s, "")
		}
		if len(k.all) > 0 {
			k.kind = "nospace"
		}
	}
}

// completePoints adds the times there are backups of.
func (a *archive) completePoints(ctx context.Context, k *completion, cur string) {
	points, err := a.points(ctx)
	if err != nil {
		return
	}
	for _, p := range slices.Backward(points) {
		note := "incremental"
		if p.Full {
			note = "full"
		}
		k.add(cur, stamp(p.Time), note)
	}
	k.add(cur, "now", "the newest")
}

// completePaths adds the names below the directory that cur is in.
func (a *archive) completePaths(ctx context.Context, c *cli.Context, k *completion, cur string) {
	dir, prefix := "", cur
	if i := strings.LastIndexByte(cur, '/'); i >= 0 {
		dir, prefix = cur[:i+1], cur[i+1:]
	}
	p, ok := chain.ParsePath(dir)
	tree, _, err := a.tree(ctx, c)
	if !ok || err != nil {
		return
	}
	n, err := nameOf(ctx, tree, p)
	if err != nil || n.Type != chain.Dir {
		return
	}
	after, onlyDirs := "", true
	if prefix != "" {
		after = before(prefix)
	}
	_ = tree.ReadDir(ctx, n.Dir, after, false, func(n chain.Node) error { // what was found before an error counts
		switch {
		case len(k.all) == maxCandidates || n.Name > prefix && !strings.HasPrefix(n.Name, prefix):
			return errPageFull
		case n.Type == chain.Dir:
			k.add(cur, dir+n.Name+"/", "")
		case strings.HasPrefix(n.Name, prefix):
			onlyDirs = false
			k.add(cur, dir+n.Name, "")
		}
		return nil
	})
	if onlyDirs {
		k.kind = "nospace"
	}
}

// splitLine splits a command line up to a point as a shell does, and returns
// the quotation mark that is open at its end, 0 for none.
func splitLine(line, point string) (words []string, quote byte) {
	n := 0
	if _, err := fmt.Sscan(point, &n); err == nil && n >= 0 && n < len(line) {
		line = line[:n]
	}
	var word strings.Builder
	begun := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quote == '\'' && c != '\'', quote == '"' && c != '"' && c != '\\':
			word.WriteByte(c)
		case c == quote && quote != 0:
			quote = 0
		case c == '\\' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
			begun = true
		case c == '\'' || c == '"':
			quote, begun = c, true
		case c == ' ' || c == '\t':
			if begun || word.Len() > 0 {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteByte(c)
		}
	}
	return append(words, word.String()), quote
}

// forBash cuts from the candidates what bash has before its current word,
// which it ends at any : and =, and quotes them.
func (k *completion) forBash(word, cur string, quote byte) {
	if cur == ":" || cur == "=" {
		cur = ""
	}
	cur = strings.TrimLeft(cur, `"'`)
	skip := 0
	if i := strings.LastIndexAny(word, ":="); quote == 0 && i >= 0 && strings.LastIndexAny(cur, ":=") < 0 {
		skip = i + 1
	}
	for i := range k.all {
		c := &k.all[i]
		c.note = ""
		if c.word = c.word[min(skip, len(c.word)):]; quote == 0 {
			c.word = quoteWord(c.word)
		}
	}
}

// quoteWord puts a backslash before what a shell would take for something
// else.
func quoteWord(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune(" \t\"'\\$`!&;()<>|*?[]{}#~", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}
