package chain

import "errors"

// CorruptError says that a stored file, or an entry within an archive, is
// damaged. It is final: another try will not help.
type CorruptError struct {
	Name   string // of the stored file or the entry
	Reason string
}

func (e *CorruptError) Error() string { return e.Name + ": " + e.Reason }

// Corrupt returns a *CorruptError.
func Corrupt(name, reason string) error { return &CorruptError{name, reason} }

var (
	// ErrNoKey says that no passphrase or key in hand opens an object. An
	// error that wraps it names the object.
	ErrNoKey = errors.New("no passphrase or key opens it")
	// ErrNoPassphrase says that a passphrase is needed and none was given.
	ErrNoPassphrase = errors.New("a passphrase is needed and none was given")
)
