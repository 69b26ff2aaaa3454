package web

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dupfs/backends"
)

func client(t *testing.T, o Options) *http.Client {
	t.Helper()
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func serve(t *testing.T, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// The timeout is one of silence: slow but steady transfers outlast it.
func TestTimeoutIsOfSilence(t *testing.T) {
	const timeout = 800 * time.Millisecond
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/silent":
			<-r.Context().Done()
		case "/stops":
			w.Header().Set("Content-Length", "1000")
			w.Write([]byte("x"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case "/drips":
			for range 12 {
				w.Write([]byte("x"))
				w.(http.Flusher).Flush()
				time.Sleep(timeout / 8)
			}
		case "/up":
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n)
		}
	})
	c := client(t, Options{Timeout: timeout})
	get := func(path string, body io.Reader) (string, error) {
		r, err := http.NewRequestWithContext(t.Context(), "PUT", s.URL+path, body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(r)
		if err != nil {
			return "", Net(t.Context(), err)
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(NewBody(t.Context(), "x", resp.Body, resp.ContentLength))
		return string(data), err
	}
	for _, path := range []string{"/silent", "/stops"} {
		if _, err := get(path, nil); !errors.Is(err, backends.ErrTransient) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if got, err := get("/drips", nil); got != strings.Repeat("x", 12) || err != nil {
		t.Errorf("drips: %q, %v", got, err)
	}
	if got, err := get("/up", &drip{n: 12, wait: timeout / 8}); got != "12" || err != nil {
		t.Errorf("slow upload: %q, %v", got, err)
	}
}

// drip is a body that takes its time.
type drip struct {
	n    int
	wait time.Duration
}

func (d *drip) Read(p []byte) (int, error) {
	if d.n == 0 {
		return 0, io.EOF
	}
	d.n--
	time.Sleep(d.wait)
	p[0] = 'x'
	return 1, nil
}

func TestLimits(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Write(make([]byte, 50_000))
	})
	for name, o := range map[string]Options{"up": {Upload: Limiter(100_000)}, "down": {Download: Limiter(100_000)}} {
		start := time.Now()
		resp, err := client(t, o).Post(s.URL, "", bytes.NewReader(make([]byte, 50_000)))
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if d := time.Since(start); d < 200*time.Millisecond {
			t.Errorf("%s: 50000 bytes at 100000 a second took %v", name, d)
		}
	}
	// A connection that waits for its limiter can be closed.
	slow := Limiter(1)
	slow.ReserveN(time.Now(), slow.Burst())
	a, b := net.Pipe()
	defer b.Close()
	c := Watch(a, Options{Upload: slow})
	done := make(chan error)
	go func() {
		_, err := c.Write(make([]byte, 5000))
		done <- err
	}()
	c.Close()
	if err := <-done; err == nil {
		t.Error("a write succeeded on a closed connection")
	}
	if Limiter(0) != nil || Limiter(-1) != nil {
		t.Error("a limiter without a limit")
	}
}

// Ranges, with servers of every habit.
func TestBody(t *testing.T) {
	data := []byte("0123456789")
	honest := func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
	whole := func(w http.ResponseWriter, r *http.Request) { w.Write(data) }
	other := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", "bytes 7-8/10")
		w.WriteHeader(206)
		w.Write(data[7:9])
	}
	odd := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", "bytes 10-9/10")
		w.WriteHeader(206)
	}
	short := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.Write(data[:5])
	}
	for _, c := range []struct {
		name    string
		h       http.HandlerFunc
		off, n  int64
		want    string
		err     bool
		transit bool
	}{
		{"whole", honest, 0, -1, "0123456789", false, false},
		{"from", honest, 4, -1, "456789", false, false},
		{"middle", honest, 4, 3, "456", false, false},
		{"over the end", honest, 8, 30, "89", false, false},
		{"at the end", honest, 10, 1, "", false, false},
		{"behind the end", honest, 50, -1, "", false, false},
		{"ranges ignored", whole, 4, 3, "456", false, false},
		{"ranges ignored, to the end", whole, 4, -1, "456789", false, false},
		{"ranges ignored, behind the end", whole, 40, 3, "", false, false},
		{"another range", other, 4, 2, "", true, false},
		{"206 behind the end", odd, 10, 5, "", false, false},
		{"cut short", short, 0, -1, "01234", true, true},
		{"cut short before the range", short, 7, -1, "", true, true},
	} {
		s := serve(t, c.h)
		r, _ := http.NewRequest("GET", s.URL, nil)
		if v := Range(c.off, c.n); v != "" {
			r.Header.Set("Range", v)
		}
		resp, err := client(t, Options{}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := Body(t.Context(), "name.gpg", resp, c.off, c.n)
		var got []byte
		if err == nil {
			got, err = io.ReadAll(body)
			body.Close()
		}
		if string(got) != c.want || (err != nil) != c.err || errors.Is(err, backends.ErrTransient) != c.transit {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), "get name.gpg: ") {
			t.Errorf("%s: the error names nothing: %v", c.name, err)
		}
	}
}

