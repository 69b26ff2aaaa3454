// Package s3 stores archives in a bucket of Amazon S3 or of a server that
// speaks its protocol, such as MinIO, Ceph or Backblaze B2.
package s3

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/encrypt"

	"dupfs/backends"
	"dupfs/backends/web"
)

// Options say which server, and how to store. The zero value is Amazon, with
// everything from the environment.
type Options struct {
	// Getenv looks up AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
	// AWS_SESSION_TOKEN, AWS_PROFILE, AWS_SHARED_CREDENTIALS_FILE,
	// AWS_CONFIG_FILE, AWS_REGION, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL_S3,
	// AWS_ENDPOINT_URL, AWS_EC2_METADATA_DISABLED and HOME; nil is os.Getenv.
	Getenv func(string) string
	// Endpoint is the server: a URL, or host[:port].
	Endpoint string
	Region   string
	// Unencrypted speaks http to an endpoint given without a scheme.
	Unencrypted bool
	// VirtualHost puts the bucket into the host name even for servers other
	// than Amazon's; by default it goes into the path there.
	VirtualHost bool
	// StorageClass is that of volumes; metadata is always STANDARD. "" leaves
	// it to the bucket.
	StorageClass string
	// Encryption asks for encryption at rest, with the key KMSKey if set.
	Encryption bool
	KMSKey     string
	// PartSize is the size of the parts in which large files go up, each
	// repeated by itself if it fails; 0 means 16 MiB. It is raised for files
	// that would need more than 10,000.
	PartSize int64
	// Parts is how many parts are held in memory and sent at a time, over
	// all uploads; 0 means 4.
	Parts int
	// RestoreDays is how long a copy of a file restored from Glacier stays;
	// 0 means 7.
	RestoreDays int
	// Retry is for the parts of an upload.
	Retry backends.RetryOptions
	// Client speaks to the server; nil means web.NewClient. Only its
	// transport is used.
	Client *http.Client
}

// DefaultPartSize is Options.PartSize if that is 0, in bytes.
const DefaultPartSize = 16 << 20

const (
	// staleUpload is the age of an unfinished upload that a crash left over.
	staleUpload = 7 * 24 * time.Hour
	maxParts    = 10_000
)

// Backend is a prefix in a bucket. It implements backends.Backend, Stater,
// Exclusive and Tierer.
type Backend struct {
	core   *minio.Core
	bucket string
	prefix string // "" or with a slash at its end
	o      Options
	sse    encrypt.ServerSide
	client *http.Client // ours to release; nil if it was given
	parts  chan struct{}
	clean  sync.Once
}

// Open prepares access to a bucket and a prefix in it ("" for none; slashes at
// its ends do not matter). The bucket is made by the first Put if it is missing.
// Only where credentials are those of a machine in Amazon's cloud is the
// network used.
func Open(bucket, prefix string, o Options) (*Backend, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	if o.PartSize == 0 {
		o.PartSize = DefaultPartSize
	}
	if o.Parts <= 0 {
		o.Parts = 4
	}
	if o.RestoreDays <= 0 {
		o.RestoreDays = 7
	}
	b := &Backend{bucket: bucket, o: o, parts: make(chan struct{}, o.Parts)}
	if p := strings.Trim(prefix, "/"); p != "" {
		b.prefix = p + "/"
	}
	if err := b.encryption(); err != nil {
		return nil, err
	}
	return b, b.connect()
}

func (b *Backend) encryption() (err error) {
	switch {
	case b.o.KMSKey != "":
		b.sse, err = encrypt.NewSSEKMS(b.o.KMSKey, nil)
	case b.o.Encryption:
		b.sse = encrypt.NewSSE()
	}
	return err
}

func (b *Backend) connect() error {
	host, secure, err := endpoint(b.o)
	if err != nil {
		return err
	}
	creds, err := findCredentials(b.o)
	if err != nil {
		return err
	}
	client := b.o.Client
	if client == nil {
		if client, err = web.NewClient(web.Options{Getenv: b.o.Getenv}); err != nil {
			return err
		}
		b.client = client
	}
	lookup := minio.BucketLookupAuto
	if b.o.VirtualHost {
		lookup = minio.BucketLookupDNS
	}
	b.core, err = minio.NewCore(host, &minio.Options{
		Creds: creds, Secure: secure, Region: region(b.o), BucketLookup: lookup,
		Transport:  retryAfter{client.Transport},
		MaxRetries: 1, // package backends does that
	})
	if err != nil {
		return fmt.Errorf("s3: %w", err)
	}
	return nil
}

