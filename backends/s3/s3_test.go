package s3

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
	"sync"
	"testing"
	"time"

	"dupfs/backends"
	"dupfs/backends/backendtest"
	"dupfs/internal/need"
)

// env is an environment of its own for a driver.
func env(vars map[string]string) func(string) string { return func(k string) string { return vars[k] } }

// server is a real S3 server that the tests were told of.
type server struct {
	name, endpoint, id, secret string
	prefix                     string
	objects                    int // more than two pages
}

// servers returns those there are: versitygw, and Swift's own S3 interface,
// an older dialect without conditions.
func servers(t *testing.T) (all []server) {
	if e := os.Getenv("DUPFS_TEST_S3_ENDPOINT"); e != "" {
		all = append(all, server{"versitygw", e, os.Getenv("DUPFS_TEST_S3_ACCESS_KEY"), os.Getenv("DUPFS_TEST_S3_SECRET_KEY"), "", 2100})
	}
	if e := os.Getenv("DUPFS_TEST_SWIFT_AUTHURL"); e != "" {
		host := strings.Join(strings.SplitN(e, "/", 4)[:3], "/")
		all = append(all, server{"swift", host, os.Getenv("DUPFS_TEST_SWIFT_USERNAME"), os.Getenv("DUPFS_TEST_SWIFT_PASSWORD"), "some/dir", 120})
	}
	if len(all) == 0 {
		need.Missing(t, "no S3 server: neither DUPFS_TEST_S3_ENDPOINT nor DUPFS_TEST_SWIFT_AUTHURL is set")
	}
	return all
}

var unique struct {
	sync.Mutex
	n int
}

func name(prefix string) string {
	unique.Lock()
	defer unique.Unlock()
	unique.n++
	return fmt.Sprintf("%s-%d-%d-%d", prefix, os.Getpid(), time.Now().UnixNano()%1e9, unique.n)
}

func (s server) open(t testing.TB, bucket, prefix string, o Options) *Backend {
	o.Endpoint, o.Region = s.endpoint, "us-east-1"
	o.Getenv = env(map[string]string{"AWS_ACCESS_KEY_ID": s.id, "AWS_SECRET_ACCESS_KEY": s.secret})
	b, err := Open(bucket, prefix, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { empty(t, b) })
	return b
}

