package swift

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"dupfs/backends"
	"dupfs/backends/web"
)

// maxSegments is how many segments a manifest may name unless the operator
// has changed that.
const maxSegments = 1000

// pieceSize is the length of the pieces in which a file goes up whose upload
// broke off, and pieceLife how many seconds Swift keeps them if nobody comes
// back for them.
const (
	pieceSize = 16 << 20
	pieceLife = 7 * 24 * 3600
)

// Put implements backends.Backend. It reads r twice: Swift is told the MD5
// before the bytes, so that it refuses what was damaged on the way. A file in
// segments that failed half-way goes on from its last complete one when it is
// put again; of one that is not, the second try goes up in pieces of 16 MiB,
// which the server joins, and any further try goes on from its last piece.
func (b *Backend) Put(ctx context.Context, name string, r io.ReadSeeker) error {
	src, err := web.NewSource(r)
	if err != nil {
		return web.Wrap("put", name, err)
	}
	defer src.Done()
	segment, err := b.segmentFor(name, r)
	if err != nil {
		return web.Wrap("put", name, err)
	}
	s, err := web.Measure(ctx, r, segment)
	if err == nil && len(s.Parts) > maxSegments {
		err = fmt.Errorf("%d bytes would be more than %d segments of %d bytes", s.Size, maxSegments, segment)
	}
	if err != nil {
		return web.Wrap("put", name, err)
	}
	// An object that is replaced may have segments, of which no trace is left afterwards.
	old, err := b.pieces(ctx, "put", name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var kept []string
	switch {
	case s.Size > b.segment:
		kept, err = b.putLarge(ctx, name, src, s)
	case s.Size > segment:
		err = b.putPieces(ctx, name, src, s)
	default:
		err = b.upload(ctx, b.container, b.prefix+name, name, src, 0, s.Size, s.Whole, nil)
	}
	if s.Size <= b.segment {
		b.noteBroken(name, s.Size, err)
	}
	if err != nil {
		return err
	}
	return b.deletePieces(ctx, "put", name, old, kept)
}

// segmentFor returns the length of the segments in which the rest of r goes up:
// pieces if it broke off before and fits in one segment.
func (b *Backend) segmentFor(name string, r io.Seeker) (int64, error) {
	n, err := web.Rest(r)
	if err != nil {
		return 0, err
	}
	segment := b.segment
	if _, broken := b.broken.Load(name); broken && !b.cannotJoin.Load() && n <= b.segment {
		segment = min(segment, b.piece)
	}
	return segment, nil
}

// upload stores n bytes from off as one object, whose MD5 is sum. It creates
// the container if that is missing.
func (b *Backend) upload(ctx context.Context, container, object, name string, src *web.Source, off, n int64, sum []byte, header map[string]string) error {
	c := call{
		method: http.MethodPut, url: b.url(container, object),
		header: map[string]string{"Etag": hex.EncodeToString(sum), "Content-Type": "application/octet-stream"},
		body:   func() *web.Piece { return src.Piece(off, n) },
	}
	maps.Copy(c.header, header)
	return b.store(ctx, container, name, c, src)
}

// store sends a PUT of an object, and creates the container if that is missing.
func (b *Backend) store(ctx context.Context, container, name string, c call, src *web.Source) error {
	for again := false; ; again = true {
		resp, err := b.do(ctx, "put", name, c)
		if src != nil && src.Err() != nil && ctx.Err() == nil {
			if err == nil {
				web.Drain(resp)
			}
			return web.Wrap("put", name, src.Err())
		}
		if err != nil {
			return err
		}
		switch {
		case resp.StatusCode/100 == 2:
			web.Drain(resp)
			return nil
		case resp.StatusCode == http.StatusNotFound && !again:
			web.Drain(resp)
			if err := b.create(ctx, container); err != nil {
				return err
			}
			continue
		case resp.StatusCode == http.StatusUnprocessableEntity:
			web.Drain(resp)
			return web.Wrap("put", name, fmt.Errorf("%w: the content was damaged on the way", backends.ErrTransient))
		}
		return web.Error("put", name, resp)
	}
}

// create makes a container, if there is none yet.
func (b *Backend) create(ctx context.Context, container string) error {
	c := call{method: http.MethodPut, url: b.url(container)}
	if b.policy != "" {
		c.header = map[string]string{"X-Storage-Policy": b.policy}
	}
	resp, err := b.do(ctx, "create container", container, c)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return web.Error("create container", container, resp)
	}
	web.Drain(resp)
	return nil
}

