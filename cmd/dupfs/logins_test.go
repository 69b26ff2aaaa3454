package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
)

// project is a login at Keystone, made without dupfs: a token, and what the
// cloud's catalogue says.
type project struct {
	t        *testing.T
	keystone string // URL without version
	token    string
	user     string            // id
	storage  map[string]string // region → URL of the object store
}

func newProject(t *testing.T) *project {
	t.Helper()
	p := &project{t: t, keystone: server(t, "KEYSTONE_URL"), storage: map[string]string{}}
	var got struct {
		Token struct {
			User    struct{ ID string }
			Catalog []struct {
				Type      string
				Endpoints []struct{ Interface, Region, URL string }
			}
		}
	}
	p.token = p.post("/v3/auth/tokens", `{"auth": {
		"identity": {"methods": ["password"], "password": {"user": {"name": "tester", "password": "testing", "domain": {"id": "default"}}}},
		"scope": {"project": {"name": "demo", "domain": {"id": "default"}}}}}`, &got)
	p.user = got.Token.User.ID
	for _, service := range got.Token.Catalog {
		for _, e := range service.Endpoints {
			if service.Type == "object-store" && e.Interface == "public" {
				p.storage[e.Region] = e.URL
			}
		}
	}
	if len(p.storage) < 2 {
		t.Fatalf("regions: %v", p.storage)
	}
	return p
}

// post returns the token that the answer has in its header, if any.
func (p *project) post(path, body string, out any) string {
	p.t.Helper()
	r, err := http.NewRequest(http.MethodPost, p.keystone+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Auth-Token", p.token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusCreated {
		p.t.Fatalf("%s: %d %s", path, resp.StatusCode, text)
	}
	if err := json.Unmarshal(text, out); err != nil {
		p.t.Fatal(err)
	}
	return resp.Header.Get("X-Subject-Token")
}

// credential makes an application credential.
func (p *project) credential() (id, secret string) {
	p.t.Helper()
	var got struct {
		Credential struct{ ID, Secret string } `json:"application_credential"`
	}
	name := fmt.Sprintf("dupfs-%d", os.Getpid())
	p.post("/v3/users/"+p.user+"/application_credentials", `{"application_credential": {"name": "`+name+`"}}`, &got)
	return got.Credential.ID, got.Credential.Secret
}

// variables are those of a user of Keystone's version 3 under SWIFT_.
func (p *project) variables(more ...string) []string {
	return append([]string{
		"SWIFT_AUTHURL=" + p.keystone + "/v3", "SWIFT_AUTHVERSION=3", "SWIFT_USERNAME=tester", "SWIFT_PASSWORD=testing",
		"SWIFT_TENANTNAME=demo", "SWIFT_USER_DOMAIN_NAME=Default", "SWIFT_PROJECT_DOMAIN_NAME=Default",
	}, more...)
}

// Every kind of login that users of Swift have reaches the same archive.
func TestSwiftLogins(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := newProject(t)
	id, secret := p.credential()
	w.write("other/clouds.yaml", "clouds: {here: {auth: {auth_url: '"+p.keystone+"/v3', username: tester, password: testing, "+
		"project_name: demo, user_domain_name: Default, project_domain_name: Default}, region_name: RegionOne}}\n")
	w.write("home/.config/openstack/clouds.yaml", "clouds: {there: {auth_type: v3applicationcredential, auth: {auth_url: '"+p.keystone+
		"', application_credential_id: "+id+", application_credential_secret: '"+secret+"'}}}\n")
	logins := []struct {
		name string
		env  []string
	}{
		{"SWIFT_, version 3", p.variables()},
		{"SWIFT_, version 2", []string{"SWIFT_AUTHURL=" + p.keystone + "/v2.0", "SWIFT_AUTHVERSION=2", "SWIFT_USERNAME=tester",
			"SWIFT_PASSWORD=testing", "SWIFT_TENANTNAME=demo"}},
		{"SWIFT_, token", []string{"SWIFT_PREAUTHURL=" + p.storage["RegionOne"], "SWIFT_PREAUTHTOKEN=" + p.token}},
		{"OS_, token", []string{"OS_STORAGE_URL=" + p.storage["RegionOne"], "OS_AUTH_TOKEN=" + p.token}},
		{"OS_, application credential", []string{"OS_AUTH_TYPE=v3applicationcredential", "OS_AUTH_URL=" + p.keystone + "/v3",
			"OS_APPLICATION_CREDENTIAL_ID=" + id, "OS_APPLICATION_CREDENTIAL_SECRET=" + secret}},
		{"clouds.yaml elsewhere", []string{"OS_CLOUD=here", "OS_CLIENT_CONFIG_FILE=" + w.path("other/clouds.yaml")}},
		{"clouds.yaml at home", []string{"OS_CLOUD=there"}},
	}
	target := fmt.Sprintf("swift://logins-%d/a/prefix", os.Getpid())
	for i, l := range logins {
		w.write("src/file", l.name)
		run := func(args ...string) result { return w.exec(l.env, binary, args...) }
		if r := run("--current-time", at(i), "src", target); r.code != 0 {
			t.Errorf("%s: %s: exit %d\n%s", l.name, r.line, r.code, r.stderr)
		}
		if r := run("cat", "--time", at(i), target, "file"); r.stdout != l.name {
			t.Errorf("%s: %s: exit %d\n%q\n%s", l.name, r.line, r.code, r.stdout, r.stderr)
		}
	}
	if out := w.exec(logins[0].env, binary, "status", target).stdout; strings.Count(out, "incremental") != len(logins)-1 {
		t.Errorf("not one chain of all backups:\n%s", out)
	}
}

