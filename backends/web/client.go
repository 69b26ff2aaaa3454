// Package web is what the drivers that speak HTTP share: a client whose
// connections never wait for ever, and the translation of statuses and network
// failures into the errors of package backends.
package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/time/rate"
)

// DefaultTimeout is the longest silence on a connection unless told otherwise.
const DefaultTimeout = 30 * time.Second

// Options say how to reach servers. The zero value is ready to use.
type Options struct {
	// Timeout is how long a connection may be silent, in both directions,
	// before it is given up as a temporary failure; a transfer of any length
	// may go on as long as bytes flow. It also bounds connecting and the TLS
	// handshake. 0 means DefaultTimeout.
	Timeout time.Duration
	// Upload and Download, if set, limit bytes a second over all connections.
	// Their bursts must not be 0; see Limiter.
	Upload, Download *rate.Limiter
	// Getenv looks up the proxy variables (HTTP_PROXY, HTTPS_PROXY, NO_PROXY,
	// or in lower case); nil means os.Getenv.
	Getenv func(string) string
	// CAFile and CAPath name a file, or a directory of files, with PEM
	// certificates to trust instead of the system's.
	CAFile, CAPath string
	// Insecure accepts any certificate.
	Insecure bool
}

// Limiter returns a limiter for bytes a second, with a burst that suits
// connections; nil if there is no limit (perSecond <= 0).
func Limiter(perSecond int64) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(perSecond), int(min(max(perSecond/4, 4<<10), 256<<10)))
}

// NewClient returns a client for one store. It speaks HTTP/1.1 only, where a
// transfer has its own connection, and follows redirects only within the host
// it was sent to, so that credentials in headers stay there. Release it with
// CloseIdleConnections.
func NewClient(o Options) (*http.Client, error) {
	t, err := NewTransport(o)
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: t, CheckRedirect: sameHost}, nil
}

// NewTransport returns the transport of NewClient, for libraries that want
// to make the client themselves.
func NewTransport(o Options) (*http.Transport, error) {
	roots, err := pool(o.CAFile, o.CAPath)
	if err != nil {
		return nil, err
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	return &http.Transport{
		Proxy:               proxy(o.Getenv),
		DialContext:         Dialer(o),
		TLSClientConfig:     &tls.Config{RootCAs: roots, InsecureSkipVerify: o.Insecure},
		TLSHandshakeTimeout: o.Timeout,
		// Idle connections go before their deadline makes them fail.
		IdleConnTimeout:       o.Timeout / 2,
		ExpectContinueTimeout: time.Second,
		MaxIdleConnsPerHost:   32,
		DisableCompression:    true, // the bytes as they are stored
		WriteBufferSize:       64 << 10,
		ReadBufferSize:        64 << 10,
	}, nil
}

// Dialer returns a dial function whose connections obey o.Timeout, o.Upload
// and o.Download.
func Dialer(o Options) func(ctx context.Context, network, addr string) (net.Conn, error) {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	d := net.Dialer{Timeout: o.Timeout, KeepAlive: 15 * time.Second}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return watch(c, o), nil
	}
}

func pool(file, dir string) (*x509.CertPool, error) {
	if file == "" && dir == "" {
		return nil, nil
	}
	files := []string{}
	if file != "" {
		files = append(files, file)
	}
	if dir != "" {
		all, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("certificates: %w", err)
		}
		for _, e := range all {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	p, found := x509.NewCertPool(), false
	for _, f := range files {
		pem, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("certificates: %w", err)
		}
		found = p.AppendCertsFromPEM(pem) || found
	}
	if !found {
		return nil, fmt.Errorf("certificates: none found in %s%s", file, dir)
	}
	return p, nil
}

func proxy(getenv func(string) string) func(*http.Request) (*url.URL, error) {
	if getenv == nil {
		getenv = os.Getenv
	}
	either := func(upper, lower string) string {
		if v := getenv(upper); v != "" {
			return v
		}
		return getenv(lower)
	}
	c := httpproxy.Config{
		HTTPProxy:  either("HTTP_PROXY", "http_proxy"),
		HTTPSProxy: either("HTTPS_PROXY", "https_proxy"),
		NoProxy:    either("NO_PROXY", "no_proxy"),
		CGI:        getenv("REQUEST_METHOD") != "",
	}
	f := c.ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return f(r.URL) }
}

// sameHost lets a redirect pass that stays on its host and does not leave TLS.
func sameHost(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	switch {
	case len(via) >= 5:
		return errors.New("too many redirects")
	case req.URL.Hostname() != first.Hostname():
		return fmt.Errorf("redirected to another host, %s", req.URL.Host)
	case first.Scheme == "https" && req.URL.Scheme != "https":
		return errors.New("redirected from https to http")
	}
	return nil
}
