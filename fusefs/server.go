package fusefs

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"

	"dupfs/chain"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// maxBackground is how many reads ahead the kernel may ask for at a time, of
// up to maxRead bytes each. It bounds the memory they take.
const maxBackground = 24

// Server serves one mount.
type Server struct {
	dir  string
	dev  string // its device number, by which the kernel's table names it
	stop context.CancelFunc
	done chan struct{} // closed when the mount has gone and nothing runs
}

// Mount mounts f at dir and serves it until it is unmounted; it returns when
// the mount can be used. A dead mount left at dir is replaced. It fails with
// fs.ErrNotExist, ErrNotDir, ErrNotEmpty or ErrMounted, wrapped with dir, if
// dir is not fit, and with the error of f.Points if the archive cannot be read.
//
// The calling process may use the mount, but not start a program in it by
// exec.Cmd.Dir: it cannot answer while it forks.
func Mount(f chain.Forest, dir string, o Options) (*Server, error) {
	o = o.withDefaults()
	dir, err := resolve(dir)
	if err != nil {
		return nil, err
	}
	if err := checkDir(dir, o.NonEmpty); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	fsys := newFileSystem(ctx, f, o)
	if err := fsys.points.load(); err != nil {
		stop()
		return nil, err
	}
	s := &Server{dir: dir, stop: stop, done: make(chan struct{})}
	if err := s.start(fsys); err != nil {
		stop()
		return nil, err
	}
	return s, nil
}

// start mounts and begins to serve.
func (s *Server) start(f *fileSystem) error {
	fd, err := attach(s.dir, &f.opts)
	if err != nil {
		return err
	}
	m, _, err := mountAt(s.dir)
	if err == nil {
		s.dev, f.dev = m.dev, m.dev
		err = s.serve(f, fd)
	} else if fd >= 0 {
		unix.Close(fd)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("mount on %s: %w", s.dir, err), detach(s.dir))
	}
	setReadAhead(s.dev)
	if err := probe(s.dir); err != nil {
		s.stop()
		err = errors.Join(fmt.Errorf("mount on %s: %w", s.dir, err), detach(s.dir))
		s.Wait()
		return err
	}
	return nil
}

// serve takes over fd.
func (s *Server) serve(f *fileSystem, fd int) error {
	server, err := s.server(f, fd, &fuse.MountOptions{
		Name:                     subtype,
		MaxWrite:                 maxRead,
		MaxReadAhead:             maxRead,
		MaxBackground:            maxBackground,
		ExplicitDataCacheControl: true,
		EnableAcl:                f.opts.AllowOther, // the mode of a file with an access list lets in too many
		DisableXAttrs:            f.opts.NoXattrs,
		DisableSplice:            true,
		ExtraCapabilities:        fuse.CAP_EXPORT_SUPPORT, // see export.go
		Logger:                   log.New(logWriter{f}, "", 0),
		PanicHandler:             f.panicked,
	})
	if err != nil {
		return err
	}
	go s.watch(f.base, f)
	go func() {
		defer close(s.done)
		server.Serve()
		s.stop()
		f.ahead.wait()
		f.points.running.Wait()
	}()
	return nil
}

// logWriter passes on what go-fuse has to say, but for what it says of requests
// that were under way when the mount went: nobody waits for these.
type logWriter struct{ f *fileSystem }

func (w logWriter) Write(p []byte) (int, error) {
	if !w.f.gone() {
		w.f.opts.Log("fuse: %s", strings.TrimSuffix(string(p), "\n"))
	}
	return len(p), nil
}

// probe makes sure that the mount answers. It also asks the kernel to poll a
// file: the answer tells it never to do so again. Otherwise the Go runtime's
// own polling could wait for this very process to answer and stop all of it.
// The name is one that go-fuse answers by itself.
func probe(dir string) error {
	fd, err := unix.Open(dir+"/.go-fuse-epoll-hack", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if err != unix.EINTR {
			return err
		}
	}
}

// setReadAhead lets the kernel read ahead further than its usual 128 KiB, which
// doubles the speed of a sequential read. Only root may; others do without.
func setReadAhead(dev string) {
	name := "/sys/class/bdi/" + dev + "/read_ahead_kb"
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintln(f, maxRead>>10) // nothing is lost if it fails
}

// Dir returns the absolute path of the mount point.
func (s *Server) Dir() string { return s.dir }

// Wait returns when the mount has gone, whoever unmounted it, and all
// requests have ended.
func (s *Server) Wait() { <-s.done }

// Done is closed when Wait would return.
func (s *Server) Done() <-chan struct{} { return s.done }

// Unmount unmounts and waits for all requests to end. If the mount is in use
// it is detached, and the error is ErrBusy: it still serves what is open, until
// that is closed or the process ends. To unmount what has gone is no error.
func (s *Server) Unmount() error {
	m, ok, err := mountAt(s.dir)
	if err != nil {
		return err
	}
	if ok && m.dev == s.dev {
		if err := unmount(s.dir); err != nil {
			return err
		}
		s.stop()
	}
	s.Wait()
	return nil
}
