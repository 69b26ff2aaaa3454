package main

import (
	"fmt"
	"io"
	"strings"
)

// Levels of messages, as duplicity has them: what is above --verbosity is not
// said.
const (
	levelError   = 0
	levelWarning = 2
	levelNotice  = 3
	levelInfo    = 5
	levelStatus  = 8 // of the report on the collection
	levelDebug   = 9
)

// message is one thing that a command of duplicity says, in duplicity's words:
// on the console and, as a stanza, in the machine-readable log.
type message struct {
	level int
	code  int    // of the stanza; 0: 1, which means nothing in particular
	extra string // what follows the code: arguments, then lines of data
	force bool   // said at any verbosity

	format string // of the text; "": the stanza has none, and the console nothing
	args   []any  // names of files are of type name
}

// name is the name of a file as it may come from anywhere: the console gets it
// without control characters.
type name string

// names are several, one a line, and may be indented.
type names []string

// text returns what the log has.
func (m *message) text() string { return m.render(func(s string) string { return s }) }

// line returns what the console has.
func (m *message) line() string { return m.render(printable) }

// render writes the text with the names as spell has them.
func (m *message) render(spell func(string) string) string {
	args := make([]any, len(m.args))
	for i, a := range m.args {
		switch a := a.(type) {
		case name:
			args[i] = spell(string(a))
		case names:
			spelt := make([]string, len(a))
			for k, n := range a {
				bare := strings.TrimPrefix(n, "\t")
				spelt[k] = n[:len(n)-len(bare)] + spell(bare)
			}
			args[i] = strings.Join(spelt, "\n")
		default:
			args[i] = a
		}
	}
	return fmt.Sprintf(m.format, args...)
}

// say says a message.
func (e *environ) say(m message) {
	e.machine.write(&m)
	if m.format == "" || m.level > e.level && !m.force {
		return
	}
	e.outMu.Lock()
	defer e.outMu.Unlock()
	e.clearBar()
	w := e.stdout
	switch {
	case m.level == levelError:
		w = e.stderr
	case e.objects:
		return // stdout is for a program that reads JSON
	}
	line := m.line()
	if m.code == infoUploadTick && e.tick {
		line = overTick + line
	}
	e.tick = m.code == infoUploadTick
	e.put(w, m.level, line)
}

// put writes to the console, as --log-timestamp has it. The lock is held.
func (e *environ) put(w io.Writer, level int, text string) {
	if e.timestamps {
		text = e.now().Local().Format("2006-01-02 15:04:05,000 ") + levelName(level) + " " + text
	}
	fmt.Fprintln(w, text)
}

// tell says something that the user sees unless he wants less.
func (e *environ) tell(format string, args ...any) {
	e.say(message{level: levelNotice, format: format, args: args})
}

// levelName is the keyword of a stanza.
func levelName(level int) string {
	switch {
	case level >= levelDebug:
		return "DEBUG"
	case level >= levelInfo:
		return "INFO"
	case level >= levelNotice:
		return "NOTICE"
	case level >= 1:
		return "WARNING"
	}
	return "ERROR"
}

// several returns the singular or the plural of a text, as n things ask for.
func several(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}
