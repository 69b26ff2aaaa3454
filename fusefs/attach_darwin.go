package fusefs

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Here macFUSE mounts, and go-fuse calls it.

// attach does nothing yet: server mounts.
func attach(string, *Options) (fd int, err error) { return -1, nil }

// server mounts and makes the server.
func (s *Server) server(f *fileSystem, _ int, o *fuse.MountOptions) (*fuse.Server, error) {
	o.FsName = f.opts.Source
	o.Options = append([]string{"ro", "nosuid", "nodev", "noappledouble", "volname=dupfs"}, access(&f.opts)...)
	server, err := fuse.NewServer(f, s.dir, o)
	if err != nil {
		return nil, fmt.Errorf("macFUSE: %w", err)
	}
	if m, ok, err := mountAt(s.dir); err == nil && ok {
		s.dev = m.dev
	}
	return server, nil
}

// release unmounts dir if nobody uses it; else it is EBUSY.
func release(dir string) error { return unix.Unmount(dir, 0) }

// detach takes a mount away from dir whoever uses it.
func detach(dir string) error {
	out, err := exec.Command("/sbin/umount", "-f", dir).CombinedOutput()
	if err != nil {
		return errors.Join(err, errors.New(strings.TrimSpace(string(out))))
	}
	return nil
}
