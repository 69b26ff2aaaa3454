// Package rclone stores archives wherever the program rclone can: Google
// Drive, Dropbox, OneDrive and many others, as configured with it. One rclone
// runs for the life of a backend, and is asked over its remote control.
package rclone

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"dupfs/backends"
	"dupfs/backends/web"
)

// Options say how to run rclone. The zero value is ready to use.
type Options struct {
	Program string   // "" means rclone, from PATH
	Env     []string // of the program; nil means os.Environ(). RCLONE_* variables are rclone's own
	// Timeout is given to rclone for its connections; 0 means 30 seconds. Our
	// own to rclone may be silent for ten times as long, as it may have to
	// send on what it was given.
	Timeout time.Duration
	// Web has the limits of speed; its Timeout is not used.
	Web web.Options
}

const (
	// tempPrefix begins the names of files that are not complete.
	tempPrefix = ".dupfs-tmp-"
	// staleAfter is the age at which such a file is what a crash left over.
	staleAfter = 48 * time.Hour
)

// Backend is a directory of a remote. It implements backends.Backend, Stater
// and io.Closer.
type Backend struct {
	remote string // remote:path
	o      Options
	client *http.Client

	lock   chan struct{} // holds a token; guards what follows
	cur    *process
	closed bool
	hash   bool // the remote knows MD5s without reading files
	move   bool // the remote can move files, so that Put need not write to the final name
	clean  sync.Once
}

// Open prepares access to remote:path, in rclone's form. Nothing is started
// yet.
func Open(remote string, o Options) (*Backend, error) {
	if !strings.Contains(remote, ":") {
		return nil, fmt.Errorf("rclone: %q is not of the form remote:path", remote)
	}
	if strings.HasPrefix(remote, "-") {
		return nil, fmt.Errorf("rclone: %q is not a remote", remote)
	}
	if o.Program == "" {
		o.Program = "rclone"
	}
	program, err := exec.LookPath(o.Program)
	if err != nil {
		return nil, fmt.Errorf("rclone: the program is not installed: %w", err)
	}
	o.Program = program
	if o.Env == nil {
		o.Env = os.Environ()
	}
	if o.Timeout <= 0 {
		o.Timeout = web.DefaultTimeout
	}
	o.Web.Timeout = 10 * o.Timeout
	o.Web.Getenv = func(string) string { return "" } // no proxy to ourselves
	client, err := web.NewClient(o.Web)
	if err != nil {
		return nil, err
	}
	return &Backend{remote: remote, o: o, client: client, lock: make(chan struct{}, 1)}, nil
}

// Close ends rclone.
func (b *Backend) Close() error {
	b.lock <- struct{}{}
	defer func() { <-b.lock }()
	b.closed = true
	b.client.CloseIdleConnections()
	if b.cur != nil {
		b.cur.stop()
		b.cur = nil
	}
	return nil
}

// process returns the rclone that runs, or starts one: the first, or another
// if it has ended.
func (b *Backend) process(ctx context.Context) (*process, error) {
	select {
	case b.lock <- struct{}{}:
		defer func() { <-b.lock }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if b.closed {
		return nil, errors.New("rclone: closed")
	}
	if b.cur != nil {
		select {
		case <-b.cur.ended:
		default:
			return b.cur, nil
		}
	}
	p, err := start(ctx, b.o.Program, b.o.Env, b.o.Timeout)
	if err != nil {
		return nil, err
	}
	var info struct {
		Features map[string]bool
		Hashes   []string
	}
	if err := b.rpc(ctx, p, "operations/fsinfo", map[string]any{"fs": b.remote}, &info); err != nil {
		p.stop()
		return nil, err
	}
	b.move = info.Features["Move"]
	b.hash = slices.Contains(info.Hashes, "md5") && !info.Features["SlowHash"]
	b.cur = p
	return p, nil
}

// call asks rclone for something, starting it if need be.
func (b *Backend) call(ctx context.Context, op, name, method string, in map[string]any, out any) error {
	if ctx.Err() != nil {
		return web.Wrap(op, name, context.Cause(ctx))
	}
	p, err := b.process(ctx)
	if err != nil {
		return web.Wrap(op, name, err)
	}
	return wrap(op, name, b.rpc(ctx, p, method, in, out))
}

func (b *Backend) rpc(ctx context.Context, p *process, method string, in map[string]any, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+"/"+method, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := b.send(ctx, p, r)
	if err != nil {
		return err
	}
	defer web.Drain(resp)
	if resp.StatusCode != http.StatusOK {
		return refused(resp)
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return web.Net(ctx, fmt.Errorf("the answer is not complete: %w", err))
	}
	return nil
}

func (b *Backend) send(ctx context.Context, p *process, r *http.Request) (*http.Response, error) {
	r.SetBasicAuth(p.user, p.password)
	resp, err := b.client.Do(r)
	if err == nil {
		return resp, nil
	}
	err = web.Net(ctx, err)
	select {
	case <-p.ended:
		err = fmt.Errorf("%w%s", err, p.log.suffix())
	default:
	}
	return nil, err
}

// refused makes an error of rclone's answer. All kinds of failures have status
// 500, so the text has to tell them apart.
func refused(resp *http.Response) error {
	var e struct{ Error string }
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if json.Unmarshal(data, &e) != nil || e.Error == "" {
		e.Error = strings.Join(strings.Fields(string(data)), " ")
	}
	if len(e.Error) > 500 {
		e.Error = strings.ToValidUTF8(e.Error[:500], "")
	}
	return &web.StatusError{Status: resp.StatusCode, Msg: e.Error, Err: kind(resp.StatusCode, e.Error)}
}

func kind(status int, text string) error {
	text = strings.ToLower(text)
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("object not found", "directory not found", "no such file", "not found: ", "object doesn't exist", "is a directory not a file") || status == http.StatusNotFound:
		return fs.ErrNotExist
	case has("didn't find section", "didn't find backend", "unknown backend", "couldn't decrypt config", "config file"):
		return nil
	case has("no space left", "quotaexceeded", "quota exceeded", "insufficient storage", "insufficient_space", "disk quota"):
		return backends.ErrNoSpace
	case has("permission denied", "access denied", "accessdenied", "invalid_grant", "unauthorized", "401 ", "oauth", "expired token", "invalid credentials"):
		return backends.ErrAuth
	case status >= 500:
		return backends.ErrTransient
	}
	return web.Kind(status)
}