func (b *Backend) segments() string { return b.container + "_segments" }

// piece is a segment of a large object.
type piece struct{ container, object string }

func (p piece) String() string { return "/" + p.container + "/" + p.object }

// putLarge stores a file as a static large object and returns the paths of its
// segments.
func (b *Backend) putLarge(ctx context.Context, name string, src *web.Source, s *web.Sums) ([]string, error) {
	dir := b.segmentDir(name, s)
	paths, text, err := b.putSegments(ctx, name, dir, src, s, nil)
	if err != nil {
		return nil, err
	}
	return paths, b.putManifest(ctx, name, b.container, b.prefix+name, text, nil)
}

// putPieces stores a file as an object without segments: they are only there
// until the server has joined them, and for a week if that never happens.
func (b *Backend) putPieces(ctx context.Context, name string, src *web.Source, s *web.Sums) error {
	dir := b.segmentDir(name, s)
	brief := map[string]string{"X-Delete-After": strconv.Itoa(pieceLife)}
	paths, text, err := b.putSegments(ctx, name, dir, src, s, brief)
	if err != nil {
		return err
	}
	list := dir + "all"
	if err := b.putManifest(ctx, name, b.segments(), list, text, brief); err != nil {
		return err
	}
	if err := b.join(ctx, name, list, s); err != nil {
		return err
	}
	all := []piece{{b.segments(), list}}
	for _, p := range paths {
		container, object, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
		all = append(all, piece{container, object})
	}
	return b.deletePieces(ctx, "put", name, all, nil)
}

// join lets the server copy what a list of segments makes to its place.
func (b *Backend) join(ctx context.Context, name, list string, s *web.Sums) error {
	to := strings.TrimPrefix(b.object(name), b.storage+"/")
	resp, err := b.do(ctx, "put", name, call{
		// what is stored is there to stay, unlike the pieces
		method: "COPY", url: b.url(b.segments(), list), header: map[string]string{"Destination": to, "X-Fresh-Metadata": "true"},
	})
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		err := web.Error("put", name, resp)
		if errors.Is(err, backends.ErrTransient) || errors.Is(err, backends.ErrAuth) || errors.Is(err, backends.ErrNoSpace) {
			return err
		}
		b.cannotJoin.Store(true) // then as a whole again
		return web.Wrap("put", name, fmt.Errorf("%w: the server does not join pieces: %w", backends.ErrTransient, err))
	}
	sum := strings.Trim(resp.Header.Get("Etag"), `"`)
	web.Drain(resp)
	if sum != hex.EncodeToString(s.Whole) {
		return web.Wrap("put", name, fmt.Errorf("%w: the server joined the pieces to something else", backends.ErrTransient))
	}
	return nil
}

// noteBroken remembers that the upload of a file broke off, or no longer.
func (b *Backend) noteBroken(name string, size int64, err error) {
	switch {
	case err == nil:
		b.broken.Delete(name)
	case size > b.piece && !errors.Is(err, backends.ErrAuth) && !errors.Is(err, backends.ErrNoSpace):
		b.broken.Store(name, true)
	}
}

// segmentDir is where the segments of a file lie. Their names follow from its
// content, so that those which an earlier try has stored are found again.
func (b *Backend) segmentDir(name string, s *web.Sums) string {
	return fmt.Sprintf("%s%s/slo/%x/%d/%d/", b.prefix, name, s.Whole, s.Size, s.Part)
}

