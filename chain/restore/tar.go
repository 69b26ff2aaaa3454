package restore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"dupfs/chain"
	"dupfs/chain/internal/tarstream"
)

// TarOptions of Tar. The zero value is useful.
type TarOptions struct {
	Progress *Progress // counts what was done, if not nil
	// Warn, if not nil, is told of every entry that is not, or not as it was,
	// in the stream. It is called by one goroutine at a time.
	Warn func(chain.Path, error)
}

const (
	// tarRecord is the unit of a stream's length, as tar has it.
	tarRecord = 20 * 512
	// maxSmall is the largest file that is read before its header is written.
	maxSmall = 1 << 20
	// tarAhead is how many entries are prepared ahead of the stream: so many
	// small files are in memory.
	tarAhead = 16
	// maxTarLinks bounds the files whose further names are awaited. The names
	// of others become copies.
	maxTarLinks = 1 << 18
)

// Tar writes path of a tree, and what is below it, as a tar stream in the pax
// format that GNU tar, bsdtar and star read, with all that is known of the
// entries: times in nanoseconds, extended attributes, ACLs, hard links, holes.
// The names are the paths in the archive, beginning with "./".
//
// A path that the tree does not have is fs.ErrNotExist. An entry that cannot
// be read is reported and counted in Report.Failed, and is not in the stream;
// of a file over 1 MiB the header may have been written before that turned
// out: then zeros take the place of what is missing, as a stream cannot take
// anything back. Other errors, those of w among them, end the stream.
func Tar(ctx context.Context, f chain.Forest, t chain.Tree, path chain.Path, w io.Writer, o TarOptions) (*Report, error) {
	if o.Progress == nil {
		o.Progress = new(Progress)
	}
	r := &tarRun{
		forest: f, tree: t, o: o, out: tarstream.NewWriter(w), streamer: newStreamer(newBuffers()),
		items: make(chan *tarItem, tarAhead), links: map[uint64]*tarLink{},
	}
	n, err := lookup(ctx, t, path)
	if err != nil {
		return &Report{}, err
	}
	n.Path = path
	err = r.run(ctx, n)
	if err == nil {
		err = r.out.Close(tarRecord)
	}
	return &r.report, err
}

// tarRun is the state of one stream.
type tarRun struct {
	forest   chain.Forest
	tree     chain.Tree
	o        TarOptions
	out      *tarstream.Writer
	streamer *streamer
	items    chan *tarItem // in the order of the stream
	links    map[uint64]*tarLink
	report   Report
}

// tarItem is an entry on its way into the stream.
type tarItem struct {
	node  chain.Node
	ready chan struct{} // closed when the following are set
	whole bool          // small has the data of the file, without its holes
	small []byte
	err   error
}

// tarLink is a file in the stream of which more names are to come.
type tarLink struct {
	name string
	left uint32
}

// run walks ahead of the stream and writes it.
func (r *tarRun) run(ctx context.Context, top chain.Node) error {
	ctx, cancel := context.WithCancel(ctx)
	var walkErr error
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(r.items)
		walkErr = r.walk(ctx, top, map[uint64]bool{})
	})
	var err error
	for it := range r.items {
		<-it.ready
		if err == nil {
			if err = r.write(ctx, it); err != nil {
				cancel()
			}
		}
	}
	cancel()
	wg.Wait()
	if err != nil {
		return err
	}
	return walkErr
}

// walk sends the entries from n on.
func (r *tarRun) walk(ctx context.Context, n chain.Node, above map[uint64]bool) error {
	if err := r.send(ctx, n, nil); err != nil || n.Type != chain.Dir {
		return err
	}
	above[n.Dir] = true
	defer delete(above, n.Dir)
	p := pager{tree: r.tree, dir: n.Dir}
	for {
		c, ok, err := p.Next(ctx)
		if err != nil && ctx.Err() == nil {
			return r.send(ctx, n, err)
		}
		if err != nil || !ok {
			return err
		}
		c.Path = n.Path.Join(c.Name)
		err = checkName(c.Name)
		switch {
		case err != nil:
		case above[c.Dir] && c.Type == chain.Dir:
			err = errors.New("directory lies within itself")
		case len(above) >= chain.MaxDepth:
			err = errors.New("directory lies too deep")
		}
		if err != nil {
			err = r.send(ctx, c, err)
		} else {
			err = r.walk(ctx, c, above)
		}
		if err != nil {
			return err
		}
	}
}

