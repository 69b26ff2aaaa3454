package par2

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"dupfs/backends"
	"dupfs/internal/scratch"
)

const (
	// memory is what par2 may take for its buffers, in MiB.
	memory = 64
	// small files, in bytes, get recovery files that can replace them
	// altogether. Manifests are such files.
	small = 64 << 10
	// A file is recovered in blocks: of blockSize bytes, if that makes neither
	// less than minBlocks nor more than maxBlocks of them. Many blocks heal
	// damage at many places; the time that par2 takes grows with them.
	blockSize, minBlocks, maxBlocks = 4 << 10, 20, 500
	// par2 is given up when it takes longer than patience and what it needs
	// for this many bytes a second.
	patience, slowest = 10 * time.Minute, 128 << 10
)

// work is a file on its way through par2: a directory of its own.
type work struct {
	scratch   *scratch.Dir
	dir, name string
	file      *os.File
	length    int64
	recovery  []string // names, NAME.par2 first
}

// work makes the directory.
func (b *backend) work(name string) (*work, error) {
	if name != filepath.Base(name) {
		return nil, fmt.Errorf("%q is no name of a file", name)
	}
	scratch, err := scratch.New(b.o.TempDir, "dupfs-par2-")
	if err != nil {
		return nil, fmt.Errorf("temporary directory: %w", err)
	}
	return &work{scratch: scratch, dir: scratch.Path, name: name}, nil
}

func (w *work) path(name string) string { return filepath.Join(w.dir, name) }

func (w *work) size(name string) int64 {
	fi, err := os.Stat(w.path(name))
	if err != nil {
		return -1
	}
	return fi.Size()
}

func (w *work) close() {
	if w.file != nil {
		w.file.Close()
	}
	_ = w.scratch.Close()
}

// cancelled is a reader that ends with its context.
type cancelled struct {
	ctx context.Context
	r   io.Reader
}

func (c cancelled) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// fill writes what r holds to a file of the directory.
func (w *work) fill(ctx context.Context, name string, r io.Reader) (*os.File, int64, error) {
	f, err := os.OpenFile(w.path(name), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, 0, err
	}
	n, err := io.Copy(f, cancelled{ctx, r})
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, n, nil
}

// create takes the content of a file and makes recovery files for it. An empty
// file has none.
func (b *backend) create(ctx context.Context, name string, r io.Reader) (*work, error) {
	if err := b.ready(); err != nil {
		return nil, err
	}
	if len(name) < 2 || strings.ContainsAny(name, "*?") {
		return nil, errors.New("par2 cannot protect a file of that name: it must have two letters, and no * or ?")
	}
	w, err := b.work(name)
	if err != nil {
		return nil, err
	}
	if w.file, w.length, err = w.fill(ctx, name, r); err == nil && w.length > 0 {
		err = b.run(ctx, w.length, append(b.createArgs(w.length), w.path(name))...)
	}
	if err == nil {
		err = w.collect()
	}
	if err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

// createArgs are what par2 is told of a file of n bytes.
func (b *backend) createArgs(n int64) []string {
	redundancy := b.o.Redundancy
	if n <= small {
		redundancy = 100
	}
	args := []string{"create", "-q", "-q"}
	for _, a := range []string{
		"-r" + strconv.Itoa(redundancy), "-n" + strconv.Itoa(b.o.Volumes), "-m" + strconv.Itoa(memory),
		"-b" + strconv.FormatInt(min(max(n/blockSize, minBlocks), maxBlocks, max(n/4, 1)), 10),
	} {
		if !b.given(a[:2]) {
			args = append(args, a)
		}
	}
	return append(args, b.o.Args...)
}

// given reports whether the user's options have one, or another one that par2
// does not take together with it.
func (b *backend) given(option string) bool {
	others := map[string]string{"-b": "-s", "-r": "-c", "-n": "-l"}
	return slices.ContainsFunc(b.o.Args, func(a string) bool {
		return strings.HasPrefix(a, option) || others[option] != "" && strings.HasPrefix(a, others[option])
	})
}

// collect finds the recovery files that par2 made.
func (w *work) collect() error {
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch {
		case e.Name() == w.name:
		case fileOf(e.Name()) == w.name:
			w.recovery = append(w.recovery, e.Name())
		default:
			return fmt.Errorf("par2 made %q, which is no recovery file", e.Name())
		}
	}
	slices.SortFunc(w.recovery, shorter)
	if len(w.recovery) == 0 && w.length > 0 {
		return errors.New("par2 made no recovery files")
	}
	return nil
}

// ErrProgram says that the program par2 is not there.
var ErrProgram = errors.New("the program par2 is not installed")

func (b *backend) ready() error {
	if _, err := exec.LookPath(b.o.Program); err != nil {
		return fmt.Errorf("%w (%w)", ErrProgram, err)
	}
	return nil
}

