// Package swift stores archives in OpenStack Swift. Call Open first. It logs
// in with duplicity's SWIFT_* variables or with those of OpenStack's own
// clients, and again when its token ends in the middle of a run. Files too
// large for one object are stored in segments, in the container NAME_segments
// as OpenStack's own client does it.
package swift

import (
	"context"
	"crypto/md5"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"golang.org/x/sync/errgroup"

	"dupfs/backends"
	"dupfs/backends/web"
)

// DefaultSegmentSize is the largest object that Swift takes unless its
// operator has changed that.
const DefaultSegmentSize = 5 << 30

// Options of Open. The zero value is ready to use.
type Options struct {
	Getenv        func(string) string // for the login; nil means os.Getenv
	StoragePolicy string              // of a container that is created; one that exists must have it
	SegmentSize   int64               // files larger than this many bytes go in segments of that size; 0 means DefaultSegmentSize
	Timeout       time.Duration       // silence after which a connection is given up; 0 means web.DefaultTimeout; not used with Client
	Client        *http.Client        // nil means one made by web.NewClient
}

// Backend is a container, or a part of one. It implements backends.Backend,
// Stater and io.Closer. It is not Exclusive: Swift takes If-None-Match, but of
// several writers at the same moment more than one is told that it was first.
type Backend struct {
	client     *http.Client
	provider   *gophercloud.ProviderClient // the token, and how to get another
	storage    string                      // URL of the account, without a slash at the end
	container  string
	prefix     string // "" or "a/b/"
	policy     string
	segment    int64
	given      string      // variable of the token, if that cannot be renewed
	piece      int64       // pieceSize, but in tests
	broken     sync.Map    // names of files whose last Put broke off
	cannotJoin atomic.Bool // the server refused to make one object of several
	mute       atomic.Bool // the server does not answer to "Expect: 100-continue"
}

