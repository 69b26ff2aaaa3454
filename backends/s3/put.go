package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/minio/minio-go/v7"
	"golang.org/x/sync/errgroup"

	"dupfs/backends"
	"dupfs/backends/web"
)

// Put stores a file, in parts if it is larger than one. It holds at most
// Options.Parts parts in memory, over all uploads. Each part goes up with its
// MD5 and SHA-256, which the server checks.
func (b *Backend) Put(ctx context.Context, name string, r io.ReadSeeker) error {
	return b.put(ctx, name, r, false)
}

// PutNew is Put with If-None-Match. It looks first, so that a server that
// ignores the condition, as old ones do, at least does not overwrite what was
// there long before.
func (b *Backend) PutNew(ctx context.Context, name string, r io.ReadSeeker) error {
	_, err := b.Stat(ctx, name)
	if err == nil {
		return web.Wrap("put", name, fs.ErrExist)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return b.put(ctx, name, r, true)
}

// Doubtful implements backends.Doubtful: a server that ignores the condition
// answers as one that obeys it.
func (b *Backend) Doubtful() bool { return true }

func (b *Backend) put(ctx context.Context, name string, r io.ReadSeeker, isNew bool) error {
	key, err := b.key("put", name)
	if err != nil {
		return err
	}
	start, err := r.Seek(0, io.SeekCurrent)
	if err != nil {
		return web.Wrap("put", name, err)
	}
	end, err := r.Seek(0, io.SeekEnd)
	if err != nil {
		return web.Wrap("put", name, err)
	}
	u := &upload{b: b, name: name, key: key, r: r, size: max(end-start, 0), opts: b.putOptions(name, isNew)}
	for again := false; ; again = true {
		if _, err := r.Seek(start, io.SeekStart); err != nil {
			return web.Wrap("put", name, err)
		}
		err := u.run(ctx)
		if !errors.Is(err, errNoBucket) || again {
			return err
		}
		if err := b.makeBucket(ctx); err != nil {
			return err
		}
	}
}

var errNoBucket = errors.New("no such bucket")

func (b *Backend) makeBucket(ctx context.Context) error {
	ctx, after := withRetryAfter(ctx)
	err := b.core.MakeBucket(ctx, b.bucket, minio.MakeBucketOptions{Region: region(b.o)})
	if minio.ToErrorResponse(err).Code == "BucketAlreadyOwnedByYou" {
		return nil
	}
	return fail(ctx, "make bucket", b.bucket, err, after)
}

func (b *Backend) putOptions(name string, isNew bool) minio.PutObjectOptions {
	o := minio.PutObjectOptions{
		ServerSideEncryption: b.sse,
		// The checksums are our own; a signature over a stream is what some
		// servers do not know.
		DisableContentSha256: true,
	}
	if backends.IsVolume(name) {
		o.StorageClass = b.o.StorageClass
	}
	if isNew {
		o.SetMatchETagExcept("*")
	}
	return o
}

// upload is one Put.
type upload struct {
	b         *Backend
	name, key string
	r         io.Reader
	size      int64
	opts      minio.PutObjectOptions
}

// part is a piece of a file, in memory; free gives its place to another.
type part struct {
	data     []byte
	md5, sha string
	number   int
	free     func()
}

// next reads the part of n bytes that follows.
func (u *upload) next(ctx context.Context, number int, n int64) (*part, error) {
	select {
	case u.b.parts <- struct{}{}:
	case <-ctx.Done():
		return nil, web.Wrap("put", u.name, context.Cause(ctx))
	}
	p := &part{data: make([]byte, n), number: number, free: func() { <-u.b.parts }}
	if _, err := io.ReadFull(u.r, p.data); err != nil {
		p.free()
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = errors.New("the file got shorter while it was read")
		}
		return nil, web.Wrap("put", u.name, err)
	}
	m, s := md5.Sum(p.data), sha256.Sum256(p.data)
	p.md5, p.sha = base64.StdEncoding.EncodeToString(m[:]), hex.EncodeToString(s[:])
	return p, nil
}

func (u *upload) run(ctx context.Context) error {
	if u.size > u.b.o.PartSize {
		return u.multipart(ctx)
	}
	p, err := u.next(ctx, 1, u.size)
	if err != nil {
		return err
	}
	defer p.free()
	if err := ctx.Err(); err != nil {
		return web.Wrap("put", u.name, context.Cause(ctx))
	}
	tctx, after := withRetryAfter(ctx)
	_, err = u.b.core.PutObject(tctx, u.b.bucket, u.key, bytes.NewReader(p.data), u.size, p.md5, p.sha, u.opts)
	return u.fail(ctx, err, after)
}

