package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dupfs/backends"
	"dupfs/backends/file"
	"dupfs/chain"
	"dupfs/chain/difftar"
	"dupfs/chain/index"
	"dupfs/chain/pgp"
	"dupfs/chain/sigtar"
	"dupfs/chain/store"
	"dupfs/chain/volume"
	"dupfs/delta"
	"dupfs/internal/need"
)

// memBase is the newest point of an archive, read from its sigtars.
type memBase struct {
	entries []BaseEntry
	sigs    map[chain.Path][]byte
	fail    error // of Signature
}

func (b memBase) Walk(context.Context) iter.Seq2[*BaseEntry, error] {
	return func(yield func(*BaseEntry, error) bool) {
		for i := range b.entries {
			e := b.entries[i]
			if !yield(&e, nil) {
				return
			}
		}
	}
}

func (b memBase) Signature(_ context.Context, e *BaseEntry) (io.ReadCloser, error) {
	if b.fail != nil {
		return nil, b.fail
	}
	return io.NopCloser(bytes.NewReader(b.sigs[e.Path])), nil
}

// world is a source, an archive that grows, and what the source was at each
// point.
type world struct {
	t         *testing.T
	dir       string // holds all the rest
	src       string
	layer     chain.Layer
	opts      Options
	vol       volume.Options
	now       int64
	stamps    int64
	points    []point
	known     map[chain.Path]Known
	notices   []Notice
	indexes   map[string][]byte
	duplicity string
	wrapBase  func(*memBase)
	contents  map[chain.Path]string // by the indexes so far
	runs      []index.Run
	moved     int                                     // files that changed before they were gone on with
	backend   backends.Backend                        // nil: a directory
	accept    func(p chain.Path, content string) bool // nil: only what the source holds
}

type point struct {
	time int64
	tree map[string]string
}

const passphrase = "fixture"

func newWorld(t *testing.T, layer chain.Layer) *world {
	w := &world{t: t, dir: t.TempDir(), layer: layer, now: 1700000000, known: make(map[chain.Path]Known), indexes: make(map[string][]byte)}
	w.src = filepath.Join(w.dir, "src")
	for _, d := range []string{"src", "archive", "cache", "gnupg", "tmp"} {
		must(t, os.Mkdir(filepath.Join(w.dir, d), 0o700))
	}
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.src, name) }

func (w *world) write(name, content string) {
	w.t.Helper()
	must(w.t, os.MkdirAll(filepath.Dir(w.path(name)), 0o755))
	must(w.t, os.WriteFile(w.path(name), []byte(content), 0o644))
	w.stamp(w.path(name))
}

// stamp gives a file an mtime of its own, in whole seconds too: duplicity sees
// nothing else of a change.
func (w *world) stamp(full string) {
	w.stamps++
	at := time.Unix(1_600_000_000+w.stamps, 123456789)
	must(w.t, os.Chtimes(full, at, at))
}

// stampDirs stamps the directories that were touched since the last time.
func (w *world) stampDirs() {
	must(w.t, filepath.WalkDir(w.src, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.ModTime().Unix() > 1_700_000_000 {
			w.stamp(p)
		}
		return err
	}))
}

// store opens the archive.
func (w *world) store() *store.Store {
	b := w.backend
	if b == nil {
		var err error
		b, err = file.Open(filepath.Join(w.dir, "archive"))
		must(w.t, err)
	}
	s := store.New(b, store.Options{
		Keys: pgp.NewKeys(passphrase), Layer: w.layer, Volume: w.vol, TempDir: filepath.Join(w.dir, "tmp"),
		Encrypter: func() (*pgp.Encrypter, error) { return pgp.NewEncrypter(passphrase) },
	})
	w.t.Cleanup(func() { must(w.t, s.Close()) })
	return s
}

// base reads the newest point; nil if there is none. It also returns its time.
func (w *world) base(st *store.Store) (*memBase, time.Time) {
	w.t.Helper()
	files, err := st.List(w.t.Context())
	must(w.t, err)
	c := chain.Collect(files)
	if len(c.Chains) == 0 {
		return nil, time.Time{}
	}
	sets := c.Chains[len(c.Chains)-1].Sets
	var readers []*sigtar.Reader
	for _, s := range sets {
		r, err := st.Open(w.t.Context(), *s.Sigtar)
		must(w.t, err)
		defer r.Close()
		readers = append(readers, sigtar.NewReader(r))
	}
	b := &memBase{sigs: make(map[chain.Path][]byte)}
	m := sigtar.Merge(readers...)
	for {
		e, set, err := m.Next()
		if err == io.EOF {
			break
		}
		must(w.t, err)
		be := BaseEntry{Entry: e.Entry, SigLen: -1, Set: set, Exact: sets[set].Index != nil, ID: int64(len(b.entries)) + 1}
		if be.Type == chain.File {
			sig, err := io.ReadAll(m)
			must(w.t, err)
			b.sigs[be.Path], be.SigLen = sig, int64(len(sig))
		} else {
			be.Size = 0
		}
		if k, ok := w.known[be.Path]; ok {
			be.Ctime, be.Ino = k.Ctime, k.Ino
		}
		b.entries = append(b.entries, be)
	}
	must(w.t, m.Drain())
	return b, sets[len(sets)-1].End
}

