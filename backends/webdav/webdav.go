// Package webdav stores archives in a collection of a WebDAV server, such as
// Nextcloud, Apache or nginx.
package webdav

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dupfs/backends"
	"dupfs/backends/web"
)

// Options say how to reach a server. The zero value is ready to use.
type Options struct {
	User, Password string
	// Header is sent with each request, as for what stands before the server.
	Header http.Header
	// Client speaks to the server; nil means web.NewClient.
	Client *http.Client
}

const (
	// tempPrefix begins the names of files that are not complete.
	tempPrefix = ".dupfs-tmp-"
	// staleAfter is the age at which such a file is what a crash left over. It
	// is generous, as it compares our clock with the server's.
	staleAfter = 48 * time.Hour
)

// Backend is a collection. It implements backends.Backend, Stater and
// Exclusive.
type Backend struct {
	base   url.URL // without a slash at the end of its path, and without user
	header http.Header
	client *http.Client
	auth   auth
	noMove atomic.Bool   // the server has no MOVE that works
	making chan struct{} // holds a token while collections are made: servers lock
	clean  sync.Once
}

// Open prepares access to a collection by its URL, http or https; the first
// Put makes it, with its parents, if it is missing. Nothing is asked yet.
func Open(base string, o Options) (*Backend, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, errors.New("webdav: not a url of the form https://host/path")
	}
	b := &Backend{header: o.Header, client: o.Client, making: make(chan struct{}, 1)}
	b.base = url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/")}
	b.auth.user, b.auth.password = o.User, o.Password
	if b.client == nil {
		if b.client, err = web.NewClient(web.Options{}); err != nil {
			return nil, err
		}
	}
	// A redirect would turn a PROPFIND or PUT into a GET.
	c, follow := *b.client, b.client.CheckRedirect
	c.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if req.Method != via[0].Method || follow == nil {
			return http.ErrUseLastResponse
		}
		return follow(req, via)
	}
	b.client = &c
	return b, nil
}

// Close releases connections.
func (b *Backend) Close() error {
	b.client.CloseIdleConnections()
	return nil
}

func (b *Backend) url(name string) string {
	u := b.base
	u.Path += "/" + name
	return u.String()
}

func check(op, name string) error {
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") || strings.HasPrefix(name, tempPrefix) {
		return fmt.Errorf("%s %q: not a name for a file in a directory", op, name)
	}
	return nil
}

// request is one request, and its body, which must be there for each try.
type request struct {
	op, name    string // for errors
	method, url string
	header      map[string]string
	body        func() io.Reader // nil: none
	size        int64
}

// do sends a request, logging in as the server asks for it. The status is not
// looked at, but for 401.
func (b *Backend) do(ctx context.Context, q request) (*http.Response, error) {
	if q.size > 0 && !b.auth.known() { // a large body is not sent to be refused
		resp, err := b.do(ctx, request{op: q.op, name: q.name, method: http.MethodOptions, url: b.url("")})
		if err != nil {
			return nil, err
		}
		web.Drain(resp)
	}
	for try := 0; ; try++ {
		var body io.Reader
		if q.body != nil {
			body = q.body()
		}
		r, err := http.NewRequestWithContext(ctx, q.method, q.url, body)
		if err != nil {
			return nil, web.Wrap(q.op, q.name, errors.New("the name makes no url"))
		}
		for k, v := range b.header {
			r.Header[k] = v
		}
		for k, v := range q.header {
			r.Header.Set(k, v)
		}
		if q.body != nil {
			if r.ContentLength = q.size; q.size == 0 {
				r.Body = http.NoBody
			}
		}
		answered := b.auth.authorize(r)
		resp, err := b.client.Do(r)
		if err != nil {
			return nil, web.Wrap(q.op, q.name, web.Net(ctx, err))
		}
		if resp.StatusCode != http.StatusUnauthorized || try >= 2 || !b.auth.learn(resp.Header, answered) {
			return resp, nil
		}
		web.Drain(resp)
	}
}

// run sends a request whose answer is in its status, which must be one of 2xx.
func (b *Backend) run(ctx context.Context, q request) error {
	resp, err := b.do(ctx, q)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 || resp.StatusCode == http.StatusMultiStatus {
		return refused(q, resp)
	}
	web.Drain(resp)
	return nil
}

