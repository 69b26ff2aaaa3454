package backends

import (
	"context"
	"io"
)

// Watch returns b; listed is told of each listing, and changed when files were
// stored, removed or moved, or that was tried, so that listings known before
// may be wrong. Both may be called from several goroutines.
func Watch(b Backend, listed func([]File), changed func()) Backend {
	return Expose(&watched{inner{b}, listed, changed}, b)
}

type watched struct {
	inner
	listed  func([]File)
	changed func()
}

func (w *watched) List(ctx context.Context) ([]File, error) {
	files, err := w.inner.List(ctx)
	if err == nil {
		w.listed(files)
	}
	return files, err
}

func (w *watched) Put(ctx context.Context, name string, r io.ReadSeeker) error {
	defer w.changed()
	return w.inner.Put(ctx, name, r)
}

func (w *watched) PutNew(ctx context.Context, name string, r io.ReadSeeker) error {
	defer w.changed()
	return w.inner.PutNew(ctx, name, r)
}

func (w *watched) Delete(ctx context.Context, name string) error {
	defer w.changed()
	return w.inner.Delete(ctx, name)
}

func (w *watched) SetTier(ctx context.Context, name, tier, priority string) error {
	defer w.changed()
	return w.inner.SetTier(ctx, name, tier, priority)
}
