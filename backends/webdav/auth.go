package webdav

import (
	"crypto/md5"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"strings"
	"sync"
)

// auth answers what a server asks a login for: Basic, or Digest with MD5 or
// SHA-256 and the quality "auth" (RFC 7616, and 2069 without a quality). It
// begins with nothing and learns from the first challenge. Safe for
// concurrent use.
type auth struct {
	user, password string

	mu        sync.Mutex
	challenge map[string]string // nil: none yet; "scheme" is basic or digest
	count     uint32            // of requests with this nonce
}

// known reports whether a request can be authorized without being refused first.
func (a *auth) known() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.user == "" && a.password == "" || a.challenge != nil
}

// authorize puts the login into a request, as far as it is known how, and
// returns the challenge that it answers.
func (a *auth) authorize(r *http.Request) map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch a.challenge["scheme"] {
	case "basic":
		r.SetBasicAuth(a.user, a.password)
	case "digest":
		a.count++
		r.Header.Set("Authorization", digest(a.challenge, a.user, a.password, r.Method, r.URL.RequestURI(), rand.Text(), a.count))
	}
	return a.challenge
}

// learn takes the challenge with which a request was refused, and what that
// had answered. It reports whether the request may be repeated; else the login
// is wrong.
func (a *auth) learn(h http.Header, answered map[string]string) bool {
	if a.user == "" && a.password == "" {
		return false
	}
	var best map[string]string
	for _, v := range h.Values("Www-Authenticate") {
		for _, c := range parseChallenges(v) {
			if c["scheme"] == "digest" && digestHash(c) != nil || best == nil && c["scheme"] == "basic" {
				if best["scheme"] != "digest" {
					best = c
				}
			}
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case best == nil:
		return false
	case answered["nonce"] != a.challenge["nonce"] || answered == nil && a.challenge != nil:
		return true // another request has learned meanwhile
	case answered != nil && (best["scheme"] == "basic" || !strings.EqualFold(best["stale"], "true")):
		return false
	}
	a.challenge, a.count = best, 0
	return true
}

// parseChallenges reads a header WWW-Authenticate, which may hold several.
// What it does not understand it leaves out.
func parseChallenges(s string) (all []map[string]string) {
	var cur map[string]string
	for s = strings.TrimLeft(s, " \t,"); s != ""; s = strings.TrimLeft(s, " \t,") {
		end := strings.IndexAny(s, " \t=,")
		if end < 0 {
			end = len(s)
		}
		word := strings.ToLower(s[:end])
		s = strings.TrimLeft(s[end:], " \t")
		if !strings.HasPrefix(s, "=") || word == "" { // a scheme
			if word == "" {
				return all
			}
			cur = map[string]string{"scheme": word}
			all = append(all, cur)
			continue
		}
		var value string
		value, s = parseValue(strings.TrimLeft(s[1:], " \t"))
		if cur != nil && word != "scheme" {
			cur[word] = value
		}
	}
	return all
}

func parseValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, " \t,")
		if end < 0 {
			end = len(s)
		}
		return s[:end], s[end:]
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case '"':
			return b.String(), s[i+1:]
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), ""
}

// digestHash returns the hash of a challenge, nil if it cannot be answered.
func digestHash(c map[string]string) func() hash.Hash {
	if q, ok := c["qop"]; ok && !hasWord(q, "auth") {
		return nil
	}
	switch strings.TrimSuffix(strings.ToLower(c["algorithm"]), "-sess") {
	case "", "md5":
		return md5.New
	case "sha-256":
		return sha256.New
	}
	return nil
}

func hasWord(list, word string) bool {
	for _, w := range strings.Split(list, ",") {
		if strings.EqualFold(strings.TrimSpace(w), word) {
			return true
		}
	}
	return false
}

// digest returns the header that answers a challenge.
func digest(c map[string]string, user, password, method, uri, cnonce string, count uint32) string {
	newHash := digestHash(c)
	h := func(parts ...string) string {
		x := newHash()
		x.Write([]byte(strings.Join(parts, ":")))
		return hex.EncodeToString(x.Sum(nil))
	}
	a1 := h(user, c["realm"], password)
	if strings.HasSuffix(strings.ToLower(c["algorithm"]), "-sess") {
		a1 = h(a1, c["nonce"], cnonce)
	}
	a2 := h(method, uri)
	nc := fmt.Sprintf("%08x", count)
	q := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	out := fmt.Sprintf(`Digest username="%s", realm="%s", nonce="%s", uri="%s"`, q.Replace(user), q.Replace(c["realm"]), q.Replace(c["nonce"]), uri)
	if _, ok := c["qop"]; ok {
		out += fmt.Sprintf(`, response="%s", qop=auth, nc=%s, cnonce="%s"`, h(a1, c["nonce"], nc, cnonce, "auth", a2), nc, cnonce)
	} else {
		out += fmt.Sprintf(`, response="%s"`, h(a1, c["nonce"], a2))
	}
	if v, ok := c["algorithm"]; ok {
		out += ", algorithm=" + v
	}
	if v, ok := c["opaque"]; ok {
		out += fmt.Sprintf(`, opaque="%s"`, q.Replace(v))
	}
	return out
}
