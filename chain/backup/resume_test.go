package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dupfs/backends"
	"dupfs/backends/mem"
	"dupfs/chain"
	"dupfs/chain/index"
	"dupfs/chain/store"
)

// grave is a backend whose process dies at a call that writes: before it does
// anything, or when all was stored. What there is of the store and the journal
// at that moment is what another process finds.
type grave struct {
	*mem.Backend
	t       *testing.T
	left    int  // calls that write until then
	after   bool // the last one still arrives
	journal string

	store map[string][]byte // as it was
	notes []byte            // of the journal, nil if there was none
}

var errDead = errors.New("the process is dead")

// step counts a call that writes; do is what it does.
func (g *grave) step(do func() error) error {
	if g.store != nil {
		return errDead
	}
	if g.left--; g.left > 0 {
		return do()
	}
	if g.after {
		must(g.t, do())
	}
	g.store = contents(g.t, g.Backend)
	notes, err := os.ReadFile(g.journal)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		g.t.Fatal(err)
	}
	g.notes = notes
	return errDead
}

func (g *grave) Put(ctx context.Context, name string, r io.ReadSeeker) error {
	return g.step(func() error { return g.Backend.Put(ctx, name, r) })
}

func (g *grave) PutNew(ctx context.Context, name string, r io.ReadSeeker) error {
	return g.step(func() error { return g.Backend.PutNew(ctx, name, r) })
}

func (g *grave) Delete(ctx context.Context, name string) error {
	return g.step(func() error { return g.Backend.Delete(ctx, name) })
}

// contents returns all files of a store.
func contents(t *testing.T, b backends.Backend) map[string][]byte {
	t.Helper()
	files, err := b.List(t.Context())
	must(t, err)
	all := make(map[string][]byte)
	for _, f := range files {
		r, err := b.Open(t.Context(), f.Name, 0, -1)
		must(t, err)
		all[f.Name], err = io.ReadAll(r)
		must(t, err)
		must(t, r.Close())
	}
	return all
}

// stored returns a store with these files.
func storedIn(t *testing.T, files map[string][]byte) *mem.Backend {
	t.Helper()
	b := mem.New()
	for name, data := range files {
		must(t, b.Put(t.Context(), name, bytes.NewReader(data)))
	}
	return b
}

// past remembers every state that a file was in.
type past map[chain.Path]map[string]bool

func (p past) note(t *testing.T, src string) {
	t.Helper()
	must(t, filepath.WalkDir(src, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(src, name)
		must(t, err)
		text, err := os.ReadFile(name)
		if p[chain.Path(rel)] == nil {
			p[chain.Path(rel)] = make(map[string]bool)
		}
		p[chain.Path(rel)][string(text)] = true
		return err
	}))
}

// again does what the next run does about an interrupted one: it goes on with
// it, or removes what it left. It reports whether that run's set exists now.
func (w *world) again(in *Interrupted) bool {
	w.t.Helper()
	st := w.store()
	files, err := st.List(w.t.Context())
	must(w.t, err)
	err = in.Ready(w.t.Context(), st, files)
	if err != nil {
		must(w.t, in.Discard(w.t.Context(), st, files))
		if !errors.Is(err, ErrComplete) {
			return false
		}
		sets := chain.Collect(files).Chains[0].Sets
		set := sets[len(sets)-1]
		plain := w.read(st, *set.Index)
		w.points = append(w.points, point{time: set.End.Unix()})
		w.check(st, set, plain)
		return true
	}
	w.opts.Resume, w.now = in, w.now-100_000
	_, err = w.run(in.Set.Full)
	w.opts.Resume = nil
	if errors.Is(err, ErrMoved) {
		w.now += 100_000
		w.moved++
		in.Back()
		return w.again(in)
	}
	must(w.t, err)
	return true
}

