// Package azblob stores archives in Azure Blob Storage. Call Open first. Files
// are block blobs; volumes and the rest can lie in different access tiers.
package azblob

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"dupfs/backends"
	"dupfs/backends/web"
)

const (
	// DefaultMaxSinglePut is the size up to which a file is stored by one request.
	DefaultMaxSinglePut = 32 << 20
	// DefaultMaxBlock is the size of the blocks of larger files.
	DefaultMaxBlock = 16 << 20
	// DefaultMaxConnections is how many blocks of a file are sent at a time.
	DefaultMaxConnections = 4
)

// Options of Open. The zero value is ready to use.
type Options struct {
	Getenv func(string) string // looks up AZURE_CONNECTION_STRING; nil means os.Getenv

	// VolumeTier is the access tier in which volumes are stored: Hot, Cool,
	// Cold or Archive; "" means the account's default. MetadataTier is that of
	// all other files; "" means Hot if volumes have a tier, else the
	// account's default. It cannot be Archive.
	VolumeTier, MetadataTier string

	MaxSinglePut   int64 // bytes; 0 means DefaultMaxSinglePut
	MaxBlock       int64 // bytes; 0 means DefaultMaxBlock
	MaxConnections int   // 0 means DefaultMaxConnections

	Timeout time.Duration // silence after which a connection is given up; 0 means web.DefaultTimeout; not used with Client
	Client  *http.Client  // nil means one made by web.NewClient
}

// Backend is a container. It implements backends.Backend, Stater, Exclusive,
// Tierer and io.Closer.
type Backend struct {
	client    *http.Client
	container *container.Client
	name      string // of the container

	volumeTier, otherTier *blob.AccessTier // nil: the account's default
	maxSinglePut          int64
	maxBlock              int64
	maxConnections        int
	page                  *int32 // files in a page of the listing, for tests; nil: the server decides

	ensured sync.Mutex // held while the container is created
	there   bool       // the container exists, as far as we know
}

// Open returns the files in a container. A container that does not exist is
// empty, and is created by the first Put. Nothing is asked of the store yet.
func Open(ctx context.Context, name string, o Options) (backends.Backend, error) {
	if !validContainer(name) {
		return nil, badContainer(name)
	}
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	b := &Backend{client: o.Client, name: name}
	if err := b.options(o); err != nil {
		return nil, err
	}
	s := o.Getenv("AZURE_CONNECTION_STRING")
	if s == "" {
		return nil, fmt.Errorf("%w: %s", backends.ErrAuth, "AZURE_CONNECTION_STRING environment variable not set.")
	}
	c, err := parseConnection(s)
	if err != nil {
		return nil, err
	}
	if b.client == nil {
		if b.client, err = web.NewClient(web.Options{Timeout: o.Timeout, Getenv: o.Getenv}); err != nil {
			return nil, err
		}
	}
	b.container, err = connect(c, name, b.client)
	return b, err
}

// badContainer is the refusal of a container's name, worded as duplicity does
// it: front ends look for that.
type badContainer string

func (b badContainer) Error() string { return "Invalid Azure Storage Blob container name." }

