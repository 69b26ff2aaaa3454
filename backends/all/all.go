// Package all opens the store that a URL names, with any of the drivers.
package all

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"dupfs/backends"
	"dupfs/backends/azblob"
	"dupfs/backends/file"
	"dupfs/backends/par2"
	"dupfs/backends/rclone"
	"dupfs/backends/s3"
	"dupfs/backends/sftp"
	"dupfs/backends/swift"
	"dupfs/backends/web"
	"dupfs/backends/webdav"
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

	// CAFile, CAPath and Insecure are about certificates, as in web.Options.
	CAFile, CAPath string
	Insecure       bool

	// VolumeTier and MetadataTier are Azure's access tiers (Hot, Cool, Cold,
	// Archive) for what is stored; S3 has StorageClass.
	VolumeTier, MetadataTier string

	// S3 and Azure are set but for Getenv, Retry, Timeout, Client
	// and tiers, which are the ones from here.
	S3    s3.Options
	Azure azblob.Options

	SwiftPolicy  string // storage policy of a container that is made
	SwiftSegment int64  // bytes of the segments of large objects; 0 is the driver's default

	SSHOptions   string      // options of ssh, as on its command line
	WebDAVHeader http.Header // sent with each request
	Rclone       string      // the program; "" is rclone

	Par2 par2.Options // of recovery files, with par2+SCHEME
}

// Wrapped is what stands before the scheme of a URL whose files have recovery
// files beside them.
const Wrapped = "par2+"

// Inner returns the URL of the store itself, without Wrapped.
func Inner(target string) (url string, wrapped bool) {
	if n := len(Wrapped); len(target) > n && strings.EqualFold(target[:n], Wrapped) {
		return target[n:], true
	}
	return target, false
}