// TestCrashes lets the process die before and after every call that writes to
// the store, during a full backup and an increment. The source changes then,
// and another run goes on. Every file at every point must be one of the states
// that it was in, and the last point what the source is.
func TestCrashes(t *testing.T) {
	for _, c := range []struct{ full, after, lost bool }{
		{true, false, false}, {true, true, false}, {false, false, false}, {false, true, false},
		// The journal is made anew from the store.
		{true, false, true}, {true, true, true}, {false, false, true}, {false, true, true},
	} {
		t.Run(fmt.Sprintf("full %v after %v lost %v", c.full, c.after, c.lost), func(t *testing.T) {
			total, kept, moved := 0, 0, 0
			for n := 1; ; n++ {
				k, m, done := testCrash(t, c.full, c.after, c.lost, n)
				if done {
					break
				}
				total++
				kept += min(k, 1)
				moved += m
			}
			t.Logf("%d places to die at, %d of them resumed, %d times not from within a file", total, kept, moved)
			if total < 7 || kept < 5 {
				t.Errorf("only %d, %d resumed", total, kept)
			}
		})
	}
}

// small makes a source of some volumes with a bit of everything.
func (w *world) small() {
	w.write("big", noise(1, 20_000))
	w.write("d/file", "one")
	w.write("d/other", noise(2, 5_000))
	for i := range 6 {
		w.write(fmt.Sprintf("e/%d", i), noise(uint64(10+i), 1_500))
	}
	w.write("gone", "here")
	must(w.t, os.Symlink("gone", w.path("link")))
	must(w.t, os.Link(w.path("e/1"), w.path("name")))
	w.write("toDir", "a file")
	w.write("toFile/a", "a directory")
	w.write("x/y/z", noise(3, 2_000))
}

// testCrash dies at the n-th call. It returns how many volumes were kept, and
// whether the run ended before that.
func testCrash(t *testing.T, full, after, lost bool, n int) (kept, moved int, done bool) {
	layer := chain.Plain
	if lost {
		layer = chain.Gzip
	}
	w := newWorld(t, layer)
	w.tiny()
	w.opts.VolSize, w.opts.PieceSize = 7_000, 1_000
	w.small()
	w.backend = mem.New()
	states := past{}
	states.note(t, w.src)
	if !full {
		w.mustRun(true)
		w.write("big", noise(1, 9_000)+noise(8, 15_000))
		w.write("d/file", "changed")
		w.write("d/other", noise(4, 4_000))
		must(t, os.Remove(w.path("gone")))
		must(t, os.Remove(w.path("toDir")))
		w.write("toDir/a", noise(5, 2_000))
		must(t, os.RemoveAll(w.path("toFile")))
		w.write("toFile", noise(6, 3_000))
		w.stampDirs()
		states.note(t, w.src)
	}
	journal := filepath.Join(w.dir, "journal")
	w.opts.Journal, w.opts.Owner = journal, "us"
	g := &grave{Backend: storedIn(t, contents(t, w.backend)), t: t, left: n, after: after, journal: journal}
	w.backend = g
	contentsBefore, knownBefore := maps.Clone(w.contents), maps.Clone(w.known)
	base, _ := w.base(w.store())
	if _, err := w.run(full); err == nil {
		return 0, 0, true
	} else if !errors.Is(err, errDead) {
		t.Fatal(err)
	}
	w.contents, w.known = contentsBefore, knownBefore
	w.backend = storedIn(t, g.store)
	must(t, os.WriteFile(journal, g.notes, 0o600))
	// Another state, in the parts that are stored and in those that are not.
	switch n % 3 {
	case 0:
		w.write("big", noise(9, 6_000))
	case 1:
		must(t, os.Chmod(w.path("big"), 0o600))
	}
	w.write("aaa/new", "x")
	w.write("d/other", "short now")
	w.write("zzz/new", "x")
	must(t, os.Remove(w.path("e/4")))
	must(t, os.RemoveAll(w.path("toFile")))
	w.write("toFile/a", "a directory")
	must(t, os.RemoveAll(w.path("toDir")))
	w.write("gone", "here again")
	w.stampDirs()
	states.note(t, w.src)
	w.accept = func(p chain.Path, content string) bool { return states[p][content] }

	in, err := ReadJournal(journal)
	must(t, err)
	if lost {
		if full {
			base = nil
		}
		if in = w.rebuild(journal, in, base); in == nil {
			return 0, 0, false // nothing was stored yet, or all
		}
	}
	if in.Owner != "us" || in.Source != w.src || in.Set.Full != full {
		t.Fatalf("%+v", in)
	}
	w.now += 100_000
	exists := w.again(in)
	if _, err := os.Stat(journal); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("call %d: the journal is still there: %v", n, err)
	}
	w.opts.SkipEmpty = true
	_, err = w.run(full && !exists)
	must(t, err)
	w.opts.SkipEmpty = false
	w.checkEnd(n)
	return len(in.Kept), w.moved, false
}