// validContainer: 3 to 63 lower-case letters, digits and single hyphens, none
// of these at an end.
func validContainer(name string) bool {
	if len(name) < 3 || len(name) > 63 || strings.Contains(name, "--") || name[0] == '-' || name[len(name)-1] == '-' {
		return false
	}
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func (b *Backend) options(o Options) error {
	volume, err := tier(o.VolumeTier)
	if err != nil {
		return err
	}
	if o.MetadataTier == "" && volume != nil {
		o.MetadataTier = string(blob.AccessTierHot)
	}
	other, err := tier(o.MetadataTier)
	if err != nil {
		return err
	}
	if other != nil && *other == blob.AccessTierArchive {
		return errors.New("manifests, signatures and indexes cannot be in the tier Archive: nothing could be read from them")
	}
	b.volumeTier, b.otherTier = volume, other
	b.maxSinglePut, b.maxBlock, b.maxConnections = o.MaxSinglePut, o.MaxBlock, o.MaxConnections
	if b.maxSinglePut <= 0 {
		b.maxSinglePut = DefaultMaxSinglePut
	}
	if b.maxBlock <= 0 {
		b.maxBlock = DefaultMaxBlock
	}
	if b.maxConnections <= 0 {
		b.maxConnections = DefaultMaxConnections
	}
	return nil
}

// tier returns a tier by its name, in any case; nil for "".
func tier(name string) (*blob.AccessTier, error) {
	if name == "" {
		return nil, nil
	}
	for _, t := range []blob.AccessTier{blob.AccessTierHot, blob.AccessTierCool, blob.AccessTierCold, blob.AccessTierArchive} {
		if strings.EqualFold(name, string(t)) {
			return &t, nil
		}
	}
	return nil, fmt.Errorf("unknown access tier %q; there are Hot, Cool, Cold and Archive", name)
}

func connect(c *connection, name string, client *http.Client) (*container.Client, error) {
	o := &container.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: client,
		Retry:     policy.RetryOptions{MaxRetries: -1}, // backends.Retry does it
		Telemetry: policy.TelemetryOptions{ApplicationID: "dupfs"},
	}}
	// A refusal then costs no upload, and is not lost when the server closes
	// the connection on what it did not want.
	o.ExpectContinueBehavior.Mode = blob.ExpectContinueModeOn
	o.ExpectContinueBehavior.ContentLengthThreshold = 64 << 10
	u := c.endpoint + "/" + name
	if c.account == "" || c.key == "" {
		return container.NewClientWithNoCredential(u+"?"+c.sas, o)
	}
	cred, err := container.NewSharedKeyCredential(c.account, c.key)
	if err != nil {
		return nil, fmt.Errorf("%w: AZURE_CONNECTION_STRING: its AccountKey is not base64", backends.ErrAuth)
	}
	return container.NewClientWithSharedKeyCredential(u, cred, o)
}

// Close releases the connections.
func (b *Backend) Close() error {
	b.client.CloseIdleConnections()
	return nil
}

// fail makes one of our errors of one of the SDK's, which would show URLs.
func fail(ctx context.Context, op, name string, err error) error {
	var refused *azcore.ResponseError
	if !errors.As(err, &refused) {
		return web.Wrap(op, name, web.Net(ctx, err))
	}
	e := &web.StatusError{Status: refused.StatusCode, Msg: refused.ErrorCode, Err: kind(refused)}
	if refused.RawResponse != nil {
		e.After = web.ParseRetryAfter(refused.RawResponse.Header, time.Now())
	}
	return web.Wrap(op, name, e)
}

// kind returns the class of a refusal; the status alone says too little.
func kind(e *azcore.ResponseError) error {
	switch bloberror.Code(e.ErrorCode) {
	case bloberror.BlobAlreadyExists:
		return errExist
	case bloberror.BlobArchived, bloberror.BlobBeingRehydrated:
		return backends.ErrArchived
	case bloberror.AccountIsDisabled:
		return backends.ErrAuth
	case bloberror.ContainerBeingDeleted, bloberror.MD5Mismatch, bloberror.OperationTimedOut,
		bloberror.InvalidBlockList: // another writer of the same file took our blocks away
		return backends.ErrTransient
	}
	return web.Kind(e.StatusCode)
}

// List implements backends.Backend.
func (b *Backend) List(ctx context.Context) ([]backends.File, error) {
	var files []backends.File
	pages := b.container.NewListBlobsHierarchyPager("/", &container.ListBlobsHierarchyOptions{MaxResults: b.page})
	for pages.More() {
		p, err := pages.NextPage(ctx)
		if bloberror.HasCode(err, bloberror.ContainerNotFound) {
			return nil, nil // the first Put creates it
		}
		if err != nil {
			return nil, fail(ctx, "list", "", err)
		}
		if p.Segment == nil {
			continue
		}
		for _, item := range p.Segment.BlobItems {
			if item == nil || item.Name == nil {
				continue
			}
			files = append(files, file(*item.Name, item.Properties))
		}
	}
	return files, nil
}