// A login that cannot work says why, and how to go on, at once.
func TestSwiftLoginsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := newProject(t)
	// Keystone as it is since 2018, without what the test server adds.
	next := reverse(upstream(t, p.keystone))
	only3 := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v2.0") {
			http.NotFound(rw, r)
			return
		}
		next.ServeHTTP(rw, r)
	}))
	t.Cleanup(only3.Close)
	w.write("src/file", "x")
	for _, tt := range []struct {
		name string
		env  []string
		says []string
		code int
	}{
		{"version 2 of 3", []string{"SWIFT_AUTHURL=" + only3.URL + "/v2.0", "SWIFT_AUTHVERSION=2", "SWIFT_USERNAME=tester", "SWIFT_PASSWORD=testing", "SWIFT_TENANTNAME=demo"},
			[]string{"the cloud has only version 3: set SWIFT_AUTHVERSION=3, SWIFT_AUTHURL=" + only3.URL + "/v3, SWIFT_USER_DOMAIN_NAME"}, exitConnection},
		{"old RC file", []string{"OS_AUTH_URL=" + only3.URL + "/v2.0", "OS_USERNAME=tester", "OS_PASSWORD=testing", "OS_TENANT_NAME=demo"},
			[]string{"the cloud has only version 3: set OS_IDENTITY_API_VERSION=3, OS_AUTH_URL=" + only3.URL + "/v3"}, exitConnection},
		{"wrong password", p.variables("SWIFT_PASSWORD=wrong-password"), []string{"log in: ", "401"}, exitConnection},
		{"old token", []string{"SWIFT_PREAUTHURL=" + p.storage["RegionOne"], "SWIFT_PREAUTHTOKEN=gone"}, []string{"the token in SWIFT_PREAUTHTOKEN is not valid any more"}, exitConnection},
		{"no such region", p.variables("SWIFT_REGIONNAME=Atlantis"), []string{"region Atlantis"}, exitUser},
		{"no such cloud", []string{"OS_CLOUD=nowhere"}, []string{"OS_CLOUD=nowhere"}, exitConnection},
		{"nothing", nil, []string{"SWIFT_USERNAME environment variable not set."}, exitConnection},
	} {
		for _, args := range [][]string{{"src", "swift://refused"}, {"restore", "swift://refused", "out"}} {
			r := w.exec(tt.env, binary, args...)
			if r.code != tt.code || !strings.HasPrefix(r.stderr, "dupfs: ") || strings.Contains(r.stderr, "wrong-password") {
				t.Errorf("%s: %s: exit %d\n%s", tt.name, r.line, r.code, r.stderr)
			}
			for _, want := range tt.says {
				if !strings.Contains(r.stderr, want) {
					t.Errorf("%s: %s does not say %q:\n%s", tt.name, r.line, want, r.stderr)
				}
			}
		}
	}
}

