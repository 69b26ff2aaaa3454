// Command dupfs backs directories up to duplicity-format chains, mounts every
// point of any chain as a read-only tree, and travels in time on the command
// line. Only this package knows flags, environment, clock and terminal: one
// file per verb, argv.go for duplicity's command line, codes.go for the exit
// status of an error.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"dupfs/backends"
)

// version is set by the linker in releases.
var version = "0.1.0-dev"

// duplicityVersion is what `duplicity --version` tells when it is dupfs. Front
// ends choose their options by it and refuse old ones (duply 2.5 wants more
// than 2.1.0); options of all versions are understood whatever it says. They
// take the second word, or the last one.
const duplicityVersion = "3.0.4"

// environ is the world as a command sees it.
type environ struct {
	stdin          *bufio.Reader
	stdout, stderr io.Writer
	lookup         func(string) (string, bool)
	now            func() time.Time
	duplicity      bool     // called by that name: scripts and front ends expect it
	terminal       bool     // progress may be shown on stderr
	screen         bool     // stdout is a terminal
	args           []string // the command line, with its secrets
	parent         *parent  // of a mount in the background; nil for all others
	// wrap lets a test stand between a command and its store; nil: nothing does.
	wrap func(backends.Backend) backends.Backend

	level      int  // of --verbosity
	timestamps bool // --log-timestamp
	machine    *machineLog

	objects bool // --json: nothing else goes to stdout

	configRead *config // once it was needed
	live       bool    // the path argument is of the live file system
	liveRoot   string  // the source it lies in, "" if the archive knows

	outMu sync.Mutex               // of what follows, and of lines on stderr
	bar   *progressbar.ProgressBar // shown now; nil: none
	tick  bool                     // the last line was one of --progress
	log   func(string, ...any)     // takes notes and warnings of a mount in the background; it locks outMu

	secretMu    sync.Mutex
	secretText  string // the passphrase, once it is known
	secretKnown bool
	secretErr   error // why it will not become known

	typedMu sync.Mutex
	typed   map[string]string // what was asked for a store, by prompt

	helper bool // mount(8) calls

	commandMu    sync.Mutex
	commandText  string // what --password-command printed
	commandRan   bool
	commandLimit time.Duration     // of it; 0: passwordCommandTime
	fileTexts    map[string]string // the first lines of files with passphrases
	wide         map[string]bool   // files with secrets that were warned of
}

// getenv returns a variable, "" if it is not set.
func (e *environ) getenv(name string) string {
	v, _ := e.lookup(name)
	return v
}

// softMemory is what the collector tries to stay below, in bytes: what is
// bounded elsewhere is live, this is about what is not any more.
const softMemory = 200 << 20

// limitMemory sets what the collector tries to stay below, unless the user has.
func limitMemory(n int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(n)
	}
}

func main() {
	limitMemory(softMemory)
	e := &environ{
		stdin:    bufio.NewReader(os.Stdin),
		stdout:   os.Stdout,
		stderr:   os.Stderr,
		lookup:   os.LookupEnv,
		now:      time.Now,
		terminal: term.IsTerminal(int(os.Stderr.Fd())),
		screen:   term.IsTerminal(int(os.Stdout.Fd())),
	}
	if len(os.Args) > 0 {
		e.duplicity = filepath.Base(os.Args[0]) == "duplicity"
	}
	var err error
	if e.args, e.parent, err = takeOver(); err != nil {
		os.Exit(e.report(err))
	}
	if len(os.Args) > 0 && isMountHelper(os.Args[0]) && e.getenv(readyVariable) == "" {
		e.helper = true
		if e.args, err = mountHelperArgs(e.args); err != nil {
			os.Exit(e.report(err))
		}
	}
	os.Exit(run(context.Background(), e, e.args))
}

// run carries out a command line and returns the exit status. The first
// SIGINT or SIGTERM ends the work in good order; a second one kills.
func run(ctx context.Context, e *environ, args []string) int {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		select {
		case s := <-signals:
			signal.Stop(signals)
			cancel(errSignal{s})
		case <-ctx.Done():
		}
	}()

	if len(args) > 0 && args[0] == completeVerb {
		return e.complete(ctx, args[1:])
	}
	app := newApp(e)
	argv, err := grammarOf(app).arrange(args)
	if logErr := e.openLog(argv); err == nil {
		err = logErr
	}
	defer e.machine.close()
	switch {
	case err != nil:
	case asksVersion(argv):
		fmt.Fprintln(e.stdout, e.versionLine())
	default:
		if argv, err = e.name(app, argv); err == nil {
			err = app.RunContext(ctx, append([]string{"dupfs"}, argv...))
		}
	}
	var sig errSignal
	if cause := context.Cause(ctx); err != nil && errors.As(cause, &sig) && (errors.Is(err, context.Canceled) || errors.As(err, &sig)) {
		done := "nothing half done was left"
		if kept := new(keptError); errors.As(err, &kept) && kept.volumes > 0 {
			done = kept.kept()
		}
		err = fmt.Errorf("%w, %s", sig, done)
	}
	return e.report(err)
}

// asksVersion reports whether --version is among arranged arguments.
func asksVersion(argv []string) bool {
	if i := slices.Index(argv, "--"); i >= 0 {
		argv = argv[:i]
	}
	return slices.Contains(argv, "--version")
}

// versionLine is what --version prints.
func (e *environ) versionLine() string {
	if e.duplicity {
		return "duplicity " + duplicityVersion
	}
	return "dupfs version " + version
}

// errSignal is the signal that ended a command.
type errSignal struct{ os.Signal }

func (s errSignal) Error() string { return "stopped by " + s.String() }

// report says what went wrong, on one line with a hint on the next, and
// returns the exit status.
func (e *environ) report(err error) int {
	if err == nil {
		return exitOK
	}
	status, hint := classify(err)
	if e.duplicity && status == exitIncomplete {
		// Duplicity warns of what it left out, and front ends take any other
		// exit status for no backup at all.
		e.say(message{level: levelWarning, format: "%s", args: []any{name(err.Error())}})
		return exitOK
	}
	if text := err.Error(); text != "" {
		extra, words := duplicityWords(err, status)
		e.machine.write(&message{level: levelError, code: status, extra: extra, format: "%s", args: []any{words}})
		if e.duplicity {
			e.put(e.stderr, levelError, printableLines(words))
		} else {
			fmt.Fprintln(e.stderr, "dupfs: "+printable(text))
		}
	}
	if hint != "" {
		fmt.Fprintln(e.stderr, "hint: "+hint)
	}
	return status
}
