package azblob

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
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"

	"dupfs/backends"
	"dupfs/backends/backendtest"
	"dupfs/internal/need"
)

func env(m map[string]string) func(string) string {
	return func(name string) string { return m[name] }
}

// azurite returns the connection string of the test server.
func azurite(t testing.TB) string {
	t.Helper()
	v := os.Getenv("DUPFS_TEST_AZURITE")
	if v == "" {
		need.Missing(t, "DUPFS_TEST_AZURITE is not set: no test server, see scripts/servers/start.sh")
	}
	return v
}

var containers atomic.Int64

func fresh() string {
	return fmt.Sprintf("t%d-%d-%d", time.Now().Unix(), os.Getpid(), containers.Add(1))
}

// open opens a fresh container, which is removed afterwards.
func open(t testing.TB, conn string, o Options) *Backend {
	t.Helper()
	return openIn(t, conn, fresh(), o)
}

func openIn(t testing.TB, conn, name string, o Options) *Backend {
	t.Helper()
	o.Getenv = env(map[string]string{"AZURE_CONNECTION_STRING": conn})
	bk, err := Open(t.Context(), name, o)
	if err != nil {
		t.Fatal(err)
	}
	b := bk.(*Backend)
	t.Cleanup(func() {
		defer b.Close()
		if conn != os.Getenv("DUPFS_TEST_AZURITE") {
			return // a server of the test's own, or one who may not remove it
		}
		if _, err := b.container.Delete(context.Background(), nil); err != nil && !bloberror.HasCode(err, bloberror.ContainerNotFound) {
			t.Error("cleanup:", fail(context.Background(), "remove", name, err))
		}
	})
	return b
}

func put(t *testing.T, b backends.Backend, name string, data []byte) {
	t.Helper()
	if err := b.Put(t.Context(), name, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
}

func get(b backends.Backend, name string) ([]byte, error) {
	r, err := b.Open(context.Background(), name, 0, -1)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestContract(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
	}{
		{"SinglePut", Options{}},
		{"Blocks", Options{MaxSinglePut: 300_000, MaxBlock: 200_000, MaxConnections: 3}},
		{"Tiers", Options{VolumeTier: "Cool", MaxSinglePut: 1 << 20, MaxBlock: 1 << 20, MaxConnections: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			backendtest.Run(t, func(t testing.TB) backends.Backend {
				b := open(t, azurite(t), c.o)
				b.page = to.Ptr[int32](40)
				return b
			}, backendtest.Options{
				Sums:      true,
				Objects:   90,
				SkipNames: []string{`back\slash`}, // it is a slash in the URLs of blobs
			})
		})
	}
}

func TestParseConnection(t *testing.T) {
	const key = "a2V5"
	for s, want := range map[string]connection{
		"DefaultEndpointsProtocol=https;AccountName=me;AccountKey=" + key + ";EndpointSuffix=core.windows.net":      {endpoint: "https://me.blob.core.windows.net", account: "me", key: key},
		"DefaultEndpointsProtocol=http;AccountName=me;AccountKey=" + key + ";EndpointSuffix=core.chinacloudapi.cn;": {endpoint: "http://me.blob.core.chinacloudapi.cn", account: "me", key: key},
		" accountname=me ; ACCOUNTKEY=a2V5Cg== ":                                                                    {endpoint: "https://me.blob.core.windows.net", account: "me", key: "a2V5Cg=="},
		"BlobEndpoint=https://me.blob.core.windows.net/;SharedAccessSignature=?sv=2022&sig=x%3D":                    {endpoint: "https://me.blob.core.windows.net", sas: "sv=2022&sig=x%3D"},
		"BlobEndpoint=https://me.blob.core.windows.net;QueueEndpoint=https://q;SharedAccessSignature=sv=2022&sig=x": {endpoint: "https://me.blob.core.windows.net", sas: "sv=2022&sig=x"},
		"AccountName=me;SharedAccessSignature=sv=1&sig=x":                                                           {endpoint: "https://me.blob.core.windows.net", account: "me", sas: "sv=1&sig=x"},
		"BlobEndpoint=https://me.blob.core.windows.net/?sv=1&sig=x":                                                 {endpoint: "https://me.blob.core.windows.net", sas: "sv=1&sig=x"},
		"BlobEndpoint=http://127.0.0.1:1/me;AccountName=me;AccountKey=" + key:                                       {endpoint: "http://127.0.0.1:1/me", account: "me", key: key},
		"UseDevelopmentStorage=true":                                                                                {endpoint: "http://127.0.0.1:10000/devstoreaccount1", account: emulatorAccount, key: emulatorKey},
		"UseDevelopmentStorage=True;DevelopmentStorageProxyUri=http://lab/":                                         {endpoint: "http://lab:10000/devstoreaccount1", account: emulatorAccount, key: emulatorKey},
		"UseDevelopmentStorage=false;AccountName=me;AccountKey=" + key:                                              {endpoint: "https://me.blob.core.windows.net", account: "me", key: key},
	} {
		got, err := parseConnection(s)
		if err != nil || *got != want {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", s, got, err, want)
		}
	}
	for _, s := range []string{
		"", "secret", "AccountName=me", "AccountKey=secret", "AccountName=me;AccountKey=", "AccountName=me;secret",
		"BlobEndpoint=secret;AccountName=me;AccountKey=" + key, "BlobEndpoint=ftp://secret/;AccountName=me;AccountKey=" + key,
		"BlobEndpoint=http://a b/secret;AccountName=me;AccountKey=" + key, "UseDevelopmentStorage=false",
	} {
		got, err := parseConnection(s)
		if !errors.Is(err, backends.ErrAuth) || !strings.Contains(err.Error(), "AZURE_CONNECTION_STRING") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
}

func FuzzParseConnection(f *testing.F) {
	f.Add("DefaultEndpointsProtocol=https;AccountName=me;AccountKey=a2V5;EndpointSuffix=core.windows.net")
	f.Add("BlobEndpoint=https://me.blob.core.windows.net/;SharedAccessSignature=?sv=2022&sig=x%3D")
	f.Add("UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://lab/")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseConnection(s)
		if err == nil && (c.endpoint == "" || c.sas == "" && (c.account == "" || c.key == "")) {
			t.Errorf("%q: %+v", s, c)
		}
	})
}