// rebuild makes the journal anew from what is in the store, and compares it with
// the one that the run kept. It returns nil if there is nothing to go on with.
func (w *world) rebuild(journal string, kept *Interrupted, base *memBase) *Interrupted {
	w.t.Helper()
	must(w.t, kept.Forget())
	files, err := w.store().List(w.t.Context())
	must(w.t, err)
	col := chain.Collect(files)
	if len(col.Incomplete) == 0 {
		return nil
	}
	must(w.t, Rebuild(w.t.Context(), w.store(), col.Incomplete[0], col.Claims, journal, w.rebuildOptions(base)))
	in, err := ReadJournal(journal)
	must(w.t, err)
	half := func(in *Interrupted) string {
		if in.partial == nil {
			return "none"
		}
		return fmt.Sprintf("%+v", *in.partial)
	}
	moved := base != nil && kept.partial != nil && w.contents[kept.partial.path] != "" && half(in) == "none"
	if moved { // nobody makes the delta any more of which a part is there
		kept.Back()
	}
	if len(in.Kept) < len(kept.Kept) {
		w.t.Errorf("the journal has %d volumes, made anew %d", len(kept.Kept), len(in.Kept))
	}
	// Of a file that has changed it is not known whether the last piece is there.
	if len(in.Kept) == len(kept.Kept) && kept.partial != nil && half(in) != half(kept) {
		w.t.Errorf("the file of which a part is stored is %s, made anew %s", half(kept), half(in))
	}
	return in
}

// rebuildOptions returns those for a set on base, nil for a full one.
func (w *world) rebuildOptions(base *memBase) RebuildOptions {
	o := RebuildOptions{Source: w.src, Owner: "us", MaxBlock: w.opts.MaxBlock, PieceSize: w.opts.PieceSize, TempDir: filepath.Join(w.dir, "tmp")}
	if base != nil {
		o.Base = base
		contents := maps.Clone(w.contents)
		o.Content = func(_ context.Context, e *BaseEntry) (chain.Content, error) { return memContent(contents[e.Path]), nil }
	}
	return o
}

// memContent is a content in memory.
type memContent string

func (c memContent) Size() int64 { return int64(len(c)) }

func (c memContent) ReadAt(_ context.Context, p []byte, off int64) (int, error) {
	return strings.NewReader(string(c)).ReadAt(p, off)
}

// TestRebuild makes a journal anew from volumes of which one is damaged or
// missing: what is before it is kept, and the set is finished.
func TestRebuild(t *testing.T) {
	for _, layer := range []chain.Layer{chain.Gzip, chain.OpenPGP} {
		for _, damage := range []string{"none", "removed", "flipped", "cut"} {
			t.Run(layer.String()+" "+damage, func(t *testing.T) {
				w := newWorld(t, layer)
				w.tiny()
				w.opts.VolSize, w.opts.PieceSize = 7_000, 1_000
				w.small()
				w.stampDirs()
				g := w.dies(true, 8)
				journal := g.journal
				w.contents, w.known = nil, make(map[chain.Path]Known)
				w.backend = storedIn(t, g.store)
				files, err := w.store().List(t.Context())
				must(t, err)
				set := chain.Collect(files).Incomplete[0]
				if len(set.Volumes) < 5 {
					t.Fatalf("%d volumes", len(set.Volumes))
				}
				bad := set.Volumes[2]
				body := g.store[bad.File]
				switch damage {
				case "removed":
					must(t, w.backend.Delete(t.Context(), bad.File))
					set.Volumes = slices.Delete(set.Volumes, 2, 3)
				case "flipped":
					body[len(body)/2] ^= 4
					must(t, w.backend.Put(t.Context(), bad.File, bytes.NewReader(body)))
				case "cut":
					must(t, w.backend.Put(t.Context(), bad.File, bytes.NewReader(body[:len(body)-50])))
				}
				must(t, Rebuild(t.Context(), w.store(), set, nil, journal, w.rebuildOptions(nil)))
				in, err := ReadJournal(journal)
				must(t, err)
				if want := len(set.Volumes); damage == "none" && len(in.Kept) < want-1 || damage != "none" && len(in.Kept) != 2 {
					t.Errorf("%d of %d volumes are kept", len(in.Kept), want)
				}
				w.now += 100_000
				if !w.again(in) {
					t.Fatal("it was not gone on with")
				}
				w.checkEnd(0)
			})
		}
	}
}

