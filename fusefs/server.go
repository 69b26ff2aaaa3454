package fusefs

import (
	"errors"

	"dupfs/chain"
)

// Server serves one mount.
type Server struct {
	dir string
}

// Mount mounts f at dir and serves it until it is unmounted; it returns when
// the mount can be used. A dead mount left at dir is replaced. It fails with
// fs.ErrNotExist, ErrNotDir, ErrNotEmpty or ErrMounted, wrapped with dir, if
// dir is not fit, and with the error of f.Points if the archive cannot be read.
func Mount(f chain.Forest, dir string, o Options) (*Server, error) {
	return nil, errors.New("mount: not yet")
}

// Dir returns the absolute path of the mount point.
func (s *Server) Dir() string { return s.dir }

// Wait returns when the mount has gone, whoever unmounted it, and all
// requests have ended.
func (s *Server) Wait() {}

// Unmount unmounts as the function Unmount does. Unless it was in use, it
// returns when all requests have ended.
func (s *Server) Unmount() error { return nil }

// Unmount unmounts what is mounted at dir, live or dead. If it is in use it
// is detached all the same, and the error is ErrBusy; with nothing there
// it is ErrNotMounted.
func Unmount(dir string) error { return errors.New("unmount: not yet") }

// IsDead reports whether a mount is left at dir whose serving process has
// ended.
func IsDead(dir string) bool { return false }
