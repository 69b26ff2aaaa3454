// Package sftp stores archives in a directory of a host that is reached with
// SSH. It reads what OpenSSH's own programs read: ~/.ssh/config, known_hosts,
// keys, and the agent.
package sftp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/pkg/sftp"

	"dupfs/backends"
	"dupfs/backends/web"
)

// Options say how to log in. The zero value is what ssh would do.
type Options struct {
	Getenv func(string) string // SSH_AUTH_SOCK, HOME, LOGNAME, USER; nil means os.Getenv
	// Password is for the login, and for a key with a passphrase.
	Password    string
	HasPassword bool
	// AskPassword, if set, is asked when a password is needed and none given.
	AskPassword func(ctx context.Context, prompt string) (string, error)
	// SSHOptions are options in the form of the command line of ssh or sftp:
	// -oIdentityFile=~/.ssh/backup -oPort=2222. They go before configuration
	// files. Those of no meaning here are not used.
	SSHOptions string
	// Timeout is how long the connection may be silent; 0 means 30 seconds.
	Timeout time.Duration
	// Dial makes the connection; nil means web.Dialer with Timeout.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

const (
	// tempPrefix begins the names of files that are not complete.
	tempPrefix = ".dupfs-tmp-"
	// staleAfter is the age at which such a file is what a crash left over. It
	// is generous, as it compares our clock with the server's.
	staleAfter = 48 * time.Hour
	// window is how much of a file is asked for ahead.
	firstWindow, maxWindow = 64 << 10, 1 << 20
)

// Backend is a directory of a host. It implements backends.Backend, Stater,
// Exclusive and io.Closer. It holds one connection, made when it is first
// needed and again after it broke.
type Backend struct {
	host, user, port string
	dir              string
	o                Options

	lock   chan struct{} // holds one token; guards cur and closed
	cur    *session
	closed bool
	wg     sync.WaitGroup
	clean  *sync.Once
}

// Open prepares access to a directory, which may be relative to that of the
// login; the first Put makes it if it is missing. user and port may be empty.
// Nothing is connected yet.
func Open(host, user, port, dir string, o Options) (*Backend, error) {
	if host == "" {
		return nil, errors.New("sftp: no host")
	}
	if strings.HasPrefix(host, "-") {
		return nil, fmt.Errorf("sftp: %q is not a host", host)
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.Timeout <= 0 {
		o.Timeout = web.DefaultTimeout
	}
	if o.Dial == nil {
		o.Dial = web.Dialer(web.Options{Timeout: o.Timeout})
	}
	if dir == "" {
		dir = "."
	}
	b := &Backend{host: host, user: user, port: port, dir: path.Clean(dir), o: o, lock: make(chan struct{}, 1), clean: new(sync.Once)}
	_, err := newSettings(host, o) // mistakes show at once
	return b, err
}

// Close ends the connection and waits for what still uses it.
func (b *Backend) Close() error {
	b.lock <- struct{}{}
	b.closed = true
	if b.cur != nil {
		b.cur.end()
		b.cur = nil
	}
	<-b.lock
	b.wg.Wait()
	return nil
}

func (b *Backend) path(op, name string) (string, error) {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") || strings.HasPrefix(name, tempPrefix) {
		return "", fmt.Errorf("%s %q: not a name for a file in a directory", op, name)
	}
	return path.Join(b.dir, name), nil
}

// fail says what was done to which file, and sorts the failure.
func fail(op, name string, err error) error {
	if err == nil {
		return nil
	}
	if connectionBroke(err) {
		err = fmt.Errorf("%w: the connection broke: %w", backends.ErrTransient, err)
	}
	return web.Wrap(op, name, err)
}

func connectionBroke(err error) bool {
	var broken net.Error
	return errors.Is(err, io.EOF) || errors.As(err, &broken) || errors.Is(err, sftp.ErrSSHFxConnectionLost) ||
		errors.Is(err, sftp.ErrSSHFxNoConnection) || errors.Is(err, net.ErrClosed)
}

// do runs f with a connection. As the library knows no contexts, f runs in a
// goroutine of its own, and is left to its end when ctx ends first: Close
// waits for it, and the connection's deadline ends it. What it then returns
// goes to drop, if that is set.
func do[T any](ctx context.Context, b *Backend, op, name string, f func(*session) (T, error), drop func(T)) (T, error) {
	var none T
	if ctx.Err() != nil {
		return none, fail(op, name, context.Cause(ctx))
	}
	s, err := b.session(ctx)
	if err != nil {
		return none, fail(op, name, err)
	}
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	b.wg.Go(func() {
		v, err := f(s)
		done <- result{v, err}
	})
	select {
	case r := <-done:
		if connectionBroke(r.err) {
			s.lost() // so that the next call makes another at once
		}
		return r.v, fail(op, name, r.err)
	case <-ctx.Done():
		if drop != nil {
			b.wg.Go(func() {
				if r := <-done; r.err == nil {
					drop(r.v)
				}
			})
		}
		return none, fail(op, name, context.Cause(ctx))
	}
}

// List returns the files of the directory, links followed. A missing
// directory lists as empty.
func (b *Backend) List(ctx context.Context) ([]backends.File, error) {
	return do(ctx, b, "list", "", func(s *session) ([]backends.File, error) {
		all, err := s.ReadDirContext(ctx, b.dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		var files []backends.File
		for _, fi := range all {
			if fi.Mode()&fs.ModeSymlink != 0 {
				if fi, err = s.Stat(path.Join(b.dir, fi.Name())); errors.Is(err, fs.ErrNotExist) {
					err = nil
					continue
				} else if err != nil {
					break
				}
			}
			if fi.Mode().IsRegular() && !strings.HasPrefix(fi.Name(), tempPrefix) {
				files = append(files, file(path.Base(fi.Name()), fi))
			}
		}
		return files, err
	}, nil)
}

func file(name string, fi fs.FileInfo) backends.File {
	return backends.File{Name: name, Size: fi.Size(), ModTime: fi.ModTime()}
}

// Stat tells of one file.
func (b *Backend) Stat(ctx context.Context, name string) (backends.File, error) {
	p, err := b.path("query", name)
	if err != nil {
		return backends.File{}, err
	}
	return do(ctx, b, "query", name, func(s *session) (backends.File, error) {
		fi, err := s.Stat(p)
		if err == nil && !fi.Mode().IsRegular() {
			err = fs.ErrNotExist
		}
		if err != nil {
			return backends.File{}, err
		}
		return file(name, fi), nil
	}, nil)
}

// Delete removes a file.
func (b *Backend) Delete(ctx context.Context, name string) error {
	p, err := b.path("delete", name)
	if err != nil {
		return err
	}
	_, err = do(ctx, b, "delete", name, func(s *session) (none struct{}, err error) {
		fi, err := s.Lstat(p) // the library would remove a directory, too
		if err == nil && fi.IsDir() {
			err = fs.ErrNotExist
		}
		if err == nil {
			err = s.Remove(p)
		}
		return none, err
	}, nil)
	return err
}

// Put stores a file: under a temporary name first, synced to the disk if the
// server can, then renamed.
func (b *Backend) Put(ctx context.Context, name string, r io.ReadSeeker) error {
	return b.put(ctx, name, r, replace)
}

// PutNew is Put for a name that must be free.
func (b *Backend) PutNew(ctx context.Context, name string, r io.ReadSeeker) error {
	return b.put(ctx, name, r, create)
}

func (b *Backend) put(ctx context.Context, name string, r io.ReadSeeker, finish func(s *session, from, to string) error) error {
	p, err := b.path("put", name)
	if err != nil {
		return err
	}
	size, err := web.Remaining(r)
	if err != nil {
		return fail("put", name, err)
	}
	src, err := web.NewSource(r)
	if err != nil {
		return fail("put", name, err)
	}
	body := src.Piece(0, size)
	defer src.Done() // a goroutine that is late reads nothing any more
	_, err = do(ctx, b, "put", name, func(s *session) (none struct{}, err error) {
		temp, err := b.write(s, body)
		if err != nil {
			return none, noSpace(s, b.dir, err)
		}
		if err = ctx.Err(); err == nil {
			err = finish(s, temp, p)
		}
		if err != nil {
			s.Remove(temp)
		}
		return none, err
	}, nil)
	return err
}

// write returns the name of a new temporary file that holds body.
func (b *Backend) write(s *session, body *web.Piece) (temp string, err error) {
	temp = path.Join(b.dir, tempPrefix+rand.Text())
	create := func() (*sftp.File, error) { return s.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL) }
	f, err := create()
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.MkdirAll(b.dir); err == nil {
			f, err = create()
		}
	}
	if err != nil {
		return "", err
	}
	b.clean.Do(func() { b.removeStale(s) })
	s.Chmod(temp, 0o600) // what a server without modes refuses
	n, err := f.ReadFrom(&io.LimitedReader{R: body, N: body.Len()})
	if err == nil && n < body.Len() {
		err = fmt.Errorf("%d of %d bytes were sent", n, body.Len())
	}
	if err == nil {
		if err = f.Sync(); errors.Is(err, sftp.ErrSSHFxOpUnsupported) {
			err = nil
		}
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		s.Remove(temp)
		return "", err
	}
	return temp, nil
}

