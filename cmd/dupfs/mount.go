package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"dupfs/chain"
	"dupfs/fusefs"
)

func mountCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "mount",
		Usage:     "mount every point of the archive as a read-only tree",
		ArgsUsage: "URL DIR",
		Description: `dupfs mount URL ~/back     returns once it is mounted; dupfs umount ~/back ends it
ls ~/back/snapshots           one directory for each backup, and latest
cp ~/back/at/3D/letter.txt .  the newest backup that is at least three days old`,
		Flags: slices.Concat(archiveFlags(), mountFlags()),
		Action: func(c *cli.Context) error {
			if c.Bool("foreground") || e.getenv(readyVariable) != "" {
				return runMount(c.Context, e, c)
			}
			if err := mountBehind(c.Context, e, c); err != nil || !c.Bool("open") {
				return err
			}
			e.showInFileManager(c.Args().Get(1))
			return nil
		},
	}
}

// readyVariable tells a mount in the background that its parent waits on file
// descriptor readyFD for its word.
const (
	readyVariable = "DUPFS_MOUNT_READY"
	readyFD       = 3
	readyWord     = "mounted"
)

// runMount mounts, says so, and serves until it is unmounted or ctx ends.
func runMount(ctx context.Context, e *environ, c *cli.Context) error {
	args, err := positionals(c, 2, 2, "URL DIR")
	if err != nil {
		return err
	}
	if err := mountPoint(args[0], args[1]); err != nil {
		return err
	}
	a, err := e.open(ctx, c, args[0])
	if err != nil {
		return err
	}
	defer a.Close()
	if err := a.keyInHand(ctx, c); err != nil {
		return err
	}
	if _, err := a.warnArchived(ctx, c, "", true); err != nil {
		return err
	}
	if err := apart(args[1], a.dir, "the cache of the archive, "+a.dir); err != nil {
		return err
	}
	o, err := e.mountOptions(ctx, c, a, args[1])
	if err != nil {
		return err
	}
	if o.Log, err = e.mountLog(c, a); err != nil {
		return err
	}
	l, err := a.newLease(args[1])
	if err != nil {
		return err
	}
	a.closers = append(a.closers, l.Close)
	o.InUse = a.inUse(l)
	server, err := fusefs.Mount(a.snapshot, args[1], o)
	if err != nil {
		return mountError(err)
	}
	if err := errors.Join(e.sayReady(), e.notify("READY=1\nSTATUS=mounted on "+server.Dir())); err != nil {
		return errors.Join(err, server.Unmount())
	}
	defer func() { _ = e.notify("STOPPING=1") }()
	if c.Bool("open") && e.getenv(readyVariable) == "" {
		go e.showInFileManager(server.Dir())
	}
	return serve(ctx, server)
}

// serve waits for the end of the mount, and brings it about when ctx ends.
func serve(ctx context.Context, server *fusefs.Server) error {
	done := make(chan struct{})
	go func() {
		server.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	err := server.Unmount()
	if err == nil || errors.Is(err, fusefs.ErrBusy) {
		// Who still has files open could only be served by staying.
		return nil
	}
	return err
}

// mountError gives the errors of a mount their hints.
func mountError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail(exitUser, err, "make the directory first: mkdir DIR")
	case errors.Is(err, fusefs.ErrNotDir):
		return fail(exitUser, err, "mount on a directory")
	case errors.Is(err, fusefs.ErrNotEmpty):
		return fail(exitUser, err, "mount on an empty directory, or give --nonempty")
	}
	return err
}

// keyInHand makes sure, before anything is mounted, that the passphrase of an
// encrypted archive is there and right: later there is nobody to ask.
func (a *archive) keyInHand(ctx context.Context, c *cli.Context) error {
	chains := a.snapshot.Collection().Chains
	if len(chains) == 0 {
		return nil
	}
	sets := chains[len(chains)-1].Sets
	m := sets[len(sets)-1].Manifest
	if m == nil || m.Layer != chain.OpenPGP {
		return nil
	}
	r, err := a.store.Open(ctx, *m)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return keyTrouble(err)
	}
	defer r.Close()
	if _, err = r.Read(make([]byte, 1)); err == io.EOF {
		err = nil
	}
	return keyTrouble(err)
}

// keyTrouble passes on what is wrong with the key. Damage is met again, by
// whoever needs the manifest.
func keyTrouble(err error) error {
	if errors.Is(err, chain.ErrNoKey) || errors.Is(err, chain.ErrNoPassphrase) || errors.Is(err, errPassphraseEOF) {
		return err
	}
	return nil
}