// options returns the options of the next run.
func (w *world) options() Options {
	o := w.opts
	o.Layer, o.TempDir = w.layer, filepath.Join(w.dir, "tmp")
	o.Now = time.Unix(w.now, 0)
	host, err := os.Hostname()
	must(w.t, err)
	o.Hostname, _, _ = strings.Cut(host, ".")
	o.Localdir = w.src
	w.notices = nil
	o.Notice = func(n Notice) { w.notices = append(w.notices, n) }
	return o
}

// run makes the next set, and notes what the source was.
func (w *world) run(full bool) (*Stats, error) {
	w.t.Helper()
	w.stampDirs()
	st := w.store()
	o := w.options()
	var base Base
	b, last := w.base(st)
	o.Last = last
	if b != nil && !full {
		base = b
		if w.wrapBase != nil {
			w.wrapBase(b)
		}
	}
	learned := make(map[chain.Path]Known)
	o.OnKnown = func(k Known) error {
		learned[k.Path] = k
		return nil
	}
	var plain []byte
	o.OnIndex = func(_ context.Context, r io.Reader) (err error) {
		plain, err = io.ReadAll(r)
		return err
	}
	stats, err := Run(w.t.Context(), w.src, st, base, o)
	if err != nil {
		return stats, err
	}
	must(w.t, stats.IndexErr)
	if stats.Set != nil {
		maps.Copy(w.known, learned)
		w.indexes[stats.Set.Times()] = plain
		w.points = append(w.points, point{stats.Set.End.Unix(), tree(w.t, w.src)})
		w.check(st, stats.Set, plain)
	}
	w.now += 100_000
	return stats, nil
}

// mustRun is run without errors and notices.
func (w *world) mustRun(full bool) *Stats {
	w.t.Helper()
	stats, err := w.run(full)
	must(w.t, err)
	if stats.Errors != 0 || len(w.notices) != 0 {
		w.t.Fatalf("%d errors, notices %v", stats.Errors, w.notices)
	}
	return stats
}

// read returns the plaintext of a stored file.
func (w *world) read(st *store.Store, f chain.Stored) (text []byte) {
	w.t.Helper()
	must(w.t, st.ReadThrough(w.t.Context(), f, func(r io.Reader) (err error) {
		text, err = io.ReadAll(r)
		return err
	}))
	return text
}

// check reads a set back by its index: every file must be where it says, its
// signature too, and nothing may be left in the temporary directory. Files are
// compared with the source, unless there was a notice.
func (w *world) check(st *store.Store, set *chain.Set, plain []byte) {
	w.t.Helper()
	if !bytes.Equal(w.read(st, *set.Index), plain) {
		w.t.Error("OnIndex was not given what was stored")
	}
	volumes := map[int][]byte{}
	for _, v := range set.Volumes {
		volumes[v.Volume] = w.read(st, v)
	}
	sigs := w.read(st, *set.Sigtar)
	if set.Full {
		w.contents = make(map[chain.Path]string)
	}
	var content []byte
	must(w.t, index.ReadIndex(bytes.NewReader(plain), index.Handler{
		Runs: func(runs []index.Run) error {
			w.runs = append(w.runs, runs...)
			return nil
		},
		Record: func(r *index.Record) error {
			content = content[:0]
			for _, run := range w.runs {
				from := volumes[run.Volume]
				if run.Volume == 0 {
					from = []byte(w.contents[r.Path])
				}
				content = append(content, from[run.Off:run.Off+run.Len]...)
			}
			w.runs = w.runs[:0]
			delete(w.contents, r.Path)
			if r.Type == chain.File && r.Change != difftar.Deleted {
				w.contents[r.Path] = string(content)
				w.checkFile(r, content, sigs)
			}
			return nil
		},
	}))
	left, err := os.ReadDir(filepath.Join(w.dir, "tmp"))
	must(w.t, err)
	if len(left) != 0 {
		w.t.Errorf("left in the temporary directory: %v", left)
	}
}

