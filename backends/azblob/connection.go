package azblob

import (
	"fmt"
	"net/url"
	"strings"

	"dupfs/backends"
)

// connection is what a connection string says.
type connection struct {
	endpoint     string // of the account's blobs, without a slash at the end
	account, key string // Shared Key
	sas          string // or a shared access signature: a query, without "?"
}

// The account and key that every storage emulator has; they are no secret.
const (
	emulatorAccount = "devstoreaccount1"
	emulatorKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// parseConnection reads a connection string: "Key=value" parts, joined by
// semicolons, the keys in any case. Its errors do not repeat the string.
func parseConnection(s string) (*connection, error) {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: AZURE_CONNECTION_STRING: %w", backends.ErrAuth, fmt.Errorf(format, args...))
	}
	parts := map[string]string{}
	for part := range strings.SplitSeq(s, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		key, value, ok := strings.Cut(part, "=")
		if !ok {
			return nil, bad("a part of it has no =")
		}
		parts[strings.ToLower(key)] = value
	}
	c := &connection{
		account: parts["accountname"], key: parts["accountkey"],
		sas:      strings.TrimPrefix(parts["sharedaccesssignature"], "?"),
		endpoint: parts["blobendpoint"],
	}
	protocol, suffix := parts["defaultendpointsprotocol"], parts["endpointsuffix"]
	if strings.EqualFold(parts["usedevelopmentstorage"], "true") {
		proxy := parts["developmentstorageproxyuri"]
		if proxy == "" {
			proxy = "http://127.0.0.1"
		}
		c.account, c.key = emulatorAccount, emulatorKey
		c.endpoint = strings.TrimRight(proxy, "/") + ":10000/" + emulatorAccount
	}
	if protocol == "" {
		protocol = "https"
	}
	if suffix == "" {
		suffix = "core.windows.net"
	}
	if c.endpoint == "" {
		if c.account == "" {
			return nil, bad("it has neither AccountName nor BlobEndpoint")
		}
		c.endpoint = protocol + "://" + c.account + ".blob." + suffix
	}
	u, err := url.Parse(c.endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, bad("its endpoint is not a URL")
	}
	if u.RawQuery != "" && c.sas == "" {
		c.sas = u.RawQuery // some portals hand it out so
	}
	u.RawQuery, u.Fragment = "", ""
	c.endpoint = strings.TrimRight(u.String(), "/")
	if c.sas == "" && (c.account == "" || c.key == "") {
		return nil, bad("it has neither AccountKey nor SharedAccessSignature")
	}
	return c, nil
}