func empty(t testing.TB, b *Backend) {
	ctx := context.Background()
	files, err := b.List(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, f := range files {
		b.Delete(ctx, f.Name)
	}
	b.core.RemoveBucket(ctx, b.bucket)
	b.Close()
}

// 5 MiB is the least that a part may have.
const fivePart = 5 << 20

func TestContract(t *testing.T) {
	for _, s := range servers(t) {
		t.Run(s.name, func(t *testing.T) {
			backendtest.Run(t, func(t testing.TB) backends.Backend {
				return s.open(t, name("contract"), s.prefix, Options{PartSize: fivePart})
			}, backendtest.Options{Objects: s.objects, Large: fivePart + 4321, Sums: true})
		})
	}
}

// Files of neighbours do not show: other prefixes, deeper ones, longer ones.
func TestPrefixes(t *testing.T) {
	ctx := t.Context()
	s := servers(t)[0]
	bucket := name("prefixes")
	var all []*Backend
	for _, p := range []string{"", "a", "/a/b/", "ab"} {
		b := s.open(t, bucket, p, Options{})
		if err := b.Put(ctx, "own"+strings.ReplaceAll(p, "/", ""), strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	for _, b := range all {
		files, err := b.List(ctx)
		if err != nil || len(files) != 1 || files[0].Name != "own"+strings.ReplaceAll(b.prefix, "/", "") {
			t.Errorf("prefix %q: %+v, %v", b.prefix, files, err)
		}
	}
	for _, b := range all {
		if _, err := b.Open(ctx, "a/own", 0, -1); err == nil {
			t.Error("a name with a slash was read")
		}
	}
}

func TestWrongCredentials(t *testing.T) {
	for _, s := range servers(t) {
		s.secret = "s3cr3t-but-wrong"
		b, err := Open(name("auth"), "", Options{Endpoint: s.endpoint, Region: "us-east-1",
			Getenv: env(map[string]string{"AWS_ACCESS_KEY_ID": s.id, "AWS_SECRET_ACCESS_KEY": s.secret})})
		if err != nil {
			t.Fatal(err)
		}
		for op, f := range map[string]func() error{
			"list": func() error { _, err := b.List(t.Context()); return err },
			"put":  func() error { return b.Put(t.Context(), "x", strings.NewReader("x")) },
			"get":  func() error { _, err := b.Open(t.Context(), "x", 0, -1); return err },
		} {
			if err := f(); !errors.Is(err, backends.ErrAuth) || strings.Contains(err.Error(), s.secret) {
				t.Errorf("%s %s: %v", s.name, op, err)
			}
		}
	}
}

func TestCredentials(t *testing.T) {
	home := t.TempDir()
	os.Mkdir(filepath.Join(home, ".aws"), 0o700)
	os.WriteFile(filepath.Join(home, ".aws", "credentials"), []byte("[default]\naws_access_key_id = D\naws_secret_access_key = d\n[work]\naws_access_key_id=W\naws_secret_access_key=w\naws_session_token=t\n"), 0o600)
	os.WriteFile(filepath.Join(home, ".aws", "config"), []byte("[default]\nregion=r0\n[profile work]\nregion = r1\n[profile conf]\naws_access_key_id=C\naws_secret_access_key=c\n"), 0o600)
	for _, c := range []struct {
		vars              map[string]string
		id, token, region string
	}{
		{map[string]string{"AWS_ACCESS_KEY_ID": "E", "AWS_SECRET_ACCESS_KEY": "e", "AWS_SESSION_TOKEN": "s", "HOME": home}, "E", "s", "r0"},
		{map[string]string{"HOME": home}, "D", "", "r0"},
		{map[string]string{"HOME": home, "AWS_PROFILE": "work"}, "W", "t", "r1"},
		{map[string]string{"HOME": home, "AWS_PROFILE": "conf", "AWS_REGION": "r2"}, "C", "", "r2"},
		{map[string]string{"HOME": home, "AWS_PROFILE": "none"}, "", "", ""},
		{map[string]string{"AWS_EC2_METADATA_DISABLED": "true"}, "", "", ""},
	} {
		o := Options{Getenv: env(c.vars)}
		creds, err := findCredentials(o)
		if c.id == "" {
			if !errors.Is(err, backends.ErrAuth) {
				t.Errorf("%v: %v", c.vars, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", c.vars, err)
			continue
		}
		v, err := creds.GetWithContext(nil)
		if err != nil || v.AccessKeyID != c.id || v.SessionToken != c.token || region(o) != c.region {
			t.Errorf("%v: key %q, token %q, region %q, %v", c.vars, v.AccessKeyID, v.SessionToken, region(o), err)
		}
	}
}

func TestEndpoint(t *testing.T) {
	for _, c := range []struct {
		o      Options
		host   string
		secure bool
	}{
		{Options{}, "s3.amazonaws.com", true},
		{Options{Endpoint: "https://h"}, "h", true},
		{Options{Endpoint: "http://h:9000/"}, "h:9000", false},
		{Options{Endpoint: "h:9000"}, "h:9000", true},
		{Options{Endpoint: "h:9000", Unencrypted: true}, "h:9000", false},
		{Options{Getenv: env(map[string]string{"AWS_ENDPOINT_URL": "http://e"})}, "e", false},
		{Options{Endpoint: "https://key:secret@h"}, "", false},
		{Options{Endpoint: "ftp://h"}, "", false},
		{Options{Endpoint: "https://h/path"}, "", false},
	} {
		if c.o.Getenv == nil {
			c.o.Getenv = env(nil)
		}
		host, secure, err := endpoint(c.o)
		if host != c.host || secure != c.secure || (err == nil) != (c.host != "") {
			t.Errorf("%+v: %s, %v, %v", c.o, host, secure, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Error(err)
		}
	}
}

func TestPartSize(t *testing.T) {
	for _, c := range [][3]int64{{1, 16 << 20, 16 << 20}, {16 << 20 * maxParts, 16 << 20, 16 << 20}, {16<<20*maxParts + 1, 16 << 20, 17 << 20}, {5 << 40, 16 << 20, 525 << 20}} {
		if got := partSize(c[0], c[1]); got != c[2] || (c[0]+got-1)/got > maxParts {
			t.Errorf("partSize(%d, %d) = %d, want %d", c[0], c[1], got, c[2])
		}
	}
}

// fake answers as told and notes the requests.
type fake struct {
	*httptest.Server
	mu   sync.Mutex
	seen []*http.Request
	body []string
}

func newFake(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) *fake {
	f := &fake{}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		f.mu.Lock()
		f.seen = append(f.seen, r)
		f.body = append(f.body, string(body))
		f.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) open(t *testing.T, o Options) *Backend {
	o.Endpoint, o.Region = f.URL, "us-east-1"
	o.Getenv = env(map[string]string{"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"})
	b, err := Open("bucket", "p", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func xmlError(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>told so</Message></Error>", code)
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		status int
		code   string
		want   error
	}{
		{503, "SlowDown", backends.ErrTransient},
		{500, "InternalError", backends.ErrTransient},
		{429, "TooManyRequests", backends.ErrTransient},
		{403, "AccessDenied", backends.ErrAuth},
		{400, "ExpiredToken", backends.ErrAuth},
		{403, "InvalidObjectState", backends.ErrArchived},
		{404, "NoSuchKey", fs.ErrNotExist},
		{409, "OperationAborted", backends.ErrTransient},
		{501, "NotImplemented", errors.ErrUnsupported},
		{507, "XMinioStorageFull", backends.ErrNoSpace},
	} {
		f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "7")
			xmlError(w, c.status, c.code)
		})
		_, err := f.open(t, Options{}).Open(t.Context(), "x", 0, -1)
		if !errors.Is(err, c.want) {
			t.Errorf("%d %s: %v", c.status, c.code, err)
		}
		var after backends.RetryAfter
		if !errors.As(err, &after) || after.RetryAfter() != 7*time.Second {
			t.Errorf("%d %s: Retry-After is lost: %v", c.status, c.code, err)
		}
		if len(f.seen) != 1 {
			t.Errorf("%d %s: asked %d times", c.status, c.code, len(f.seen))
		}
	}
}

func TestBodyCutShort(t *testing.T) {
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
		w.Header().Set("ETag", `"abc"`)
		w.Write(make([]byte, 500))
	})
	r, err := f.open(t, Options{}).Open(t.Context(), "x", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if data, err := io.ReadAll(r); !errors.Is(err, backends.ErrTransient) || len(data) != 500 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}

// Volumes get the storage class, metadata does not; checksums and the
// condition are sent.
func TestPutHeaders(t *testing.T) {
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.WriteHeader(404)
			return
		}
		w.Header().Set("ETag", `"abc"`)
	})
	b := f.open(t, Options{StorageClass: "GLACIER_IR", Encryption: true})
	for name, class := range map[string]string{
		"duplicity-full.20231114T221320Z.vol1.difftar.gpg":      "GLACIER_IR",
		"duplicity-full.20231114T221320Z.manifest.gpg":          "",
		"duplicity-full-signatures.20231114T221320Z.sigtar.gpg": "",
	} {
		f.seen = nil
		if err := b.Put(t.Context(), name, strings.NewReader("data")); err != nil {
			t.Fatal(err)
		}
		h := f.seen[0].Header
		if h.Get("X-Amz-Storage-Class") != class || h.Get("Content-Md5") == "" || h.Get("X-Amz-Content-Sha256") == "UNSIGNED-PAYLOAD" ||
			h.Get("X-Amz-Server-Side-Encryption") != "AES256" || h.Get("If-None-Match") != "" {
			t.Errorf("%s: %v", name, h)
		}
		if strings.Contains(fmt.Sprint(h), "secret") {
			t.Error("the secret was sent")
		}
	}
	f.seen = nil
	if err := b.PutNew(t.Context(), "x", strings.NewReader("data")); err != nil {
		t.Fatal(err)
	}
	if h := f.seen[len(f.seen)-1].Header; h.Get("If-None-Match") != "*" {
		t.Errorf("PutNew: %v", h)
	}
}

