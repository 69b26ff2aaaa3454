package swift

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/config/clouds"

	"dupfs/backends"
	"dupfs/backends/web"
)

// login is what the environment says about who we are and where.
type login struct {
	version string // "1", "2" or "3"; "" where token and storage are given
	url     string

	user, key string // version 1

	opts   gophercloud.AuthOptions // versions 2 and 3
	region string
	iface  gophercloud.Availability

	storage, token string // already authenticated

	tls *tls.Config // how OpenStack's variables or clouds.yaml want servers trusted; nil: as usual

	from string // the prefix of the variables, for messages: "SWIFT_" or "OS_"
}

// environment reads the login from duplicity's SWIFT_* variables or, where
// none of them is set, from those of OpenStack's own clients: OS_CLOUD with
// clouds.yaml, or OS_* as an RC file sets them.
func environment(getenv func(string) string) (*login, error) {
	for _, v := range []string{"SWIFT_PREAUTHURL", "SWIFT_AUTHURL", "SWIFT_USERNAME", "SWIFT_PASSWORD", "SWIFT_USERID"} {
		if getenv(v) != "" {
			return fromSwift(getenv)
		}
	}
	switch {
	case getenv("OS_CLOUD") != "":
		return fromClouds(getenv)
	case getenv("OS_STORAGE_URL") != "" || getenv("OS_AUTH_URL") != "":
		return fromOpenStack(getenv)
	}
	return nil, missing("SWIFT_USERNAME")
}