// mountLog returns where the reasons of failed requests go: to stderr in
// front, else to a file beside the catalog. There whatever else there is to
// tell goes as well, each try that is repeated among it.
func (e *environ) mountLog(c *cli.Context, a *archive) (func(string, ...any), error) {
	if e.getenv(readyVariable) == "" {
		return func(format string, args ...any) { e.warn(format, args...) }, nil
	}
	f, err := os.OpenFile(filepath.Join(a.dir, "mount.log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, f.Close)
	log := func(format string, args ...any) {
		e.outMu.Lock()
		defer e.outMu.Unlock()
		if at, err := f.Stat(); err == nil && at.Size() > maxMountLog {
			_ = f.Truncate(0)
		}
		fmt.Fprintf(f, "%s %s\n", e.now().UTC().Format(time.RFC3339), printable(fmt.Sprintf(format, args...)))
	}
	e.outMu.Lock()
	e.log = log
	e.outMu.Unlock()
	return log, nil
}

// maxMountLog is the size in bytes from which on a mount's log begins anew.
const maxMountLog = 8 << 20

// sayReady tells a waiting parent that the mount can be used, and lets go of
// the terminal.
func (e *environ) sayReady() error {
	if e.parent == nil {
		return nil
	}
	if err := ownSession(); err != nil {
		return err
	}
	if _, err := io.WriteString(e.parent.words, readyWord+"\n"); err != nil {
		return fmt.Errorf("the command that began the mount is gone: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	for fd := range 3 { // a write to the pipe would kill us once the parent is gone
		if err := dup(int(null.Fd()), fd); err != nil {
			return err
		}
	}
	return e.parent.close()
}

// ownSession leaves the session of the command that began the mount. One that
// mount(8) began stays in its process group until it is mounted: where systemd
// mounts because somebody looks, all others who look wait for that, and only
// systemd's own group may look beforehand.
func ownSession() error {
	if syscall.Getpgrp() == os.Getpid() {
		return nil
	}
	_, err := syscall.Setsid()
	return os.NewSyscallError("setsid", err)
}

// mountBehind runs this program again in the background with the same
// command line and variables, which it is told over a pipe, and returns when
// the mount can be used or has failed.
func mountBehind(ctx context.Context, e *environ, c *cli.Context) error {
	args, err := positionals(c, 2, 2, "URL DIR")
	if err != nil {
		return err
	}
	if err := e.askBefore(ctx, c, args[0]); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	theirs, ours, err := os.Pipe()
	if err != nil {
		return errors.Join(err, w.Close())
	}
	defer ours.Close()
	h := handover{Args: e.args, Env: os.Environ()}
	if e.secretKnown {
		h.Env = append(h.Env, "PASSPHRASE="+e.secretText)
	}
	cmd := exec.Command(self, shownArgs(h.Args)...)
	cmd.Env = shownEnv(h.Env)
	cmd.ExtraFiles = []*os.File{readyFD - 3: w, handoverFD - 3: theirs}
	cmd.Stderr = w // until it is mounted, what it says is for us
	// See ownSession.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: !e.helper}
	err = cmd.Start()
	w.Close()
	theirs.Close()
	if err != nil {
		return err
	}
	if err := h.give(ours); err != nil {
		_ = cmd.Process.Kill()
		return errors.Join(err, cmd.Wait())
	}
	return e.awaitMount(ctx, cmd, r, json.NewEncoder(ours))
}

// askBefore asks for the passphrase while there is a terminal, if the archive
// is encrypted and it was not given.
func (e *environ) askBefore(ctx context.Context, c *cli.Context, url string) error {
	if given, err := e.passphrases(c); err != nil || len(given) > 0 {
		return err
	}
	a, err := e.open(ctx, c, url)
	if err != nil {
		return err
	}
	defer a.Close()
	return a.keyInHand(ctx, c)
}

// awaitMount reads what the process in the background says until it is ready,
// or passes its complaint and status on. Meanwhile it asks for what that needs.
func (e *environ) awaitMount(ctx context.Context, cmd *exec.Cmd, r io.Reader, answers *json.Encoder) error {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for scan := bufio.NewScanner(r); scan.Scan(); {
			lines <- scan.Text()
		}
	}()
	for {
		select {
		case line, ok := <-lines:
			switch {
			case line == readyWord:
				return cmd.Process.Release()
			case strings.HasPrefix(line, askWord):
				text, err := e.askOnce(strings.TrimPrefix(line, askWord))
				_ = answers.Encode(answer{Text: text, Typed: err == nil}) // who is gone will say why
			case ok:
				fmt.Fprintln(e.stderr, line)
			default:
				return mountFailed(cmd.Wait())
			}
		case <-ctx.Done():
			_ = cmd.Process.Signal(syscall.SIGTERM)
			for range lines {
			}
			_ = cmd.Wait()
			return ctx.Err()
		}
	}
}

// mountFailed turns the end of the process in the background into an error
// with its status; it has said why itself.
func mountFailed(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return fail(exit.ExitCode(), errSaid, "")
	}
	return fmt.Errorf("the mount ended at once: %v", err)
}

// errSaid is an error that was already told.
var errSaid = errors.New("")

func umountCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "umount",
		Aliases:   []string{"unmount"},
		Usage:     "unmount what dupfs mount mounted",
		ArgsUsage: "DIR",
		Flags:     nil,
		Action: func(c *cli.Context) error {
			args, err := positionals(c, 1, 1, "DIR")
			if err != nil {
				return err
			}
			err = fusefs.Unmount(args[0])
			if errors.Is(err, fusefs.ErrNotMounted) {
				return fail(exitUser, err, "`mount -t fuse.dupfs` lists what is mounted")
			}
			return err
		},
	}
}