func check(op, name string) error {
	if name == "" || name == "." || name == ".." || strings.Contains(name, "/") || strings.HasPrefix(name, tempPrefix) {
		return fmt.Errorf("%s %q: not a name for a file in a directory", op, name)
	}
	return nil
}

// item is what rclone says of a file.
type item struct {
	Name    string
	Size    int64
	ModTime time.Time
	IsDir   bool
	Tier    string
	Hashes  map[string]string
}

func (i *item) file() backends.File {
	return backends.File{Name: i.Name, Size: i.Size, ModTime: i.ModTime, Tier: i.Tier, Sum: i.sum()}
}

// sum returns the MD5 that the remote has of a file.
func (i *item) sum() string {
	if b, err := hex.DecodeString(i.Hashes["md5"]); err != nil || len(b) != md5.Size {
		return ""
	}
	return strings.ToLower(i.Hashes["md5"])
}

// wanted says what rclone shall tell of files. The process must run.
func (b *Backend) wanted(ctx context.Context) (map[string]any, error) {
	if _, err := b.process(ctx); err != nil {
		return nil, err
	}
	b.lock <- struct{}{}
	defer func() { <-b.lock }()
	opt := map[string]any{"recurse": false, "noMimeType": true}
	if b.hash {
		opt["showHash"], opt["hashTypes"] = true, []string{"md5"}
	}
	return opt, nil
}

func (b *Backend) list(ctx context.Context) ([]item, error) {
	var out struct{ List []item }
	if ctx.Err() != nil {
		return nil, web.Wrap("list", "", context.Cause(ctx))
	}
	opt, err := b.wanted(ctx)
	if err != nil {
		return nil, web.Wrap("list", "", err)
	}
	opt["filesOnly"] = true
	err = b.call(ctx, "list", "", "operations/list", map[string]any{"fs": b.remote, "remote": "", "opt": opt}, &out)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return out.List, err
}

// List returns the files of the directory. A missing one lists as empty.
func (b *Backend) List(ctx context.Context) (files []backends.File, err error) {
	all, err := b.list(ctx)
	for _, i := range all {
		if !i.IsDir && !strings.HasPrefix(i.Name, tempPrefix) && !strings.Contains(i.Name, "/") {
			files = append(files, i.file())
		}
	}
	return files, err
}

// Stat tells of one file.
func (b *Backend) Stat(ctx context.Context, name string) (backends.File, error) {
	if err := check("query", name); err != nil {
		return backends.File{}, err
	}
	if ctx.Err() != nil {
		return backends.File{}, web.Wrap("query", name, context.Cause(ctx))
	}
	opt, err := b.wanted(ctx)
	if err != nil {
		return backends.File{}, web.Wrap("query", name, err)
	}
	var out struct{ Item *item }
	err = b.call(ctx, "query", name, "operations/stat", map[string]any{"fs": b.remote, "remote": name, "opt": opt}, &out)
	if err == nil && (out.Item == nil || out.Item.IsDir) {
		err = web.Wrap("query", name, fs.ErrNotExist)
	}
	if err != nil {
		return backends.File{}, err
	}
	return out.Item.file(), nil
}

