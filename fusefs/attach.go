package fusefs

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// subtype names the kind of file system in the table of mounts, after "fuse.".
const subtype = "dupfs"

// maxRead is the largest read, in bytes, that the kernel may ask for.
const maxRead = 1 << 20

// access returns the options that say who may see the mount.
func access(o *Options) []string {
	if o.AllowOther {
		return []string{"allow_other", "default_permissions"}
	}
	return nil
}

// escape protects what separates mount options.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(s)
}

// Unmount unmounts what dupfs mounted at dir, live or dead. If it is in use it
// is detached all the same, and the error is ErrBusy; with nothing there it
// is ErrNotMounted.
func Unmount(dir string) error {
	real, err := resolve(dir)
	if err != nil {
		return err
	}
	m, ok, err := mountAt(real)
	if err != nil {
		return err
	}
	if !ok || !m.ours() {
		return fmt.Errorf("%s: %w", dir, ErrNotMounted)
	}
	return unmount(real)
}

// unmount tries for a moment, since a file that was closed just now may count
// as in use still.
func unmount(dir string) error {
	var err error
	for pause := 5 * time.Millisecond; pause < time.Second/2; pause *= 2 {
		if err = release(dir); err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
		time.Sleep(pause)
	}
	if err := detach(dir); err != nil {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return fmt.Errorf("%s: %w", dir, ErrBusy)
}