// Open logs in and returns the files under prefix in container. Empty parts of
// the prefix are dropped. A container that does not exist is empty, and is
// created by the first Put. Without credentials, or if they are refused, the
// error is backends.ErrAuth.
func Open(ctx context.Context, container, prefix string, o Options) (backends.Backend, error) {
	if container == "" || strings.Contains(container, "/") || len(container) > 256 {
		return nil, fmt.Errorf("%q cannot be the name of a container", container)
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	l, err := environment(o.Getenv)
	if err != nil {
		return nil, err
	}
	client, err := newClient(o, l.tls)
	if err != nil {
		return nil, err
	}
	b := &Backend{client: client, container: container, policy: o.StoragePolicy, segment: o.SegmentSize, given: l.tokenVariable(), piece: pieceSize}
	for part := range strings.SplitSeq(prefix, "/") {
		if part != "" {
			b.prefix += part + "/"
		}
	}
	if b.segment <= 0 {
		b.segment = DefaultSegmentSize
	}
	if b.provider, b.storage, err = l.session(ctx, client); err != nil {
		return nil, err
	}
	b.storage = strings.TrimRight(b.storage, "/")
	if b.policy != "" {
		err = b.checkPolicy(ctx)
	}
	return b, err
}

func newClient(o Options, trusted *tls.Config) (*http.Client, error) {
	client := o.Client
	if client == nil {
		var err error
		if client, err = web.NewClient(web.Options{Timeout: o.Timeout, Getenv: o.Getenv}); err != nil {
			return nil, err
		}
	}
	t, ok := client.Transport.(*http.Transport)
	if !ok {
		return client, nil
	}
	own := *client
	t = t.Clone()
	t.ExpectContinueTimeout = expectTimeout
	if trusted != nil {
		t.TLSClientConfig = join(t.TLSClientConfig, trusted)
	}
	own.Transport = t
	return &own, nil
}

// join returns the configuration of the client with what the login adds to it.
func join(c, trusted *tls.Config) *tls.Config {
	if c == nil {
		return trusted
	}
	c = c.Clone()
	c.InsecureSkipVerify = c.InsecureSkipVerify || trusted.InsecureSkipVerify
	c.Certificates = append(c.Certificates, trusted.Certificates...)
	if trusted.RootCAs != nil {
		c.RootCAs = trusted.RootCAs
	}
	return c
}

// expectTimeout is how long an upload waits for the server's word that it may
// begin; after that it begins, and later ones do not ask.
const expectTimeout = 10 * time.Second

// checkPolicy refuses a container that has another storage policy.
func (b *Backend) checkPolicy(ctx context.Context) error {
	resp, err := b.do(ctx, "container", b.container, call{method: http.MethodHead, url: b.url(b.container)})
	if err != nil {
		return err
	}
	web.Drain(resp)
	if has := resp.Header.Get("X-Storage-Policy"); resp.StatusCode/100 == 2 && has != b.policy {
		return fmt.Errorf("container %s exists, but its storage policy is %q, not %q", b.container, has, b.policy)
	}
	return nil
}

// Close releases the connections.
func (b *Backend) Close() error {
	b.client.CloseIdleConnections()
	return nil
}

// url returns the address of a container, or of an object in it.
func (b *Backend) url(container string, object ...string) string {
	u := b.storage + "/" + url.PathEscape(container)
	if len(object) > 0 {
		parts := strings.Split(strings.Join(object, ""), "/")
		for i, p := range parts {
			parts[i] = url.PathEscape(p)
		}
		u += "/" + strings.Join(parts, "/")
	}
	return u
}

func (b *Backend) object(name string) string { return b.url(b.container, b.prefix, name) }

// call is a request that can be sent again.
type call struct {
	method, url string
	query       url.Values
	header      map[string]string
	body        func() *web.Piece // a new one for each try; nil: no body
}

// do sends a request with the token and returns the answer, whatever its
// status. If the token has ended it gets another and sends the request again.
func (b *Backend) do(ctx context.Context, op, name string, c call) (*http.Response, error) {
	for again := false; ; again = true {
		token := b.provider.Token()
		resp, err := b.send(ctx, c, token)
		if err != nil {
			return nil, web.Wrap(op, name, web.Net(ctx, err))
		}
		if resp.StatusCode != http.StatusUnauthorized || again {
			return resp, nil
		}
		web.Drain(resp)
		if b.provider.ReauthFunc == nil {
			return nil, web.Wrap(op, name, fmt.Errorf("%w: the token in %s is not valid any more: get a new one, or give user and password", backends.ErrAuth, b.given))
		}
		if err := b.renew(ctx, token); err != nil {
			return nil, web.Wrap(op, name, err)
		}
	}
}

func (b *Backend) send(ctx context.Context, c call, token string) (*http.Response, error) {
	u := c.url
	if len(c.query) > 0 {
		u += "?" + c.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, c.method, u, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range c.header {
		req.Header.Set(k, v)
	}
	req.Header.Set("X-Auth-Token", token)
	req.Header.Set("User-Agent", b.provider.UserAgent.Join())
	// Every call may be carried out twice, so that the transport may repeat one
	// that met a connection which the server was just closing.
	req.Header["Idempotency-Key"] = []string{} // empty: it is not sent
	if c.body != nil {
		p := c.body()
		req.GetBody = func() (io.ReadCloser, error) { return c.body(), nil }
		req.Body, req.ContentLength = p, p.Len()
		switch n := p.Len(); {
		case n == 0:
			req.Body = http.NoBody
		case n > 64<<10 && !b.mute.Load():
			return b.expect(req)
		}
	}
	return b.client.Do(req)
}

// expect sends a request and its body only when the server wants it: a refusal
// (no token, no container, over quota) then costs no upload, and is not lost
// when the server closes the connection on what it did not want. The
// connection is not used again: some servers then end it without saying so.
func (b *Backend) expect(req *http.Request) (*http.Response, error) {
	var told atomic.Bool
	trace := &httptrace.ClientTrace{Got100Continue: func() { told.Store(true) }}
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), trace))
	req.Header.Set("Expect", "100-continue")
	req.Close = true
	resp, err := b.client.Do(req)
	if err == nil && resp.StatusCode/100 == 2 && !told.Load() {
		b.mute.Store(true)
	}
	return resp, err
}

// renew gets a new token in place of one that was refused; of many callers at
// a time one does it and the others wait.
func (b *Backend) renew(ctx context.Context, refused string) error {
	for {
		err := b.provider.Reauthenticate(ctx, refused)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
			continue // the one that did it was cancelled; we were not
		}
		return web.Wrap("log in again", "", authError(ctx, err))
	}
}

// row is an entry of a listing.
type row struct {
	Name     string `json:"name"`
	Bytes    int64  `json:"bytes"`
	Hash     string `json:"hash"`
	Modified string `json:"last_modified"`
	Subdir   string `json:"subdir"`
	// SLO is there if the object is in segments: then Hash is not that of its
	// content. Old servers do not tell.
	SLO string `json:"slo_etag"`
}

// sum returns what the listing says of an object's content.
func (r *row) sum() string {
	if b, err := hex.DecodeString(r.Hash); err != nil || len(b) != md5.Size || r.SLO != "" {
		return ""
	}
	return strings.ToLower(r.Hash)
}

// maxPage bounds the memory of one page of a listing; Swift sends 10,000 rows of at most about 2 KiB.
const maxPage = 64 << 20