// Delete removes a file.
func (b *Backend) Delete(ctx context.Context, name string) error {
	if err := check("delete", name); err != nil {
		return err
	}
	return b.remove(ctx, name, name)
}

// remove removes a file that lies under another name than errors tell.
func (b *Backend) remove(ctx context.Context, name, place string) error {
	var none struct{}
	return b.call(ctx, "delete", name, "operations/deletefile", map[string]any{"fs": b.remote, "remote": place}, &none)
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
	if ctx.Err() != nil {
		return nil, web.Wrap("get", name, context.Cause(ctx))
	}
	p, err := b.process(ctx)
	if err != nil {
		return nil, web.Wrap("get", name, err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/%5B"+url.PathEscape(b.remote)+"%5D/"+url.PathEscape(name), nil)
	if err != nil {
		return nil, web.Wrap("get", name, errors.New("the name makes no url"))
	}
	if v := web.Range(off, n); v != "" {
		r.Header.Set("Range", v)
	}
	resp, err := b.send(ctx, p, r)
	if err != nil {
		return nil, web.Wrap("get", name, err)
	}
	if resp.StatusCode >= 400 && resp.StatusCode != http.StatusRequestedRangeNotSatisfiable {
		defer web.Drain(resp)
		return nil, web.Wrap("get", name, refused(resp))
	}
	return web.Body(ctx, name, resp, off, n)
}

// Put stores a file: under a temporary name that is then moved, where the
// remote can do so; the others show a file only once it is complete. Rclone
// compares size and checksum with what it was given, where the remote tells.
func (b *Backend) Put(ctx context.Context, name string, r io.ReadSeeker) error {
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
	if ctx.Err() != nil {
		return web.Wrap("put", name, context.Cause(ctx))
	}
	p, err := b.process(ctx)
	if err != nil {
		return web.Wrap("put", name, err)
	}
	if !b.move {
		return b.upload(ctx, p, name, name, src, size)
	}
	b.clean.Do(func() { b.removeStale(ctx) })
	temp := tempPrefix + rand.Text()
	err = b.upload(ctx, p, name, temp, src, size)
	if err == nil {
		var none struct{}
		err = b.call(ctx, "put", name, "operations/movefile", map[string]any{"srcFs": b.remote, "srcRemote": temp, "dstFs": b.remote, "dstRemote": name}, &none)
	}
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		b.remove(ctx, name, temp)
	}
	return err
}

// upload sends a file as a form with one part, which is how rclone takes one.
func (b *Backend) upload(ctx context.Context, p *process, name, place string, src *web.Source, size int64) error {
	body, length, contentType := form(place, src.Piece(0, size), size)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+"/operations/uploadfile?fs="+url.QueryEscape(b.remote)+"&remote=", body)
	if err != nil {
		return web.Wrap("put", name, err)
	}
	r.ContentLength = length
	r.Header.Set("Content-Type", contentType)
	resp, err := b.send(ctx, p, r)
	if err == nil {
		if resp.StatusCode != http.StatusOK {
			err = refused(resp)
		}
		web.Drain(resp)
	}
	if serr := src.Err(); serr != nil && ctx.Err() == nil {
		err = serr
	}
	if err != nil {
		return web.Wrap("put", name, err)
	}
	// What the answer does not tell: whether all of it came to be stored.
	var out struct{ Item *item }
	err = b.call(ctx, "put", name, "operations/stat", map[string]any{"fs": b.remote, "remote": place}, &out)
	if err == nil && (out.Item == nil || out.Item.Size >= 0 && out.Item.Size != size) {
		err = web.Wrap("put", name, fmt.Errorf("%w: the remote does not have all of it", backends.ErrTransient))
	}
	return err
}

// form returns a form with one file, its length, and its type.
func form(name string, r io.Reader, size int64) (body io.Reader, length int64, contentType string) {
	var head bytes.Buffer
	m := multipart.NewWriter(&head)
	h := textproto.MIMEHeader{}
	h.Set("Content-Disposition", multipart.FileContentDisposition("file", name))
	h.Set("Content-Type", "application/octet-stream")
	m.CreatePart(h) // to a buffer, which does not fail
	end := "\r\n--" + m.Boundary() + "--\r\n"
	return io.MultiReader(&head, r, strings.NewReader(end)), int64(head.Len()) + size + int64(len(end)), m.FormDataContentType()
}

// removeStale removes what crashed writers left. Failures do not matter.
func (b *Backend) removeStale(ctx context.Context) {
	all, err := b.list(ctx)
	if err != nil {
		return
	}
	for _, i := range all {
		if !i.IsDir && strings.HasPrefix(i.Name, tempPrefix) && !i.ModTime.IsZero() && time.Since(i.ModTime) > staleAfter {
			b.remove(ctx, i.Name, i.Name)
		}
	}
}

func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return web.Wrap(op, name, err)
}
