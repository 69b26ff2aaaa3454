package repair_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dupfs/backends"
	"dupfs/backends/backendtest"
	"dupfs/backends/mem"
	"dupfs/chain"
	"dupfs/chain/backup"
	"dupfs/chain/manifest"
	"dupfs/chain/pgp"
	"dupfs/chain/repair"
	"dupfs/chain/sigtar"
	"dupfs/chain/snapshot"
	"dupfs/chain/store"
	"dupfs/chain/volume"
)

// base makes a snapshot's Base what the backup engine wants.
type base struct{ *snapshot.Base }

func (b base) Walk(ctx context.Context) iter.Seq2[*backup.BaseEntry, error] {
	return func(yield func(*backup.BaseEntry, error) bool) {
		for e, err := range b.Base.Walk(ctx) {
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(&backup.BaseEntry{Entry: e.Entry, Exact: e.Exact, SigOff: e.SigOff, SigLen: e.SigLen, Set: e.Set, ID: e.ID}, nil) {
				return
			}
		}
	}
}

func (b base) Signature(ctx context.Context, e *backup.BaseEntry) (io.ReadCloser, error) {
	return b.Base.Signature(ctx, &snapshot.BaseEntry{Entry: e.Entry, SigOff: e.SigOff, SigLen: e.SigLen, Set: e.Set, ID: e.ID})
}

// keys knows what it made of a passphrase, which takes a while.
var keys = pgp.NewKeys("secret")

