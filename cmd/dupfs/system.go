package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// notify tells systemd how a service of Type=notify fares, if it runs us.
func (e *environ) notify(state string) error {
	name := e.getenv("NOTIFY_SOCKET")
	if name == "" || e.getenv(readyVariable) != "" { // what is in the background is not the service
		return nil
	}
	if name[0] == '@' { // an abstract socket
		name = "\x00" + name[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	defer conn.Close()
	_, err = conn.Write([]byte(state))
	return err
}

// showTime is how long the file manager has to say that it cannot be shown.
const showTime = 5 * time.Second

// showInFileManager opens a directory in the file manager of the desktop. It may be
// the file manager itself that is begun, which stays: that is not waited for.
func (e *environ) showInFileManager(dir string) {
	program := "xdg-open"
	if runtime.GOOS == "darwin" {
		program = "open"
	}
	var said string
	ended := make(chan error, 1)
	cmd := exec.Command(program, dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it is no part of this command
	out, err := os.CreateTemp("", "dupfs-open")          // a pipe would break when this command ends
	if err == nil {
		defer out.Close()
		_ = os.Remove(out.Name())
		cmd.Stdout, cmd.Stderr = out, out
	}
	if err = cmd.Start(); err == nil {
		go func() { ended <- cmd.Wait() }()
		select {
		case err = <-ended:
		case <-time.After(showTime):
		}
		if err != nil && out != nil {
			text := make([]byte, 1000)
			n, _ := out.ReadAt(text, 0)
			said = strings.TrimSpace(string(text[:n]))
		}
	}
	if err != nil {
		e.warn("%s %s: %v %s", program, printable(dir), err, said)
	}
}

// isMountHelper reports whether a program name is one by which mount(8) calls.
func isMountHelper(name string) bool {
	return slices.Contains([]string{"mount.dupfs", "mount.fuse.dupfs"}, filepath.Base(name))
}

// ignoredMountOptions are for mount(8), systemd and the kernel, or hold always.
var ignoredMountOptions = []string{
	"defaults", "ro", "rw", "nosuid", "nodev", "exec", "noexec", "auto", "noauto", "user", "users", "nouser", "owner", "group",
	"nofail", "_netdev", "atime", "noatime", "relatime", "async", "sync", "dirsync", "dev", "suid", "default_permissions", "comment",
}

// mountHelperArgs turns the arguments that mount(8) gives a helper, WHAT WHERE
// [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE], into those of dupfs mount: an
// option name=value or name is --name, with dashes for underscores. A comma
// within a value has a backslash before it.
func mountHelperArgs(args []string) ([]string, error) {
	out := []string{"mount"}
	var positionals []string
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		switch {
		case arg == "-o" || arg == "-t" || arg == "-N":
			if len(args) == 0 {
				return nil, usagef("%s: a value is missing", arg)
			}
			if arg == "-o" {
				out = append(out, mountHelperOptions(args[0])...)
			}
			args = args[1:]
		case arg == "-f": // as mount(8) means it: do everything but mount
			return []string{"--version"}, nil
		case strings.HasPrefix(arg, "-o"):
			out = append(out, mountHelperOptions(arg[2:])...)
		case strings.HasPrefix(arg, "-"): // -s, -n, -v
		default:
			positionals = append(positionals, arg)
		}
	}
	return append(append(out, "--"), positionals...), nil
}

// mountHelperOptions turns a list of options into flags.
func mountHelperOptions(list string) []string {
	var flags []string
	for _, o := range splitOptions(list) {
		name, value, has := strings.Cut(o, "=")
		if name == "" || strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-") || slices.Contains(ignoredMountOptions, name) {
			continue
		}
		flag := "--" + strings.ReplaceAll(name, "_", "-")
		if has {
			flag += "=" + value
		}
		flags = append(flags, flag)
	}
	return flags
}

// splitOptions splits at commas that have no backslash before them.
func splitOptions(list string) []string {
	var all []string
	var b strings.Builder
	for i := 0; i < len(list); i++ {
		switch {
		case list[i] == '\\' && i+1 < len(list) && (list[i+1] == ',' || list[i+1] == '\\'):
			i++
			b.WriteByte(list[i])
		case list[i] == ',':
			all = append(all, b.String())
			b.Reset()
		default:
			b.WriteByte(list[i])
		}
	}
	return append(all, b.String())
}
