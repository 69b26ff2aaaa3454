package azblob

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"golang.org/x/sync/errgroup"

	"dupfs/backends"
	"dupfs/backends/web"
)

var errExist = fs.ErrExist

// maxBlocks is how many blocks a blob can have.
const maxBlocks = 50_000

// Put implements backends.Backend. It reads r twice: Azure is told the MD5 of
// all that it is sent. Large files go in blocks, which Azure keeps for a week:
// one that failed half-way sends only the rest when it is put again.
func (b *Backend) Put(ctx context.Context, name string, r io.ReadSeeker) error {
	return b.put(ctx, name, r, false)
}

// PutNew implements backends.Exclusive.
func (b *Backend) PutNew(ctx context.Context, name string, r io.ReadSeeker) error {
	return b.put(ctx, name, r, true)
}

// upload is one file on its way.
type upload struct {
	b    *Backend
	blob *blockblob.Client
	name string
	src  *web.Source
	sums *web.Sums

	tier      *blob.AccessTier
	headers   *blob.HTTPHeaders
	condition *blob.AccessConditions
}

func (b *Backend) put(ctx context.Context, name string, r io.ReadSeeker, onlyNew bool) error {
	src, err := web.NewSource(r)
	if err != nil {
		return web.Wrap("put", name, err)
	}
	defer src.Done()
	s, err := b.measure(ctx, r)
	if err != nil {
		return web.Wrap("put", name, err)
	}
	u := &upload{b: b, blob: b.container.NewBlockBlobClient(name), name: name, src: src, sums: s, tier: b.otherTier}
	if backends.IsVolume(name) {
		u.tier = b.volumeTier
	}
	u.headers = &blob.HTTPHeaders{BlobContentMD5: s.Whole, BlobContentType: to.Ptr("application/octet-stream")}
	if onlyNew {
		u.condition = &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: to.Ptr(azcore.ETagAny)}}
	}
	if err := b.create(ctx); err != nil {
		return err
	}
	err = u.send(ctx)
	if errors.Is(err, backends.ErrArchived) && !onlyNew {
		// What is archived cannot be overwritten, only removed.
		if err := b.Delete(ctx, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		err = u.send(ctx)
	}
	return err
}

// create makes the container, if there is none yet. A signature that may not
// do that is no failure: it was made for a container that is there.
func (b *Backend) create(ctx context.Context) error {
	b.ensured.Lock()
	defer b.ensured.Unlock()
	if b.there {
		return nil
	}
	_, err := b.container.Create(ctx, nil)
	var refused *azcore.ResponseError
	switch {
	case err == nil, bloberror.HasCode(err, bloberror.ContainerAlreadyExists):
	case errors.As(err, &refused) && refused.StatusCode == 403:
	default:
		return fail(ctx, "create container", b.name, err)
	}
	b.there = true
	return nil
}

// measure reads all of r from where it stands, as blocks of such a length that
// there are not too many.
func (b *Backend) measure(ctx context.Context, r io.ReadSeeker) (*web.Sums, error) {
	n, err := web.Rest(r)
	if err != nil {
		return nil, err
	}
	return web.Measure(ctx, r, max(b.maxBlock, (n+maxBlocks-1)/maxBlocks))
}

// failed prefers what the source says over what became of the request.
func (u *upload) failed(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if src := u.src.Err(); src != nil && ctx.Err() == nil {
		return web.Wrap("put", u.name, src)
	}
	return fail(ctx, "put", u.name, err)
}

func (u *upload) send(ctx context.Context) error {
	if u.sums.Size > u.b.maxSinglePut {
		return u.sendBlocks(ctx)
	}
	_, err := u.blob.Upload(ctx, u.src.Piece(0, u.sums.Size), &blockblob.UploadOptions{
		Tier: u.tier, HTTPHeaders: u.headers, AccessConditions: u.condition,
		TransactionalValidation: blob.TransferValidationTypeMD5(u.sums.Whole),
	})
	return u.failed(ctx, err)
}

// id names a block by its place and content, so that the same block of the
// same file is known again. All ids of a blob must have the same length.
func (u *upload) id(i int) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(u.sums.Parts[i][:md5.Size:md5.Size], uint32(i)))
}

func (u *upload) sendBlocks(ctx context.Context) error {
	if u.condition != nil {
		if _, err := u.b.Stat(ctx, u.name); err == nil {
			return web.Wrap("put", u.name, fs.ErrExist)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	staged, err := u.staged(ctx)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(1)
	if u.src.Parallel() {
		g.SetLimit(u.b.maxConnections)
	}
	ids := make([]string, len(u.sums.Parts))
	for i := range ids {
		ids[i] = u.id(i)
		off := int64(i) * u.sums.Part
		n := min(u.sums.Part, u.sums.Size-off)
		if staged[ids[i]] == n {
			continue
		}
		g.Go(func() error { return u.sendBlock(gctx, i, off, n) })
	}
	if err := g.Wait(); err != nil {
		if ctx.Err() == nil && u.src.Err() != nil {
			return web.Wrap("put", u.name, u.src.Err())
		}
		return err
	}
	_, err = u.blob.CommitBlockList(ctx, ids, &blockblob.CommitBlockListOptions{
		Tier: u.tier, HTTPHeaders: u.headers, AccessConditions: u.condition,
	})
	return u.failed(ctx, err)
}

func (u *upload) sendBlock(ctx context.Context, i int, off, n int64) error {
	if ctx.Err() != nil {
		return web.Wrap("put", u.name, context.Cause(ctx))
	}
	piece := u.src.Piece
	if u.src.Parallel() {
		piece = u.src.Part
	}
	_, err := u.blob.StageBlock(ctx, u.id(i), piece(off, n), &blockblob.StageBlockOptions{
		TransactionalValidation: blob.TransferValidationTypeMD5(u.sums.Parts[i]),
	})
	return u.failed(ctx, err)
}

// staged returns the blocks that an earlier try has sent, with their sizes.
func (u *upload) staged(ctx context.Context) (map[string]int64, error) {
	list, err := u.blob.GetBlockList(ctx, blockblob.BlockListTypeUncommitted, nil)
	if err != nil {
		if err = fail(ctx, "put", u.name, err); errors.Is(err, fs.ErrNotExist) || errors.Is(err, backends.ErrArchived) {
			err = nil
		}
		return nil, err
	}
	sizes := map[string]int64{}
	for _, b := range list.UncommittedBlocks {
		if b.Name != nil && b.Size != nil {
			sizes[*b.Name] = *b.Size
		}
	}
	return sizes, nil
}
