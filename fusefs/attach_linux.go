package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// server makes the server of what attach returned.
func (s *Server) server(f *fileSystem, fd int, o *fuse.MountOptions) (*fuse.Server, error) {
	return fuse.NewServer(f, fmt.Sprintf("/dev/fd/%d", fd), o)
}

// attach mounts at dir and returns the file through which the kernel asks.
// Root mounts itself; others have fusermount3 do it, which is setuid.
func attach(dir string, o *Options) (fd int, err error) {
	if os.Geteuid() == 0 {
		return attachDirect(dir, o)
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return -1, &os.PathError{Op: "mount on", Path: dir, Err: err}
	}
	return attachHelper(dir, o)
}

func attachDirect(dir string, o *Options) (int, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	opts := append([]string{
		fmt.Sprintf("fd=%d", fd), fmt.Sprintf("rootmode=%o", unix.S_IFDIR),
		fmt.Sprintf("user_id=%d", os.Geteuid()), fmt.Sprintf("group_id=%d", os.Getegid()),
		fmt.Sprintf("max_read=%d", maxRead),
	}, access(o)...)
	err = unix.Mount(o.Source, dir, "fuse."+subtype, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, strings.Join(opts, ","))
	if err != nil {
		unix.Close(fd)
		return -1, &os.PathError{Op: "mount on", Path: dir, Err: err}
	}
	return fd, nil
}

// attachHelper has fusermount3 mount. It sends the file over a socket whose
// number it finds in its environment.
func attachHelper(dir string, o *Options) (int, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socketpair", err)
	}
	local, remote := os.NewFile(uintptr(pair[0]), "fusermount"), os.NewFile(uintptr(pair[1]), "fusermount")
	defer local.Close()
	opts := append([]string{"ro", "nosuid", "nodev", "fsname=" + escape(o.Source), "subtype=" + subtype,
		fmt.Sprintf("max_read=%d", maxRead)}, access(o)...)
	cmd, stderr, err := fusermount("-o", strings.Join(opts, ","), "--", dir)
	if err == nil {
		cmd.Env = append(cmd.Env, "_FUSE_COMMFD=3")
		cmd.ExtraFiles = []*os.File{remote}
		err = cmd.Run()
	}
	remote.Close()
	if err != nil {
		return -1, helperError(err, stderr)
	}
	return receiveFile(local)
}

// receiveFile receives an open file over a socket.
func receiveFile(f *os.File) (int, error) {
	c, err := net.FileConn(f)
	if err != nil {
		return -1, err
	}
	defer c.Close()
	conn := c.(*net.UnixConn)
	data, oob := make([]byte, 4), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil {
		return -1, fmt.Errorf("fusermount3: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("fusermount3 sent no file (%d messages, %v)", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("fusermount3 sent no file (%d, %v)", len(fds), err)
	}
	unix.CloseOnExec(fds[0])
	return fds[0], nil
}

// fusermount prepares a call of the setuid helper and a buffer for what it
// complains of.
func fusermount(args ...string) (*exec.Cmd, *bytes.Buffer, error) {
	stderr := new(bytes.Buffer)
	path, err := exec.LookPath("fusermount3")
	if errors.Is(err, exec.ErrNotFound) {
		path, err = exec.LookPath("/bin/fusermount3")
	}
	if err != nil {
		return nil, stderr, fmt.Errorf("fusermount3 is not installed: %w", exec.ErrNotFound)
	}
	cmd := exec.Command(path, args...)
	cmd.Stderr = stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd, stderr, nil
}

func helperError(err error, stderr *bytes.Buffer) error {
	if said := strings.TrimSpace(stderr.String()); said != "" {
		return errors.New(strings.ReplaceAll(said, "\n", "; ")) // begins with "fusermount3:"
	}
	return err
}

// release unmounts dir if nobody uses it; else it is EBUSY.
func release(dir string) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
	}
	cmd, stderr, err := fusermount("-u", "--", dir)
	if err != nil {
		return err
	}
	if err := cmd.Run(); err != nil {
		if strings.Contains(stderr.String(), "busy") {
			return unix.EBUSY
		}
		return helperError(err, stderr)
	}
	return nil
}

// detach takes a mount away from dir whoever uses it. It lives on until nobody
// does.
func detach(dir string) error {
	if os.Geteuid() == 0 {
		return unix.Unmount(dir, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	cmd, stderr, err := fusermount("-u", "-z", "--", dir)
	if err != nil {
		return err
	}
	if err := cmd.Run(); err != nil {
		return helperError(err, stderr)
	}
	return nil
}
