package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unsafe"

	"dupfs/backends/all"
)

// handover is what a mount in the background is told over a pipe: whoever may
// read its /proc/PID/cmdline or environ finds no password there.
type handover struct {
	Args []string // the command line
	Env  []string // the variables
}

// handoverFD is where a mount in the background reads its handover.
const handoverFD = 4

// give writes the handover.
func (h handover) give(w io.Writer) error {
	if err := json.NewEncoder(w).Encode(h); err != nil {
		return fmt.Errorf("the mount did not take its command: %w", err)
	}
	return nil
}

// answer is what somebody typed, or nobody.
type answer struct {
	Text  string
	Typed bool
}

// askWord begins a line by which a mount in the background lets its parent,
// which has the terminal, ask for a secret.
const askWord = "ask\x00"

// parent is the process that began a mount in the background and waits.
type parent struct {
	words   *os.File // to it
	pipe    *os.File // from it
	decoder *json.Decoder
}

// ask lets the parent ask for a secret.
func (p *parent) ask(prompt string) (string, error) {
	if _, err := fmt.Fprintf(p.words, "%s%s\n", askWord, printable(prompt)); err != nil {
		return "", errPassphraseEOF
	}
	var a answer
	if err := p.decoder.Decode(&a); err != nil || !a.Typed {
		return "", errPassphraseEOF
	}
	return a.Text, nil
}

// close lets go of the parent.
func (p *parent) close() error { return errors.Join(p.words.Close(), p.pipe.Close()) }

// takeOver returns the command line that a mount in the background was handed,
// and who did that, and puts its variables in place; where there is none it
// returns ours, and hides the passwords in it.
func takeOver() ([]string, *parent, error) {
	if os.Getenv(readyVariable) == "" {
		return unseen(os.Args[min(1, len(os.Args)):]), nil, nil
	}
	p := &parent{words: os.NewFile(readyFD, "ready"), pipe: os.NewFile(handoverFD, "handover")}
	p.decoder = json.NewDecoder(p.pipe)
	var h handover
	if err := p.decoder.Decode(&h); err != nil {
		return nil, nil, fmt.Errorf("%s is set, but nobody hands over a command: %w", readyVariable, err)
	}
	os.Clearenv()
	for _, v := range append(h.Env, readyVariable+"=1") {
		name, value, _ := strings.Cut(v, "=")
		if err := os.Setenv(name, value); err != nil {
			return nil, nil, err
		}
	}
	return h.Args, p, nil
}

// shownEnv returns the variables with which a mount in the background is
// started: those that Go's runtime reads before we do anything.
func shownEnv(env []string) []string {
	shown := []string{readyVariable + "=1"}
	for _, v := range env {
		if strings.HasPrefix(v, "GO") {
			shown = append(shown, v)
		}
	}
	return shown
}

// shownArgs returns the command line without passwords.
func shownArgs(args []string) []string {
	shown := make([]string, len(args))
	for i, a := range args {
		shown[i] = all.Redact(a)
	}
	return shown
}

// unseen returns copies of this process's arguments, and puts asterisks over
// the passwords in the originals, which everybody can see in a list of
// processes. The strings must lie in memory that can be written to, as those
// of os.Args do.
func unseen(args []string) []string {
	own := make([]string, len(args))
	for i, a := range args {
		own[i] = strings.Clone(a)
		shown := all.Redact(own[i])
		if shown == own[i] {
			continue
		}
		first, behind := between(own[i], shown)
		memory := unsafe.Slice(unsafe.StringData(a), len(a))
		for k := first; k < behind; k++ {
			memory[k] = '*'
		}
	}
	return own
}

// between returns the part of a that is not also at the beginning or end of b.
func between(a, b string) (first, behind int) {
	for first < len(a) && first < len(b) && a[first] == b[first] {
		first++
	}
	behind = len(a)
	for end := len(b); behind > first && end > first && a[behind-1] == b[end-1]; end-- {
		behind--
	}
	return first, behind
}
