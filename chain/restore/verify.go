package restore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dupfs/chain"
)

// maxChecks is the number of entries whose outcome may wait for those before.
const maxChecks = 64

// verify is the state of one verification.
type verify struct {
	forest  chain.Forest
	tree    chain.Tree
	o       VerifyOptions
	walk    bool       // what is in the target counts
	compare bool       // and is compared
	at      chain.Path // what is verified: texts name paths below it
	owners  *owners
	rep     VerifyReport

	work  chan *check // to the workers
	order chan *check // all of them, in path order
}

// check is one path to verify.
type check struct {
	path  chain.Path
	shown chain.Path // as texts have it
	node  chain.Node // of the archive
	// again says that the path had a check before: this is about its listing.
	again bool
	file  *os.File // open, if its content is to be compared
	read  bool     // the content in the archive is read
	done  chan struct{}

	text  string // the difference, "" if there is none
	err   error
	bytes int64 // read from the archive
}

// Verify reads every file of path at a tree wholly, which authenticates every
// byte, and checks its hash if that is known. With CompareData, and if target is
// not "", it also compares the tree with target, which stands for path: what
// exists, types, modes, owners, times, links, device numbers, content, and the
// extended attributes that the archive has; the texts of differences name paths
// as seen from path. Without CompareData, what is in target is merely counted.
//
// What differs or cannot be read is told and counted, and the rest goes on: look
// at the report. An error is what ends it all: a path that the tree does not have
// (fs.ErrNotExist), or the end of ctx.
func Verify(ctx context.Context, f chain.Forest, t chain.Tree, path chain.Path, target string, o VerifyOptions) (*VerifyReport, error) {
	o.Workers = workers(o.Workers)
	if o.Progress == nil {
		o.Progress = new(Progress)
	}
	if o.Location == nil {
		o.Location = time.Local
	}
	v := &verify{
		forest: f, tree: t, o: o, walk: target != "", compare: o.CompareData && target != "", at: path,
		owners: newOwners(o.NumericOwner),
		work:   make(chan *check), order: make(chan *check, maxChecks),
	}
	n, err := lookup(ctx, t, path)
	if err != nil {
		return &v.rep, err
	}
	extra := newBuffers()
	var wg, emitter sync.WaitGroup
	for range o.Workers {
		wg.Go(func() { v.worker(ctx, newStreamer(extra)) })
	}
	emitter.Go(v.emit)
	err = v.top(ctx, n, path, target)
	close(v.work)
	close(v.order)
	wg.Wait()
	emitter.Wait()
	return &v.rep, err
}

// emit reports what comes, in order.
func (v *verify) emit() {
	for c := range v.order {
		<-c.done
		if !c.again {
			v.rep.Compared++
			v.o.Progress.Entries.Add(1)
		}
		v.rep.Bytes += c.bytes
		if c.read {
			v.rep.Files++
			v.o.Progress.Files.Add(1)
		}
		if c.err != nil {
			v.rep.Failed++
			if v.o.Warn != nil {
				v.o.Warn(c.path, c.err)
			}
		}
		if c.text != "" {
			v.rep.Differences++
			if v.o.Differ != nil {
				v.o.Differ(c.path, c.text)
			}
		}
	}
}

// send hands a check on; a regular file of the archive to a worker, too.
func (v *verify) send(ctx context.Context, c *check) error {
	c.done = make(chan struct{})
	c.read = c.node.Type == chain.File && (v.o.Wanted == nil || v.o.Wanted(c.node))
	if !c.read {
		close(c.done)
	}
	select {
	case v.order <- c:
	case <-ctx.Done():
		c.close()
		return ctx.Err()
	}
	if !c.read {
		return nil
	}
	select {
	case v.work <- c:
		return nil
	case <-ctx.Done():
		c.err = ctx.Err()
		c.close()
		close(c.done)
		return ctx.Err()
	}
}

// close closes the open file.
func (c *check) close() {
	if c.file != nil {
		c.file.Close()
	}
}

// worker reads files of the archive and compares them.
func (v *verify) worker(ctx context.Context, s *streamer) {
	buf := make([]byte, pieceLen)
	for c := range v.work {
		if err := v.read(ctx, s, c, buf); err != nil {
			c.err = errors.Join(c.err, err)
		}
		c.close()
		close(c.done)
	}
}