// regionTwo is the second region of the test's cloud: the first one's store,
// on the address that the catalogue tells.
type regionTwo struct {
	mu     sync.Mutex
	n      int
	life   int            // requests that a token is good for; 0: any number
	tokens map[string]int // requests with each
	next   *httputil.ReverseProxy
}

func newRegionTwo(t *testing.T, p *project) *regionTwo {
	t.Helper()
	two, err := url.Parse(p.storage["RegionTwo"])
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", two.Host)
	if err != nil {
		t.Skipf("another test run has region two: %v", err)
	}
	r := &regionTwo{tokens: map[string]int{}, next: reverse(upstream(t, p.storage["RegionOne"]))}
	s := &http.Server{Handler: r}
	done := make(chan struct{})
	go func() { _ = s.Serve(l); close(done) }()
	t.Cleanup(func() { s.Close(); <-done })
	return r
}

func (r *regionTwo) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	token := req.Header.Get("X-Auth-Token")
	r.mu.Lock()
	r.n++
	r.tokens[token]++
	expired := r.life > 0 && r.tokens[token] > r.life
	r.mu.Unlock()
	if expired { // as Swift does it: before the body is read
		http.Error(w, "expired", http.StatusUnauthorized)
		return
	}
	r.next.ServeHTTP(w, req)
}

// set begins to count anew, with tokens that end after some requests.
func (r *regionTwo) set(life int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n, r.life, r.tokens = 0, life, map[string]int{}
}

// seen returns the number of requests and of tokens.
func (r *regionTwo) seen() (requests, tokens int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n, len(r.tokens)
}

// Of several regions the one is used that the variables name; tokens that end
// in the middle of a backup, a restore or a mount are replaced.
func TestSwiftRegions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := newProject(t)
	two := newRegionTwo(t, p)
	target := fmt.Sprintf("swift://regions-%d", os.Getpid())
	rc := []string{"OS_AUTH_URL=" + p.keystone + "/v3", "OS_IDENTITY_API_VERSION=3", "OS_USERNAME=tester", "OS_PASSWORD=testing",
		"OS_PROJECT_NAME=demo", "OS_USER_DOMAIN_NAME=Default", "OS_PROJECT_DOMAIN_NAME=Default"}
	w.write("src/file", "content\n")
	for i, tt := range []struct {
		name string
		env  []string
		two  bool
	}{
		{"SWIFT_, two", p.variables("SWIFT_REGIONNAME=RegionTwo"), true},
		{"SWIFT_, one", p.variables("SWIFT_REGIONNAME=RegionOne"), false},
		{"OS_, two", append(rc, "OS_REGION_NAME=RegionTwo"), true},
		{"OS_, one", append(rc, "OS_REGION_NAME=RegionOne"), false},
	} {
		two.set(0)
		if r := w.exec(tt.env, binary, "--current-time", at(i), "src", target); r.code != 0 {
			t.Errorf("%s: exit %d\n%s", tt.name, r.code, r.stderr)
		}
		if n, _ := two.seen(); n > 0 != tt.two {
			t.Errorf("%s: %d requests to region two", tt.name, n)
		}
	}
	w.env = append(w.env, p.variables("SWIFT_REGIONNAME=RegionTwo")...)
	testTokensEnd(t, w, two, target)
}

func testTokensEnd(t *testing.T, w *world, two *regionTwo, target string) {
	const life = 5
	renewed := func(what string) {
		t.Helper()
		n, tokens := two.seen()
		if n <= life || tokens < 2 {
			t.Errorf("%s: %d requests with %d tokens", what, n, tokens)
		}
		two.set(life)
	}
	w.sh("head -c 6000000 /dev/urandom > src/big")
	two.set(life)
	w.dupfs("full", "--volsize", "1", "--current-time", at(9), "src", target)
	renewed("backup")
	w.dupfs("restore", target, "out", "--cache-size", "0")
	renewed("restore")
	w.sh("diff -r out src")
	mnt, unmount := w.mount(target, "--cache-size", "0", "--memory", "2M")
	for range 3 {
		got, err := os.ReadFile(mnt + "/snapshots/latest/big")
		want, _ := os.ReadFile(w.path("src/big"))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("mount: %d bytes, %v", len(got), err)
		}
	}
	unmount()
	renewed("mount")
	w.dupfs("remove-all-but-n-full", "1", "--force", target)
	w.dupfs("cleanup", target)
}
