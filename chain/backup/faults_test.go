package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dupfs/backends"
	"dupfs/backends/mem"
	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/chain/index"
	"dupfs/chain/store"
)

// records reads the entries of the newest index.
func (w *world) records() map[chain.Path]index.Record {
	w.t.Helper()
	got := make(map[chain.Path]index.Record)
	last := w.points[len(w.points)-1]
	for times, plain := range w.indexes {
		if strings.HasSuffix(times, chain.FormatTime(time.Unix(last.time, 0))) {
			must(w.t, index.ReadIndex(strings.NewReader(string(plain)), index.Handler{
				Record: func(r *index.Record) error {
					got[r.Path] = *r
					return nil
				},
			}))
		}
	}
	return got
}

// wantNotice wants exactly one notice.
func (w *world) wantNotice(c Class, p chain.Path) {
	w.t.Helper()
	if len(w.notices) != 1 || w.notices[0].Class != c || w.notices[0].Path != p {
		w.t.Errorf("notices %v, want class %d of %s", w.notices, c, p)
	}
}

// atPath calls fn the first times times that a hook meets p.
func atPath(p chain.Path, times int64, fn func()) func(chain.Path) {
	var n atomic.Int64
	return func(q chain.Path) {
		if q == p && n.Add(1) <= times {
			fn()
		}
	}
}

// TestChangedWhileRead: a small file is read again; one that never holds still
// is stored with a warning, and again by the next run.
func TestChangedWhileRead(t *testing.T) {
	for _, tt := range []struct {
		times   int64
		warning bool
	}{{1, false}, {2, true}} {
		w := newWorld(t, chain.Plain)
		w.write("f", "one")
		n := 0
		w.opts.hooks = &hooks{onRead: func(p chain.Path, off int64) error {
			if p == "f" && off == 0 && int64(n) < tt.times {
				n++
				must(t, os.WriteFile(w.path("f"), []byte(fmt.Sprint("change ", n)), 0o644))
			}
			return nil
		}}
		s, err := w.run(true)
		must(t, err)
		if (s.Errors == 1) != tt.warning {
			t.Errorf("%d changes: %d errors, %v", tt.times, s.Errors, w.notices)
		}
		if tt.warning {
			w.wantNotice(Changing, "f")
		}
		w.opts.hooks = nil
		if s := w.mustRun(false); s.ChangedFiles != map[bool]int64{true: 1}[tt.warning] {
			t.Errorf("%d changes: the next run stored %d files", tt.times, s.ChangedFiles)
		}
		if !tt.warning {
			w.stockRestores()
		}
	}
}

// TestBigChangedWhileRead: what was passed on cannot be taken back.
func TestBigChangedWhileRead(t *testing.T) {
	for _, what := range []string{"grow", "shrink", "rewrite"} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, chain.Plain)
			w.opts.PieceSize = 1000
			w.write("f", noise(1, 500_000))
			w.opts.hooks = &hooks{onRead: func(p chain.Path, off int64) error {
				if off < 200_000 || off >= 400_000 {
					return nil
				}
				switch what {
				case "grow":
					f, err := os.OpenFile(w.path("f"), os.O_APPEND|os.O_WRONLY, 0)
					must(t, err)
					_, err = f.WriteString("more")
					must(t, err)
					must(t, f.Close())
				case "shrink":
					must(t, os.Truncate(w.path("f"), 100_000))
				case "rewrite":
					must(t, os.WriteFile(w.path("f"), []byte(noise(2, 500_000)), 0o644))
				}
				return nil
			}}
			s, err := w.run(true)
			must(t, err)
			if s.Errors != 1 {
				t.Errorf("%d errors", s.Errors)
			}
			w.wantNotice(Changing, "f")
			w.opts.hooks = nil
			if s := w.mustRun(false); s.ChangedFiles != 1 {
				t.Errorf("the next run stored %d files", s.ChangedFiles)
			}
			w.points = w.points[1:] // the first is torn
			w.stockRestores()
		})
	}
}

