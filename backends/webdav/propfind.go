package webdav

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// propfind is the question: only what is needed.
const propfind = `<?xml version="1.0" encoding="utf-8"?>
<propfind xmlns="DAV:"><prop><resourcetype/><getcontentlength/><getlastmodified/></prop></propfind>`

// resource is one answer.
type resource struct {
	path    string // of its URL, decoded, without a slash at the end
	dir     bool
	size    int64 // -1 if it is not told
	modTime time.Time
}

// response is one element of a multistatus (RFC 4918, 14.16).
type response struct {
	Href     string `xml:"DAV: href"`
	Status   string `xml:"DAV: status"`
	Propstat []struct {
		Status string `xml:"DAV: status"`
		Prop   struct {
			Type struct {
				Collection *struct{} `xml:"DAV: collection"`
			} `xml:"DAV: resourcetype"`
			Length   string `xml:"DAV: getcontentlength"`
			Modified string `xml:"DAV: getlastmodified"`
		} `xml:"DAV: prop"`
	} `xml:"DAV: propstat"`
}

// parseMultistatus calls f for each resource of an answer, one at a time, so
// that a long listing needs no more memory than its result.
func parseMultistatus(r io.Reader, f func(resource)) error {
	d := xml.NewDecoder(r)
	ended := false
	for {
		tok, err := d.Token()
		if err == io.EOF {
			if !ended {
				return fmt.Errorf("the listing is not complete: %w", io.ErrUnexpectedEOF)
			}
			return nil
		}
		if err != nil {
			return err
		}
		if e, ok := tok.(xml.EndElement); ok && e.Name.Local == "multistatus" {
			ended = true
		}
		e, ok := tok.(xml.StartElement)
		if !ok || e.Name.Space != "DAV:" || e.Name.Local != "response" {
			continue
		}
		var x response
		if err := d.DecodeElement(&x, &e); err != nil {
			return err
		}
		res, ok, err := x.resource()
		if err != nil {
			return err
		}
		if ok {
			f(res)
		}
	}
}

// resource returns what a response says; false if it is about nothing there.
func (x *response) resource() (resource, bool, error) {
	u, err := url.Parse(strings.TrimSpace(x.Href))
	if err != nil {
		return resource{}, false, fmt.Errorf("the listing has a wrong address %q", x.Href)
	}
	if x.Status != "" && !isOK(x.Status) {
		return resource{}, false, nil
	}
	r := resource{path: strings.TrimRight(u.Path, "/"), dir: strings.HasSuffix(u.Path, "/"), size: -1}
	for _, p := range x.Propstat {
		if !isOK(p.Status) {
			continue
		}
		r.dir = r.dir || p.Prop.Type.Collection != nil
		if n, err := strconv.ParseInt(strings.TrimSpace(p.Prop.Length), 10, 64); err == nil && n >= 0 {
			r.size = n
		}
		if t, err := http.ParseTime(strings.TrimSpace(p.Prop.Modified)); err == nil {
			r.modTime = t
		}
	}
	return r, true, nil
}

// isOK reads "HTTP/1.1 200 OK".
func isOK(status string) bool {
	f := strings.Fields(status)
	return len(f) == 0 || len(f) > 1 && strings.HasPrefix(f[1], "2")
}