func file(name string, p *container.BlobProperties) backends.File {
	f := backends.File{Name: name, Size: -1}
	if p == nil {
		return f
	}
	if p.ContentLength != nil {
		f.Size = *p.ContentLength
	}
	if p.LastModified != nil {
		f.ModTime = *p.LastModified
	}
	if p.AccessTier != nil {
		f.Tier = string(*p.AccessTier)
	}
	if len(p.ContentMD5) == md5.Size {
		f.Sum = hex.EncodeToString(p.ContentMD5)
	}
	f.Archived = f.Tier == string(blob.AccessTierArchive)
	f.Rehydrating = p.ArchiveStatus != nil && *p.ArchiveStatus != ""
	return f
}

// Stat implements backends.Stater.
func (b *Backend) Stat(ctx context.Context, name string) (backends.File, error) {
	p, err := b.container.NewBlobClient(name).GetProperties(ctx, nil)
	if err != nil {
		return backends.File{}, fail(ctx, "query", name, err)
	}
	props := &container.BlobProperties{ContentLength: p.ContentLength, LastModified: p.LastModified, ContentMD5: p.ContentMD5}
	if p.AccessTier != nil {
		props.AccessTier = to.Ptr(blob.AccessTier(*p.AccessTier))
	}
	if p.ArchiveStatus != nil {
		props.ArchiveStatus = to.Ptr(blob.ArchiveStatus(*p.ArchiveStatus))
	}
	return file(name, props), nil
}

// Open implements backends.Backend. A file that is read whole is compared with
// the MD5 that was stored with it, if one was. One in an archive tier is
// backends.ErrArchived.
func (b *Backend) Open(ctx context.Context, name string, off, n int64) (io.ReadCloser, error) {
	if n == 0 {
		_, err := b.Stat(ctx, name)
		return io.NopCloser(strings.NewReader("")), err
	}
	o := &blob.DownloadStreamOptions{}
	if off > 0 || n > 0 {
		o.Range = blob.HTTPRange{Offset: off, Count: max(n, 0)} // Count 0: to the end
	}
	var resp *http.Response
	_, err := b.container.NewBlobClient(name).DownloadStream(policy.WithCaptureResponse(ctx, &resp), o)
	if bloberror.HasCode(err, bloberror.InvalidRange) {
		return io.NopCloser(strings.NewReader("")), nil // it begins at the end or behind it
	}
	if err != nil {
		return nil, fail(ctx, "get", name, err)
	}
	sum, _ := base64.StdEncoding.DecodeString(resp.Header.Get("Content-Md5"))
	body, err := web.Body(ctx, name, resp, off, n)
	if err != nil || len(sum) != md5.Size || off > 0 || n > 0 {
		return body, err
	}
	return web.CheckMD5(body, name, sum), nil
}

// Delete implements backends.Backend.
func (b *Backend) Delete(ctx context.Context, name string) error {
	if _, err := b.container.NewBlobClient(name).Delete(ctx, nil); err != nil {
		return fail(ctx, "delete", name, err)
	}
	return nil
}

// SetTier implements backends.Tierer. Asking again for a file that is being
// rehydrated already is no error.
func (b *Backend) SetTier(ctx context.Context, name, to, priority string) error {
	t, err := tier(to)
	if err == nil && t == nil {
		err = errors.New("no access tier is named")
	}
	if err != nil {
		return web.Wrap("settier", name, err)
	}
	o := &blob.SetTierOptions{}
	if priority != "" {
		p := blob.RehydratePriorityStandard
		if strings.EqualFold(priority, string(blob.RehydratePriorityHigh)) {
			p = blob.RehydratePriorityHigh
		} else if !strings.EqualFold(priority, string(p)) {
			return web.Wrap("settier", name, fmt.Errorf("unknown priority %q; there are Standard and High", priority))
		}
		o.RehydratePriority = &p
	}
	_, err = b.container.NewBlobClient(name).SetTier(ctx, *t, o)
	if bloberror.HasCode(err, bloberror.BlobBeingRehydrated) && *t != blob.AccessTierArchive {
		return nil
	}
	if err != nil {
		return fail(ctx, "settier", name, err)
	}
	return nil
}