// send puts an entry, or what is wrong with it, into the queue, and begins to
// read it if it is a small file. No more are read at a time than the queue
// holds.
func (r *tarRun) send(ctx context.Context, n chain.Node, err error) error {
	it := &tarItem{node: n, ready: make(chan struct{}), err: err}
	if err == nil && n.Type == chain.File && n.Size <= maxSmall {
		go r.load(ctx, it)
	} else {
		close(it.ready)
	}
	select {
	case r.items <- it:
		return nil
	case <-ctx.Done():
		<-it.ready
		return ctx.Err()
	}
}

// load reads a small file.
func (r *tarRun) load(ctx context.Context, it *tarItem) {
	defer close(it.ready)
	c, err := r.open(ctx, &it.node)
	if err != nil {
		it.err = err
		return
	}
	if it.node.Size > maxSmall { // it was not known
		return
	}
	b := make([]byte, it.node.Size)
	n, err := c.ReadAt(ctx, b, 0)
	switch {
	case n == len(b):
	case err == nil || errors.Is(err, io.EOF):
		it.err = io.ErrUnexpectedEOF
		return
	default:
		it.err = err
		return
	}
	if it.node.HasHash && sha256.Sum256(b) != it.node.Hash {
		it.err = errHash(&it.node)
		return
	}
	it.whole = true
	data, _ := dataOf(it.node.Data, it.node.Size)
	for _, x := range data {
		it.small = append(it.small, b[x.Off:x.Off+x.Len]...)
	}
	r.o.Progress.Bytes.Add(int64(len(it.small)))
}

func errHash(n *chain.Node) error {
	return chain.Corrupt(n.Path.String(), "content does not have its SHA-256")
}

// open opens the content of a file and learns its size.
func (r *tarRun) open(ctx context.Context, n *chain.Node) (chain.Content, error) {
	c, err := r.forest.OpenVersion(ctx, n.Version)
	if err != nil {
		return nil, err
	}
	if size := c.Size(); size < 0 || n.Size >= 0 && n.Size != size {
		return nil, chain.Corrupt(n.Path.String(), fmt.Sprintf("size is %d in one place, %d in another", n.Size, size))
	}
	n.Size = c.Size()
	return c, nil
}

// copy writes the data of a content, without its holes, and checks its hash if
// that is known.
func (r *tarRun) copy(ctx context.Context, n *chain.Node, c chain.Content, w io.Writer) error {
	data, holes := dataOf(n.Data, c.Size())
	var sum hash.Hash
	if n.HasHash && holes <= maxHoles {
		sum = sha256.New()
	}
	var at int64
	for _, x := range data {
		if err := hashZeros(ctx, sum, x.Off-at); err != nil {
			return err
		}
		err := r.streamer.read(ctx, c, x.Off, x.Off+x.Len, func(_ int64, p []byte) error {
			if sum != nil {
				sum.Write(p)
			}
			_, err := w.Write(p)
			r.o.Progress.Bytes.Add(int64(len(p)))
			return err
		})
		if err != nil {
			return err
		}
		at = x.Off + x.Len
	}
	if err := hashZeros(ctx, sum, c.Size()-at); err != nil {
		return err
	}
	if sum != nil && [32]byte(sum.Sum(nil)) != n.Hash {
		return errHash(n)
	}
	return nil
}

