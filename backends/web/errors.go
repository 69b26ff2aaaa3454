package web

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"dupfs/backends"
)

// StatusError is a request that the server refused.
type StatusError struct {
	Status int           // HTTP status
	Msg    string        // what the server said, one short line; may be empty
	After  time.Duration // what Retry-After asks to wait; 0 if it is not there
	Err    error         // class of the failure; nil if there is none for it
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("%d %s", e.Status, http.StatusText(e.Status))
	if e.Msg != "" {
		s += ": " + e.Msg
	}
	if e.Err != nil {
		s = e.Err.Error() + ": " + s
	}
	return s
}

// Unwrap returns the class: backends.ErrTransient and so on.
func (e *StatusError) Unwrap() error { return e.Err }

// RetryAfter makes a StatusError a backends.RetryAfter.
func (e *StatusError) RetryAfter() time.Duration { return e.After }

// Kind returns the class of an HTTP status: fs.ErrNotExist, fs.ErrExist (412,
// the answer to If-None-Match), backends.ErrAuth, ErrNoSpace, ErrTransient, or
// nil for a status that has none.
func Kind(status int) error {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return backends.ErrAuth
	case http.StatusNotFound, http.StatusGone:
		return fs.ErrNotExist
	case http.StatusPreconditionFailed:
		return fs.ErrExist
	case http.StatusRequestEntityTooLarge, http.StatusInsufficientStorage:
		return backends.ErrNoSpace
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, 498, // Swift: rate limit of the proxy
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
		509, 520, 521, 522, 523, 524, 529: // of front ends before the store
		return backends.ErrTransient
	}
	return nil
}

// Error returns the failure that a response reports, and closes its body.
// It begins with op and name ("get", "a.gpg"); name may be empty.
func Error(op, name string, resp *http.Response) error {
	defer Drain(resp)
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	return Wrap(op, name, &StatusError{
		Status: resp.StatusCode,
		Msg:    message(resp, string(text)),
		After:  ParseRetryAfter(resp.Header, time.Now()),
		Err:    Kind(resp.StatusCode),
	})
}

// message makes one short line of a body: the text between the tags that
// servers use for it, or the beginning of a plain text.
func message(resp *http.Response, text string) string {
	ct := resp.Header.Get("Content-Type")
	for _, tag := range []string{"Message", "s:message", "message", "title"} {
		if _, after, ok := strings.Cut(text, "<"+tag); ok {
			if _, after, ok = strings.Cut(after, ">"); ok {
				in, _, _ := strings.Cut(after, "<")
				return line(in)
			}
		}
	}
	if strings.HasPrefix(ct, "text/plain") {
		return line(text)
	}
	return ""
}

func line(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	s = strings.ToValidUTF8(s, "?")
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "..."
	}
	return s
}

// Wrap puts what was done, and to which file, before a failure.
func Wrap(op, name string, err error) error {
	if name == "" {
		return fmt.Errorf("%s: %w", op, err)
	}
	return fmt.Errorf("%s %s: %w", op, name, err)
}

// Net classifies the failure of a request that got no answer, or whose body
// broke off, and takes the address out of its text, as that may hold secrets.
// What is neither for good (a wrong certificate, a host name that does not
// exist) nor wanted (ctx ended: its cause is returned) is backends.ErrTransient.
func Net(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(err, backends.ErrTransient) || permanent(err) {
		return err
	}
	return fmt.Errorf("%w: %w", backends.ErrTransient, err)
}

func permanent(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsNotFound && !dns.IsTemporary
	}
	var (
		verify  *tls.CertificateVerificationError
		header  tls.RecordHeaderError
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
		status  *StatusError
		proto   *http.ProtocolError //lint:ignore SA1019 the transport still returns it
	)
	switch {
	case errors.As(err, &verify), errors.As(err, &header), errors.As(err, &unknown), errors.As(err, &host), errors.As(err, &invalid):
		return true
	case errors.As(err, &status):
		return status.Err != backends.ErrTransient
	case errors.As(err, &proto):
		return true
	}
	// The net/http client has no types for these.
	s := err.Error()
	return strings.Contains(s, "redirect") || strings.Contains(s, "unsupported protocol scheme") || strings.Contains(s, "server gave HTTP response to HTTPS client")
}

// ParseRetryAfter reads the header Retry-After: seconds, or a date.
func ParseRetryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return 0
	}
	if s, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(s) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}
