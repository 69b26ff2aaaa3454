// Package all opens the store that a URL names, with any of the drivers.
package all

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"dupfs/backends"
	"dupfs/backends/file"
	"dupfs/backends/s3"
	"dupfs/backends/web"
)

// Options are what the command line and the environment say about stores. The
// zero value is ready to use.
type Options struct {
	// Getenv looks up the variables from which drivers take credentials and
	// settings; nil means os.Getenv.
	Getenv func(string) string
	// Password, if set, is asked for a password that neither the URL nor
	// FTP_PASSWORD nor BACKEND_PASSWORD tells. prompt ends in ": ".
	Password func(ctx context.Context, prompt string) (string, error)

	Timeout    time.Duration          // of silence; 0 means 30 seconds
	Tries      int                    // of an operation; 0 means 5
	RetryDelay time.Duration          // the longest between two tries; 0 means 30 seconds
	Notify     func(backends.Attempt) // told of failed tries
	Upload     int64                  // bytes a second; 0 means no limit
	Download   int64                  // bytes a second; 0 means no limit

	// VolumeTier and MetadataTier are access tiers for what is stored: Azure's
	// (Hot, Cool, Cold, Archive); S3 takes the storage class from S3.
	VolumeTier, MetadataTier string

	// CAFile, CAPath and Insecure are about certificates, as in web.Options.
	CAFile, CAPath string
	Insecure       bool

	S3 s3.Options // its Getenv, Retry and Client are set here
}

// Open opens the store at a URL. It fails at once with ErrScheme for a scheme
// that no driver has; most drivers first use the network at the first call.
// Release the backend with backends.Close.
func Open(ctx context.Context, url string, o Options) (backends.Backend, error) {
	u, err := Parse(url)
	if err != nil {
		return nil, err
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	b, err := o.open(ctx, u, url)
	if err != nil {
		return nil, err
	}
	return backends.Retry(b, o.retry()), nil
}

func (o Options) retry() backends.RetryOptions {
	return backends.RetryOptions{Tries: o.Tries, MaxDelay: o.RetryDelay, Timeout: o.Timeout, Notify: o.Notify}
}

func (o Options) open(ctx context.Context, u URL, url string) (backends.Backend, error) {
	switch strings.TrimPrefix(u.Scheme, "gio+") {
	case "file":
		return o.file(u)
	case "s3", "boto3+s3", "boto+s3", "s3+http":
		return o.s3(ctx, u)
	}
	return nil, fmt.Errorf("%w: %s", ErrScheme, Redact(url))
}

func (o Options) file(u URL) (backends.Backend, error) {
	if u.Rest == "" {
		return nil, fmt.Errorf("no directory in url: file://")
	}
	b, err := file.Open(u.Rest)
	if err != nil {
		return nil, err
	}
	return backends.Limit(b, web.Limiter(o.Upload), web.Limiter(o.Download)), nil
}

// s3 takes both forms: scheme://bucket/prefix, and the older
// s3://host[:port]/bucket/prefix, which is known by its port or by the name
// of Amazon's servers. An empty host is left out: s3:///bucket/prefix.
func (o Options) s3(ctx context.Context, u URL) (backends.Backend, error) {
	so := o.S3
	bucket, prefix := u.Host, u.Path
	if u.Port != "" || strings.HasSuffix(u.Host, ".amazonaws.com") || u.Host == "" {
		if u.Host != "" && so.Endpoint == "" {
			so.Endpoint = u.Host
			if u.Port != "" {
				so.Endpoint = u.Addr("")
			}
		}
		bucket, prefix, _ = strings.Cut(strings.TrimLeft(u.Path, "/"), "/")
	}
	if bucket == "" {
		return nil, fmt.Errorf("no bucket in url: %s://", u.Scheme)
	}
	client, err := web.NewClient(o.web())
	if err != nil {
		return nil, err
	}
	so.Getenv, so.Retry, so.Client = o.Getenv, o.retry(), client
	return keep(s3.Open(ctx, bucket, prefix, so))
}

// keep makes a nil driver a nil interface.
func keep[B backends.Backend](b B, err error) (backends.Backend, error) {
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (o Options) web() web.Options {
	return web.Options{
		Timeout: o.Timeout, Upload: web.Limiter(o.Upload), Download: web.Limiter(o.Download),
		Getenv: o.Getenv, CAFile: o.CAFile, CAPath: o.CAPath, Insecure: o.Insecure,
	}
}
