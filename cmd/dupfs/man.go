package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

func manCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "man",
		Usage:     "write the manual pages, one for dupfs and one for each command, into DIR",
		ArgsUsage: "DIR",
		Description: `dupfs man ~/.local/share/man/man1 ; man dupfs ; man dupfs-mount
The pages are made from the commands themselves.`,
		Action: func(c *cli.Context) error {
			args, err := positionals(c, 1, 1, "DIR")
			if err != nil {
				return err
			}
			return writePages(newApp(e), args[0])
		},
	}
}

// manDate is when what the pages say last changed.
const manDate = "2026-11-28"

// writePages writes all pages into a directory, which is made if it is
// missing.
func writePages(app *cli.App, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := writePage(filepath.Join(dir, "dupfs.1"), func(p *page) { mainPage(p, app) }); err != nil {
		return err
	}
	for _, c := range app.Commands {
		if c.Hidden {
			continue
		}
		if err := writePage(filepath.Join(dir, "dupfs-"+c.Name+".1"), func(p *page) { commandPage(p, c) }); err != nil {
			return err
		}
	}
	return nil
}

func writePage(file string, fill func(*page)) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	p := &page{w: bufio.NewWriter(f)}
	fill(p)
	return errors.Join(p.w.Flush(), f.Close())
}

// page writes roff with the macros of man(7). Errors come with Flush.
type page struct{ w *bufio.Writer }

// roff writes text so that nothing in it means something to roff.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "…", "...").Replace(text)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}

func (p *page) macro(format string, args ...any) { fmt.Fprintf(p.w, "."+format+"\n", args...) }

func (p *page) title(name, what string) {
	p.macro(`TH %s 1 %s "dupfs %s" "User Commands"`, roff(strings.ToUpper(name)), manDate, roff(version))
	p.section("NAME")
	fmt.Fprintf(p.w, "%s \\- %s\n", roff(name), roff(what))
}

func (p *page) section(name string) { p.macro("SH %s", name) }

// text writes paragraphs, which blank lines part.
func (p *page) text(s string) {
	for i, para := range strings.Split(strings.TrimSpace(s), "\n\n") {
		if i > 0 {
			p.macro("PP")
		}
		fmt.Fprintln(p.w, roff(para))
	}
}

// item writes a term and what it means.
func (p *page) item(term, text string) {
	p.macro("TP")
	fmt.Fprintln(p.w, term)
	fmt.Fprintln(p.w, roff(text))
}

// example writes lines as they are.
func (p *page) example(s string) {
	p.macro("PP")
	p.macro("nf")
	p.macro("RS 4")
	fmt.Fprintln(p.w, roff(s))
	p.macro("RE")
	p.macro("fi")
}

func bold(s string) string { return `\fB` + roff(s) + `\fR` }

func italic(s string) string { return `\fI` + roff(s) + `\fR` }

// options writes the options that help shows.
func (p *page) options(flags []cli.Flag) {
	for _, f := range flags {
		d, ok := f.(cli.DocGenerationFlag)
		if v, vis := f.(cli.VisibleFlag); !ok || vis && !v.IsVisible() {
			continue
		}
		usage := d.GetUsage()
		value := ""
		if before, rest, ok := strings.Cut(usage, "`"); ok && d.TakesValue() {
			name, after, _ := strings.Cut(rest, "`")
			value, usage = name, before+name+after
		}
		var terms []string
		for _, n := range f.Names() {
			term := bold(dashed(n))
			switch {
			case value == "":
			case len(n) == 1:
				term += " " + italic(value)
			default:
				term += "=" + italic(value)
			}
			terms = append(terms, term)
		}
		if text := d.GetDefaultText(); text != "" && d.TakesValue() && !strings.Contains(usage, "default") && text != `""` && text != "0" {
			usage += " (default: " + strings.Trim(text, `"`) + ")"
		}
		p.item(strings.Join(terms, ", "), usage)
	}
}