// run runs par2 on a file of n bytes.
func (b *backend) run(ctx context.Context, n int64, args ...string) error {
	select {
	case b.running <- struct{}{}:
		defer func() { <-b.running }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	limit := patience + time.Duration(n/slowest)*time.Second
	sub, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(sub, b.o.Program, args...)
	cmd.Env = environment()
	cmd.WaitDelay = 5 * time.Second
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case sub.Err() != nil:
		return fmt.Errorf("par2 did not end within %v", limit)
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w (%w)", ErrProgram, err)
	}
	return &runError{err, out.text()}
}

// environment is what par2 is told of ours: no secret. Its threads wait for each
// other, and would spin meanwhile without OMP_WAIT_POLICY.
func environment() []string {
	env := []string{"OMP_WAIT_POLICY=passive", "LC_ALL=C"}
	for _, name := range []string{"PATH", "HOME", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// runError says that par2 failed, and in its words why.
type runError struct {
	err  error
	text string
}

func (e *runError) Error() string {
	if e.text == "" {
		return fmt.Sprintf("par2: %v", e.err)
	}
	return fmt.Sprintf("par2: %v: %s", e.err, e.text)
}

func (e *runError) Unwrap() error { return e.err }

// code is the exit status, -1 if there is none.
func (e *runError) code() int {
	var exit *exec.ExitError
	if errors.As(e.err, &exit) {
		return exit.ExitCode()
	}
	return -1
}

// tail keeps the end of what is written.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	const most = 2 << 10
	t.b = append(t.b, p...)
	if len(t.b) > most {
		t.b = append(t.b[:0], t.b[len(t.b)-most:]...)
	}
	return len(p), nil
}

// text is the last line that says something.
func (t *tail) text() string {
	lines := strings.FieldsFunc(string(t.b), func(r rune) bool { return r == '\n' || r == '\r' })
	for _, l := range slices.Backward(lines) {
		if l = strings.TrimSpace(l); l != "" {
			return l
		}
	}
	return ""
}

// repair fetches a file and its recovery files and makes it whole.
func (b *backend) repair(ctx context.Context, w *work, names []string) (*os.File, error) {
	there, err := w.fetch(ctx, b.b, w.name)
	if err != nil {
		return nil, err
	}
	var d description
	for _, n := range names {
		ok, err := w.fetch(ctx, b.b, n)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		w.recovery = append(w.recovery, n)
		if err := d.read(w.path(n), w.name); err != nil {
			return nil, err
		}
		if there && d.found {
			same, err := d.fits(w.path(w.name))
			if err != nil {
				return nil, err
			}
			if same {
				return nil, fmt.Errorf("%s: %w", w.name, backends.ErrIntact)
			}
		}
	}
	if !d.found {
		return nil, fmt.Errorf("its recovery files (%s) are damaged, too", strings.Join(names, ", "))
	}
	if err := b.ready(); err != nil {
		return nil, err
	}
	if err := b.run(ctx, d.length, "repair", "-q", "-q", "-m"+strconv.Itoa(memory), w.path(w.recovery[0])); err != nil {
		return nil, unrepaired(err)
	}
	same, err := d.fits(w.path(w.name))
	if err != nil {
		return nil, err
	}
	if !same {
		return nil, errors.New("what par2 made of it is not what was stored")
	}
	return os.Open(w.path(w.name))
}

// unrepaired says in words why par2 could not repair.
func unrepaired(err error) error {
	var r *runError
	if errors.As(err, &r) && r.code() == 2 {
		return errors.New("it is damaged beyond what its recovery files can repair")
	}
	return err
}

// fetch copies a stored file to the directory; false if there is none.
func (w *work) fetch(ctx context.Context, b backends.Backend, name string) (bool, error) {
	body, err := b.Open(ctx, name, 0, -1)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	f, _, err := w.fill(ctx, name, body)
	if err := errors.Join(err, body.Close()); err != nil {
		if f != nil {
			f.Close()
		}
		return false, fmt.Errorf("get %s: %w", name, err)
	}
	return true, f.Close()
}

// shorter puts NAME.par2 before NAME.volN+M.par2.
func shorter(x, y string) int {
	if len(x) != len(y) {
		return len(x) - len(y)
	}
	return strings.Compare(x, y)
}

// description is what recovery files say of the file that they are of.
type description struct {
	found  bool
	md5    [md5.Size]byte
	length int64
}

// read looks through a recovery file for packets that describe a file. They
// must describe no other one than name: par2 would write that as well, to
// wherever its name leads.
func (d *description) read(path, name string) error {
	return packets(path, func(kind string, body []byte) error {
		switch kind {
		case kindFile:
			const fixed = 16 + 16 + 16 + 8
			if len(body) < fixed {
				return nil
			}
			if got := string(bytes.TrimRight(body[fixed:], "\x00")); got != name {
				return fmt.Errorf("its recovery files are of another file (%q)", got)
			}
			d.found = true
			copy(d.md5[:], body[16:32])
			d.length = int64(le.Uint64(body[48:]))
		case kindUnicode:
			return errors.New("its recovery files are of a kind that is not made here")
		}
		return nil
	})
}

// fits reports whether a file is the one described. A file that is not there
// is not.
func (d *description) fits(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	h := md5.New()
	n, err := io.Copy(h, f)
	return n == d.length && bytes.Equal(h.Sum(nil), d.md5[:]), err
}