// TestReadErrors: a file that cannot be read keeps its previous version; with
// an error after a part was stored, what follows is cut, and stored again.
func TestReadErrors(t *testing.T) {
	w := newWorld(t, chain.Plain)
	w.opts.PieceSize = 1000
	w.write("a", "small")
	w.write("b", noise(1, 400_000))
	w.write("c", noise(2, 400_000))
	fail := func(p chain.Path, off int64) *hooks {
		return &hooks{onRead: func(q chain.Path, at int64) error {
			if p == q && at >= off {
				return errTest
			}
			return nil
		}}
	}
	w.mustRun(true)
	for i, tt := range []struct {
		path  chain.Path
		off   int64
		class Class
	}{{"a", 0, Unreadable}, {"b", 0, Unreadable}, {"c", 200_000, Cut}} {
		w.write("a", fmt.Sprint("changed ", i))
		w.write("b", noise(uint64(10+i), 400_000))
		w.write("c", noise(uint64(20+i), 400_000))
		w.opts.hooks = fail(tt.path, tt.off)
		s, err := w.run(false)
		must(t, err)
		if s.Errors != 1 || s.DeletedFiles != 0 {
			t.Errorf("%s: %d errors, %d deleted", tt.path, s.Errors, s.DeletedFiles)
		}
		w.wantNotice(tt.class, tt.path)
		r, ok := w.records()[tt.path]
		if ok != (tt.class == Cut) || ok && (r.Size == 0 || r.Size >= 400_000) {
			t.Errorf("%s is in the index: %v, %d bytes", tt.path, ok, r.Size)
		}
		w.opts.hooks = nil
		if s := w.mustRun(false); s.ChangedFiles != 1 {
			t.Errorf("%s: the next run stored %d files", tt.path, s.ChangedFiles)
		}
	}
	w.points = w.points[len(w.points)-1:]
	w.stockRestores()
}

// TestVanished: what is gone when it is opened is not recorded as deleted.
func TestVanished(t *testing.T) {
	w := newWorld(t, chain.Plain)
	w.write("a/b", "1")
	w.write("c", "2")
	w.mustRun(true)
	w.write("c", "3")
	w.opts.hooks = &hooks{
		onListed: atPath("", 1, func() {
			must(t, os.Rename(w.path("a"), w.path("../away")))
		}),
	}
	s, err := w.run(false)
	must(t, err)
	if s.Errors != 1 || s.DeletedFiles != 0 || s.ChangedFiles != 1 {
		t.Errorf("%+v", s)
	}
	w.wantNotice(Vanished, "a")
	w.opts.hooks = nil
	if s := w.mustRun(false); s.DeletedFiles != 2 {
		t.Errorf("the next run: %d deleted", s.DeletedFiles)
	}
	w.points = w.points[2:]
	w.stockRestores()
}

// TestReplacedBeforeOpen: between the walk and the opening of a file another
// one, or something else, took its place.
func TestReplacedBeforeOpen(t *testing.T) {
	for name, replace := range map[string]func(path string) error{
		"file": func(p string) error { return os.WriteFile(p, []byte("another"), 0o600) },
		"dir":  func(p string) error { return os.Mkdir(p, 0o700) },
		"link": func(p string) error { return os.Symlink("a", p) },
		"fifo": func(p string) error { return unix.Mkfifo(p, 0o600) },
		"none": func(p string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, chain.Plain)
			w.write("a", "old")
			w.write("b", "old")
			w.mustRun(true)
			w.write("a", "new")
			w.write("b", "new")
			progress := &Progress{}
			w.opts.Workers, w.opts.Progress = 1, progress
			w.opts.hooks = &hooks{onOpen: atPath("a", 1, func() {
				for progress.Entries.Load() < 3 { // the walk has seen b, the only worker is here
					time.Sleep(time.Millisecond)
				}
				must(t, os.Remove(w.path("b")))
				must(t, replace(w.path("b")))
			})}
			s, err := w.run(false)
			must(t, err)
			if s.DeletedFiles != 0 {
				t.Errorf("%d deleted", s.DeletedFiles)
			}
			r, ok := w.records()["b"]
			if name == "file" {
				if r.Size != 7 || r.Mode != 0o600 || s.Errors != 0 {
					t.Errorf("%d errors, %+v", s.Errors, r)
				}
				return
			}
			w.wantNotice(Vanished, "b")
			if ok || s.Errors != 1 {
				t.Errorf("%d errors, %+v", s.Errors, r)
			}
		})
	}
}