// A part that fails is sent again by itself, and the upload is finished once,
// or given up and removed.
func TestPartsAreRepeated(t *testing.T) {
	for fails, ok := range map[int]bool{2: true, 99: false} {
		var mu sync.Mutex
		left, done, aborted := fails, 0, 0
		got := map[string]int{}
		f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			q := r.URL.Query()
			switch {
			case r.Method == "GET":
				fmt.Fprint(w, "<ListMultipartUploadsResult></ListMultipartUploadsResult>")
			case r.Method == "POST" && q.Has("uploads"):
				fmt.Fprint(w, "<InitiateMultipartUploadResult><UploadId>U</UploadId></InitiateMultipartUploadResult>")
			case r.Method == "PUT":
				if q.Get("partNumber") == "2" && left > 0 {
					left--
					xmlError(w, 503, "SlowDown")
					return
				}
				got[q.Get("partNumber")]++
				w.Header().Set("ETag", `"e`+q.Get("partNumber")+`"`)
			case r.Method == "POST":
				done++
				fmt.Fprint(w, "<CompleteMultipartUploadResult><Bucket>bucket</Bucket><Key>x</Key></CompleteMultipartUploadResult>")
			case r.Method == "DELETE":
				aborted++
				w.WriteHeader(204)
			}
		})
		b := f.open(t, Options{PartSize: 1000, Parts: 2, Retry: backends.RetryOptions{Tries: 3, Delay: time.Millisecond, MaxDelay: time.Millisecond}})
		err := b.Put(t.Context(), "x", bytes.NewReader(make([]byte, 3500)))
		if (err == nil) != ok || !ok && !errors.Is(err, backends.ErrTransient) {
			t.Errorf("%d failures: %v", fails, err)
		}
		if ok && (done != 1 || aborted != 0 || got["1"] != 1 || got["2"] != 1 || got["3"] != 1 || got["4"] != 1) || !ok && (done != 0 || aborted != 1) {
			t.Errorf("%d failures: finished %d times, aborted %d times, parts %v", fails, done, aborted, got)
		}
		if len(b.parts) != 0 {
			t.Errorf("%d parts are still held", len(b.parts))
		}
	}
}