// TestRebuildDeltas makes the journal of an increment anew, and compares it with
// the one that the run kept: with the source as it was, when nothing is fetched;
// with files that have changed or gone, whose deltas are applied to the base; and
// with a base that is not at hand, which ends what is kept.
func TestRebuildDeltas(t *testing.T) {
	w := newWorld(t, chain.Gzip)
	w.tiny()
	w.opts.VolSize, w.opts.PieceSize = 7_000, 1_000
	for i := range 9 {
		w.write(fmt.Sprintf("f%d", i), noise(uint64(i), 4_000))
	}
	w.write("h", noise(20, 3_000))
	w.write("i/gone", "here")
	w.write("j", noise(21, 3_000))
	w.backend = mem.New()
	w.mustRun(true)
	for i := range 9 { // deltas with literals at both ends and between, longer than a piece
		w.write(fmt.Sprintf("f%d", i), "x"+noise(uint64(i), 4_000)[:2_000]+noise(uint64(30+i), 1_500)+noise(uint64(i), 4_000)[1_500:]+"y")
	}
	w.write("g", noise(22, 3_000))
	w.write("h", "")
	must(t, os.RemoveAll(w.path("i")))
	w.write("j", noise(21, 3_000)[:1_700])
	w.write("k", noise(23, 9_000))
	w.stampDirs()
	base, _ := w.base(w.store())
	o := w.rebuildOptions(base)
	g := w.dies(false, 5)
	journal := g.journal
	files, err := storedStore(w, g).List(t.Context())
	must(t, err)
	set := chain.Collect(files).Incomplete[0]
	must(t, os.WriteFile(journal, g.notes, 0o600))
	want, kept := notes(t, journal)
	if kept < 4 || !strings.Contains(want, "f6") {
		t.Fatalf("%d volumes are kept, with\n%s", kept, want)
	}
	fetched := 0
	content := o.Content
	rebuilt := func(what string, content func(context.Context, *BaseEntry) (chain.Content, error), fetches, least int) {
		t.Helper()
		o.Content, fetched = content, 0
		must(t, Rebuild(t.Context(), storedStore(w, g), set, nil, journal, o))
		got, n := notes(t, journal)
		if got != want && least == kept || n < least || fetched != fetches {
			t.Errorf("%s: %d volumes of %d are kept, %d files fetched, not %d; %s", what, n, kept, fetched, fetches, differ(got, want))
		}
		left, err := os.ReadDir(filepath.Join(w.dir, "tmp"))
		if err != nil || len(left) > 0 {
			t.Errorf("%s: left: %v, %v", what, left, err)
		}
	}
	counted := func(ctx context.Context, e *BaseEntry) (chain.Content, error) {
		fetched++
		return content(ctx, e)
	}
	rebuilt("as it was", counted, 0, kept)
	rebuilt("as it was, nothing at hand", nil, 0, kept)
	text, err := os.ReadFile(w.path("f3"))
	must(t, err)
	w.write("f3", string(text[:len(text)-1])+"z")
	must(t, os.Remove(w.path("f5")))
	must(t, os.Symlink("f1", w.path("f5")))
	rebuilt("changed", counted, 2, kept)
	rebuilt("changed, nothing at hand", nil, 0, 1)
	if _, n := notes(t, journal); n >= kept {
		t.Errorf("what cannot be known is kept: %d volumes", n)
	}
	rebuilt("changed, on a base that is too short", func(_ context.Context, e *BaseEntry) (chain.Content, error) {
		return memContent("short"), nil
	}, 0, 1)
	broken := errors.New("the network is down")
	o.Content = func(context.Context, *BaseEntry) (chain.Content, error) { return nil, broken }
	must(t, os.Remove(journal))
	if err := Rebuild(t.Context(), storedStore(w, g), set, nil, journal, o); !errors.Is(err, broken) {
		t.Errorf("with no network: %v", err)
	}
	if left, err := filepath.Glob(journal + "*"); err != nil || len(left) > 0 {
		t.Errorf("%v is there, %v", left, err)
	}
}