func TestOpenFails(t *testing.T) {
	good := map[string]string{"AZURE_CONNECTION_STRING": "UseDevelopmentStorage=true"}
	for _, c := range []struct {
		name string
		o    Options
		says string
	}{
		{"good", Options{Getenv: env(nil)}, "AZURE_CONNECTION_STRING environment variable not set."},
		{"ab", Options{}, "Invalid Azure Storage Blob container name."},
		{"Big", Options{}, "Invalid Azure"}, {"a--b", Options{}, "Invalid Azure"}, {"-abc", Options{}, "Invalid Azure"},
		{"abc-", Options{}, "Invalid Azure"}, {"a/b", Options{}, "Invalid Azure"}, {strings.Repeat("x", 64), Options{}, "Invalid Azure"},
		{"good", Options{VolumeTier: "Luke"}, `unknown access tier "Luke"`},
		{"good", Options{MetadataTier: "archive"}, "cannot be in the tier Archive"},
		{"good", Options{Getenv: env(map[string]string{"AZURE_CONNECTION_STRING": "AccountName=me;AccountKey=no base64"})}, "not base64"},
		{"good", Options{VolumeTier: "cold", MetadataTier: "hot"}, ""},
		{strings.Repeat("x", 63), Options{}, ""}, {"a-b", Options{}, ""}, {"012", Options{}, ""},
	} {
		if c.o.Getenv == nil {
			c.o.Getenv = env(good)
		}
		b, err := Open(t.Context(), c.name, c.o)
		if fmt.Sprint(err) != "<nil>" != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q %+v: %v, want %q", c.name, c.o, err, c.says)
		}
		if err == nil {
			backends.Close(b)
		}
	}
}

const (
	volume   = "pre.duplicity-full.20261121T204932Z.vol1.difftar.gpg"
	manifest = "pre.duplicity-full.20261121T204932Z.manifest.gpg"
)