// checkFile checks a file's record.
func (w *world) checkFile(r *index.Record, content, sigs []byte) {
	w.t.Helper()
	var sig bytes.Buffer
	s := delta.NewSigner(&sig, delta.BlockLen(int64(len(content))))
	_, err := s.Write(content)
	must(w.t, err)
	must(w.t, s.Close())
	switch {
	case r.Size != int64(len(content)) || !r.HasHash || r.Hash != sha256.Sum256(content):
		w.t.Errorf("index: %s has %d bytes, not %d, or another hash", r.Path, len(content), r.Size)
	case !bytes.Equal(sigs[r.SigOff:r.SigOff+r.SigLen], sig.Bytes()) && len(w.notices) == 0:
		w.t.Errorf("index: %s: its signature is not at %d+%d", r.Path, r.SigOff, r.SigLen)
	}
	if len(w.notices) > 0 {
		return
	}
	if w.accept != nil {
		if !w.accept(r.Path, string(content)) {
			w.t.Errorf("%s is none of the states that there were", r.Path)
		}
		return
	}
	want, err := os.ReadFile(w.path(string(r.Path)))
	must(w.t, err)
	if !bytes.Equal(want, content) {
		w.t.Errorf("index: the content of %s is not found by its runs", r.Path)
	}
}

// tree describes what is below dir as duplicity keeps it.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := make(map[string]string)
	must(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		text := fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid)
		switch {
		case info.Mode().Type() == fs.ModeSymlink:
			target, err := os.Readlink(p)
			got[name] = fmt.Sprintf("%v %d:%d -> %q", info.Mode(), st.Uid, st.Gid, target)
			return err
		case info.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %d bytes %x", len(b), sha256.Sum256(b))
		case info.Mode().Type() == fs.ModeSocket:
			return nil
		case info.Mode()&fs.ModeDevice != 0:
			text += fmt.Sprint(" ", st.Rdev)
		}
		got[name] = text + " " + strconv.FormatInt(max(info.ModTime().Unix(), 0), 10)
		return nil
	}))
	return got
}

// compareTrees reports how two trees differ.
func compareTrees(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	names := slices.Sorted(maps.Keys(want))
	for n := range got {
		if _, ok := want[n]; !ok {
			t.Errorf("%s: %q should not be there: %s", what, n, got[n])
		}
	}
	for _, n := range names {
		if got[n] != want[n] {
			t.Errorf("%s: %q\ngot  %s\nwant %s", what, n, got[n], want[n])
		}
	}
}

// stock runs duplicity; the last argument but one and the last are its URL and
// directory, in any order. It returns the output.
func (w *world) stock(args ...string) (string, error) {
	w.t.Helper()
	if w.duplicity == "" {
		w.duplicity = need.Program(w.t, "duplicity")
	}
	layer := []string{"--archive-dir", filepath.Join(w.dir, "cache"), "--name", "n"}
	switch w.layer {
	case chain.OpenPGP:
		need.Program(w.t, "gpg")
	case chain.Plain:
		layer = append(layer, "--no-compression", "--no-encryption")
	case chain.Gzip:
		layer = append(layer, "--no-encryption")
	}
	cmd := exec.Command(w.duplicity, append(args, layer...)...)
	cmd.Env = append(os.Environ(), "PASSPHRASE="+passphrase, "GNUPGHOME="+filepath.Join(w.dir, "gnupg"), "TZ=UTC")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (w *world) url() string { return "file://" + filepath.Join(w.dir, "archive") }

// stockRestores lets duplicity restore every point and compare the newest.
func (w *world) stockRestores() {
	w.t.Helper()
	for i, p := range w.points {
		to := filepath.Join(w.dir, "restored")
		must(w.t, os.RemoveAll(to))
		out, err := w.stock("restore", "-t", strconv.FormatInt(p.time, 10), w.url(), to)
		if err != nil || strings.Contains(out, "arning") || strings.Contains(out, "rror") {
			w.t.Fatalf("restore of point %d: %v\n%s", i, err, out)
		}
		compareTrees(w.t, fmt.Sprintf("point %d", i), tree(w.t, to), p.tree)
	}
	out, err := w.stock("verify", "--compare-data", w.url(), w.src)
	if err != nil || !strings.Contains(out, " 0 differences found") {
		w.t.Errorf("verify: %v\n%s", err, out)
	}
}

// stockRun lets duplicity make the next set.
func (w *world) stockRun(action string) string {
	w.t.Helper()
	w.stampDirs()
	out, err := w.stock(action, "--current-time", strconv.FormatInt(w.now, 10), w.src, w.url())
	if err != nil {
		w.t.Fatalf("%s: %v\n%s", action, err, out)
	}
	p := point{w.now, tree(w.t, w.src)}
	w.points = append(w.points, p)
	w.now += 100_000
	w.contents = make(map[chain.Path]string)
	for name, text := range p.tree {
		if strings.Contains(text, " bytes ") {
			b, err := os.ReadFile(w.path(name))
			must(w.t, err)
			w.contents[chain.Path(name)] = string(b)
		}
	}
	return out
}

var errTest = errors.New("test error")