// Open opens the store at a URL. It fails at once with ErrScheme for a scheme
// that no driver has; most drivers first use the network at the first call.
// Release the backend with backends.Close.
func Open(ctx context.Context, target string, o Options) (backends.Backend, error) {
	if inner, ok := Inner(target); ok {
		b, err := Open(ctx, inner, o)
		if err != nil {
			return nil, err
		}
		return par2.New(b, o.Par2), nil
	}
	u, err := Parse(target)
	if err != nil {
		return nil, err
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	retry := backends.RetryOptions{Tries: o.Tries, MaxDelay: o.RetryDelay, Timeout: o.Timeout, Notify: o.Notify}
	if u.Scheme == "rclone" { // a local program, silent while it sends on what it was given
		retry.Timeout = max(retry.Timeout, 2*time.Minute)
	}
	var b backends.Backend
	err = backends.Try(ctx, retry, "open", Redact(target), func(ctx context.Context) (err error) {
		b, err = o.open(ctx, u, target, retry)
		return err
	})
	if err != nil {
		return nil, err
	}
	return backends.Retry(b, retry), nil
}

// Sums reports whether the store at a URL may tell MD5s of its files, and the size
// in bytes of the parts in which it takes larger ones, if it then tells of the
// parts' MD5s; 0 if it does not.
func Sums(target string, o s3.Options) (tells bool, part int64) {
	target, _ = Inner(target)
	u, err := Parse(target)
	if err != nil {
		return false, 0
	}
	switch strings.TrimPrefix(u.Scheme, "gio+") {
	case "swift", "azure", "rclone":
		return true, 0
	case "s3", "boto3+s3", "boto+s3", "s3+http":
		if o.PartSize > 0 {
			return true, o.PartSize
		}
		return true, s3.DefaultPartSize
	}
	return false, 0
}

func (o Options) open(ctx context.Context, u URL, target string, retry backends.RetryOptions) (backends.Backend, error) {
	switch strings.TrimPrefix(u.Scheme, "gio+") {
	case "file":
		return o.file(u)
	case "swift":
		return o.swift(ctx, u)
	case "azure":
		return o.azure(ctx, u)
	case "s3", "boto3+s3", "boto+s3", "s3+http":
		return o.s3(u, retry)
	case "sftp", "scp", "ssh", "paramiko+sftp", "paramiko+scp", "pexpect+sftp", "pexpect+scp":
		return o.sftp(u)
	case "webdav", "http":
		return o.webdav(ctx, u, "http")
	case "webdavs", "https":
		return o.webdav(ctx, u, "https")
	case "rclone":
		return o.rclone(u)
	}
	return nil, fmt.Errorf("%w: %s", ErrScheme, Redact(target))
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
func (o Options) s3(u URL, retry backends.RetryOptions) (backends.Backend, error) {
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
	so.Getenv, so.Retry, so.Client = o.Getenv, retry, client
	return keep(s3.Open(bucket, prefix, so))
}

// swift takes swift://container[/prefix...]; empty parts of the path are
// dropped.
func (o Options) swift(ctx context.Context, u URL) (backends.Backend, error) {
	container, prefix, _ := strings.Cut(strings.TrimLeft(u.Rest, "/"), "/")
	client, err := web.NewClient(o.web())
	if err != nil {
		return nil, err
	}
	return swift.Open(ctx, container, prefix, swift.Options{
		Getenv: o.Getenv, StoragePolicy: o.SwiftPolicy, SegmentSize: o.SwiftSegment, Timeout: o.Timeout, Client: client,
	})
}

// azure takes azure://container; Azure's blobs have no prefix here.
func (o Options) azure(ctx context.Context, u URL) (backends.Backend, error) {
	client, err := web.NewClient(o.web())
	if err != nil {
		return nil, err
	}
	ao := o.Azure
	ao.Getenv, ao.Timeout, ao.Client = o.Getenv, o.Timeout, client
	ao.VolumeTier, ao.MetadataTier = o.VolumeTier, o.MetadataTier
	return azblob.Open(ctx, strings.Trim(u.Rest, "/"), ao)
}

// sftp takes a path that is relative to the login's directory, unless it
// begins with a second slash.
func (o Options) sftp(u URL) (backends.Backend, error) {
	password, has := o.password(u)
	so := sftp.Options{
		Getenv: o.Getenv, Password: password, HasPassword: has, AskPassword: o.Password,
		SSHOptions: o.SSHOptions, Timeout: o.Timeout, Dial: web.Dialer(o.web()),
	}
	return keep(sftp.Open(u.Host, u.User, u.Port, strings.TrimPrefix(u.Path, "/"), so))
}

func (o Options) webdav(ctx context.Context, u URL, scheme string) (backends.Backend, error) {
	password, has := o.password(u)
	if !has && u.User != "" && o.Password != nil {
		var err error
		if password, err = o.Password(ctx, fmt.Sprintf("Password for '%s@%s': ", u.User, u.Host)); err != nil {
			return nil, err
		}
	}
	client, err := web.NewClient(o.web())
	if err != nil {
		return nil, err
	}
	host := u.Host
	if u.Port != "" || strings.Contains(host, ":") {
		host = strings.TrimSuffix(u.Addr(""), ":")
	}
	base := url.URL{Scheme: scheme, Host: host, Path: u.Path}
	return keep(webdav.Open(base.String(), webdav.Options{User: u.User, Password: password, Header: o.WebDAVHeader, Client: client}))
}

// rclone takes rclone://remote:path. Like duplicity it drops a slash at the
// beginning of the path, which means the same for most remotes; but not of a
// remote that is defined on the spot (:type:path).
func (o Options) rclone(u URL) (backends.Backend, error) {
	remote := strings.TrimPrefix(u.Rest, "//")
	if !strings.HasPrefix(remote, ":") {
		remote = strings.Replace(remote, ":/", ":", 1)
	}
	return keep(rclone.Open(remote, rclone.Options{Program: o.Rclone, Timeout: o.Timeout, Web: o.web()}))
}

// password returns the password of the URL, or of the environment.
func (o Options) password(u URL) (string, bool) {
	if u.HasPassword {
		return u.Password, true
	}
	for _, v := range []string{"BACKEND_PASSWORD", "FTP_PASSWORD"} {
		if p := o.Getenv(v); p != "" {
			return p, true
		}
	}
	return "", false
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