// tiers returns the tiers that the listing shows, and checks that Stat agrees.
func tiers(t *testing.T, b *Backend) map[string]string {
	t.Helper()
	files, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for _, f := range files {
		m[f.Name] = f.Tier
		s, err := b.Stat(t.Context(), f.Name)
		s.ModTime, f.ModTime = time.Time{}, time.Time{}
		if err != nil || s != f {
			t.Errorf("Stat says %+v, %v, List %+v", s, err, f)
		}
	}
	return m
}

func TestTiers(t *testing.T) {
	for _, c := range []struct {
		o                Options
		volume, manifest string
	}{
		{Options{}, "Hot", "Hot"}, // the account's default
		{Options{VolumeTier: "Cool"}, "Cool", "Hot"},
		{Options{VolumeTier: "cold"}, "Cold", "Hot"},
		{Options{VolumeTier: "Archive"}, "Archive", "Hot"},
		{Options{VolumeTier: "Archive", MetadataTier: "Cool"}, "Archive", "Cool"},
		{Options{MetadataTier: "Cool"}, "Hot", "Cool"},
	} {
		for _, blocks := range []bool{false, true} {
			if blocks {
				c.o.MaxSinglePut, c.o.MaxBlock = 10, 10
			}
			b := open(t, azurite(t), c.o)
			put(t, b, volume, backendtest.Data(1, 25))
			put(t, b, manifest, backendtest.Data(2, 25))
			if got := tiers(t, b); got[volume] != c.volume || got[manifest] != c.manifest {
				t.Errorf("%+v: %v", c.o, got)
			}
		}
	}
}

func TestArchive(t *testing.T) {
	for _, o := range []Options{{VolumeTier: "Archive"}, {VolumeTier: "Archive", MaxSinglePut: 10, MaxBlock: 10}} {
		b := open(t, azurite(t), o)
		data := backendtest.Data(1, 100)
		put(t, b, volume, data)
		f, err := b.Stat(t.Context(), volume)
		if err != nil || !f.Archived || f.Rehydrating || f.Tier != "Archive" {
			t.Errorf("%+v, %v", f, err)
		}
		for _, r := range [][2]int64{{0, -1}, {10, 20}} {
			if _, err := b.Open(t.Context(), volume, r[0], r[1]); !errors.Is(err, backends.ErrArchived) || !strings.Contains(err.Error(), volume) {
				t.Errorf("reading from the archive: %v", err)
			}
		}
		if err := b.PutNew(t.Context(), volume, bytes.NewReader(data)); !errors.Is(err, fs.ErrExist) && !errors.Is(err, backends.ErrArchived) {
			t.Errorf("PutNew over an archived file: %v", err)
		}
		other := backendtest.Data(2, 90)
		put(t, b, volume, other)
		if err := b.SetTier(t.Context(), volume, "Cool", "High"); err != nil {
			t.Fatal(err)
		}
		if got, err := get(b, volume); err != nil || !bytes.Equal(got, other) {
			t.Errorf("after the archive: %v", err)
		}
		if got := tiers(t, b)[volume]; got != "Cool" {
			t.Errorf("rehydrated to %q", got)
		}
		if err := b.SetTier(t.Context(), volume, "Archive", ""); err != nil {
			t.Fatal(err)
		}
		if err := b.Delete(t.Context(), volume); err != nil {
			t.Errorf("removing from the archive: %v", err)
		}
	}
}