// refused is web.Error, but for what WebDAV means by some statuses.
func refused(q request, resp *http.Response) error {
	err := web.Error(q.op, q.name, resp)
	var s *web.StatusError
	if errors.As(err, &s) && resp.StatusCode == http.StatusLocked {
		s.Err = backends.ErrTransient
	}
	return err
}

func status(err error) int {
	var s *web.StatusError
	if errors.As(err, &s) {
		return s.Status
	}
	return 0
}

// find asks for the properties of a resource ("" is the collection), and
// with depth 1 for those of what is in it.
func (b *Backend) find(ctx context.Context, op, name, depth string, f func(resource)) error {
	q := request{op: op, name: name, method: "PROPFIND", url: b.url(name), size: int64(len(propfind)),
		header: map[string]string{"Depth": depth, "Content-Type": "application/xml; charset=utf-8"},
		body:   func() io.Reader { return strings.NewReader(propfind) }}
	resp, err := b.do(ctx, q)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusMultiStatus {
		return refused(q, resp)
	}
	body := web.NewBody(ctx, name, resp.Body, resp.ContentLength)
	defer body.Close()
	if err := parseMultistatus(body, f); err != nil {
		if !errors.Is(err, backends.ErrTransient) && errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: %w", backends.ErrTransient, err)
		}
		return web.Wrap(op, name, err)
	}
	return nil
}

// each lists the files of the collection, incomplete ones, too.
func (b *Backend) each(ctx context.Context, f func(backends.File)) error {
	return b.find(ctx, "list", "", "1", func(r resource) {
		dir, name := path.Split(r.path)
		if !r.dir && name != "" && strings.TrimRight(dir, "/") == b.base.Path {
			f(backends.File{Name: name, Size: r.size, ModTime: r.modTime})
		}
	})
}