// list calls f for all objects of a container whose names begin with prefix;
// with a delimiter, only for those without it in the rest of their names. The
// container's absence is fs.ErrNotExist.
func (b *Backend) list(ctx context.Context, container, prefix, delimiter string, f func(row) error) error {
	for marker := ""; ; {
		q := url.Values{"format": {"json"}, "prefix": {prefix}, "marker": {marker}}
		if delimiter != "" {
			q.Set("delimiter", delimiter)
		}
		resp, err := b.do(ctx, "list", "", call{method: http.MethodGet, url: b.url(container), query: q})
		if err != nil {
			return err
		}
		rows, err := page(ctx, resp)
		if err != nil {
			return err
		}
		// A page may be short at any length, so only an empty one is the end.
		if len(rows) == 0 {
			return nil
		}
		for _, r := range rows {
			last := max(r.Name, r.Subdir)
			if last <= marker {
				return fmt.Errorf("list: the server does not go on after %q", marker)
			}
			marker = last
			if r.Subdir != "" {
				continue
			}
			if err := f(r); err != nil {
				return err
			}
		}
	}
}

func page(ctx context.Context, resp *http.Response) ([]row, error) {
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNoContent:
		web.Drain(resp)
		return nil, nil
	default:
		return nil, web.Error("list", "", resp)
	}
	body := web.NewBody(ctx, "", resp.Body, resp.ContentLength)
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxPage+1))
	if err != nil {
		return nil, web.Wrap("list", "", err)
	}
	if len(text) > maxPage {
		return nil, fmt.Errorf("list: a page of more than %d bytes", maxPage)
	}
	var rows []row
	if err := json.Unmarshal(text, &rows); err != nil {
		return nil, fmt.Errorf("list: the answer is not a listing: %w", err)
	}
	return rows, nil
}

// List implements backends.Backend.
func (b *Backend) List(ctx context.Context) ([]backends.File, error) {
	var files []backends.File
	var empty []int
	err := b.list(ctx, b.container, b.prefix, "/", func(r row) error {
		name := strings.TrimPrefix(r.Name, b.prefix)
		if name == "" {
			return nil // a marker of the directory itself
		}
		// "2026-11-21T20:49:32.123456", in UTC without saying so
		modified, _ := time.Parse("2006-01-02T15:04:05", r.Modified)
		if r.Bytes == 0 {
			empty = append(empty, len(files))
		}
		files = append(files, backends.File{Name: name, Size: r.Bytes, ModTime: modified, Sum: r.sum()})
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // the first Put creates the container
	}
	if err != nil {
		return nil, err
	}
	return files, b.measure(ctx, files, empty)
}

// measure asks for the sizes of files that a listing shows as empty: those in
// dynamic segments look so.
func (b *Backend) measure(ctx context.Context, files []backends.File, which []int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, i := range which {
		g.Go(func() error {
			f, err := b.Stat(ctx, files[i].Name)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // removed meanwhile
			}
			files[i].Size, files[i].Sum = f.Size, f.Sum
			return err
		})
	}
	return g.Wait()
}

// head returns the headers of an object; fs.ErrNotExist if there is none.
func (b *Backend) head(ctx context.Context, op, name string) (*http.Response, error) {
	resp, err := b.do(ctx, op, name, call{method: http.MethodHead, url: b.object(name)})
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, web.Error(op, name, resp)
	}
	web.Drain(resp)
	return resp, nil
}

// Stat implements backends.Stater.
func (b *Backend) Stat(ctx context.Context, name string) (backends.File, error) {
	resp, err := b.head(ctx, "query", name)
	if err != nil {
		return backends.File{}, err
	}
	f := backends.File{Name: name, Size: -1, Sum: hex.EncodeToString(wholeSum(resp))}
	if n, err := strconv.ParseInt(resp.Header.Get("Content-Length"), 10, 64); err == nil && n >= 0 {
		f.Size = n
	}
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		f.ModTime = t
	}
	return f, nil
}

// Open implements backends.Backend. A file that is read whole is compared with
// the MD5 that Swift keeps: Swift itself delivers one that rotted on its disk
// once more before it notices.
func (b *Backend) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if n == 0 {
		if _, err := b.head(ctx, "get", name); err != nil {
			return nil, err
		}
		return io.NopCloser(strings.NewReader("")), nil
	}
	c := call{method: http.MethodGet, url: b.object(name)}
	if r := web.Range(off, n); r != "" {
		c.header = map[string]string{"Range": r}
	}
	resp, err := b.do(ctx, "get", name, c)
	if err != nil {
		return nil, err
	}
	sum := wholeSum(resp)
	body, err := web.Body(ctx, name, resp, off, n)
	if err != nil || sum == nil || off > 0 || n > 0 {
		return body, err
	}
	return web.CheckMD5(body, name, sum), nil
}

// wholeSum returns the MD5 of all the content; nil where the server tells that
// of something else (a range has that of the whole, segments one of their sums).
func wholeSum(resp *http.Response) []byte {
	if resp.StatusCode != http.StatusOK || isSLO(resp.Header) || resp.Header.Get("X-Object-Manifest") != "" {
		return nil
	}
	sum, err := hex.DecodeString(strings.Trim(resp.Header.Get("Etag"), `"`))
	if err != nil || len(sum) != md5.Size {
		return nil
	}
	return sum
}

func isSLO(h http.Header) bool { return strings.EqualFold(h.Get("X-Static-Large-Object"), "true") }