// TestRehydrating plays the answers that Azure gives while a file is on its
// way out of the archive, a state that the emulator does not have.
func TestRehydrating(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse := func(code string) {
			w.Header().Set("X-Ms-Error-Code", code)
			w.WriteHeader(http.StatusConflict)
		}
		switch {
		case r.Method == http.MethodHead:
			w.Header().Set("X-Ms-Access-Tier", "Archive")
			w.Header().Set("X-Ms-Archive-Status", "rehydrate-pending-to-cool")
			w.Header().Set("Content-Length", "7")
		case r.Method == http.MethodPut && r.URL.Query().Get("comp") == "tier":
			refuse("BlobBeingRehydrated")
		case r.URL.Query().Get("comp") == "list":
			io.WriteString(w, `<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs><Blob><Name>v</Name><Properties>`+
				`<Content-Length>7</Content-Length><BlobType>BlockBlob</BlobType><AccessTier>Archive</AccessTier>`+
				`<ArchiveStatus>rehydrate-pending-to-cool</ArchiveStatus></Properties></Blob>`+
				`<BlobPrefix><Name>a/</Name></BlobPrefix></Blobs><NextMarker/></EnumerationResults>`)
		default:
			refuse("BlobArchived")
		}
	}))
	defer s.Close()
	b := open(t, "BlobEndpoint="+s.URL+"/me;SharedAccessSignature=sig=x", Options{})
	want := backends.File{Name: "v", Size: 7, Tier: "Archive", Archived: true, Rehydrating: true}
	if f, err := b.Stat(t.Context(), "v"); err != nil || f != want {
		t.Errorf("Stat: %+v, %v", f, err)
	}
	if files, err := b.List(t.Context()); err != nil || !slices.Equal(files, []backends.File{want}) {
		t.Errorf("List: %+v, %v", files, err)
	}
	if _, err := b.Open(t.Context(), "v", 0, -1); !errors.Is(err, backends.ErrArchived) {
		t.Errorf("Open: %v", err)
	}
	if err := b.SetTier(t.Context(), "v", "Cool", "Standard"); err != nil {
		t.Errorf("asking again: %v", err)
	}
	if err := b.SetTier(t.Context(), "v", "Archive", ""); !errors.Is(err, backends.ErrArchived) {
		t.Errorf("sending it back meanwhile: %v", err)
	}
}

func TestSetTierFails(t *testing.T) {
	b := open(t, azurite(t), Options{})
	put(t, b, volume, []byte("x"))
	for _, c := range [][3]string{{volume, "Luke", ""}, {volume, "", ""}, {volume, "Cool", "Express"}} {
		if err := b.SetTier(t.Context(), c[0], c[1], c[2]); err == nil || !strings.Contains(err.Error(), volume) {
			t.Errorf("%q: %v", c, err)
		}
	}
	if err := b.SetTier(t.Context(), "none", "Cool", ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a missing file: %v", err)
	}
}

// signed returns a connection string with a signature instead of the key.
func signed(t *testing.T, name string, p sas.ContainerPermissions) string {
	t.Helper()
	c, err := parseConnection(azurite(t))
	if err != nil {
		t.Fatal(err)
	}
	cred, err := container.NewSharedKeyCredential(c.account, c.key)
	if err != nil {
		t.Fatal(err)
	}
	q, err := sas.BlobSignatureValues{
		Protocol: sas.ProtocolHTTPSandHTTP, ExpiryTime: time.Now().Add(time.Hour), ContainerName: name, Permissions: p.String(),
	}.SignWithSharedKey(cred)
	if err != nil {
		t.Fatal(err)
	}
	return "BlobEndpoint=" + c.endpoint + "/;SharedAccessSignature=" + q.Encode()
}

func TestSAS(t *testing.T) {
	owner := open(t, azurite(t), Options{})
	put(t, owner, "a", []byte("hello"))
	all := sas.ContainerPermissions{Read: true, Add: true, Create: true, Write: true, Delete: true, List: true}
	for _, o := range []Options{{}, {MaxSinglePut: 1, MaxBlock: 2}} {
		b, err := Open(t.Context(), owner.name, withConn(o, signed(t, owner.name, all)))
		if err != nil {
			t.Fatal(err)
		}
		put(t, b, "b", []byte("world"))
		files, err := b.List(t.Context())
		if err != nil || len(files) != 2 {
			t.Errorf("List: %v, %v", files, err)
		}
		if got, err := get(b, "b"); string(got) != "world" {
			t.Errorf("read %q, %v", got, err)
		}
		if err := b.Delete(t.Context(), "b"); err != nil {
			t.Error(err)
		}
		backends.Close(b)
	}
	reader, err := Open(t.Context(), owner.name, withConn(Options{}, signed(t, owner.name, sas.ContainerPermissions{Read: true, List: true})))
	if err != nil {
		t.Fatal(err)
	}
	defer backends.Close(reader)
	if got, err := get(reader, "a"); string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
	for op, err := range map[string]error{
		"Put": reader.Put(t.Context(), "b", strings.NewReader("x")), "Delete": reader.Delete(t.Context(), "a"),
	} {
		if !errors.Is(err, backends.ErrAuth) || strings.Contains(err.Error(), "sig") {
			t.Errorf("%s by one who may only read: %v", op, err)
		}
	}
	nowhere, err := Open(t.Context(), fresh(), withConn(Options{}, signed(t, fresh(), all)))
	if err != nil {
		t.Fatal(err)
	}
	defer backends.Close(nowhere)
	if err := nowhere.Put(t.Context(), "b", strings.NewReader("x")); !errors.Is(err, backends.ErrAuth) && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a signature for another container: %v", err)
	}
}

