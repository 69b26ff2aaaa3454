package webdav

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dupfs/backends"
	"dupfs/backends/backendtest"
	"dupfs/backends/internal/server"
	"dupfs/backends/web"
)

func open(t testing.TB, url, user, password string) *Backend {
	t.Helper()
	b, err := Open(url, Options{User: user, Password: password})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestContract(t *testing.T) {
	dir := t.TempDir()
	addr := server.WebDAV(t, dir)
	n := 0
	backendtest.Run(t, func(t testing.TB) backends.Backend {
		n++
		return open(t, fmt.Sprintf("http://%s/%d/some%%20dir/", addr, n), server.User, server.Password)
	}, backendtest.Options{Objects: 300, Gap: true})
}

// The root of a server, sub-collections, incomplete and old files.
func TestListing(t *testing.T) {
	dir := t.TempDir()
	at := func(n string) string { return filepath.Join(dir, n) }
	os.MkdirAll(at("sub/deep"), 0o777)
	past := time.Now().Add(-50 * time.Hour)
	for name, old := range map[string]bool{"file": false, "sub/inner": false, tempPrefix + "young": false, tempPrefix + "old": true} {
		if err := os.WriteFile(at(name), []byte("abc"), 0o600); err != nil {
			t.Fatal(err)
		}
		if old {
			os.Chtimes(at(name), past, past)
		}
	}
	b := open(t, "http://"+server.WebDAV(t, dir), server.User, server.Password)
	files, err := b.List(t.Context())
	if err != nil || len(files) != 1 || files[0].Name != "file" || files[0].Size != 3 || files[0].ModTime.IsZero() {
		t.Errorf("%+v, %v", files, err)
	}
	if err := b.Delete(t.Context(), "sub"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("deleting a collection: %v", err)
	}
	if err := b.Put(t.Context(), "new", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"sub/inner": true, tempPrefix + "young": true, tempPrefix + "old": false, "new": true} {
		if _, err := os.Stat(at(name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWrongPassword(t *testing.T) {
	b := open(t, "http://"+server.WebDAV(t, t.TempDir()), server.User, "wr0ng-secret")
	for op, f := range map[string]func() error{
		"list": func() error { _, err := b.List(t.Context()); return err },
		"put":  func() error { return b.Put(t.Context(), "x", strings.NewReader("x")) },
		"get":  func() error { _, err := b.Open(t.Context(), "x", 0, -1); return err },
	} {
		if err := f(); !errors.Is(err, backends.ErrAuth) || strings.Contains(err.Error(), "wr0ng-secret") {
			t.Errorf("%s: %v", op, err)
		}
	}
}

func TestOpenURL(t *testing.T) {
	for _, u := range []string{"", "ftp://h/", "http:///x", "http://u:secret@h/", "%"} {
		if _, err := Open(u, Options{}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", u, err)
		}
	}
}

// The example of RFC 7616, section 3.9.1, and of RFC 2069.
func TestDigest(t *testing.T) {
	c := map[string]string{"realm": "http-auth@example.org", "qop": "auth, auth-int", "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", "opaque": "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"}
	for algorithm, want := range map[string]string{
		"MD5":     "8ca523f5e9506fed4657c9700eebdbec",
		"SHA-256": "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
	} {
		c["algorithm"] = algorithm
		got := digest(c, "Mufasa", "Circle of Life", "GET", "/dir/index.html", "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", 1)
		if !strings.Contains(got, `response="`+want+`"`) {
			t.Errorf("%s: %s", algorithm, got)
		}
	}
	old := digest(map[string]string{"realm": "testrealm@host.com", "nonce": "dcd98b7102dd2f0e8b11d0f600bfb0c093"}, "Mufasa", "CircleOfLife", "GET", "/dir/index.html", "", 1)
	if !strings.Contains(old, `response="1949323746fe6a43ef61f9606e7febea"`) {
		t.Errorf("without qop: %s", old)
	}
}

func TestParseChallenges(t *testing.T) {
	for s, want := range map[string]string{
		`Basic realm="a, b"`: `[map[realm:a, b scheme:basic]]`,
		`Digest realm="r\"x", nonce=abc, stale=TRUE, Basic realm=x`: `[map[nonce:abc realm:r"x scheme:digest stale:TRUE] map[realm:x scheme:basic]]`,
		`Negotiate, Basic`: `[map[scheme:negotiate] map[scheme:basic]]`,
		`=x`:               `[]`,
		`Basic realm="`:    `[map[realm: scheme:basic]]`,
	} {
		if got := fmt.Sprint(parseChallenges(s)); got != want {
			t.Errorf("%s: %s, want %s", s, got, want)
		}
	}
}

func FuzzParseChallenges(f *testing.F) {
	f.Add(`Digest realm="r", nonce="n", qop="auth", Basic realm=x`)
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range parseChallenges(s) {
			if c["scheme"] == "digest" && digestHash(c) != nil {
				digest(c, "u", "p", "GET", "/", "c", 1)
			}
		}
	})
}

// A server that asks for Digest, and takes each nonce a few times only.
func TestDigestServer(t *testing.T) {
	nonce, left, bodies := 0, 0, 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		c := map[string]string{"realm": "store", "nonce": fmt.Sprint(nonce), "qop": "auth", "algorithm": "SHA-256"}
		got := parseChallenges(r.Header.Get("Authorization"))
		ok := len(got) == 1 && left > 0 && got[0]["nonce"] == c["nonce"]
		if ok {
			var count uint32
			fmt.Sscanf(got[0]["nc"], "%x", &count)
			ok = r.Header.Get("Authorization") == digest(c, "u", "p", r.Method, r.URL.RequestURI(), got[0]["cnonce"], count)
		}
		if !ok {
			nonce, left = nonce+1, 3
			w.Header().Add("WWW-Authenticate", `Basic realm="store"`)
			w.Header().Add("WWW-Authenticate", fmt.Sprintf(`Digest realm="store", nonce="%d", qop="auth", algorithm=SHA-256, stale=%v`, nonce, len(got) > 0))
			w.WriteHeader(401)
			return
		}
		left--
		if r.Method == "PUT" {
			bodies += len(data)
		}
		w.WriteHeader(201)
	}))
	defer s.Close()
	b := open(t, s.URL, "u", "p")
	for range 5 {
		if err := b.Put(t.Context(), "x", bytes.NewReader(make([]byte, 1000))); err != nil {
			t.Fatal(err)
		}
	}
	if bodies != 5000 || nonce < 3 {
		t.Errorf("%d bytes stored, %d nonces", bodies, nonce)
	}
	wrong := open(t, s.URL, "u", "q")
	if err := wrong.Put(t.Context(), "x", strings.NewReader("x")); !errors.Is(err, backends.ErrAuth) {
		t.Errorf("%v", err)
	}
}