// read reads a file of the archive and compares it with c.file.
func (v *verify) read(ctx context.Context, s *streamer, c *check, buf []byte) error {
	content, err := v.forest.OpenVersion(ctx, c.node.Version)
	if err != nil {
		return err
	}
	size := content.Size()
	if size < 0 || c.node.Size >= 0 && size != c.node.Size {
		return chain.Corrupt(c.path.String(), fmt.Sprintf("size is %d in one place, %d in another", c.node.Size, size))
	}
	var sum hash.Hash
	if c.node.HasHash {
		sum = sha256.New()
	}
	same, diskErr := c.file != nil, error(nil)
	err = s.read(ctx, content, 0, size, func(off int64, p []byte) error {
		if sum != nil {
			sum.Write(p)
		}
		c.bytes += int64(len(p))
		v.o.Progress.Bytes.Add(int64(len(p)))
		if same {
			same, diskErr = equalAt(c.file, off, p, buf)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case sum != nil && [32]byte(sum.Sum(nil)) != c.node.Hash:
		return chain.Corrupt(c.path.String(), "content does not have its SHA-256")
	case diskErr != nil:
		return diskErr
	case c.file != nil && !same && c.text == "":
		c.text = differentData(c.shown)
	}
	return nil
}

// equalAt compares p with what f holds at off.
func equalAt(f *os.File, off int64, p, buf []byte) (bool, error) {
	n, err := f.ReadAt(buf[:len(p)], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, wrap("read", cause(err))
	}
	return n == len(p) && bytes.Equal(buf[:n], p), nil
}

// top verifies the entry at path against target.
func (v *verify) top(ctx context.Context, n chain.Node, path chain.Path, target string) error {
	if !v.walk {
		return v.entry(ctx, &n, nil, path, map[uint64]bool{})
	}
	if n.Type == chain.Symlink {
		return v.entry(ctx, &n, statAt(unix.AT_FDCWD, target), path, map[uint64]bool{})
	}
	real, err := resolve(target)
	if err != nil && v.compare {
		return err
	}
	return v.entry(ctx, &n, statAt(unix.AT_FDCWD, real), path, map[uint64]bool{})
}

// resolve follows symlinks at target, which is the caller's word. One that
// leads nowhere is a missing file.
func resolve(target string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(target, &st); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return target, nil
		}
		return "", &fs.PathError{Op: "stat", Path: target, Err: err}
	}
	return realPath(target)
}

// entry verifies n against d, either of which may be nil, and what is below.
func (v *verify) entry(ctx context.Context, n *chain.Node, d *onDisk, path chain.Path, above map[uint64]bool) error {
	c := &check{path: path, shown: v.below(path)}
	if n != nil {
		c.node = *n
	}
	if v.compare {
		v.comparison(c, n, d)
	}
	inTree := n != nil && n.Type == chain.Dir
	if inTree && above[n.Dir] {
		c.err, inTree = errors.New("directory lies within itself"), false
	}
	if inTree && len(above) >= chain.MaxDepth {
		c.err, inTree = errors.New("directory lies too deep"), false
	}
	fd := -1
	if d != nil && d.err == nil && d.typ == chain.Dir {
		var err error
		if fd, err = unix.Openat(d.dir, d.name, dirFlags|unix.O_NOFOLLOW, 0); err != nil && v.compare {
			c.err = errors.Join(c.err, wrap("open directory", err))
		}
	}
	if fd >= 0 {
		defer unix.Close(fd)
	}
	if err := v.send(ctx, c); err != nil || !inTree && fd < 0 {
		return err
	}
	if inTree {
		above[n.Dir] = true
		defer delete(above, n.Dir)
	}
	return v.children(ctx, n, inTree, fd, path, above)
}

// below returns a path as seen from what is verified.
func (v *verify) below(p chain.Path) chain.Path {
	if v.at == chain.Root {
		return p
	}
	return chain.Path(strings.TrimPrefix(string(p[len(v.at):]), "/"))
}

// children verifies what is in a directory on either side: of the tree if
// inTree, and the open one unless fd is -1.
func (v *verify) children(ctx context.Context, n *chain.Node, inTree bool, fd int, path chain.Path, above map[uint64]bool) error {
	names, err := namesOf(fd)
	if err != nil && v.compare {
		if err := v.send(ctx, &check{path: path, again: true, err: err}); err != nil {
			return err
		}
	}
	var p pager
	if inTree {
		p = pager{tree: v.tree, dir: n.Dir}
	}
	for inTree {
		k, ok, err := p.Next(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			if err := v.send(ctx, &check{path: path, again: true, err: err}); err != nil {
				return err
			}
		}
		if !ok {
			break
		}
		if names, err = v.newFiles(ctx, names, k.Name, fd, path, above); err != nil {
			return err
		}
		var d *onDisk
		if len(names) > 0 && names[0] == k.Name {
			d, names = v.look(fd, path, k.Name), names[1:]
		}
		if bad := checkName(k.Name); bad != nil {
			err = v.send(ctx, &check{path: path.Join(k.Name), err: bad})
		} else {
			err = v.entry(ctx, &k, d, path.Join(k.Name), above)
		}
		if err != nil {
			return err
		}
	}
	_, err = v.newFiles(ctx, names, "", fd, path, above)
	return err
}

// newFiles reports names up to before, or all for "", which the archive does
// not have, and returns the rest.
func (v *verify) newFiles(ctx context.Context, names []string, before string, fd int, path chain.Path, above map[uint64]bool) ([]string, error) {
	for len(names) > 0 && (before == "" || names[0] < before) {
		if d := v.look(fd, path, names[0]); d != nil {
			if err := v.entry(ctx, nil, d, path.Join(names[0]), above); err != nil {
				return nil, err
			}
		}
		names = names[1:]
	}
	return names, nil
}

// look finds out about a file of the directory; nil if it counts as not there.
func (v *verify) look(fd int, path chain.Path, name string) *onDisk {
	d := statAt(fd, name)
	if d == nil || d.err == nil && (d.typ == 0 || v.o.Skip != nil && v.o.Skip(path.Join(name), d.typ)) {
		return nil
	}
	return d
}

// namesOf returns the names in an open directory, sorted.
func namesOf(fd int) ([]string, error) {
	if fd < 0 {
		return nil, nil
	}
	dup, err := unix.Openat(fd, ".", dirFlags, 0)
	if err != nil {
		return nil, wrap("open directory", err)
	}
	f := os.NewFile(uintptr(dup), ".")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, wrap("read directory", cause(err))
	}
	slices.Sort(names)
	return names, nil
}