func (u *upload) fail(ctx context.Context, err error, after *time.Duration) error {
	if minio.ToErrorResponse(err).Code == "NoSuchBucket" {
		return fmt.Errorf("%w: %w", errNoBucket, fail(ctx, "put", u.name, err, after))
	}
	return fail(ctx, "put", u.name, err, after)
}

func (u *upload) multipart(ctx context.Context) error {
	u.b.clean.Do(func() { u.b.abortStale(ctx) })
	tctx, after := withRetryAfter(ctx)
	opts := u.opts
	id, err := u.b.core.NewMultipartUpload(tctx, u.b.bucket, u.key, minio.PutObjectOptions{ServerSideEncryption: opts.ServerSideEncryption, StorageClass: opts.StorageClass})
	if err != nil {
		return u.fail(ctx, err, after)
	}
	parts, err := u.sendParts(ctx, id)
	if err == nil {
		err = u.complete(ctx, id, parts)
	}
	if err != nil {
		u.b.abort(ctx, u.key, id)
	}
	return err
}

func (u *upload) sendParts(ctx context.Context, id string) ([]minio.CompletePart, error) {
	size := partSize(u.size, u.b.o.PartSize)
	parts := make([]minio.CompletePart, (u.size+size-1)/size)
	g, gctx := errgroup.WithContext(ctx)
	for i := range parts {
		p, err := u.next(gctx, i+1, min(size, u.size-int64(i)*size))
		if err != nil {
			if werr := g.Wait(); werr != nil && gctx.Err() != nil && ctx.Err() == nil {
				return nil, werr // why the group ended
			}
			return nil, err
		}
		g.Go(func() error {
			defer p.free()
			etag, err := u.send(gctx, id, p)
			parts[i] = minio.CompletePart{PartNumber: p.number, ETag: etag}
			return err
		})
	}
	return parts, g.Wait()
}

// partSize is want, or more so that the file has no more parts than S3 allows.
func partSize(size, want int64) int64 {
	least := (size + maxParts - 1) / maxParts
	if least <= want {
		return want
	}
	return (least + 1<<20 - 1) &^ (1<<20 - 1)
}

// send stores one part, and repeats it by itself if that fails.
func (u *upload) send(ctx context.Context, id string, p *part) (etag string, err error) {
	err = backends.Try(ctx, u.b.o.Retry, "put", u.name, func(ctx context.Context) error {
		tctx, after := withRetryAfter(ctx)
		r, err := u.b.core.PutObjectPart(tctx, u.b.bucket, u.key, id, p.number, bytes.NewReader(p.data), int64(len(p.data)),
			minio.PutObjectPartOptions{Md5Base64: p.md5, Sha256Hex: p.sha, SSE: u.opts.ServerSideEncryption, DisableContentSha256: true})
		etag = r.ETag
		return fail(ctx, "put", u.name, err, after)
	})
	return etag, err
}

func (u *upload) complete(ctx context.Context, id string, parts []minio.CompletePart) error {
	if err := ctx.Err(); err != nil {
		return web.Wrap("put", u.name, context.Cause(ctx))
	}
	tctx, after := withRetryAfter(ctx)
	_, err := u.b.core.CompleteMultipartUpload(tctx, u.b.bucket, u.key, id, parts, u.opts)
	return u.fail(ctx, err, after)
}

// abort removes the parts of an upload that failed, though the context may
// have ended; if that fails, too, a later run does it.
func (b *Backend) abort(ctx context.Context, key, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	b.core.AbortMultipartUpload(ctx, b.bucket, key, id)
}

// abortStale removes the parts of uploads that were never finished: they cost
// money and no listing shows them. Failures do not matter.
func (b *Backend) abortStale(ctx context.Context) {
	r, err := b.core.ListMultipartUploads(ctx, b.bucket, b.prefix, "", "", "", 1000)
	if err != nil {
		return
	}
	for _, u := range r.Uploads {
		if time.Since(u.Initiated) > staleUpload && backends.IsVolume(u.Key) {
			b.abort(ctx, u.Key, u.UploadID)
		}
	}
}