func TestUnreadable(t *testing.T) {
	if asNobody(t) {
		return
	}
	w := newWorld(t, chain.Plain)
	w.write("dir/sub/x", "1")
	w.write("dir/y", "2")
	w.write("file", "3")
	w.write("other", "4")
	w.mustRun(true)
	w.write("file", "changed")
	must(t, os.Chmod(w.path("dir"), 0))
	must(t, os.Chmod(w.path("file"), 0))
	t.Cleanup(func() { _ = os.Chmod(w.path("dir"), 0o755) })
	must(t, os.Remove(w.path("other")))
	w.now += 1000
	stats, err := func() (*Stats, error) { // the state of the source cannot be noted
		st := w.store()
		o := w.options()
		b, last := w.base(st)
		o.Last = last
		return Run(t.Context(), w.src, st, b, o)
	}()
	must(t, err)
	if stats.Errors != 2 || stats.DeletedFiles != 1 {
		t.Errorf("%d errors, %d deleted: %v", stats.Errors, stats.DeletedFiles, w.notices)
	}
	b, _ := w.base(w.store())
	names := ""
	for _, e := range b.entries {
		names += fmt.Sprintf("%s %o, ", e.Path, e.Mode)
	}
	if want := ". 700, dir 0, dir/sub 755, dir/sub/x 644, dir/y 644, file 644, "; names != want {
		t.Errorf("got  %s\nwant %s", names, want)
	}
}

// TestContentAlone: content that changed while size and mtime were put back is
// found by the ctime, and nothing is stored if only the ctime changed.
func TestContentAlone(t *testing.T) {
	for _, size := range []int{10, 5000} {
		for _, hash := range []bool{true, false} {
			t.Run(fmt.Sprint(size, hash), func(t *testing.T) {
				w := newWorld(t, chain.Plain)
				w.opts.PieceSize = 1000
				w.write("f", noise(1, size))
				w.write("empty", "")
				w.mustRun(true)
				w.wrapBase = func(b *memBase) {
					for i := range b.entries {
						b.entries[i].HasHash = b.entries[i].HasHash && hash
					}
				}
				if s := w.mustRun(false); s.DeltaEntries != 0 {
					t.Errorf("unchanged: %d changes", s.DeltaEntries)
				}
				info, err := os.Stat(w.path("f"))
				must(t, err)
				must(t, os.WriteFile(w.path("f"), []byte(noise(2, size)), 0o644))
				must(t, os.Chtimes(w.path("f"), info.ModTime(), info.ModTime()))
				if s := w.mustRun(false); s.ChangedFiles != 1 {
					t.Errorf("other content: %d changes", s.ChangedFiles)
				}
				must(t, os.Chtimes(w.path("f"), info.ModTime(), info.ModTime())) // another ctime
				must(t, os.Chtimes(w.path("empty"), info.ModTime(), info.ModTime()))
				s := w.mustRun(false)
				if r := w.records(); s.ChangedFiles != 1 || r["f"].Path != "" {
					t.Errorf("other ctime: %d changes, %v", s.ChangedFiles, r)
				}
				w.stockRestores()
			})
		}
	}
}

// TestBadSignatures: without a usable signature a file is stored whole.
func TestBadSignatures(t *testing.T) {
	for name, spoil := range map[string]func(*memBase){
		"error": func(b *memBase) { b.fail = errTest },
		"cut":   func(b *memBase) { b.sigs["f"] = b.sigs["f"][:30] },
		"magic": func(b *memBase) { b.sigs["f"] = append([]byte("junk"), b.sigs["f"][4:]...) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, chain.Plain)
			w.write("f", noise(1, 5000))
			w.mustRun(true)
			w.write("f", noise(1, 5000)+"more")
			w.wrapBase = spoil
			s, err := w.run(false)
			must(t, err)
			w.wantNotice(BadSignature, "f")
			if r := w.records()["f"]; s.Errors != 0 || r.Change != difftar.Snapshot || r.Size != 5004 {
				t.Errorf("%d errors, %+v", s.Errors, r)
			}
			w.stockRestores()
		})
	}
}

// failing is a backend whose nth Put fails, as do Deletes if it says so.
type failing struct {
	*mem.Backend
	n       atomic.Int64
	onPut   func(name string) error
	deletes error
}

func (f *failing) Put(ctx context.Context, name string, r io.ReadSeeker) error {
	if f.n.Add(-1) == 0 {
		if err := f.onPut(name); err != nil {
			return err
		}
	}
	return f.Backend.Put(ctx, name, r)
}

func (f *failing) PutNew(ctx context.Context, name string, r io.ReadSeeker) error {
	return f.Put(ctx, name, r)
}

func (f *failing) Delete(ctx context.Context, name string) error {
	if f.deletes != nil {
		return f.deletes
	}
	return f.Backend.Delete(ctx, name)
}