func TestError(t *testing.T) {
	for status, want := range map[int]error{
		401: backends.ErrAuth, 403: backends.ErrAuth, 404: fs.ErrNotExist, 412: fs.ErrExist, 413: backends.ErrNoSpace,
		429: backends.ErrTransient, 498: backends.ErrTransient, 500: backends.ErrTransient, 503: backends.ErrTransient, 507: backends.ErrNoSpace, 400: nil, 409: nil,
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "12")
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(status)
			fmt.Fprint(w, "<html><head><title> Too\n many </title></head>", strings.Repeat("x", 100_000))
		})
		resp, err := client(t, Options{}).Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		err = Error("put", "a.gpg", resp)
		if want != nil && !errors.Is(err, want) || want == nil && (errors.Is(err, backends.ErrTransient) || errors.Is(err, backends.ErrAuth)) {
			t.Errorf("%d: %v", status, err)
		}
		var ra backends.RetryAfter
		if !errors.As(err, &ra) || ra.RetryAfter() != 12*time.Second || !strings.Contains(err.Error(), "Too many") || len(err.Error()) > 300 {
			t.Errorf("%d: %v", status, err)
		}
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "-7": 0, "x": 0, "99999999999999999999": 0,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:00:00 GMT": 0,
	} {
		if got := ParseRetryAfter(http.Header{"Retry-After": {v}}, now); got != want {
			t.Errorf("%q: %v, want %v", v, got, want)
		}
	}
}

func TestNet(t *testing.T) {
	ctx := t.Context()
	err := Net(ctx, &url.Error{Op: "Get", URL: "https://h/?sig=s3cr3t", Err: errors.New("broken")})
	if !errors.Is(err, backends.ErrTransient) || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("%v", err)
	}
	if err := Net(ctx, &net.DNSError{Err: "no such host", IsNotFound: true}); errors.Is(err, backends.ErrTransient) {
		t.Errorf("a host that does not exist is transient: %v", err)
	}
	if err := Net(ctx, &net.DNSError{Err: "try again", IsTemporary: true}); !errors.Is(err, backends.ErrTransient) {
		t.Errorf("%v", err)
	}
	gone, cancel := context.WithCancelCause(ctx)
	cause := errors.New("the cause")
	cancel(cause)
	if err := Net(gone, errors.New("x")); err != cause {
		t.Errorf("%v", err)
	}
	if Net(ctx, nil) != nil {
		t.Error("an error from none")
	}
}

// Credentials stay with the host they are for.
func TestRedirects(t *testing.T) {
	other := serve(t, func(w http.ResponseWriter, r *http.Request) { t.Errorf("the other host got %v", r.Header) })
	there := strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/same":
			http.Redirect(w, r, "/end", http.StatusTemporaryRedirect)
		case "/other":
			http.Redirect(w, r, there, http.StatusTemporaryRedirect)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusTemporaryRedirect)
		}
	})
	c := client(t, Options{})
	for path, want := range map[string]bool{"/same": true, "/other": false, "/loop": false} {
		r, _ := http.NewRequest("GET", s.URL+path, nil)
		r.Header.Set("X-Auth-Token", "secret")
		resp, err := c.Do(r)
		if (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
		if err == nil {
			resp.Body.Close()
		} else if errors.Is(Net(t.Context(), err), backends.ErrTransient) {
			t.Errorf("%s is transient: %v", path, err)
		}
	}
}

func TestCertificates(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer s.Close()
	s.Config.ErrorLog = nil
	dir := t.TempDir()
	file := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o  Options
		ok bool
	}{
		"unknown": {Options{}, false}, "file": {Options{CAFile: file}, true}, "directory": {Options{CAPath: dir}, true}, "insecure": {Options{Insecure: true}, true},
	} {
		resp, err := client(t, c.o).Get(s.URL)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			resp.Body.Close()
		} else if errors.Is(Net(t.Context(), err), backends.ErrTransient) {
			t.Errorf("%s is transient: %v", name, err)
		}
	}
	for _, o := range []Options{{CAFile: "/nowhere"}, {CAPath: "/nowhere"}, {CAPath: t.TempDir()}} {
		if _, err := NewClient(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

// A proxy is taken from the environment that was given.
func TestProxy(t *testing.T) {
	asked := ""
	p := serve(t, func(w http.ResponseWriter, r *http.Request) { asked = r.URL.String() })
	o := Options{Getenv: func(k string) string { return map[string]string{"http_proxy": p.URL, "no_proxy": "direct.invalid"}[k] }}
	resp, err := client(t, o).Get("http://store.invalid/x")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if asked != "http://store.invalid/x" {
		t.Errorf("the proxy was asked for %q", asked)
	}
	if _, err := client(t, o).Get("http://direct.invalid/x"); err == nil {
		t.Error("no_proxy was not kept")
	}
}
