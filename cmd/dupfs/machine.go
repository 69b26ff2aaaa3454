package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// machineLog is the machine-readable log that front ends follow: a stream of
// stanzas, each with a control line of keyword, code and arguments, lines of
// data, lines of text that begin with ". ", and an empty line. The zero value
// and nil write nowhere.
type machineLog struct {
	level int // of --verbosity

	mu   sync.Mutex // of what follows
	w    []*bufio.Writer
	held int // stanzas are not flushed while it is positive
	file []io.Closer
}

// openLog opens what --log-fd and --log-file name. argv is a command line as
// arrange spells it. A file is appended to.
func (e *environ) openLog(argv []string) error {
	e.machine = &machineLog{level: levelNotice}
	for _, arg := range argv {
		if arg == "--" {
			break
		}
		option, value, _ := strings.Cut(arg, "=")
		switch option {
		case "--verbosity":
			if n, err := parseVerbosity(value); err == nil { // else the command complains
				e.machine.level = n
			}
		case "--log-timestamp":
			e.timestamps = true
		case "--log-fd", "--log-file":
			f, err := logFile(option, value)
			if err != nil {
				return err
			}
			e.machine.w = append(e.machine.w, bufio.NewWriter(f))
			e.machine.file = append(e.machine.file, f)
		}
	}
	e.level = e.machine.level
	return nil
}

// logFile opens one log.
func logFile(option, value string) (*os.File, error) {
	if option == "--log-file" {
		f, err := os.OpenFile(value, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, fmt.Errorf("--log-file: %w", err)
		}
		return f, nil
	}
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 1 {
		return nil, usagef("--log-fd: %q is no file descriptor: it must be 1 or more", value)
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, usagef("--log-fd: descriptor %d is not open", fd)
	}
	if fd > 2 {
		// A gpg-agent that is started would keep the reader waiting for its end.
		unix.CloseOnExec(fd)
	}
	return os.NewFile(uintptr(own), "log"), nil
}

// on reports whether somebody listens.
func (m *machineLog) on() bool { return m != nil && len(m.w) > 0 }

// write writes a stanza at once. A log that cannot be written is given up, as
// a front end that is gone must not end a backup.
func (m *machineLog) write(msg *message) {
	if !m.on() || msg.level > m.level && !msg.force {
		return
	}
	s := stanza(msg)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, w := range m.w {
		_, _ = w.WriteString(s)
		if m.held == 0 {
			_ = w.Flush()
		}
	}
}

// hold lets stanzas wait until release is called: for a long list of them.
func (m *machineLog) hold() (release func()) {
	if !m.on() {
		return func() {}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held++
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.held--
		m.flush()
	}
}

// flush writes what waits. The lock is held.
func (m *machineLog) flush() {
	for _, w := range m.w {
		_ = w.Flush()
	}
}

// close ends the log.
func (m *machineLog) close() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flush()
	for _, f := range m.file {
		_ = f.Close()
	}
	m.w, m.file = nil, nil
}

// stanza spells a message.
func stanza(m *message) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d", levelName(m.level), max(m.code, 1))
	if m.extra != "" {
		b.WriteString(" " + m.extra)
	}
	if text := m.text(); text != "" {
		text = strings.ToValidUTF8(text, "\ufffd")
		b.WriteString(strings.ReplaceAll("\n"+text, "\n", "\n. "))
	}
	b.WriteString("\n\n")
	return b.String()
}

// logName spells a name as an argument of a control line: code points that are
// not printable ASCII as \xNN, \uNNNN or \UNNNNNNNN, and a byte that is no
// UTF-8 as the half of a surrogate pair that Python makes of it.
func logName(s string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n <= 1 {
			r, n = 0xdc00+rune(s[0]), 1
		}
		s = s[n:]
		quoteRune(&b, r)
	}
	b.WriteByte('\'')
	return b.String()
}

func quoteRune(b *strings.Builder, r rune) {
	switch {
	case r == '\\':
		b.WriteString(`\\`)
	case r == '\t':
		b.WriteString(`\t`)
	case r == '\n':
		b.WriteString(`\n`)
	case r == '\r':
		b.WriteString(`\r`)
	case r < ' ' || r == '\'' || r == unicode.MaxASCII || r > unicode.MaxASCII && r <= unicode.MaxLatin1:
		fmt.Fprintf(b, `\x%02x`, r)
	case r <= unicode.MaxASCII:
		b.WriteByte(byte(r))
	case r <= 0xffff:
		fmt.Fprintf(b, `\u%04x`, r)
	default:
		fmt.Fprintf(b, `\U%08x`, r)
	}
}
