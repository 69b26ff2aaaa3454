package all

import (
	"errors"
	"fmt"
	"net"
	"strings"
)

// URL is a target in duplicity's form: scheme://[user[:password]@]host[:port]/path.
type URL struct {
	Scheme         string // lower case
	User, Password string // percent-decoded
	HasPassword    bool   // also if it is empty
	Host, Port     string // the port may be empty, or not a number; an IPv6 host has no brackets
	Path           string // percent-decoded, from the slash behind the host on; "" if there is none
	Rest           string // all behind scheme://, percent-decoded
}

// ErrScheme marks a URL of a store that is not supported. The text that wraps
// it is duplicity's.
var ErrScheme = errors.New("scheme not supported in url")

// IsURL reports whether a command-line argument is a target rather than a
// local path: duplicity's test, a scheme followed by "://".
func IsURL(s string) bool {
	scheme, _, ok := strings.Cut(s, "://")
	return ok && isScheme(scheme)
}

func isScheme(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' || c == '_' || c == '-' || c == '.') {
			return false
		}
	}
	return s != ""
}

// Parse takes a URL apart. It is as tolerant as duplicity: a percent sign
// that begins no escape stands for itself, and nothing is special in a path.
// Errors hold no password.
func Parse(s string) (URL, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok || !isScheme(scheme) {
		return URL{}, fmt.Errorf("not a url: %q", Redact(s))
	}
	u := URL{Scheme: strings.ToLower(scheme), Rest: unquote(rest)}
	place, path, slash := strings.Cut(rest, "/")
	if slash {
		u.Path = unquote("/" + path)
	}
	if i := strings.LastIndexByte(place, '@'); i >= 0 {
		user, password, has := strings.Cut(place[:i], ":")
		u.User, u.Password, u.HasPassword = unquote(user), unquote(password), has
		place = place[i+1:]
	}
	u.Host = place
	if strings.HasPrefix(place, "[") {
		end := strings.IndexByte(place, ']')
		if end < 0 || end+1 < len(place) && place[end+1] != ':' {
			return URL{}, fmt.Errorf("brackets do not match in url: %s", Redact(s))
		}
		u.Host, u.Port = place[1:end], strings.TrimPrefix(place[end+1:], ":")
	} else if i := strings.LastIndexByte(place, ':'); i >= 0 {
		u.Host, u.Port = place[:i], place[i+1:]
	}
	u.Host = unquote(u.Host)
	return u, nil
}

// Addr returns host:port, with a default port for a URL without one.
func (u URL) Addr(port string) string {
	if u.Port != "" {
		port = u.Port
	}
	return net.JoinHostPort(u.Host, port)
}

// unquote decodes %XX, leaving what is no escape as it is.
func unquote(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if h, l := hex(s[i+1]), hex(s[i+2]); h >= 0 && l >= 0 {
				b.WriteByte(byte(h<<4 | l))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func hex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// Redact returns a URL for messages and mount tables: a password in it is
// replaced by asterisks. Text that is no URL is returned as it is, unless it
// looks as if it held a password.
func Redact(s string) string {
	start := 0
	if i := strings.Index(s, "://"); i >= 0 {
		start = i + len("://")
	}
	place, path, slash := strings.Cut(s[start:], "/")
	at := strings.LastIndexByte(place, '@')
	if at < 0 && start > 0 && strings.Contains(place, ":") {
		// A slash in a password that was not encoded.
		if i := strings.LastIndexByte(s[start:], '@'); i >= 0 {
			place, path, slash, at = s[start:], "", false, i
		}
	}
	if at < 0 {
		return s
	}
	user, _, has := strings.Cut(place[:at], ":")
	if !has {
		return s
	}
	out := s[:start] + user + ":*****" + place[at:]
	if slash {
		out += "/" + path
	}
	return out
}
