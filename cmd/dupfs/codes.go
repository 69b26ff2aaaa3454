package main

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"syscall"

	"dupfs/backends"
	"dupfs/backends/all"
	"dupfs/backends/par2"
	"dupfs/chain"
	"dupfs/chain/backup"
	"dupfs/chain/pgp"
	"dupfs/chain/restore"
	"dupfs/chain/snapshot"
	"dupfs/chain/store"
	"dupfs/fusefs"
)

// Exit statuses. They are duplicity's where it has one, and never change
// their meaning: scripts and front ends rely on them.
const (
	exitOK          = 0
	exitGeneric     = 1  // also: verify found differences
	exitUsage       = 2  // command line
	exitHost        = 3  // the backup is of another host
	exitInterrupted = 4  // by a signal
	exitFilelist    = 7  // a list of patterns or paths cannot be read
	exitBadURL      = 8  // what should be a URL is none
	exitSignKey     = 10 // the id of the signing key has not the right form
	exitTarget      = 11 // the target of a restore exists
	exitNoVerifyDir = 12 // the directory to compare with is missing
	exitNoSource    = 13 // the source of a backup is missing
	exitNoSigs      = 17 // an incremental backup with nothing to build on
	exitNoPath      = 19 // the path is not in the archive
	exitNoPoint     = 20 // nothing to restore at that time
	exitDamaged     = 21 // something in the archive is damaged or missing
	exitUnsigned    = 22 // not signed by the key that was demanded
	exitUser        = 23 // locked, unknown scheme, backend cannot be set up
	exitException   = 30 // no backups found; nobody to type a passphrase
	exitGPG         = 31 // wrong passphrase or key
	exitConnection  = 38 // cannot connect or log in
	exitSourceDir   = 42 // the backup is of another directory
	exitUploadSize  = 44 // wrong size after an upload
	exitBackend     = 50 // any other failure of the store
	exitPermission  = 51
	exitNotFound    = 52
	exitNoSpace     = 53
	exitIncomplete  = 60 // ours: done, but for what the warnings name
)

// statusError carries the exit status of an error, and a hint.
type statusError struct {
	status int
	hint   string
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// fail gives an error a status and a hint.
func fail(status int, err error, hint string) error {
	return &statusError{status, hint, err}
}

// errNoBackups says that there is nothing of duplicity at a URL.
var errNoBackups = errors.New("no backup chains found")

// class is a kind of error with its status and hint.
type class struct {
	err    error
	status int
	hint   string
}

// classes in order: the first that an error wraps decides.
func classes() []class {
	return []class{
		{errNoBackups, exitException, "check the URL (and --file-prefix); `dupfs SOURCE URL` makes the first backup"},
		{errPassphraseEOF, exitException, "export PASSPHRASE, or give --passphrase-file FILE"},
		{chain.ErrNoPassphrase, exitException, "export PASSPHRASE, or give --passphrase-file FILE"},
		{pgp.ErrSigner, exitUnsigned, "without --sign-key it would be read; somebody else may have put it there"},
		{pgp.ErrUnauthenticated, exitGPG, "GnuPG 1 wrote such files for old keys; --accept-unauthenticated reads them as they are"},
		{pgp.ErrSignature, exitGPG, "it was changed after it was signed"},
		{chain.ErrNoKey, exitGPG, "is PASSPHRASE the one this archive was made with, and the secret key here?"},
		{snapshot.ErrBefore, exitNoPoint, "`dupfs status URL` lists the times there are backups of"},
		{all.ErrScheme, exitUser, "known are file, swift, azure, s3, sftp, scp, webdav(s), http(s) and rclone, each with par2+ before it, too"},
		{restore.ErrExists, exitTarget, "name another directory, or give --force to write into this one"},
		{store.ErrUploadSize, exitUploadSize, "run the backup again"},
		{par2.ErrProgram, exitUser, "par2+URL needs it: apt-get install par2, or give the URL without par2+"},
		{backends.ErrArchived, exitBackend, "`dupfs rehydrate URL` asks the store for it"},
		{backends.ErrAuth, exitConnection, "check the credentials in the environment"},
		{backends.ErrNoSpace, exitNoSpace, "free space there, or name another place; what was there before is untouched"},
		{syscall.ENOSPC, exitNoSpace, "free space, or name another place with --tempdir, --archive-dir or the target"},
		{backup.ErrRival, exitUser, "run it again: it then builds on the other one"},
		{backup.ErrClock, exitGeneric, "set the clock right; if the backup before was made with a wrong one, wait until its time is over, or remove it"},
		{fusefs.ErrNotEmpty, exitUser, "mount on an empty directory"},
		{fusefs.ErrMounted, exitUser, "unmount it first: dupfs umount DIR"},
		{backends.ErrTransient, exitBackend, "the store did not answer as it should; try again later, or see --timeout and --num-retries"},
		{fs.ErrPermission, exitPermission, "check the permissions"},
		{context.DeadlineExceeded, exitBackend, "the store did not answer in time; see --timeout"},
	}
}

// classify returns the exit status of an error and a hint, "" for none.
func classify(err error) (status int, hint string) {
	var st *statusError
	if errors.As(err, &st) {
		return st.status, st.hint
	}
	var usage *usageError
	if errors.As(err, &usage) {
		if usage.hint == "" {
			usage.hint = "dupfs --help, or dupfs COMMAND --help"
		}
		return cmp.Or(usage.status, exitUsage), usage.hint
	}
	var sig errSignal
	if errors.As(err, &sig) {
		return exitInterrupted, "run it again when you like"
	}
	for _, c := range classes() {
		if errors.Is(err, c.err) {
			return c.status, c.hint
		}
	}
	var corrupt *chain.CorruptError
	if errors.As(err, &corrupt) {
		return exitDamaged, "`dupfs verify URL` names everything that is damaged"
	}
	if errors.Is(err, fs.ErrNotExist) {
		return exitNotFound, ""
	}
	return exitGeneric, ""
}