// A server without MOVE still stores; it cannot create exclusively.
func TestNoMove(t *testing.T) {
	files := map[string]string{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case "PUT":
			data, _ := io.ReadAll(r.Body)
			files[r.URL.Path] = string(data)
			w.WriteHeader(201)
		case "DELETE":
			delete(files, r.URL.Path)
			w.WriteHeader(204)
		default:
			w.WriteHeader(405)
		}
	}))
	defer s.Close()
	b := open(t, s.URL+"/d", "", "")
	if err := b.Put(t.Context(), "x", strings.NewReader("abc")); err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 || files["/d/x"] != "abc" {
		t.Errorf("%v", files)
	}
	if err := b.PutNew(t.Context(), "y", strings.NewReader("abc")); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("PutNew: %v", err)
	}
}

func TestStatuses(t *testing.T) {
	for status, want := range map[int]error{
		503: backends.ErrTransient, 429: backends.ErrTransient, 423: backends.ErrTransient,
		403: backends.ErrAuth, 507: backends.ErrNoSpace, 413: backends.ErrNoSpace,
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "3")
			w.WriteHeader(status)
		}))
		b := open(t, s.URL, "", "")
		_, err := b.List(t.Context())
		perr := b.Put(t.Context(), "x", strings.NewReader("x"))
		var after backends.RetryAfter
		if !errors.Is(err, want) || !errors.Is(perr, want) || !errors.As(err, &after) || after.RetryAfter() != 3*time.Second {
			t.Errorf("%d: %v, %v", status, err, perr)
		}
		s.Close()
	}
}

