package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"dupfs/backends"
	"dupfs/chain"
	"dupfs/chain/pgp"
	"dupfs/chain/volume"
)

// Writer builds a stored file in a temporary file without a name and then
// uploads it. Use: write, then Commit (or Seal and Upload), and always Abort,
// which after a Commit does nothing. Not safe for concurrent use, but for one
// thing: after Seal another goroutine may Upload.
type Writer struct {
	*volume.Writer
	s    *Store
	name chain.Name
	tmp  *os.File
	buf  *bufio.Writer
	size int64
	sum  *summer // nil if nobody wants it
}

// Create begins a stored file. Its name is n's in the current form.
func (s *Store) Create(ctx context.Context, n chain.Name) (*Writer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n.File = s.opts.Prefixes.Format(n)
	var enc *pgp.Encrypter
	if n.Layer == chain.OpenPGP {
		var err error
		if enc, err = s.encrypter(); err != nil {
			return nil, fmt.Errorf("%s: %w", n.File, err)
		}
	}
	tmp, err := s.temp()
	if err != nil {
		return nil, err
	}
	w := &Writer{s: s, name: n, tmp: tmp}
	var to io.Writer = tmp
	if s.opts.Sums && (n.Kind == chain.VolumeFile || n.Kind == chain.SigtarFile) {
		w.sum = newSummer(s.opts.SumPart)
		to = io.MultiWriter(tmp, w.sum)
	}
	w.buf = bufio.NewWriterSize(to, 256<<10)
	o := s.opts.Volume
	o.NoTrailer = n.Kind == chain.ManifestFile
	if w.Writer, err = volume.NewWriter(w.buf, n.Layer, enc, o); err != nil {
		tmp.Close()
		return nil, fmt.Errorf("%s: %w", n.File, err)
	}
	return w, nil
}

// Ready makes the keys of what is written in the OpenPGP layer, if the store
// writes that, so that what is wrong with them shows before anything is begun.
func (s *Store) Ready() error {
	if s.opts.Layer != chain.OpenPGP {
		return nil
	}
	_, err := s.encrypter()
	return err
}

// encrypter returns the keys for what is written, made once.
func (s *Store) encrypter() (*pgp.Encrypter, error) {
	s.encOnce.Do(func() {
		if s.opts.Encrypter == nil {
			s.encErr = chain.ErrNoPassphrase
			return
		}
		s.enc, s.encErr = s.opts.Encrypter()
	})
	return s.enc, s.encErr
}

// temp returns a file that is gone when it is closed, or the process dies.
func (s *Store) temp() (*os.File, error) { return TempFile(s.opts.TempDir) }

// Name returns the name the file will be stored under.
func (w *Writer) Name() chain.Name { return w.name }

// Size returns the size of the sealed file, in stored bytes.
func (w *Writer) Size() int64 { return w.size }

// Sealed returns the stored bytes of a sealed file, Size of them, which can be
// read until it is uploaded or given up.
func (w *Writer) Sealed() io.ReaderAt { return w.tmp }

// Sums returns the sums of the sealed file; nil unless Options.Sums asks for
// them, and it is a volume or a sigtar.
func (w *Writer) Sums() *Sums {
	if w.sum == nil {
		return nil
	}
	return w.sum.sums()
}

// Seal ends the file; nothing can be written after it.
func (w *Writer) Seal() (*volume.Layout, error) {
	layout, err := w.Writer.Close()
	if err == nil {
		err = w.buf.Flush()
	}
	if err == nil {
		w.size, err = w.tmp.Seek(0, io.SeekCurrent)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", w.name.File, err)
	}
	return layout, nil
}

// Upload stores the sealed file and checks the size of what arrived, where
// the backend can tell. The temporary file is gone after it.
func (w *Writer) Upload(ctx context.Context) error { return w.upload(ctx, w.s.backend.Put) }

// UploadNew is Upload for a name that nobody else may have taken: then it is
// fs.ErrExist, and what is there stays. A store that cannot do that as one step
// replaces it.
func (w *Writer) UploadNew(ctx context.Context) error {
	b, ok := w.s.backend.(backends.Exclusive)
	if !ok {
		return w.Upload(ctx)
	}
	return w.upload(ctx, func(ctx context.Context, name string, r io.ReadSeeker) error {
		err := b.PutNew(ctx, name, r)
		if !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		if _, err := r.Seek(0, io.SeekStart); err != nil {
			return err
		}
		return w.s.backend.Put(ctx, name, r)
	})
}

func (w *Writer) upload(ctx context.Context, put func(context.Context, string, io.ReadSeeker) error) error {
	defer w.Abort()
	if _, err := w.tmp.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("%s: %w", w.name.File, err)
	}
	if err := put(ctx, w.name.File, w.tmp); err != nil {
		return err
	}
	return w.s.checkSize(ctx, w.name.File, w.size)
}

// Check makes sure that a stored file that no listing has is there with its
// size.
func (s *Store) Check(ctx context.Context, f chain.Stored) error {
	if _, ok := s.backend.(backends.Stater); !ok {
		return fmt.Errorf("%s: %w", f.File, fs.ErrNotExist)
	}
	return s.checkSize(ctx, f.File, f.Size)
}

// ErrUploadSize says that a stored file has not the size that was sent.
var ErrUploadSize = errors.New("wrong size after upload")

// SizeError is ErrUploadSize with what was found.
type SizeError struct {
	File          string
	Local, Remote int64 // bytes sent and stored
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("%s: %v: %d bytes instead of %d", e.File, ErrUploadSize, e.Remote, e.Local)
}

// Unwrap returns ErrUploadSize.
func (e *SizeError) Unwrap() error { return ErrUploadSize }

// checkSize compares the size of a stored file with what was sent.
func (s *Store) checkSize(ctx context.Context, file string, want int64) error {
	b, ok := s.backend.(backends.Stater)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, uploadCheckTimeout)
	defer cancel()
	info, err := b.Stat(ctx, file)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
	case err != nil:
		return fmt.Errorf("check of the upload: %w", err)
	case info.Size >= 0 && info.Size != want:
		return &SizeError{File: file, Local: want, Remote: info.Size}
	}
	return nil
}

// Commit is Seal and Upload.
func (w *Writer) Commit(ctx context.Context) (*volume.Layout, error) {
	layout, err := w.Seal()
	if err != nil {
		return nil, err
	}
	return layout, w.Upload(ctx)
}

// Abort gives the file up, if it was not uploaded. The error of closing a
// temporary file that nobody will read says nothing.
func (w *Writer) Abort() {
	if w.tmp != nil {
		w.Writer.Abort()
		w.tmp.Close()
		w.tmp = nil
	}
}