// trust returns what OS_CACERT and OS_INSECURE ask for; nil if nothing.
func trust(caFile, insecure string) (*tls.Config, error) {
	c := &tls.Config{InsecureSkipVerify: slices.Contains([]string{"1", "true", "yes"}, strings.ToLower(insecure))}
	if caFile == "" {
		if !c.InsecureSkipVerify {
			return nil, nil
		}
		return c, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("OS_CACERT: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("OS_CACERT: %s holds no certificate", caFile)
	}
	return c, nil
}

// missing is worded as duplicity does it: front ends look for it.
func missing(name string) error {
	return fmt.Errorf("%w: %s", backends.ErrAuth, name+" environment variable not set.")
}

func fromSwift(getenv func(string) string) (*login, error) {
	l := &login{from: "SWIFT_", region: getenv("SWIFT_REGIONNAME"), iface: availability(getenv("SWIFT_ENDPOINT_TYPE"))}
	if u, t := getenv("SWIFT_PREAUTHURL"), getenv("SWIFT_PREAUTHTOKEN"); u != "" && t != "" {
		l.storage, l.token = u, t
		return l, nil
	}
	for _, v := range []string{"SWIFT_USERNAME", "SWIFT_PASSWORD", "SWIFT_AUTHURL"} {
		if getenv(v) == "" && !(v == "SWIFT_USERNAME" && getenv("SWIFT_USERID") != "") {
			return nil, missing(v)
		}
	}
	l.url = getenv("SWIFT_AUTHURL")
	var err error
	if l.version, err = version(getenv("SWIFT_AUTHVERSION"), l.url, "1"); err != nil {
		return nil, fmt.Errorf("SWIFT_AUTHVERSION: %w", err)
	}
	l.user, l.key = getenv("SWIFT_USERNAME"), getenv("SWIFT_PASSWORD")
	v := variables{getenv: func(name string) string { return getenv("SWIFT_" + name) }}
	l.opts = v.options(l.user, l.key, identifiers{
		userID:        []string{"USERID"},
		projectID:     []string{"TENANTID", "PROJECT_ID"},
		projectName:   []string{"TENANTNAME", "PROJECT_NAME"},
		userDomain:    "USER_DOMAIN",
		projectDomain: "PROJECT_DOMAIN",
	})
	return l, nil
}

func fromOpenStack(getenv func(string) string) (*login, error) {
	get := func(name string) string { return getenv("OS_" + name) }
	trusted, err := trust(get("CACERT"), get("INSECURE"))
	if err != nil {
		return nil, err
	}
	l := &login{from: "OS_", tls: trusted, region: get("REGION_NAME"), iface: availability(first(get, "INTERFACE", "ENDPOINT_TYPE"))}
	token := first(get, "AUTH_TOKEN", "TOKEN")
	if l.storage = get("STORAGE_URL"); l.storage != "" && token != "" {
		l.token = token
		return l, nil
	}
	l.storage = ""
	if l.url = get("AUTH_URL"); l.url == "" {
		return nil, missing("OS_AUTH_URL")
	}
	if l.version, err = version(get("IDENTITY_API_VERSION"), l.url, "3"); err != nil {
		return nil, fmt.Errorf("OS_IDENTITY_API_VERSION: %w", err)
	}
	l.user, l.key = get("USERNAME"), get("PASSWORD")
	v := variables{getenv: get}
	l.opts = v.options(l.user, l.key, identifiers{
		userID:        []string{"USER_ID"},
		projectID:     []string{"PROJECT_ID", "TENANT_ID"},
		projectName:   []string{"PROJECT_NAME", "TENANT_NAME"},
		userDomain:    "USER_DOMAIN",
		projectDomain: "PROJECT_DOMAIN",
	})
	l.opts.ApplicationCredentialID = get("APPLICATION_CREDENTIAL_ID")
	l.opts.ApplicationCredentialName = get("APPLICATION_CREDENTIAL_NAME")
	l.opts.ApplicationCredentialSecret = get("APPLICATION_CREDENTIAL_SECRET")
	if l.key == "" && l.opts.ApplicationCredentialSecret == "" && token != "" {
		l.opts.TokenID = token
		l.opts.Username, l.opts.UserID, l.opts.DomainID, l.opts.DomainName = "", "", "", ""
	}
	return l, l.settle()
}

// settle makes options of version 2 or 3 complete and free of contradictions.
func (l *login) settle() error {
	o := &l.opts
	o.AllowReauth = o.TokenID == ""
	switch {
	case o.ApplicationCredentialSecret != "":
		// It brings its own scope, and is refused with a password beside it.
		o.Scope, o.TenantID, o.TenantName, o.Password = nil, "", "", ""
		l.version = "3"
		if o.ApplicationCredentialID != "" {
			o.Username, o.UserID, o.DomainID, o.DomainName = "", "", "", ""
		}
	case o.TokenID != "":
	case o.Username == "" && o.UserID == "":
		return missing(l.from + "USERNAME")
	case o.Password == "":
		return missing(l.from + "PASSWORD")
	}
	if o.UserID != "" {
		o.Username, o.DomainID, o.DomainName = "", "", ""
	}
	if o.DomainID != "" {
		o.DomainName = ""
	}
	return nil
}

// variables looks names up behind a prefix.
type variables struct{ getenv func(string) string }

// identifiers are the names under which the parts of a login are found.
type identifiers struct {
	userID, projectID, projectName []string
	userDomain, projectDomain      string // _ID and _NAME follow
}

func first(getenv func(string) string, names ...string) string {
	for _, n := range names {
		if v := getenv(n); v != "" {
			return v
		}
	}
	return ""
}

func (v variables) options(user, password string, n identifiers) gophercloud.AuthOptions {
	o := gophercloud.AuthOptions{
		Username: user, UserID: first(v.getenv, n.userID...), Password: password, AllowReauth: true,
		DomainID: v.getenv(n.userDomain + "_ID"), DomainName: v.getenv(n.userDomain + "_NAME"),
	}
	if o.DomainID == "" && o.DomainName == "" {
		o.DomainID, o.DomainName = v.getenv("DOMAIN_ID"), v.getenv("DOMAIN_NAME")
	}
	if o.DomainID == "" && o.DomainName == "" {
		o.DomainID = "default" // where Keystone puts whoever names no domain
	}
	if o.DomainID != "" {
		o.DomainName = ""
	}
	scope := &gophercloud.AuthScope{ProjectID: first(v.getenv, n.projectID...)}
	o.TenantID, o.TenantName = scope.ProjectID, first(v.getenv, n.projectName...)
	if scope.ProjectID == "" && o.TenantName != "" {
		scope.ProjectName = o.TenantName
		scope.DomainID, scope.DomainName = v.getenv(n.projectDomain+"_ID"), v.getenv(n.projectDomain+"_NAME")
		switch {
		case scope.DomainID != "":
			scope.DomainName = ""
		case scope.DomainName == "":
			scope.DomainID, scope.DomainName = o.DomainID, o.DomainName
		}
	}
	if *scope != (gophercloud.AuthScope{}) {
		o.Scope = scope
	}
	if o.UserID != "" {
		o.Username, o.DomainID, o.DomainName = "", "", ""
	}
	return o
}

// fromClouds reads the cloud OS_CLOUD from clouds.yaml (and secure.yaml beside
// it), looked for where OpenStack's own clients look.
func fromClouds(getenv func(string) string) (*login, error) {
	config := getenv("XDG_CONFIG_HOME")
	if config == "" {
		config = filepath.Join(getenv("HOME"), ".config")
	}
	places := []string{"clouds.yaml", filepath.Join(config, "openstack", "clouds.yaml"), "/etc/openstack/clouds.yaml"}
	if file := getenv("OS_CLIENT_CONFIG_FILE"); file != "" {
		places = []string{file}
	}
	name := getenv("OS_CLOUD")
	o, e, trusted, err := clouds.Parse(clouds.WithCloudName(name), clouds.WithLocations(places...),
		clouds.WithRegion(getenv("OS_REGION_NAME")), clouds.WithEndpointType(first(getenv, "OS_INTERFACE", "OS_ENDPOINT_TYPE")),
		clouds.WithPassword(getenv("OS_PASSWORD")), clouds.WithCACertPath(getenv("OS_CACERT")))
	if err != nil {
		return nil, fmt.Errorf("%w: OS_CLOUD=%s: %w", backends.ErrAuth, name, err)
	}
	l := &login{from: "OS_", tls: trusted, url: o.IdentityEndpoint, opts: o, region: e.Region, iface: e.Availability}
	if l.url == "" {
		return nil, fmt.Errorf("%w: OS_CLOUD=%s: clouds.yaml gives it no auth_url", backends.ErrAuth, name)
	}
	if l.version, err = version(getenv("OS_IDENTITY_API_VERSION"), l.url, "3"); err != nil {
		return nil, fmt.Errorf("OS_IDENTITY_API_VERSION: %w", err)
	}
	if o.DomainID == "" && o.DomainName == "" {
		l.opts.DomainID = "default"
	}
	if s := o.Scope; s != nil && s.ProjectName != "" && s.DomainID == "" && s.DomainName == "" {
		s.DomainID, s.DomainName = l.opts.DomainID, l.opts.DomainName
	}
	return l, l.settle()
}

// version returns "1", "2" or "3" for what users write, or what the URL says
// where they write nothing.
func version(s, url, otherwise string) (string, error) {
	switch strings.TrimPrefix(strings.TrimSpace(s), "v") {
	case "1", "1.0":
		return "1", nil
	case "2", "2.0":
		return "2", nil
	case "3", "3.0":
		return "3", nil
	case "":
		switch url = strings.TrimRight(url, "/"); {
		case strings.HasSuffix(url, "/v3"):
			return "3", nil
		case strings.HasSuffix(url, "/v2.0"):
			return "2", nil
		}
		return otherwise, nil
	}
	return "", fmt.Errorf("unknown authentication version %q; there are 1, 2 and 3", s)
}

func availability(s string) gophercloud.Availability {
	switch strings.TrimSuffix(strings.ToLower(s), "url") {
	case "internal":
		return gophercloud.AvailabilityInternal
	case "admin":
		return gophercloud.AvailabilityAdmin
	}
	return gophercloud.AvailabilityPublic
}

// session logs in. The provider it returns holds the token and, where that is
// possible, knows how to get a new one; storage is the URL of the account.
func (l *login) session(ctx context.Context, client *http.Client) (p *gophercloud.ProviderClient, storage string, err error) {
	switch {
	case l.token != "":
		p = newProvider(client)
		p.SetToken(l.token)
		return p, l.storage, nil
	case l.version == "1":
		return l.session1(ctx, client)
	}
	if p, err = openstack.NewClient(l.url); err != nil {
		return nil, "", fmt.Errorf("log in: %sAUTH_URL: %w", l.from, err)
	}
	p.HTTPClient = *client
	p.UserAgent.Prepend("dupfs")
	opts := l.opts // gophercloud fills it in
	if l.version == "2" {
		err = openstack.AuthenticateV2(ctx, p, &opts, gophercloud.EndpointOpts{})
		err = l.only3(ctx, p, err)
	} else {
		err = openstack.AuthenticateV3(ctx, p, &opts, gophercloud.EndpointOpts{})
	}
	if err != nil {
		return nil, "", web.Wrap("log in", "", authError(ctx, err))
	}
	storage, err = p.EndpointLocator(gophercloud.EndpointOpts{Type: "object-store", Region: l.region, Availability: l.iface})
	if err != nil {
		return nil, "", l.noStore()
	}
	return p, storage, nil
}

func (l *login) noStore() error {
	where := "its catalogue"
	if l.region != "" {
		where = "region " + l.region
	}
	if l.opts.TokenID == "" && l.opts.ApplicationCredentialSecret == "" && l.opts.Scope == nil && l.opts.TenantID+l.opts.TenantName == "" {
		name := map[string]string{"SWIFT_": "SWIFT_TENANTNAME", "OS_": "OS_PROJECT_NAME"}[l.from]
		return fmt.Errorf("log in: %w: no project is named: set %s", backends.ErrAuth, name)
	}
	return fmt.Errorf("log in: %w: the cloud has no object store (%s) for this project in %s", fs.ErrNotExist, l.iface, where)
}

// tokenVariable names the variable that a token is given in.
func (l *login) tokenVariable() string {
	if l.from == "OS_" {
		return "OS_AUTH_TOKEN"
	}
	return "SWIFT_PREAUTHTOKEN"
}

func newProvider(client *http.Client) *gophercloud.ProviderClient {
	p := &gophercloud.ProviderClient{HTTPClient: *client}
	p.UseTokenLock()
	p.UserAgent.Prepend("dupfs")
	return p
}

// session1 logs in to TempAuth and its likes: one GET, whose answer has the
// token and the storage URL in headers.
func (l *login) session1(ctx context.Context, client *http.Client) (*gophercloud.ProviderClient, string, error) {
	ask := func(ctx context.Context) (token, storage string, err error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url, nil)
		if err != nil {
			return "", "", fmt.Errorf("log in: SWIFT_AUTHURL is not a URL")
		}
		req.Header.Set("X-Auth-User", l.user)
		req.Header.Set("X-Auth-Key", l.key)
		resp, err := client.Do(req)
		if err != nil {
			return "", "", web.Wrap("log in", "", web.Net(ctx, err))
		}
		if resp.StatusCode/100 != 2 {
			return "", "", web.Error("log in", "", resp)
		}
		web.Drain(resp)
		token, storage = resp.Header.Get("X-Auth-Token"), resp.Header.Get("X-Storage-Url")
		if token == "" {
			token = resp.Header.Get("X-Storage-Token")
		}
		if token == "" || storage == "" {
			return "", "", fmt.Errorf("log in: %w: the server at SWIFT_AUTHURL does not speak authentication version 1", backends.ErrAuth)
		}
		return token, storage, nil
	}
	token, storage, err := ask(ctx)
	if err != nil {
		return nil, "", err
	}
	p := newProvider(client)
	p.SetToken(token)
	p.ReauthFunc = func(ctx context.Context) error {
		token, _, err := ask(ctx)
		if err == nil {
			p.SetToken(token)
		}
		return err
	}
	return p, storage, nil
}

