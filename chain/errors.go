package chain

import "errors"

// CorruptError says that a stored file, or an entry within an archive, is
// damaged. It is final: another try will not help.
type CorruptError struct {
	Name   string // of the stored file or the entry
	Reason string
	Err    error // what says so, where callers may want to know; may be nil
}

func (e *CorruptError) Error() string { return e.Name + ": " + e.Reason }
func (e *CorruptError) Unwrap() error { return e.Err }

// Corrupt returns a *CorruptError.
func Corrupt(name, reason string) error { return &CorruptError{Name: name, Reason: reason} }

// CorruptBy returns a *CorruptError that wraps what says so.
func CorruptBy(name string, err error) error { return &CorruptError{name, err.Error(), err} }

var (
	// ErrNoKey says that no passphrase or key in hand opens an object. An
	// error that wraps it names the object.
	ErrNoKey = errors.New("no passphrase or key opens it")
	// ErrNoPassphrase says that a passphrase is needed and none was given.
	ErrNoPassphrase = errors.New("a passphrase is needed and none was given")
)