// TestRebuildBig is TestRebuild for a file of many pieces, whose size is not known
// when the signature's blocks must be.
func TestRebuildBig(t *testing.T) {
	for _, changed := range []bool{false, true} {
		w := newWorld(t, chain.Gzip)
		w.opts.VolSize = 2 << 20
		w.write("a", "small")
		w.write("b", noise(1, 11<<20))
		for i := range 8 {
			w.write(fmt.Sprintf("c%d", i), noise(uint64(i), 1<<20))
		}
		w.stampDirs()
		g := w.dies(true, 8)
		journal := g.journal
		files, err := storedStore(w, g).List(t.Context())
		must(t, err)
		must(t, os.WriteFile(journal, g.notes, 0o600))
		want, kept := notes(t, journal)
		past := noise(1, 11<<20)
		if changed { // it is larger now: blocks stay the same up to 8 GiB
			w.write("b", past+noise(5, 15<<20))
		}
		must(t, Rebuild(t.Context(), storedStore(w, g), chain.Collect(files).Incomplete[0], nil, journal, w.rebuildOptions(nil)))
		got, n := notes(t, journal)
		if n != kept || !strings.Contains(want, "Path:b ") || got != want {
			t.Errorf("changed %v: %d volumes are kept, made anew %d; %.200s", changed, kept, n, differ(got, want))
		}
		in, err := ReadJournal(journal)
		must(t, err)
		w.accept = func(p chain.Path, content string) bool { return p != "b" || content == past }
		w.now += 100_000
		if !w.again(in) {
			t.Fatal("it was not gone on with")
		}
	}
}

// dies runs a backup that dies at that call that writes.
func (w *world) dies(full bool, left int) *grave {
	w.t.Helper()
	store, ok := w.backend.(*mem.Backend)
	if !ok {
		store = mem.New()
	}
	g := &grave{Backend: store, t: w.t, left: left, journal: filepath.Join(w.dir, "journal")}
	w.backend, w.opts.Journal = g, g.journal
	if _, err := w.run(full); !errors.Is(err, errDead) {
		w.t.Fatal(err)
	}
	return g
}

// storedStore is the store as it was when the process died.
func storedStore(w *world, g *grave) *store.Store {
	w.t.Helper()
	w.backend = storedIn(w.t, g.store)
	return w.store()
}

// notes tells what a journal says of the volumes that it keeps, in words, but for
// what only the run itself could know; and how many these are.
func notes(t *testing.T, path string) (string, int) {
	t.Helper()
	in, err := ReadJournal(path)
	must(t, err)
	if len(in.Kept) == 0 {
		return "", 0
	}
	f, err := os.Open(path)
	must(t, err)
	defer f.Close()
	r, err := newJournalReader(io.LimitReader(f, in.cut))
	must(t, err)
	var out strings.Builder
	var runs []index.Run
	for {
		e, err := r.next()
		if err == io.EOF {
			return out.String(), len(in.Kept)
		}
		must(t, err)
		switch e.Kind {
		case evRuns:
			runs = append(runs, e.Runs...)
		case evRecord:
			fmt.Fprintf(&out, "%+v %v\n", *e.Record, runs)
			runs = nil
		case evSig:
			fmt.Fprintf(&out, "  %x\n", e.Sig)
		case evChange:
			fmt.Fprintln(&out, e.Word, e.Path)
		case evVolume:
			e.Volume.Row.MD5, e.Volume.Row.HasMD5 = [16]byte{}, false // which only the upload counted
			e.Volume.Counts.NewFileSize = 0                           // sizes of directories, which are not stored
			fmt.Fprintf(&out, "%s %d %+v %x %+v\n", e.Volume.File, e.Volume.Size, e.Volume.Row, e.Volume.Layout, e.Volume.Counts)
		}
	}
}