// Glacier: what a listing and HEAD say, and how a file comes back.
func TestGlacier(t *testing.T) {
	restore := ""
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == "HEAD":
			w.Header().Set("X-Amz-Storage-Class", "GLACIER")
			w.Header().Set("Last-Modified", time.Now().UTC().Format(http.TimeFormat))
			w.Header().Set("ETag", `"abc"`)
			if restore != "" {
				w.Header().Set("X-Amz-Restore", restore)
			}
		case r.Method == "GET":
			fmt.Fprint(w, `<ListBucketResult><Name>bucket</Name><Prefix>p/</Prefix>
<Contents><Key>p/a</Key><Size>1</Size><StorageClass>STANDARD</StorageClass></Contents>
<Contents><Key>p/b</Key><Size>2</Size><StorageClass>DEEP_ARCHIVE</StorageClass></Contents>
<Contents><Key>p/c</Key><Size>3</Size><StorageClass>GLACIER</StorageClass><RestoreStatus><IsRestoreInProgress>true</IsRestoreInProgress></RestoreStatus></Contents>
<Contents><Key>p/d</Key><Size>4</Size><StorageClass>GLACIER</StorageClass><RestoreStatus><IsRestoreInProgress>false</IsRestoreInProgress><RestoreExpiryDate>2027-01-01T00:00:00Z</RestoreExpiryDate></RestoreStatus></Contents>
<Contents><Key>p/e</Key><Size>5</Size><StorageClass>GLACIER_IR</StorageClass></Contents></ListBucketResult>`)
		case r.Method == "POST":
			w.WriteHeader(202)
		case r.Method == "PUT":
			fmt.Fprint(w, "<CopyObjectResult><ETag>x</ETag><LastModified>2027-01-01T00:00:00Z</LastModified></CopyObjectResult>")
		}
	})
	ctx, b := t.Context(), f.open(t, Options{})
	files, err := b.List(ctx)
	if err != nil || len(files) != 5 {
		t.Fatal(files, err)
	}
	for i, want := range []struct{ archived, rehydrating bool }{{false, false}, {true, false}, {true, true}, {false, false}, {false, false}} {
		if f := files[i]; f.Archived != want.archived || f.Rehydrating != want.rehydrating || f.Size != int64(i+1) {
			t.Errorf("%+v", f)
		}
	}
	if err := b.SetTier(ctx, "x", "STANDARD", "High"); err != nil {
		t.Fatal(err)
	}
	if last := f.body[len(f.body)-1]; !strings.Contains(last, "<Tier>Expedited</Tier>") || !strings.Contains(last, "<Days>7</Days>") {
		t.Errorf("restore: %s", last)
	}
	restore = `ongoing-request="false", expiry-date="Fri, 01 Jan 2027 00:00:00 GMT"`
	if st, err := b.Stat(ctx, "x"); err != nil || st.Archived {
		t.Errorf("restored: %+v, %v", st, err)
	}
	if err := b.SetTier(ctx, "x", "STANDARD", ""); err != nil {
		t.Fatal(err)
	}
	if r := f.seen[len(f.seen)-1]; r.Method != "PUT" || r.Header.Get("X-Amz-Storage-Class") != "STANDARD" || r.Header.Get("X-Amz-Copy-Source") == "" {
		t.Errorf("made permanent by %s with %v", r.Method, r.Header)
	}
}