// write writes an entry. It returns an error only if the stream must end.
func (r *tarRun) write(ctx context.Context, it *tarItem) error {
	if it.err != nil {
		return r.fail(ctx, it.node.Path, it.err)
	}
	n := &it.node
	linked := n.LinkGroup != 0 && n.Nlink > 1 && n.Type != chain.Dir
	if linked {
		if done, err := r.again(n); done || err != nil {
			return err
		}
	}
	err := r.member(ctx, it)
	var lost *lostError
	switch {
	case errors.As(err, &lost):
		return r.fail(ctx, n.Path, lost.error)
	case err != nil:
		return err
	}
	if linked && len(r.links) < maxTarLinks {
		r.links[n.Version] = &tarLink{tarName(n), n.Nlink - 1}
	}
	r.o.Progress.Entries.Add(1)
	switch n.Type {
	case chain.File:
		r.report.Files++
		r.o.Progress.Files.Add(1)
		r.report.Bytes += n.Size
	case chain.Dir:
		r.report.Dirs++
	default:
		r.report.Others++
	}
	return nil
}

// lostError is about an entry; the stream can go on.
type lostError struct{ error }

// again writes an entry as a further name of one that is in the stream.
func (r *tarRun) again(n *chain.Node) (bool, error) {
	first := r.links[n.Version]
	if first == nil {
		return false, nil
	}
	if first.left--; first.left == 0 {
		delete(r.links, n.Version)
	}
	h := tarHeader(n)
	h.Type, h.Link = tarstream.TypeLink, first.name
	if _, err := r.out.WriteHeader(h); err != nil {
		return true, err
	}
	r.report.Others++
	r.o.Progress.Entries.Add(1)
	return true, nil
}

// member writes the header and the body of an entry.
func (r *tarRun) member(ctx context.Context, it *tarItem) error {
	n := &it.node
	if n.Type != chain.File {
		return r.header(tarHeader(n))
	}
	var c chain.Content
	if !it.whole {
		var err error
		if c, err = r.open(ctx, n); err != nil {
			return &lostError{err}
		}
	}
	h := tarHeader(n)
	h.Size = n.Size
	var sparse []byte
	if data, holes := dataOf(n.Data, n.Size); holes > 0 {
		sparse = sparseMap(data, n.Size)
		h.Size = int64(len(sparse)) + n.Size - holes
		makeSparse(h, n.Size)
	}
	if err := r.header(h); err != nil {
		return err
	}
	if _, err := r.out.Write(sparse); err != nil {
		return err
	}
	if c == nil {
		_, err := r.out.Write(it.small)
		return err
	}
	body := &tarBody{w: r.out, left: h.Size - int64(len(sparse))}
	err := r.copy(ctx, n, c, body)
	if body.err != nil {
		return body.err
	}
	if err == nil {
		return nil
	}
	missing := body.left
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if werr := body.zeros(); werr != nil {
		return werr
	}
	if missing > 0 {
		err = fmt.Errorf("%w; the stream has zeros in place of its last %d bytes", err, missing)
	}
	return &lostError{err}
}

// header begins a member.
func (r *tarRun) header(h *tarstream.Header) error {
	before := r.out.Off()
	_, err := r.out.WriteHeader(h)
	if err != nil && r.out.Off() == before && r.out.Err() == nil {
		return &lostError{err} // it does not fit into a header
	}
	return err
}

// tarBody is the body of a member being written.
type tarBody struct {
	w    io.Writer
	left int64
	err  error // of w
}

func (b *tarBody) Write(p []byte) (int, error) {
	n, err := b.w.Write(p)
	b.left -= int64(n)
	if err != nil {
		b.err = err
	}
	return n, err
}

// zeros writes what is left of the body as zeros.
func (b *tarBody) zeros() error {
	zeros := make([]byte, 64<<10)
	for b.left > 0 {
		if _, err := b.Write(zeros[:min(b.left, int64(len(zeros)))]); err != nil {
			return err
		}
	}
	return nil
}

// fail reports an entry that is not in the stream as it was.
func (r *tarRun) fail(ctx context.Context, path chain.Path, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.report.Failed++
	r.o.Progress.Entries.Add(1)
	if r.o.Warn != nil {
		r.o.Warn(path, err)
	}
	return nil
}