// differ returns the first lines in which two texts differ.
func differ(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return a[i] + "\nnot\n" + b[i]
		}
	}
	return fmt.Sprintf("%d lines, not %d", len(a), len(b))
}

// TestRebuildRefuses gives Rebuild what does not tell enough: volumes that show
// no damage, and those of duplicity.
func TestRebuildRefuses(t *testing.T) {
	stock, err := os.ReadFile("../../testdata/fixtures/multichain/archive/duplicity-full.20231114T221320Z.vol1.difftar.gz")
	must(t, err)
	for name, body := range map[string][]byte{
		"duplicity-full.20231114T221320Z.vol1.difftar":    nil,
		"duplicity-full.20231114T221320Z.vol1.difftar.gz": stock,
	} {
		w := newWorld(t, chain.Gzip)
		w.backend = storedIn(t, map[string][]byte{name: body})
		files, err := w.store().List(t.Context())
		must(t, err)
		journal := filepath.Join(w.dir, "journal")
		err = Rebuild(t.Context(), w.store(), chain.Collect(files).Incomplete[0], nil, journal, RebuildOptions{Source: w.src})
		if !errors.Is(err, ErrNotRebuilt) || !strings.Contains(err.Error(), "vol1") {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := filepath.Glob(journal + "*"); err != nil || len(left) > 0 {
			t.Errorf("%s: %v is there, %v", name, left, err)
		}
	}
}

// checkEnd compares the newest point with the source, entry by entry, and
// looks for files that are of no set.
func (w *world) checkEnd(n int) {
	w.t.Helper()
	b, _ := w.base(w.store())
	var got []string
	for _, e := range b.entries {
		got = append(got, string(e.Path))
		if e.Type == chain.File && w.contents[e.Path] == "" && e.SigLen > 12 {
			w.t.Errorf("call %d: %s has no content", n, e.Path)
		}
	}
	var want []string
	for name := range tree(w.t, w.src) {
		if name == "." {
			name = ""
		}
		want = append(want, name)
	}
	slices.SortFunc(want, func(a, b string) int { return chain.Path(a).Compare(chain.Path(b)) })
	if !slices.Equal(got, want) {
		w.t.Errorf("call %d: the newest point has\n%q, the source\n%q", n, got, want)
	}
	for p, content := range w.contents {
		if text, err := os.ReadFile(w.path(string(p))); err != nil || string(text) != content {
			w.t.Errorf("call %d: %s is not as the source has it: %v", n, p, err)
		}
	}
	files, err := w.store().List(w.t.Context())
	must(w.t, err)
	c := chain.Collect(files)
	if len(c.Incomplete)+len(c.Orphaned)+len(c.LooseIndexes)+len(c.LooseSigtars) > 0 || len(c.Chains) != 1 {
		w.t.Errorf("call %d: %d chains, %d incomplete sets", n, len(c.Chains), len(c.Incomplete))
	}
	if len(c.Chains) == 1 && len(c.Chains[0].Sets) != len(w.points) {
		w.t.Errorf("call %d: %d sets for %d points", n, len(c.Chains[0].Sets), len(w.points))
	}
}

// TestTornJournal cuts and spoils the journal of a run that died, as a loss of
// power does. What is left of it is less to keep, or no journal, and never
// something else; where there is something to keep the set is finished with it.
func TestTornJournal(t *testing.T) {
	w := newWorld(t, chain.Plain)
	w.tiny()
	w.opts.VolSize, w.opts.PieceSize = 7_000, 1_000
	w.small()
	w.stampDirs()
	g := w.dies(true, 10)
	journal := g.journal
	must(t, os.WriteFile(journal, g.notes, 0o600))
	whole, err := ReadJournal(journal)
	must(t, err)
	if len(whole.Kept) < 8 {
		t.Fatalf("only %d volumes kept", len(whole.Kept))
	}
	seen := make(map[int]bool)
	for n := 0; n < len(g.notes); n += 29 {
		for _, flip := range []bool{false, true} {
			if n%3 > 0 && flip {
				continue
			}
			torn := slices.Clone(g.notes[:n])
			if flip {
				torn = slices.Clone(g.notes)
				torn[n] ^= 1 << (n % 8)
			}
			must(t, os.WriteFile(journal, torn, 0o600))
			in, err := ReadJournal(journal)
			if err != nil {
				if !errors.Is(err, ErrJournal) {
					t.Fatal(err)
				}
				continue
			}
			if len(in.Kept) > len(whole.Kept) || !slices.Equal(in.Kept, whole.Kept[:len(in.Kept)]) {
				t.Fatalf("%d, flip %v: %v kept", n, flip, in.Kept)
			}
			if k := len(in.Kept); k > 0 && !seen[k] {
				seen[k] = true
				w.backend, w.points, w.contents = storedIn(t, g.store), nil, nil
				if w.now += 100_000; !w.again(in) {
					t.Errorf("cut at %d: not gone on with", n)
				}
				w.checkEnd(n)
			}
		}
	}
	if len(seen) < 6 {
		t.Errorf("finished from %v", seen)
	}
}

// FuzzRebuild interrupts a backup of a random tree, full or an increment, at a
// random call, and makes its journal anew from the volumes: as far as both go they
// say the same.
func FuzzRebuild(f *testing.F) {
	for seed := range uint64(6) {
		f.Add(seed, seed%2 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, full bool) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t, chain.Gzip)
		w.tiny()
		w.opts.VolSize, w.opts.PieceSize = 2_000+r.Int64N(6_000), 500+r.IntN(3_000)
		w.backend = mem.New()
		for range 5 + r.IntN(15) {
			w.random(r)
		}
		w.stampDirs()
		var base *memBase
		if !full {
			w.mustRun(true)
			for range 5 + r.IntN(15) {
				w.random(r)
			}
			w.stampDirs()
			base, _ = w.base(w.store())
		}
		journal := filepath.Join(w.dir, "journal")
		w.opts.Journal = journal
		g := &grave{Backend: w.backend.(*mem.Backend), t: t, left: 2 + r.IntN(6), after: r.IntN(2) == 0, journal: journal}
		w.backend = g
		o := w.rebuildOptions(base)
		if _, err := w.run(full); err == nil {
			t.Skip("it was done before")
		} else if !errors.Is(err, errDead) {
			t.Fatal(err)
		}
		files, err := storedStore(w, g).List(t.Context())
		must(t, err)
		sets := chain.Collect(files).Incomplete
		if len(sets) == 0 || len(g.notes) == 0 {
			t.Skip("nothing was stored yet, or all")
		}
		must(t, os.WriteFile(journal, g.notes, 0o600))
		want, kept := notes(t, journal)
		must(t, Rebuild(t.Context(), storedStore(w, g), sets[0], nil, journal, o))
		got, n := notes(t, journal)
		if n < kept || !strings.HasPrefix(got, want) && !(n == kept && strings.HasPrefix(want, got)) {
			t.Errorf("%d volumes are kept, made anew %d; %s", kept, n, differ(got, want))
		}
		in, err := ReadJournal(journal)
		must(t, err)
		if len(in.Kept) == 0 {
			return
		}
		w.now += 100_000
		if !w.again(in) {
			t.Fatal("it is not gone on with")
		}
		w.checkEnd(0)
	})
}

// random makes a random change of the source.
func (w *world) random(r *rand.Rand) {
	w.t.Helper()
	name := fmt.Sprintf("%c/%c", 'a'+rune(r.IntN(3)), 'a'+rune(r.IntN(6)))
	old, err := os.ReadFile(w.path(name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return // something else is there
	}
	text := string(old)
	at := r.IntN(len(text) + 1)
	part := noise(r.Uint64(), 1+r.IntN(6_000))
	switch r.IntN(7) {
	case 0:
		must(w.t, os.RemoveAll(w.path(name)))
		return
	case 1:
		must(w.t, os.RemoveAll(w.path(name)))
		must(w.t, os.MkdirAll(w.path(name[:1]), 0o755))
		must(w.t, os.Symlink(fmt.Sprint(len(part)), w.path(name)))
		return
	case 2:
		text = text[:at] + part + text[at:]
	case 3:
		text = text[at:]
	case 4:
		text = text[:at] + part
	default:
		text = part
	}
	must(w.t, os.RemoveAll(w.path(name)))
	w.write(name, text)
}