// replace renames over what may be there. A server without OpenSSH's
// extension has no such thing: there the old file goes first.
func replace(s *session, from, to string) error {
	if _, ok := s.HasExtension("posix-rename@openssh.com"); ok {
		return s.PosixRename(from, to)
	}
	err := s.Rename(from, to)
	if err == nil {
		return nil
	}
	if _, serr := s.Stat(to); serr != nil {
		return err
	}
	if err := s.Remove(to); err != nil {
		return err
	}
	return s.Rename(from, to)
}

// create gives a file a name that must be free: by a second link, else by a
// rename, which in this protocol does not overwrite.
func create(s *session, from, to string) (err error) {
	if _, ok := s.HasExtension("hardlink@openssh.com"); ok {
		err = s.Link(from, to)
		if err == nil {
			return s.Remove(from)
		}
	}
	if _, serr := s.Lstat(to); serr == nil {
		return fs.ErrExist
	} else if !errors.Is(serr, fs.ErrNotExist) {
		return serr
	}
	if err = s.Rename(from, to); err != nil {
		if _, serr := s.Lstat(to); serr == nil {
			return fs.ErrExist
		}
	}
	return err
}

// noSpace asks whether the disk is full: the protocol has no error for it.
func noSpace(s *session, dir string, err error) error {
	if !errors.Is(err, sftp.ErrSSHFxFailure) {
		return err
	}
	if v, verr := s.StatVFS(dir); verr == nil && v.Bavail == 0 {
		return fmt.Errorf("%w: %w", backends.ErrNoSpace, err)
	}
	return err
}

// removeStale removes what crashed writers left. Failures do not matter.
func (b *Backend) removeStale(s *session) {
	all, err := s.ReadDir(b.dir)
	if err != nil {
		return
	}
	for _, fi := range all {
		if strings.HasPrefix(fi.Name(), tempPrefix) && fi.Mode().IsRegular() && time.Since(fi.ModTime()) > staleAfter {
			s.Remove(path.Join(b.dir, fi.Name()))
		}
	}
}