// only3 explains the failure of version 2 where the cloud has only version 3,
// which is so wherever Keystone is younger than 2018.
func (l *login) only3(ctx context.Context, p *gophercloud.ProviderClient, err error) error {
	var status gophercloud.ErrUnexpectedResponseCode
	if !errors.As(err, &status) || !slices.Contains([]int{300, 404, 405, 410}, status.Actual) {
		return err
	}
	resp, err3 := p.Request(ctx, http.MethodGet, p.IdentityBase+"v3", &gophercloud.RequestOpts{OkCodes: []int{200, 300}})
	if err3 != nil || resp.StatusCode != http.StatusOK {
		return err
	}
	url := strings.TrimRight(p.IdentityBase, "/") + "/v3"
	if l.from == "OS_" {
		return fmt.Errorf("%w: authentication version 2 was asked for, but the cloud has only version 3: "+
			"set OS_IDENTITY_API_VERSION=3, OS_AUTH_URL=%s, OS_USER_DOMAIN_NAME and OS_PROJECT_DOMAIN_NAME (often Default)", backends.ErrAuth, url)
	}
	return fmt.Errorf("%w: authentication version 2 was asked for, but the cloud has only version 3: "+
		"set SWIFT_AUTHVERSION=3, SWIFT_AUTHURL=%s, SWIFT_USER_DOMAIN_NAME and SWIFT_PROJECT_DOMAIN_NAME (often Default)", backends.ErrAuth, url)
}

// authError makes one of our errors of one of gophercloud's.
func authError(ctx context.Context, err error) error {
	var status gophercloud.ErrUnexpectedResponseCode
	if !errors.As(err, &status) {
		if errors.Is(err, backends.ErrAuth) {
			return err
		}
		return web.Net(ctx, err)
	}
	e := &web.StatusError{Status: status.Actual, Err: web.Kind(status.Actual), After: web.ParseRetryAfter(status.ResponseHeader, time.Now())}
	var body struct{ Error struct{ Message string } }
	if json.Unmarshal(status.Body, &body) == nil {
		e.Msg = strings.Join(strings.Fields(body.Error.Message), " ")
	}
	if status.Actual == http.StatusNotFound {
		e.Err = backends.ErrAuth
		e.Msg = "there is no identity service at this URL"
	}
	return e
}