func withConn(o Options, conn string) Options {
	o.Getenv = env(map[string]string{"AZURE_CONNECTION_STRING": conn})
	return o
}

func TestWrongKey(t *testing.T) {
	conn := strings.Replace(azurite(t), "AccountKey=Eby8", "AccountKey=AAAA", 1)
	b := open(t, conn, Options{})
	if _, err := b.List(t.Context()); !errors.Is(err, backends.ErrAuth) || strings.Contains(err.Error(), "\n") {
		t.Errorf("List with a wrong key: %v", err)
	}
}

// TestBlocksGoOn breaks a Put off in the middle and puts the file again.
func TestBlocksGoOn(t *testing.T) {
	for _, parallel := range []int{1, 3} {
		b := open(t, azurite(t), Options{MaxSinglePut: 1000, MaxBlock: 1 << 18, MaxConnections: parallel})
		var sent, stored atomic.Int64
		var stop atomic.Bool
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		real := b.client.Transport
		b.client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			resp, err := real.RoundTrip(r)
			if r.URL.Query().Get("comp") == "block" {
				sent.Add(1)
				if err == nil && stored.Add(1) == 3 && stop.Load() {
					cancel()
				}
			}
			return resp, err
		})
		stop.Store(true)
		data := backendtest.Data(1, 2<<20+10)
		if err := b.Put(ctx, "a", bytes.NewReader(data)); !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled: %v", err)
		}
		if _, err := b.Stat(t.Context(), "a"); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("half a file is there: %v", err)
		}
		if files, err := b.List(t.Context()); err != nil || len(files) != 0 {
			t.Fatalf("half a file is listed: %v, %v", files, err)
		}
		stop.Store(false)
		// Those that were on their way may have arrived, too.
		most := 9 - stored.Load()
		least := most - int64(parallel)
		sent.Store(0)
		put(t, b, "a", data)
		if n := sent.Load(); n > most || n < least {
			t.Errorf("%d blocks were sent again, want %d to %d of 9", n, least, most)
		}
		if got, err := get(b, "a"); err != nil || !bytes.Equal(got, data) {
			t.Errorf("not what was stored: %v", err)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestAnswers plays refusals that the emulator cannot be brought to.
func TestAnswers(t *testing.T) {
	var code string
	var status int
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("restype") == "container" && r.Method == http.MethodPut {
			w.WriteHeader(http.StatusCreated)
			return
		}
		w.Header().Set("X-Ms-Error-Code", code)
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(status)
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>sig=secret</Message></Error>", code)
	}))
	defer s.Close()
	for _, c := range []struct {
		status int
		code   string
		want   error
	}{
		{503, "ServerBusy", backends.ErrTransient}, {500, "InternalError", backends.ErrTransient},
		{500, "OperationTimedOut", backends.ErrTransient}, {400, "Md5Mismatch", backends.ErrTransient},
		{400, "InvalidBlockList", backends.ErrTransient}, {409, "ContainerBeingDeleted", backends.ErrTransient},
		{403, "AuthenticationFailed", backends.ErrAuth}, {403, "AuthorizationPermissionMismatch", backends.ErrAuth},
		{409, "AccountIsDisabled", backends.ErrAuth}, {413, "RequestBodyTooLarge", backends.ErrNoSpace},
		{429, "", backends.ErrTransient}, {400, "InvalidHeaderValue", nil},
	} {
		status, code = c.status, c.code
		b := open(t, "BlobEndpoint="+s.URL+"/me;SharedAccessSignature=sig=secret", Options{})
		_, lerr := b.List(t.Context())
		_, gerr := b.Open(t.Context(), "a", 0, -1)
		for op, err := range map[string]error{"List": lerr, "Open": gerr, "Put": b.Put(t.Context(), "a", strings.NewReader("x")), "Delete": b.Delete(t.Context(), "a")} {
			if c.want == nil && (err == nil || errors.Is(err, backends.ErrTransient)) || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%s answered with %d %s: %v", op, c.status, c.code, err)
				continue
			}
			if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: the message tells the signature, or is not one line: %q", op, err)
			}
			if after := (backends.RetryAfter)(nil); !errors.As(err, &after) || after.RetryAfter() != 7*time.Second {
				t.Errorf("%s: Retry-After is lost: %v", op, err)
			}
		}
	}
}