// List returns the files of the collection. A missing one lists as empty.
func (b *Backend) List(ctx context.Context) (files []backends.File, err error) {
	err = b.each(ctx, func(f backends.File) {
		if !strings.HasPrefix(f.Name, tempPrefix) {
			files = append(files, f)
		}
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return files, nil
}

// Stat tells of one file.
func (b *Backend) Stat(ctx context.Context, name string) (f backends.File, err error) {
	if err := check("query", name); err != nil {
		return f, err
	}
	err = b.find(ctx, "query", name, "0", func(r resource) {
		if !r.dir {
			f = backends.File{Name: name, Size: r.size, ModTime: r.modTime}
		}
	})
	if err == nil && f.Name == "" {
		err = web.Wrap("query", name, fs.ErrNotExist)
	}
	return f, err
}

// Open reads a range of a file.
func (b *Backend) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if err := check("get", name); err != nil {
		return nil, err
	}
	if off < 0 {
		return nil, fmt.Errorf("get %s: negative offset %d", name, off)
	}
	if n == 0 {
		if _, err := b.Stat(ctx, name); err != nil {
			return nil, err
		}
		return io.NopCloser(strings.NewReader("")), nil
	}
	q := request{op: "get", name: name, method: http.MethodGet, url: b.url(name)}
	if r := web.Range(off, n); r != "" {
		q.header = map[string]string{"Range": r}
	}
	resp, err := b.do(ctx, q)
	if err != nil {
		return nil, err
	}
	return web.Body(ctx, name, resp, off, n)
}

// Delete removes a file; never a collection, which a server would remove with
// all that is in it.
func (b *Backend) Delete(ctx context.Context, name string) error {
	if _, err := b.Stat(ctx, name); err != nil {
		return err
	}
	return b.run(ctx, request{op: "delete", name: name, method: http.MethodDelete, url: b.url(name)})
}

// Put stores a file under a temporary name and moves it. Where the server
// cannot do that it is stored at once, and a reader may see a part of it.
func (b *Backend) Put(ctx context.Context, name string, r io.ReadSeeker) error {
	return b.put(ctx, name, r, true)
}

// Doubtful implements backends.Doubtful: not every server has MOVE.
func (b *Backend) Doubtful() bool { return true }

// PutNew is Put for a name that must be free. A server without MOVE cannot.
func (b *Backend) PutNew(ctx context.Context, name string, r io.ReadSeeker) error {
	return b.put(ctx, name, r, false)
}

func (b *Backend) put(ctx context.Context, name string, r io.ReadSeeker, overwrite bool) error {
	if err := check("put", name); err != nil {
		return err
	}
	size, err := web.Remaining(r)
	if err != nil {
		return web.Wrap("put", name, err)
	}
	src, err := web.NewSource(r)
	if err != nil {
		return web.Wrap("put", name, err)
	}
	defer src.Done()
	if !b.noMove.Load() {
		err := b.putMove(ctx, name, src, size, overwrite)
		if !errors.Is(err, errNoMove) {
			return err
		}
		b.noMove.Store(true)
	}
	if !overwrite {
		return web.Wrap("put", name, fmt.Errorf("the server has no MOVE: %w", errors.ErrUnsupported))
	}
	return b.upload(ctx, name, name, src, size)
}

var errNoMove = errors.New("the server cannot move files")

func (b *Backend) putMove(ctx context.Context, name string, src *web.Source, size int64, overwrite bool) (err error) {
	temp := tempPrefix + rand.Text()
	defer func() {
		if err != nil {
			b.remove(ctx, temp)
		}
	}()
	if err := b.upload(ctx, name, temp, src, size); err != nil {
		return err
	}
	b.clean.Do(func() { b.removeStale(ctx) })
	flag := "F"
	if overwrite {
		flag = "T"
	}
	err = b.run(ctx, request{op: "put", name: name, method: "MOVE", url: b.url(temp),
		header: map[string]string{"Destination": b.url(name), "Overwrite": flag}})
	switch status(err) {
	case http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusBadGateway, http.StatusForbidden, http.StatusBadRequest:
		return fmt.Errorf("%w: %w", errNoMove, err)
	}
	return err
}

// upload sends a file to a place. The error names the file as it is wanted.
func (b *Backend) upload(ctx context.Context, name, place string, src *web.Source, size int64) error {
	q := request{op: "put", name: name, method: http.MethodPut, url: b.url(place), size: size,
		header: map[string]string{"Content-Type": "application/octet-stream"},
		body:   func() io.Reader { return src.Piece(0, size) }}
	err := b.run(ctx, q)
	if s := status(err); s == http.StatusConflict || s == http.StatusNotFound { // no such collection
		select {
		case b.making <- struct{}{}:
			err = b.makeAll(ctx, b.base.Path)
			<-b.making
		case <-ctx.Done():
			err = web.Wrap("put", name, context.Cause(ctx))
		}
		if err != nil {
			return err
		}
		err = b.run(ctx, q)
	}
	if serr := src.Err(); serr != nil && err != nil && ctx.Err() == nil {
		return web.Wrap("put", name, serr)
	}
	return err
}

// makeAll makes a collection and the parents that are missing.
func (b *Backend) makeAll(ctx context.Context, dir string) error {
	u := b.base
	u.Path = strings.TrimRight(dir, "/") + "/"
	err := b.run(ctx, request{op: "make collection", name: u.Path, method: "MKCOL", url: u.String()})
	switch status(err) {
	case http.StatusMethodNotAllowed: // it is there
		return nil
	case http.StatusConflict, http.StatusNotFound:
		parent := path.Dir(strings.TrimRight(dir, "/"))
		if dir == "" || parent == "/" || parent == "." {
			return err
		}
		if err := b.makeAll(ctx, parent); err != nil {
			return err
		}
		err = b.run(ctx, request{op: "make collection", name: u.Path, method: "MKCOL", url: u.String()})
		if status(err) == http.StatusMethodNotAllowed {
			return nil
		}
	}
	return err
}

// remove removes what was not finished, though the context may have ended; if
// that fails, a later run does it.
func (b *Backend) remove(ctx context.Context, place string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	b.run(ctx, request{op: "delete", name: place, method: http.MethodDelete, url: b.url(place)})
}

// removeStale removes what crashed writers left. Failures do not matter.
func (b *Backend) removeStale(ctx context.Context) {
	var old []string
	b.each(ctx, func(f backends.File) {
		if strings.HasPrefix(f.Name, tempPrefix) && !f.ModTime.IsZero() && time.Since(f.ModTime) > staleAfter {
			old = append(old, f.Name)
		}
	})
	for _, name := range old {
		b.remove(ctx, name)
	}
}