// putSegments stores the segments of a file that are not there yet. It returns
// the paths of all of them, and the manifest that names them.
func (b *Backend) putSegments(ctx context.Context, name, dir string, src *web.Source, s *web.Sums, header map[string]string) (paths []string, manifest []byte, err error) {
	there := map[string]row{}
	err = b.list(ctx, b.segments(), dir, "", func(r row) error {
		there[r.Name] = r
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, web.Wrap("put", name, err)
	}
	type entry struct {
		Path string `json:"path"`
		Etag string `json:"etag"`
		Size int64  `json:"size_bytes"`
	}
	var entries []entry
	for i, sum := range s.Parts {
		off := int64(i) * s.Part
		n := min(s.Part, s.Size-off)
		object := fmt.Sprintf("%s%08d", dir, i)
		if r, ok := there[object]; !ok || r.Hash != hex.EncodeToString(sum) || r.Bytes != n {
			if err := b.upload(ctx, b.segments(), object, name, src, off, n, sum, header); err != nil {
				return nil, nil, err
			}
		}
		p := piece{b.segments(), object}.String()
		entries = append(entries, entry{p, hex.EncodeToString(sum), n})
		paths = append(paths, p)
	}
	if manifest, err = json.Marshal(entries); err != nil {
		return nil, nil, web.Wrap("put", name, err)
	}
	return paths, manifest, nil
}

// putManifest makes an object of segments.
func (b *Backend) putManifest(ctx context.Context, name, container, object string, text []byte, header map[string]string) error {
	list, err := web.NewSource(bytes.NewReader(text))
	if err != nil {
		return web.Wrap("put", name, err)
	}
	c := call{
		method: http.MethodPut, url: b.url(container, object), query: url.Values{"multipart-manifest": {"put"}},
		header: map[string]string{"Content-Type": "application/octet-stream"},
		body:   func() *web.Piece { return list.Piece(0, int64(len(text))) },
	}
	maps.Copy(c.header, header)
	return b.store(ctx, container, name, c, list)
}

// pieces returns the segments of an object, none if it has none. It is
// fs.ErrNotExist if there is no such object.
func (b *Backend) pieces(ctx context.Context, op, name string) ([]piece, error) {
	resp, err := b.head(ctx, op, name)
	if err != nil {
		return nil, err
	}
	if isSLO(resp.Header) {
		return b.staticPieces(ctx, op, name)
	}
	where, err := url.PathUnescape(resp.Header.Get("X-Object-Manifest"))
	if err != nil || where == "" {
		return nil, nil
	}
	// Any object may call itself the manifest of any prefix: only what lies
	// where clients put the segments of this one is taken for such.
	container, prefix, _ := strings.Cut(strings.TrimPrefix(where, "/"), "/")
	if container != b.segments() || !strings.HasPrefix(prefix, b.prefix+name+"/") {
		return nil, nil
	}
	var all []piece
	err = b.list(ctx, container, prefix, "", func(r row) error {
		all = append(all, piece{container, r.Name})
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return all, err
}

func (b *Backend) staticPieces(ctx context.Context, op, name string) ([]piece, error) {
	resp, err := b.do(ctx, op, name, call{
		method: http.MethodGet, url: b.object(name), query: url.Values{"multipart-manifest": {"get"}},
	})
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, web.Error(op, name, resp)
	}
	defer web.Drain(resp)
	var entries []struct {
		Name string `json:"name"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxPage)).Decode(&entries); err != nil {
		return nil, web.Wrap(op, name, fmt.Errorf("its list of segments: %w", web.Net(ctx, err)))
	}
	var all []piece
	for _, e := range entries {
		container, object, ok := strings.Cut(strings.TrimPrefix(e.Name, "/"), "/")
		if ok {
			all = append(all, piece{container, object})
		}
	}
	return all, nil
}

// deletePieces removes segments but those kept; what is gone already is fine.
func (b *Backend) deletePieces(ctx context.Context, op, name string, all []piece, kept []string) error {
	keep := map[string]bool{}
	for _, k := range kept {
		keep[k] = true
	}
	for _, p := range all {
		if keep[p.String()] {
			continue
		}
		if err := b.remove(ctx, op, name, b.url(p.container, p.object)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("segment of %w", err)
		}
	}
	return nil
}

func (b *Backend) remove(ctx context.Context, op, name, url string) error {
	resp, err := b.do(ctx, op, name, call{method: http.MethodDelete, url: url})
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return web.Error(op, name, resp)
	}
	web.Drain(resp)
	return nil
}

// Delete implements backends.Backend. Of a large file the segments go first:
// if that is interrupted the file is still listed, and can be deleted again.
func (b *Backend) Delete(ctx context.Context, name string) error {
	all, err := b.pieces(ctx, "delete", name)
	if err != nil {
		return err
	}
	if err := b.deletePieces(ctx, "delete", name, all, nil); err != nil {
		return err
	}
	return b.remove(ctx, "delete", name, b.object(name))
}
