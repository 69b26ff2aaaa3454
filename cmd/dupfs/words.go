package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"dupfs/backends/all"
	"dupfs/chain"
	"dupfs/chain/restore"
	"dupfs/chain/store"
)

// wordedError is an error with what duplicity says in its place: front ends
// read it in the machine-readable log, and scripts on the console where dupfs
// is called as duplicity.
type wordedError struct {
	err   error
	extra string // arguments of the log's control line
	text  string // may have several lines
}

func (e *wordedError) Error() string { return e.err.Error() }
func (e *wordedError) Unwrap() error { return e.err }

// worded gives an error duplicity's words.
func worded(err error, extra, format string, args ...any) error {
	return &wordedError{err, extra, fmt.Sprintf(format, args...)}
}

// duplicityWords returns what duplicity says instead of an error: the
// arguments of the log's control line, and the text.
func duplicityWords(err error, status int) (extra, text string) {
	var w *wordedError
	if errors.As(err, &w) {
		return w.extra, w.text
	}
	if extra, text, ok := wordsOfClass(err); ok {
		return extra, text
	}
	text = err.Error()
	switch {
	case status == exitUsage:
		return "", "Command line error: " + text + "\nEnter 'duplicity --help' for help screen."
	case status >= exitBackend && status < exitIncomplete:
		return operation(err), text
	case status == exitException:
		return "Exception", text
	}
	return "", text
}

// wordsOfClass returns the words for the errors that many places give.
func wordsOfClass(err error) (extra, text string, ok bool) {
	var size *store.SizeError
	switch {
	case errors.Is(err, errNoBackups):
		return "CollectionsError", "CollectionsError: No backup chains found", true
	case errors.Is(err, errPassphraseEOF), errors.Is(err, chain.ErrNoPassphrase):
		return "EOFError", "EOFError", true
	case errors.Is(err, chain.ErrNoKey):
		return "GPGError", gpgWords(err), true
	case errors.Is(err, all.ErrScheme):
		return "UnsupportedBackendScheme", "UnsupportedBackendScheme: " + err.Error(), true
	case errors.As(err, &size):
		return fmt.Sprintf("%s %d %d", logName(size.File), size.Local, size.Remote),
			fmt.Sprintf("File %s was corrupted during upload.", size.File), true
	case errors.Is(err, restore.ErrExists):
		dir := strings.TrimSuffix(err.Error(), ": "+restore.ErrExists.Error())
		return "", "Restore destination directory " + dir + " already exists.\nWill not overwrite.", true
	}
	return "", "", false
}

// gpgWords returns what front ends look for when the passphrase or the key is
// not the right one: the end of GnuPG's own log.
func gpgWords(err error) string {
	why := "Bad session key"
	if strings.Contains(err.Error(), "encrypted to key") {
		why = "No secret key"
	}
	return "GPGError: GPG Failed, see log below:\n===== Begin GnuPG log =====\n" +
		"gpg: decryption failed: " + why + "\n" + err.Error() + "\n===== End GnuPG log =====\n"
}

// operationForm is how errors of stores begin.
var operationForm = regexp.MustCompile(`(?:^|: )(put|get|list|delete|query)(?: ([^ :]+))?: `)

// operation returns what was asked of a store that failed, as the log has it.
func operation(err error) string {
	m := operationForm.FindStringSubmatch(err.Error())
	if m == nil {
		return ""
	}
	if m[2] != "" {
		return m[1] + " " + logName(m[2])
	}
	return m[1]
}