func openStore(t *testing.T, b backends.Backend, layer chain.Layer) *store.Store {
	t.Helper()
	st := store.New(b, store.Options{
		Keys: keys, Encrypter: func() (*pgp.Encrypter, error) { return pgp.NewEncrypter("secret") },
		Layer: layer, TempDir: t.TempDir(), Volume: volume.Options{Chunk: 1024},
	})
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

func openSnapshot(t *testing.T, st *store.Store) (*snapshot.Archive, error) {
	t.Helper()
	a, err := snapshot.Open(t.Context(), st, snapshot.Options{Dir: t.TempDir()})
	if err == nil {
		t.Cleanup(func() {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return a, err
}

// archive makes a full set and two increments: small files, one that lies in
// several volumes, a delta that does, deletions, and a set without changes.
func archive(t *testing.T, layer chain.Layer) *mem.Backend {
	t.Helper()
	b, src := mem.New(), t.TempDir()
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(src, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	big := backendtest.Data(1, 9000)
	write("big", big)
	write("gone", nil)
	for i := range 3 {
		write(fmt.Sprint("small ", i), backendtest.Data(uint64(10+i), 1500))
	}
	if err := os.Symlink("big", filepath.Join(src, "link")); err != nil {
		t.Fatal(err)
	}
	run(t, b, layer, src, 0)
	copy(big[2000:], backendtest.Data(2, 6500))
	write("big", big)
	write("new", []byte("new"))
	if err := os.Remove(filepath.Join(src, "gone")); err != nil {
		t.Fatal(err)
	}
	run(t, b, layer, src, 1)
	run(t, b, layer, src, 2)
	return b
}

// run makes a set.
func run(t *testing.T, b backends.Backend, layer chain.Layer, src string, n int64) {
	t.Helper()
	st := openStore(t, b, layer)
	o := backup.Options{
		Now: time.Unix(1700000000+n*1000, 0), Layer: layer, VolSize: 3000, PieceSize: 1000,
		Hostname: "host", Localdir: "some dir", TempDir: t.TempDir(),
	}
	var on backup.Base
	if n > 0 {
		a, err := openSnapshot(t, st)
		if err != nil {
			t.Fatal(err)
		}
		bs, err := a.Base(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sets := bs.Chain().Sets
		o.Last, on = sets[len(sets)-1].End, base{bs}
	}
	if s, err := backup.Run(t.Context(), src, st, on, o); err != nil || s.Errors > 0 {
		t.Fatalf("%v, %v", err, s)
	}
}

// sets returns the sets of the archive, also those without a manifest, in order.
func sets(t *testing.T, b backends.Backend) []*chain.Set {
	t.Helper()
	stored, err := openStore(t, b, chain.Plain).List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := chain.Collect(stored)
	all := append([]*chain.Set(nil), c.Incomplete...)
	for _, ch := range c.Chains {
		all = append(all, ch.Sets...)
	}
	all = append(all, c.Orphaned...)
	byEnd := map[time.Time]*chain.Set{}
	for _, s := range all {
		byEnd[s.End] = s
	}
	var out []*chain.Set
	for n := range int64(3) {
		s := byEnd[time.Unix(1700000000+n*1000, 0).UTC()]
		if s == nil {
			t.Fatalf("set %d is not there: %v", n, all)
		}
		out = append(out, s)
	}
	return out
}

// text returns the plaintext of a stored file.
func text(t *testing.T, b backends.Backend, f chain.Stored) string {
	t.Helper()
	r, err := openStore(t, b, chain.Plain).Open(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// without copies the archive but for some files.
func without(t *testing.T, b backends.Backend, files ...*chain.Stored) *mem.Backend {
	t.Helper()
	c := mem.New()
	list, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
next:
	for _, f := range list {
		for _, not := range files {
			if f.Name == not.File {
				continue next
			}
		}
		backendtest.Write(t, c, f.Name, backendtest.Read(t, b, f.Name))
	}
	return c
}

var layers = []chain.Layer{chain.Plain, chain.Gzip, chain.OpenPGP}

// gist is a manifest as one can compare it: its list has the files that are in
// the set, whatever became of them.
func gist(t *testing.T, text string, withIndex bool) string {
	t.Helper()
	m, err := manifest.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if !withIndex {
		m.HasIndex, m.IndexSize, m.IndexSHA256 = false, 0, [32]byte{}
	}
	var files []string
	err = manifest.ParseFileList(strings.NewReader(text), func(c manifest.Change) error {
		if c.Kind != "deleted" {
			files = append(files, c.Path.String())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := manifest.Write(&out, m, 0, nil); err != nil {
		t.Fatal(err)
	}
	return out.String() + strings.Join(files, "\n")
}

// A manifest that is made anew is the one that was lost, with the index, the
// signatures or both.
func TestManifest(t *testing.T) {
	for _, layer := range layers {
		b := archive(t, layer)
		for i, s := range sets(t, b) {
			for name, lost := range map[string][]*chain.Stored{
				"both": {s.Manifest}, "index": {s.Manifest, s.Sigtar}, "signatures": {s.Manifest, s.Index},
			} {
				t.Run(fmt.Sprint(layer, " set ", i, " by ", name), func(t *testing.T) {
					c := without(t, b, lost...)
					if err := repair.Manifest(t.Context(), openStore(t, c, layer), sets(t, c)[i], "host", "some dir"); err != nil {
						t.Fatal(err)
					}
					again := sets(t, c)[i].Manifest
					if again == nil || again.File != s.Manifest.File {
						t.Fatalf("%v is there, not %v", again, s.Manifest)
					}
					withIndex := name != "signatures"
					if got, want := gist(t, text(t, c, *again), withIndex), gist(t, text(t, b, *s.Manifest), withIndex); got != want {
						t.Errorf("got  %s\nwant %s", got, want)
					}
				})
			}
		}
	}
}

// What is left of a set may not show that it is whole; what is damaged, or of
// another set, shows nothing. Then there is no manifest.
func TestNoManifest(t *testing.T) {
	const layer = chain.Gzip
	b := archive(t, layer)
	all := sets(t, b)
	full, inc := all[0], all[1]
	damaged := func(c *mem.Backend, file string) {
		data := backendtest.Read(t, b, file)
		data[len(data)/2] ^= 1
		backendtest.Write(t, c, file, data)
	}
	instead := func(c *mem.Backend, file, other string) { backendtest.Write(t, c, file, backendtest.Read(t, b, other)) }
	last := &inc.Volumes[len(inc.Volumes)-1]
	for _, tt := range []struct {
		name string
		lost []*chain.Stored
		do   func(c *mem.Backend)
		want string // "": it is made
	}{
		{"there is one", nil, nil, "has a manifest"},
		{"only volumes", []*chain.Stored{inc.Manifest, inc.Sigtar, inc.Index}, nil, repair.ErrUnsure.Error()},
		{"a volume is missing", []*chain.Stored{inc.Manifest, &inc.Volumes[0]}, nil, "volume 1 is missing"},
		{"the last volume is missing", []*chain.Stored{inc.Manifest, last}, nil, "volume 3 is missing"},
		{"the last volume and the index are missing", []*chain.Stored{inc.Manifest, inc.Index, last}, nil, "its signatures end at"},
		{"a damaged volume", []*chain.Stored{inc.Manifest}, func(c *mem.Backend) { damaged(c, inc.Volumes[1].File) }, inc.Volumes[1].File},
		{"an empty volume", []*chain.Stored{inc.Manifest, inc.Index}, func(c *mem.Backend) {
			backendtest.Write(t, c, inc.Volumes[1].File, nil)
		}, "nothing is in it"},
		{"a volume without the first pieces", []*chain.Stored{inc.Manifest, inc.Index}, func(c *mem.Backend) {
			instead(c, inc.Volumes[1].File, inc.Volumes[2].File)
		}, "it begins with piece"},
		{"another's volume", []*chain.Stored{inc.Manifest}, func(c *mem.Backend) {
			instead(c, inc.Volumes[0].File, full.Volumes[0].File)
		}, "volume 1 has another hash"},
		{"a volume too much", []*chain.Stored{inc.Manifest}, func(c *mem.Backend) {
			instead(c, strings.Replace(last.File, "vol3", "vol4", 1), full.Volumes[0].File)
		}, "it has 4 volumes, and its index names 3"},
		{"a damaged index", []*chain.Stored{inc.Manifest}, func(c *mem.Backend) { damaged(c, inc.Index.File) }, ""},
		{"a damaged index, no signatures", []*chain.Stored{inc.Manifest, inc.Sigtar}, func(c *mem.Backend) {
			damaged(c, inc.Index.File)
		}, "its index is not one of it"},
		{"another's index", []*chain.Stored{inc.Manifest, inc.Sigtar}, func(c *mem.Backend) {
			instead(c, inc.Index.File, full.Index.File)
		}, "its index is not one of it"},
		{"damaged signatures", []*chain.Stored{inc.Manifest, inc.Index}, func(c *mem.Backend) { damaged(c, inc.Sigtar.File) }, inc.Sigtar.File},
		{"another's signatures", []*chain.Stored{inc.Manifest, inc.Index}, func(c *mem.Backend) {
			instead(c, inc.Sigtar.File, full.Sigtar.File)
		}, "its signatures end at"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := without(t, b, tt.lost...)
			if tt.do != nil {
				tt.do(c)
			}
			s := sets(t, c)[1]
			had := s.Manifest != nil
			err := repair.Manifest(t.Context(), openStore(t, c, layer), s, "host", "some dir")
			there := sets(t, c)[1].Manifest != nil
			switch {
			case tt.want == "":
				if err != nil || !there {
					t.Errorf("%v, made: %v", err, there)
				}
			case err == nil || !strings.Contains(err.Error(), tt.want) || there != had:
				t.Errorf("%v, want %q; there is a manifest: %v", err, tt.want, there)
			}
		})
	}
}

// Whatever goes wrong with whichever call to the store, there is no manifest but
// the right one, and none that is not reported.
func TestManifestFaults(t *testing.T) {
	const layer = chain.Gzip
	b := archive(t, layer)
	s := sets(t, b)[1]
	for _, lost := range [][]*chain.Stored{{s.Manifest}, {s.Manifest, s.Index}} {
		bare := without(t, b, lost...)
		everyFault(t, bare, func(b backends.Backend) error {
			return repair.Manifest(t.Context(), openStore(t, b, layer), sets(t, bare)[1], "host", "some dir")
		}, func(c *mem.Backend, kind backendtest.Kind) (got, want string) {
			// An index that was read wrongly is as good as none.
			withIndex := len(lost) == 1 && kind != backendtest.Cut && kind != backendtest.Wrong
			if m := sets(t, c)[1].Manifest; m != nil {
				got = gist(t, text(t, c, *m), withIndex)
			}
			return got, gist(t, text(t, b, *s.Manifest), withIndex)
		})
	}
}

// everyFault calls do once for each call that it makes to a copy of a store, and
// each way in which that can fail. After an error result must return "", or what
// it should be; without one what it should be.
func everyFault(t *testing.T, b *mem.Backend, do func(backends.Backend) error, result func(*mem.Backend, backendtest.Kind) (got, want string)) {
	t.Helper()
	count := backendtest.NewCount(without(t, b))
	if err := do(count); err != nil {
		t.Fatal(err)
	}
	total, hits, made := count.Total().Calls, 0, 0
	random := rand.New(rand.NewPCG(5, 0))
	for nth := 1; nth <= total; nth++ {
		for kind := backendtest.Fail; kind <= backendtest.Wrong; kind++ {
			if kind == backendtest.Stall { // the drivers bound that
				continue
			}
			c := without(t, b)
			fault := backendtest.Fault{Nth: nth, Kind: kind, At: random.Int64N(1 << random.IntN(12))}
			faulty := backendtest.NewFaulty(c, fault)
			err := do(faulty)
			got, want := result(c, kind)
			hits += faulty.Hits()
			switch {
			case got != want && (err == nil || got != ""):
				t.Errorf("%+v: %v, and\ngot  %s\nwant %s", fault, err, got, want)
			}
			if got != "" {
				made++
			}
		}
	}
	if hits < 4*total { // of 5 kinds; what is read ahead may come or not
		t.Errorf("%d calls, but only %d faults", total, hits)
	}
	t.Logf("%d calls, %d faults, made all the same: %d", total, hits, made)
}

// tree returns the forest of an archive and the tree of its set.
func tree(t *testing.T, st *store.Store, s *chain.Set) (chain.Forest, chain.Tree, error) {
	t.Helper()
	a, err := openSnapshot(t, st)
	if err != nil {
		return nil, nil, err
	}
	points, err := a.Points(t.Context())
	if err != nil {
		return nil, nil, err
	}
	for _, p := range points {
		if p.Time.Equal(s.End) {
			tr, err := a.Tree(t.Context(), p.Number)
			return a, tr, err
		}
	}
	return nil, nil, fmt.Errorf("no point %v", s.End)
}

// makeSigtar makes the signatures of a set, from what an archive has of it.
func makeSigtar(t *testing.T, st *store.Store, s *chain.Set, m *manifest.Manifest) error {
	t.Helper()
	f, tr, err := tree(t, st, s)
	if err != nil {
		return err
	}
	dir := t.TempDir()
	err = repair.Sigtar(t.Context(), st, s, m, f, tr, dir)
	if left, lerr := os.ReadDir(dir); lerr != nil || len(left) > 0 {
		t.Errorf("left in the temporary directory: %v, %v", left, lerr)
	}
	return err
}

func parse(t *testing.T, text string) *manifest.Manifest {
	t.Helper()
	m, err := manifest.Parse(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// members returns the members of a sigtar, one a line.
func members(t *testing.T, text string) string {
	t.Helper()
	var out strings.Builder
	r := sigtar.NewReader(strings.NewReader(text))
	for {
		m, err := r.Next()
		if err == io.EOF {
			return out.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		sig, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%+v deleted %v, signature %x\n", m.Entry, m.Deleted, sha256.Sum256(sig))
	}
}

// Signatures that are made anew are those that were lost.
func TestSigtar(t *testing.T) {
	for _, layer := range layers {
		b := archive(t, layer)
		for i, s := range sets(t, b) {
			t.Run(fmt.Sprint(layer, " set ", i), func(t *testing.T) {
				c := without(t, b, s.Sigtar)
				m := parse(t, text(t, b, *s.Manifest))
				if err := makeSigtar(t, openStore(t, c, layer), sets(t, c)[i], m); err != nil {
					t.Fatal(err)
				}
				again := sets(t, c)[i].Sigtar
				if again == nil || again.File != s.Sigtar.File {
					t.Fatalf("%v is there, not %v", again, s.Sigtar)
				}
				if got, want := members(t, text(t, c, *again)), members(t, text(t, b, *s.Sigtar)); got != want {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
			})
		}
	}
}

// Signatures that are there stay, and of a set of which a volume is missing, or
// whose content cannot be read, none are made.
func TestNoSigtar(t *testing.T) {
	const layer = chain.Gzip
	b := archive(t, layer)
	s := sets(t, b)[0]
	m := parse(t, text(t, b, *s.Manifest))
	if err := makeSigtar(t, openStore(t, b, layer), s, m); err == nil || !strings.Contains(err.Error(), "has signatures") {
		t.Errorf("there are some: %v", err)
	}
	for name, do := range map[string]func(c *mem.Backend){
		"missing": func(c *mem.Backend) {
			if err := c.Delete(t.Context(), s.Volumes[2].File); err != nil {
				t.Fatal(err)
			}
		},
		"damaged": func(c *mem.Backend) {
			data := backendtest.Read(t, b, s.Volumes[2].File)
			data[len(data)/2] ^= 1
			backendtest.Write(t, c, s.Volumes[2].File, data)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := without(t, b, s.Sigtar)
			do(c)
			err := makeSigtar(t, openStore(t, c, layer), sets(t, c)[0], m)
			if err == nil || sets(t, c)[0].Sigtar != nil {
				t.Errorf("%v, made: %v", err, sets(t, c)[0].Sigtar)
			}
		})
	}
}

// Whatever goes wrong with whichever call to the store, there are no signatures
// but the right ones.
func TestSigtarFaults(t *testing.T) {
	const layer = chain.Gzip
	b := archive(t, layer)
	s := sets(t, b)[1]
	bare, m := without(t, b, s.Sigtar), parse(t, text(t, b, *s.Manifest))
	want := members(t, text(t, b, *s.Sigtar))
	everyFault(t, bare, func(b backends.Backend) error {
		return makeSigtar(t, openStore(t, b, layer), sets(t, bare)[1], m)
	}, func(c *mem.Backend, _ backendtest.Kind) (got, _ string) {
		sig := sets(t, c)[1].Sigtar
		if sig == nil {
			return "", want
		}
		return members(t, text(t, c, *sig)), want
	})
}