// TestDamage reads a file that rotted in the store.
func TestDamage(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Md5", "AAAAAAAAAAAAAAAAAAAAAA==")
		io.WriteString(w, "hello")
	}))
	defer s.Close()
	b := open(t, "BlobEndpoint="+s.URL+"/me;SharedAccessSignature=sig=x", Options{})
	got, err := get(b, "a")
	if err == nil || !strings.Contains(err.Error(), "damaged") || errors.Is(err, backends.ErrTransient) || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestRefused(t *testing.T) {
	b := open(t, "BlobEndpoint=http://127.0.0.1:1/me;SharedAccessSignature=sig=secret", Options{})
	_, err := b.List(t.Context())
	if !errors.Is(err, backends.ErrTransient) || strings.Contains(err.Error(), "secret") {
		t.Errorf("no server: %v", err)
	}
}

// TestManyBlocks checks the arithmetic of blobs that would have too many blocks.
func TestManyBlocks(t *testing.T) {
	b := open(t, "UseDevelopmentStorage=true", Options{MaxBlock: 3})
	data := backendtest.Data(1, 3*maxBlocks+1)
	s, err := b.measure(t.Context(), bytes.NewReader(data))
	if err != nil || s.Part != 4 || s.Size != int64(len(data)) || len(s.Parts) != (len(data)+3)/4 {
		t.Errorf("block %d, %d blocks, %v", s.Part, len(s.Parts), err)
	}
}

// TestStockDuplicity lets stock duplicity back up and restore beside us.
func TestStockDuplicity(t *testing.T) {
	need.Program(t, "duplicity")
	tool := os.Getenv("DUPFS_TEST_STOCK")
	if tool == "" {
		need.Missing(t, "DUPFS_TEST_STOCK is not set, see scripts/servers/start.sh")
	}
	b := open(t, azurite(t), Options{VolumeTier: "Cool"})
	dir := t.TempDir()
	src, out := filepath.Join(dir, "src"), filepath.Join(dir, "out")
	data := backendtest.Data(1, 3<<20)
	if err := errors.Join(os.Mkdir(src, 0o700), os.WriteFile(filepath.Join(src, "file"), data, 0o600)); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(tool, append([]string{"duplicity", "--num-retries", "2", "--no-encryption"}, args...)...)
		cmd.Env = append(os.Environ(), "HOME="+dir, "AZURE_CONNECTION_STRING="+azurite(t))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	url := "azure://" + b.name
	run("--volsize", "1", src, url)
	files, err := b.List(t.Context())
	if err != nil || len(files) < 5 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		got, err := get(b, f.Name)
		if err != nil || int64(len(got)) != f.Size {
			t.Errorf("%s: listed with %d bytes, read %d, %v", f.Name, f.Size, len(got), err)
		}
		put(t, b, f.Name, got)
	}
	if err := os.RemoveAll(filepath.Join(dir, ".cache")); err != nil {
		t.Fatal(err)
	}
	run("restore", url, out)
	if got, err := os.ReadFile(filepath.Join(out, "file")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("stock duplicity restored something else: %v", err)
	}
}