func TestParseMultistatus(t *testing.T) {
	text := `<?xml version="1.0"?><d:multistatus xmlns:d="DAV:">
<d:response><d:href>/dav/</d:href><d:propstat><d:prop><d:resourcetype><d:collection/></d:resourcetype></d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>
<d:response><d:href>http://h/dav/a%20b%23.gpg</d:href><d:propstat><d:prop><d:getcontentlength>12</d:getcontentlength><d:getlastmodified>Tue, 14 Nov 2023 22:13:20 GMT</d:getlastmodified><d:resourcetype/></d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat>
<d:propstat><d:prop><d:getcontentlength>99</d:getcontentlength></d:prop><d:status>HTTP/1.1 404 Not Found</d:status></d:propstat></d:response>
<d:response><d:href>/dav/gone</d:href><d:status>HTTP/1.1 404 Not Found</d:status></d:response>
<d:response><d:href>/dav/nosize</d:href><d:propstat><d:prop><d:resourcetype/></d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>
</d:multistatus>`
	var got []resource
	if err := parseMultistatus(strings.NewReader(text), func(r resource) { got = append(got, r) }); err != nil {
		t.Fatal(err)
	}
	want := []resource{{"/dav", true, -1, time.Time{}}, {"/dav/a b#.gpg", false, 12, time.Unix(1700000000, 0).UTC()}, {"/dav/nosize", false, -1, time.Time{}}}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	for i := range len(text) - len("</d:multistatus>") {
		if err := parseMultistatus(strings.NewReader(text[:i]), func(resource) {}); err == nil {
			t.Fatalf("a listing cut at %d was taken", i)
		}
	}
}

func FuzzParseMultistatus(f *testing.F) {
	f.Add(`<D:multistatus xmlns:D="DAV:"><D:response><D:href>/a%2</D:href></D:response></D:multistatus>`)
	f.Fuzz(func(t *testing.T, s string) { parseMultistatus(strings.NewReader(s), func(resource) {}) })
}

// More files than a page of any store, in one listing.
func TestManyFiles(t *testing.T) {
	dir := t.TempDir()
	names := server.Fill(t, dir, 10_500)
	files, err := open(t, "http://"+server.WebDAV(t, dir), server.User, server.Password).List(t.Context())
	if err != nil || len(files) != len(names) {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		if size, ok := names[f.Name]; !ok || f.Size != size {
			t.Fatalf("%+v", f)
		}
	}
}

// A server that hangs is given up, in every operation.
func TestHang(t *testing.T) {
	c := server.NewCutter(t, server.WebDAV(t, t.TempDir()))
	b := open(t, "http://"+c.Addr, server.User, server.Password)
	b.client.Transport = hurried(t)
	if err := b.Put(t.Context(), "x", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	c.Hang(true)
	if _, err := b.List(t.Context()); !errors.Is(err, backends.ErrTransient) {
		t.Errorf("list: %v", err)
	}
	if err := b.Put(t.Context(), "y", bytes.NewReader(make([]byte, 8<<20))); !errors.Is(err, backends.ErrTransient) {
		t.Errorf("put: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := b.Open(ctx, "x", 0, -1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("get: %v", err)
	}
}

func hurried(t *testing.T) http.RoundTripper {
	tr, err := web.NewTransport(web.Options{Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}