// endpoint returns host[:port] of the server, and whether it is https.
func endpoint(o Options) (host string, secure bool, err error) {
	e := o.Endpoint
	for _, v := range []string{"AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"} {
		if e == "" {
			e = o.Getenv(v)
		}
	}
	if e == "" {
		e = "s3.amazonaws.com"
	}
	if !strings.Contains(e, "://") {
		return strings.TrimSuffix(e, "/"), !o.Unencrypted, nil
	}
	u, err := url.Parse(e)
	if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", false, errors.New("s3: the endpoint is not a url of the form https://host[:port]")
	}
	return u.Host, u.Scheme == "https", nil
}

// Close releases connections.
func (b *Backend) Close() error {
	if b.client != nil {
		b.client.CloseIdleConnections()
	}
	return nil
}

func (b *Backend) key(op, name string) (string, error) {
	if name == "" || strings.Contains(name, "/") {
		return "", fmt.Errorf("%s %q: not a name for a file", op, name)
	}
	return b.prefix + name, nil
}

// List returns the objects directly under the prefix. A missing bucket lists
// as empty.
func (b *Backend) List(ctx context.Context) ([]backends.File, error) {
	ctx, after := withRetryAfter(ctx)
	ctx, cancel := context.WithCancel(ctx) // ends the iterator's goroutine
	defer cancel()
	var files []backends.File
	for o := range b.core.Client.ListObjectsIter(ctx, b.bucket, minio.ListObjectsOptions{Prefix: b.prefix, WithRestoreStatus: true}) {
		if o.Err != nil {
			if minio.ToErrorResponse(o.Err).Code == "NoSuchBucket" {
				return nil, nil
			}
			return nil, fail(ctx, "list", "", o.Err, after)
		}
		name := strings.TrimPrefix(o.Key, b.prefix)
		if name == "" || strings.Contains(name, "/") {
			continue // a directory, or the object that some tools make for one
		}
		files = append(files, file(name, o))
	}
	if ctx.Err() != nil { // the iterator may just end then
		return nil, fail(ctx, "list", "", ctx.Err(), after)
	}
	return files, nil
}

func file(name string, o minio.ObjectInfo) backends.File {
	class := o.StorageClass
	if class == "" {
		class = o.Metadata.Get("X-Amz-Storage-Class")
	}
	if class == "" {
		class = "STANDARD"
	}
	f := backends.File{Name: name, Size: o.Size, ModTime: o.LastModified, Tier: class, Sum: sum(o)}
	if class == "GLACIER" || class == "DEEP_ARCHIVE" {
		f.Rehydrating = o.Restore != nil && o.Restore.OngoingRestore
		f.Archived = o.Restore == nil || o.Restore.OngoingRestore
	}
	return f
}

// sum returns what an object's ETag says of its content: nothing where it is
// encrypted with a key of its own, which only Stat can see.
func sum(o minio.ObjectInfo) string {
	tag := strings.ToLower(strings.Trim(o.ETag, `"`))
	whole, _, _ := strings.Cut(tag, "-")
	b, err := hex.DecodeString(whole)
	own := strings.HasPrefix(o.Metadata.Get("X-Amz-Server-Side-Encryption"), "aws:kms") ||
		o.Metadata.Get("X-Amz-Server-Side-Encryption-Customer-Algorithm") != ""
	if err != nil || len(b) != md5.Size || own {
		return ""
	}
	return tag
}

// Stat tells of one file.
func (b *Backend) Stat(ctx context.Context, name string) (backends.File, error) {
	key, err := b.key("query", name)
	if err != nil {
		return backends.File{}, err
	}
	ctx, after := withRetryAfter(ctx)
	o, err := b.core.StatObject(ctx, b.bucket, key, minio.StatObjectOptions{})
	if err != nil {
		return backends.File{}, fail(ctx, "query", name, err, after)
	}
	return file(name, o), nil
}