// TestNothingIsLeft lets every upload of a run fail in turn, and the run be
// cancelled at every upload: the archive is as before, and so is everything
// else.
func TestNothingIsLeft(t *testing.T) {
	w := newWorld(t, chain.Plain)
	w.tiny()
	w.opts.VolSize = 5000
	for i := range 40 {
		w.write(fmt.Sprintf("d%d/f", i), noise(uint64(i), 700))
	}
	for _, cancelled := range []bool{false, true} {
		for n := int64(1); ; n++ {
			ctx, cancel := context.WithCancel(t.Context())
			b := &failing{Backend: mem.New()}
			b.n.Store(n)
			b.onPut = func(string) error {
				if cancelled {
					cancel()
					return nil
				}
				return errTest
			}
			st := store.New(b, store.Options{Layer: w.layer, Volume: w.vol, TempDir: filepath.Join(w.dir, "tmp")})
			s, err := Run(ctx, w.src, st, nil, w.options())
			cancel()
			must(t, st.Close())
			files, lerr := b.List(t.Context())
			must(t, lerr)
			if err == nil {
				if n < 10 {
					t.Fatalf("only %d uploads", n)
				}
				if len(files) != len(s.Set.Volumes)+3 {
					t.Errorf("%d files of a whole set", len(files))
				}
				break
			}
			if !cancelled && !errors.Is(err, errTest) || cancelled && !errors.Is(err, context.Canceled) {
				t.Errorf("upload %d: %v", n, err)
			}
			if len(files) != 0 {
				t.Errorf("upload %d: left behind %v", n, files)
			}
		}
	}
	left, err := os.ReadDir(filepath.Join(w.dir, "tmp"))
	must(t, err)
	if len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestRemoveFails: what could not be removed is named.
func TestRemoveFails(t *testing.T) {
	w := newWorld(t, chain.Plain)
	w.write("f", "x")
	b := &failing{Backend: mem.New(), deletes: fmt.Errorf("no: %w", backends.ErrAuth)}
	b.n.Store(2)
	b.onPut = func(string) error { return errTest }
	st := store.New(b, store.Options{TempDir: filepath.Join(w.dir, "tmp")})
	_, err := Run(t.Context(), w.src, st, nil, w.options())
	must(t, st.Close())
	if !errors.Is(err, errTest) || !errors.Is(err, backends.ErrAuth) {
		t.Errorf("%v", err)
	}
}

func TestDryRun(t *testing.T) {
	w := newWorld(t, chain.Plain)
	w.zoo()
	want := *w.mustRun(true)
	steps := w.steps()
	steps[0]()
	w.opts.DryRun = true
	st := w.store()
	o := w.options()
	b, last := w.base(st)
	o.Last = last
	dry, err := Run(t.Context(), w.src, st, b, o)
	must(t, err)
	fullDry, err := Run(t.Context(), w.src, nil, nil, w.options())
	must(t, err)
	w.opts.DryRun = false
	if fullDry.NewFiles == 0 || dry.Set != nil || dry.RawDeltaSize != 0 || dry.DestinationSize != 0 {
		t.Errorf("dry run: %+v", dry)
	}
	want = *w.mustRun(false)
	if dry.DeltaEntries != want.DeltaEntries || dry.ChangedFiles != want.ChangedFiles || dry.NewFileSize != want.NewFileSize {
		t.Errorf("dry %+v\nreal %+v", dry, want)
	}
}

// TestErrors are errors that end a run at once.
func TestErrors(t *testing.T) {
	w := newWorld(t, chain.Plain)
	w.write("f", "x")
	o := w.options()
	if _, err := Run(t.Context(), filepath.Join(w.dir, "none"), w.store(), nil, o); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing source: %v", err)
	}
	if _, err := Run(t.Context(), w.src, w.store(), memBase{}, o); err == nil {
		t.Error("an increment on no time was made")
	}
	o.Last = o.Now.Add(time.Hour)
	if _, err := Run(t.Context(), w.src, w.store(), memBase{}, o); !errors.Is(err, ErrClock) {
		t.Errorf("clock: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, w.src, w.store(), nil, w.options()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	w.opts.OnKnown = func(Known) error { return errTest }
	if _, err := Run(t.Context(), w.src, w.store(), nil, w.options()); !errors.Is(err, errTest) {
		t.Errorf("knowledge: %v", err)
	}
	files, err := w.store().List(t.Context())
	if err != nil || len(files) != 0 {
		t.Errorf("left behind: %v, %v", files, err)
	}
}
