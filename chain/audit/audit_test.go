package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dupfs/backends"
	"dupfs/backends/backendtest"
	"dupfs/backends/mem"
	"dupfs/chain"
	"dupfs/chain/backup"
	"dupfs/chain/pgp"
	"dupfs/chain/store"
	"dupfs/chain/volume"
)

// empty is a base without entries, so that an increment has all of the source.
type empty struct{}

func (empty) Walk(context.Context) iter.Seq2[*backup.BaseEntry, error] {
	return func(func(*backup.BaseEntry, error) bool) {}
}

func (empty) Signature(context.Context, *backup.BaseEntry) (io.ReadCloser, error) {
	return nil, fs.ErrNotExist
}

// archive makes a full set and an increment of several volumes each.
func archive(t *testing.T, layer chain.Layer) *mem.Backend {
	t.Helper()
	b, src := mem.New(), t.TempDir()
	st := openStore(t, b, layer)
	var last time.Time
	for i := range 2 {
		for j := range 3 + i {
			name := filepath.Join(src, fmt.Sprintf("file %d", j))
			if err := os.WriteFile(name, backendtest.Data(uint64(10*i+j), 2500+600*i), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		o := backup.Options{
			Now: time.Unix(1700000000+int64(i)*1000, 0), Last: last, Layer: layer, VolSize: 3000 + int64(i)*1500, PieceSize: 1000,
			Hostname: "host", Localdir: "dir", TempDir: t.TempDir(),
		}
		var base backup.Base
		if last = o.Now; i > 0 {
			base = empty{}
		}
		if s, err := backup.Run(t.Context(), src, st, base, o); err != nil || s.Errors > 0 {
			t.Fatalf("%v, %d errors", err, s.Errors)
		}
	}
	return b
}

// keys knows what it made of a passphrase, which takes a while.
var keys = pgp.NewKeys("secret")

func openStore(t *testing.T, b backends.Backend, layer chain.Layer) *store.Store {
	t.Helper()
	st := store.New(b, store.Options{
		Keys: keys, Encrypter: func() (*pgp.Encrypter, error) { return pgp.NewEncrypter("secret") },
		Layer: layer, TempDir: t.TempDir(), Volume: volume.Options{Chunk: 1024}, Sums: true,
	})
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

// look lists the archive and, if deep, checks all files that List finds nothing
// wrong with.
func look(t *testing.T, b backends.Backend, layer chain.Layer, deep bool) ([]File, []Finding, error) {
	t.Helper()
	st := openStore(t, b, layer)
	stored, err := st.List(t.Context())
	if err != nil {
		return nil, nil, err
	}
	var sets []*chain.Set
	for _, c := range chain.Collect(stored).Chains {
		sets = append(sets, c.Sets...)
	}
	files, found, err := List(t.Context(), st, sets)
	if err != nil || !deep {
		return files, found, err
	}
	dir := t.TempDir()
	for _, f := range files {
		if slices.ContainsFunc(found, func(g Finding) bool { return g.File == f.File }) {
			continue
		}
		err := Check(t.Context(), st, f, dir)
		if err != nil && !damage(err) && !errors.Is(err, fs.ErrNotExist) {
			return files, found, err
		}
		if err != nil {
			found = append(found, Finding{f.Set, f.File, err})
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in the temporary directory: %v, %v", left, err)
	}
	return files, found, nil
}

var layers = []chain.Layer{chain.Plain, chain.Gzip, chain.OpenPGP}

// An intact archive is found so, and all of it is looked at.
func TestIntact(t *testing.T) {
	for _, layer := range layers {
		b := archive(t, layer)
		files, found, err := look(t, b, layer, true)
		all := list(t, b)
		if err != nil || len(found) > 0 || len(files) != len(all) {
			t.Errorf("%v: %d files of %d, %v, %v", layer, len(files), len(all), found, err)
		}
		if len(all) < 6+6 {
			t.Errorf("%v: only %d files", layer, len(all))
		}
	}
}

// place names a file of the archive.
type place struct {
	kind   chain.Kind
	full   bool
	volume int
}

// name returns the name of the file at a place.
func (p place) name(t *testing.T, b backends.Backend) string {
	t.Helper()
	for _, f := range list(t, b) {
		if n, ok := chain.ParseName(f, chain.Prefixes{}); ok && n.Kind == p.kind && n.Full == p.full && n.Volume == p.volume {
			return f
		}
	}
	t.Fatalf("no file %+v", p)
	return ""
}

// list returns the names of the archive's files.
func list(t *testing.T, b backends.Backend) (all []string) {
	t.Helper()
	files, err := b.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		all = append(all, f.Name)
	}
	return all
}

// Each damage is found, by List where the small files tell, else by Check, and
// named with its file; nothing else is said to be wrong.
func TestDamages(t *testing.T) {
	type edit = func(data, other []byte) []byte
	flip := func(data, _ []byte) []byte { data[len(data)/2] ^= 1; return data }
	cut := func(data, _ []byte) []byte { return data[:len(data)-7] }
	others := func(_, other []byte) []byte { return other }
	remove := func(_, _ []byte) []byte { return nil }
	inc := func(k chain.Kind) place { return place{kind: k} }
	volume := func(n int) place { return place{chain.VolumeFile, false, n} }
	tests := []struct {
		name string
		at   place
		do   edit // other is the full set's file of that kind
		want string
		list bool        // List finds it
		set  bool        // it is said of the set, not of the file
		only chain.Layer // if not zero: in this layer it can be seen
	}{
		{"a cut manifest", inc(chain.ManifestFile), cut, "", true, false, chain.OpenPGP},
		{"a manifest with a wrong bit", inc(chain.ManifestFile), flip, "", true, false, chain.OpenPGP},
		{"no volume", volume(2), remove, "volume 2 is missing", true, true, 0},
		{"a cut volume", volume(2), cut, " bytes instead of ", true, false, 0},
		{"a volume with a wrong bit", volume(1), flip, "", false, false, 0},
		{"another's volume", volume(3), others, "", true, false, 0},
		{"no signatures", inc(chain.SigtarFile), remove, ErrNoSigtar.Error(), true, true, 0},
		{"signatures with a wrong bit", inc(chain.SigtarFile), flip, "", false, false, chain.OpenPGP},
		{"cut signatures", inc(chain.SigtarFile), cut, "", false, false, chain.Gzip},
		{"another's signatures", inc(chain.SigtarFile), others, "it has other files than the manifest", false, false, 0},
		{"no index", inc(chain.IndexFile), remove, ErrNoIndex.Error(), true, true, 0},
		{"an index with a wrong bit", inc(chain.IndexFile), flip, "", true, false, 0},
		{"a cut index", inc(chain.IndexFile), cut, "", true, false, 0},
		{"another's index", inc(chain.IndexFile), others, "it is of another set", true, false, 0},
	}
	for _, layer := range layers {
		whole := archive(t, layer)
		for _, tt := range tests {
			if tt.only != 0 && tt.only != layer {
				continue
			}
			t.Run(fmt.Sprint(tt.name, " ", layer), func(t *testing.T) {
				b := clone(t, whole)
				file := tt.at.name(t, b)
				of := tt.at
				of.full = true
				data := tt.do(backendtest.Read(t, b, file), backendtest.Read(t, b, of.name(t, b)))
				if data == nil {
					if err := b.Delete(t.Context(), file); err != nil {
						t.Fatal(err)
					}
				} else {
					backendtest.Write(t, b, file, data)
				}
				if tt.set {
					file = ""
				}
				for _, deep := range []bool{false, true} {
					_, found, err := look(t, b, layer, deep)
					switch {
					case err != nil:
						t.Fatal(err)
					case !deep && !tt.list:
						if len(found) > 0 {
							t.Errorf("listed: %v", found)
						}
					case len(found) != 1 || found[0].File != file || !strings.Contains(found[0].Err.Error(), tt.want):
						t.Errorf("deep %v: %v, want %q of %q", deep, found, tt.want, file)
					}
				}
			})
		}
	}
}

// clone copies an archive.
func clone(t *testing.T, b *mem.Backend) *mem.Backend {
	t.Helper()
	c := mem.New()
	for _, name := range list(t, b) {
		backendtest.Write(t, c, name, backendtest.Read(t, b, name))
	}
	return c
}

// A volume that the manifest does not name is found.
func TestStrayVolume(t *testing.T) {
	b := archive(t, chain.Gzip)
	name := place{chain.VolumeFile, false, 2}.name(t, b)
	stray := strings.Replace(name, ".vol2.", ".vol9.", 1)
	backendtest.Write(t, b, stray, backendtest.Read(t, b, name))
	_, found, err := look(t, b, chain.Gzip, true)
	if err != nil || len(found) != 1 || found[0].File != stray {
		t.Errorf("%v, %v", found, err)
	}
}

// Whatever goes wrong with whichever call to the store: a failing one is never
// taken for damage, and what was read wrongly never for intact.
func TestEveryFault(t *testing.T) {
	b := archive(t, chain.OpenPGP)
	count := backendtest.NewCount(b)
	if _, _, err := look(t, count, chain.OpenPGP, true); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(5, 0))
	total := count.Total().Calls
	for nth := 1; nth <= total; nth++ {
		for kind := backendtest.Fail; kind < backendtest.Stale; kind++ {
			if kind == backendtest.Stall { // the drivers bound that
				continue
			}
			fault := backendtest.Fault{Nth: nth, Kind: kind, At: random.Int64N(1 << random.IntN(9))}
			faulty := backendtest.NewFaulty(b, fault)
			_, found, err := look(t, faulty, chain.OpenPGP, true)
			switch {
			case faulty.Hits() != 1:
				t.Fatalf("%+v: %d hits of %d calls", fault, faulty.Hits(), total)
			case kind == backendtest.Cut || kind == backendtest.Wrong:
				if nth > 1 && len(found) == 0 && err == nil {
					t.Errorf("%+v: nothing found", fault)
				}
			case err == nil || len(found) > 0:
				t.Errorf("%+v: %v, %v", fault, found, err)
			}
		}
	}
	t.Logf("%d calls", total)
}