// Open reads a range of a file.
func (b *Backend) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	key, err := b.key("get", name)
	if err != nil {
		return nil, err
	}
	if off < 0 {
		return nil, fmt.Errorf("get %s: negative offset %d", name, off)
	}
	if n == 0 {
		if _, err := b.Stat(ctx, name); err != nil {
			return nil, err
		}
		return io.NopCloser(strings.NewReader("")), nil
	}
	var o minio.GetObjectOptions
	if r := web.Range(off, n); r != "" {
		o.Set("Range", r)
	}
	tctx, after := withRetryAfter(ctx)
	body, info, h, err := b.core.GetObject(tctx, b.bucket, key, o)
	if err != nil {
		if minio.ToErrorResponse(err).Code == "InvalidRange" {
			return io.NopCloser(strings.NewReader("")), nil
		}
		return nil, fail(ctx, "get", name, err, after)
	}
	status := http.StatusOK
	if h.Get("Content-Range") != "" {
		status = http.StatusPartialContent
	}
	return web.Body(ctx, name, &http.Response{StatusCode: status, Header: h, Body: body, ContentLength: info.Size}, off, n)
}

// Delete removes a file. As S3 does not tell whether there was one, it looks
// first.
func (b *Backend) Delete(ctx context.Context, name string) error {
	key, err := b.key("delete", name)
	if err != nil {
		return err
	}
	ctx, after := withRetryAfter(ctx)
	if _, err := b.core.StatObject(ctx, b.bucket, key, minio.StatObjectOptions{}); err != nil {
		return fail(ctx, "delete", name, err, after)
	}
	return fail(ctx, "delete", name, b.core.RemoveObject(ctx, b.bucket, key, minio.RemoveObjectOptions{}), after)
}

// SetTier moves a file to a storage class. Out of Glacier this first asks for
// a restored copy, for a number of days; once that is there, another call
// makes it permanent. Priorities are Standard, High (Glacier's Expedited,
// which Deep Archive does not have) and Bulk.
func (b *Backend) SetTier(ctx context.Context, name, tier, priority string) error {
	key, err := b.key("settier", name)
	if err != nil {
		return err
	}
	f, err := b.Stat(ctx, name)
	if err != nil {
		return err
	}
	ctx, after := withRetryAfter(ctx)
	switch {
	case f.Tier == tier:
		return nil
	case f.Archived:
		err = b.restore(ctx, key, f.Tier, priority)
	default:
		dst := minio.CopyDestOptions{Bucket: b.bucket, Object: key, Encryption: b.sse, ReplaceMetadata: true,
			UserMetadata: map[string]string{"X-Amz-Storage-Class": tier}}
		_, err = b.core.Client.CopyObject(ctx, dst, minio.CopySrcOptions{Bucket: b.bucket, Object: key})
	}
	return fail(ctx, "settier", name, err, after)
}

func (b *Backend) restore(ctx context.Context, key, class, priority string) error {
	t := minio.TierStandard
	switch {
	case strings.EqualFold(priority, "High") && class != "DEEP_ARCHIVE":
		t = minio.TierExpedited
	case strings.EqualFold(priority, "Bulk"):
		t = minio.TierBulk
	}
	var r minio.RestoreRequest
	r.SetDays(b.o.RestoreDays)
	r.SetGlacierJobParameters(minio.GlacierJobParameters{Tier: t})
	err := b.core.RestoreObject(ctx, b.bucket, key, "", r)
	if minio.ToErrorResponse(err).Code == "RestoreAlreadyInProgress" {
		return nil
	}
	return err
}

// fail sorts what the library returned. after is what withRetryAfter gave.
func fail(ctx context.Context, op, name string, err error, after *time.Duration) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return web.Wrap(op, name, context.Cause(ctx))
	}
	var e minio.ErrorResponse
	if !errors.As(err, &e) || e.StatusCode == 0 && e.Code == "" {
		return web.Wrap(op, name, web.Net(ctx, err))
	}
	kind := web.Kind(e.StatusCode)
	msg := e.Code
	if e.Message != "" && e.Message != e.Code {
		msg += ": " + e.Message
	}
	switch e.Code {
	case "NoSuchKey", "NoSuchBucket", "NoSuchUpload":
		kind = fs.ErrNotExist
	case "InvalidObjectState":
		kind = backends.ErrArchived
	case "PreconditionFailed":
		kind = fs.ErrExist
	case "NotImplemented":
		kind = errors.ErrUnsupported
	case "BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "RequestTimeout", "ConditionalRequestConflict", "OperationAborted", "SlowDown":
		kind = backends.ErrTransient
	case "QuotaExceeded", "XMinioStorageFull", "TooManyBuckets":
		kind = backends.ErrNoSpace
	case "ExpiredToken", "InvalidToken":
		kind = backends.ErrAuth
	case "RequestTimeTooSkewed":
		msg += " (the clock of this machine is wrong)"
	}
	return web.Wrap(op, name, &web.StatusError{Status: e.StatusCode, Msg: msg, After: *after, Err: kind})
}