// usageLine writes what arguments a command takes.
func usageLine(c *cli.Command) string {
	line := bold("dupfs "+c.Name) + " [" + italic("OPTIONS") + "]"
	for _, word := range strings.Fields(c.ArgsUsage) {
		line += " " + italic(word)
	}
	return line
}

// commandPage is the page of one command.
func commandPage(p *page, c *cli.Command) {
	p.title("dupfs-"+c.Name, c.Usage)
	p.section("SYNOPSIS")
	fmt.Fprintln(p.w, usageLine(c))
	p.section("DESCRIPTION")
	usage := strings.ToUpper(c.Usage[:1]) + c.Usage[1:]
	p.text(usage + ".")
	if len(c.Aliases) > 0 {
		p.macro("PP")
		fmt.Fprintln(p.w, roff("Also called: "+strings.Join(c.Aliases, ", ")+"."))
	}
	if c.Description != "" {
		p.example(c.Description)
	}
	var own, common []cli.Flag
	shared := map[string]bool{}
	for _, f := range archiveFlags() {
		shared[f.Names()[0]] = true
	}
	for _, f := range c.Flags {
		if shared[f.Names()[0]] {
			common = append(common, f)
		} else {
			own = append(own, f)
		}
	}
	p.section("OPTIONS")
	p.options(append(own, cli.HelpFlag))
	if len(common) > 0 {
		p.macro("PP")
		p.text("And the options of archives, which dupfs(1) describes.")
	}
	p.section("EXIT STATUS")
	p.text("As in dupfs(1).")
	p.section("SEE ALSO")
	fmt.Fprintln(p.w, roff("dupfs(1)"))
}

// mainPage is the page of dupfs.
func mainPage(p *page, app *cli.App) {
	p.title("dupfs", app.Usage)
	p.section("SYNOPSIS")
	fmt.Fprintf(p.w, "%s %s [%s] %s\n", bold("dupfs"), italic("COMMAND"), italic("OPTIONS"), italic("ARGUMENTS"))
	p.macro("br")
	fmt.Fprintf(p.w, "%s [%s] %s %s\n", bold("dupfs"), italic("OPTIONS"), italic("SOURCE"), italic("URL"))
	p.macro("br")
	fmt.Fprintf(p.w, "%s [%s] %s %s\n", bold("dupfs"), italic("OPTIONS"), italic("URL"), italic("DIR"))
	p.section("DESCRIPTION")
	p.text(manDescription)
	p.example(app.Description)
	p.section("COMMANDS")
	for _, c := range app.Commands {
		if !c.Hidden {
			p.item(fmt.Sprintf("%s %s", bold(c.Name), italic(c.ArgsUsage)), c.Usage+". See dupfs-"+c.Name+"(1).")
		}
	}
	p.section("OPTIONS")
	p.text("These are known to all commands that open an archive. An option may stand anywhere, and be shortened as far as it stays unique.")
	p.options(archiveFlags())
	p.section("EXIT STATUS")
	for _, s := range exitTexts() {
		p.item(bold(fmt.Sprint(s.status)), s.text)
	}
	p.section("ENVIRONMENT")
	for _, v := range manEnvironment {
		p.item(bold(v[0]), v[1])
	}
	p.section("FILES")
	for _, v := range manFiles {
		p.item(italic(v[0]), v[1])
	}
	p.section("CONFIGURATION")
	p.text(manConfig)
	p.example(manConfigExample)
	p.section(`"DIFFERENCES FROM DUPLICITY"`)
	p.text("These are deliberate.")
	for _, v := range differences {
		p.item(bold(v[0]), v[1])
	}
	p.macro("PP")
	p.text("These options of duplicity ask for something that is not done here, and are refused:")
	refused := refusedOptions()
	names := make([]string, 0, len(refused))
	for n := range refused {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		p.item(bold("--"+n), refused[n])
	}
	p.section("SEE ALSO")
	fmt.Fprintln(p.w, roff("duplicity(1), gpg(1), fusermount3(1)"))
}
