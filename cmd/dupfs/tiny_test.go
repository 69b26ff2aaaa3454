package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"dupfs/backends/file"
	"dupfs/chain"
	"dupfs/chain/backup"
	"dupfs/chain/pgp"
	"dupfs/chain/snapshot"
	"dupfs/chain/store"
	"dupfs/chain/volume"
	"dupfs/fusefs"
	"dupfs/internal/need"
)

// Random trees, edits and range reads through the mount, with chunks, pieces,
// blocks and volumes so small that every read crosses their borders.
func TestRandomTiny(t *testing.T) {
	for seed, layer := range []chain.Layer{chain.OpenPGP, chain.Gzip, chain.Plain} {
		t.Run(layer.String(), func(t *testing.T) { testRandomTiny(t, uint64(seed)+11, layer) })
	}
}

// tinyStore opens the archive of a world with tiny chunks.
func (w *world) tinyStore(layer chain.Layer) *store.Store {
	w.t.Helper()
	b, err := file.Open(w.path("archive"))
	if err != nil {
		w.t.Fatal(err)
	}
	keys := pgp.NewKeys("fixture")
	return store.New(b, store.Options{
		Keys: keys, Layer: layer, TempDir: w.path("tmp"), Volume: volume.Options{Chunk: 1024},
		Encrypter: func() (*pgp.Encrypter, error) { return keys.Encrypter("fixture") },
	})
}

func testRandomTiny(t *testing.T, seed uint64, layer chain.Layer) {
	need.FUSE(t)
	w := newWorld(t)
	r := rand.New(rand.NewPCG(seed, 3))
	w.sh("mkdir src archive mnt catalog")
	const sets = 5
	st := w.tinyStore(layer)
	a, err := snapshot.Open(t.Context(), st, snapshot.Options{Dir: w.path("catalog")})
	if err != nil {
		t.Fatal(err)
	}
	volumes := 0
	for n := range sets {
		w.mutate(r, 8)
		w.sh(fmt.Sprintf("cp -a src copy%d", n))
		volumes += w.tinyBackup(st, a, layer, n)
	}
	if volumes < 2*sets {
		t.Errorf("only %d volumes in %d sets", volumes, sets)
	}
	server, err := fusefs.Mount(a, w.path("mnt"), fusefs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		n := r.IntN(sets)
		readSomewhere(t, r, w.tinyPoint(n), w.path(fmt.Sprint("copy", n)))
	}
	for n := range sets {
		same(t, fmt.Sprint("point ", n), w.tinyPoint(n), w.path(fmt.Sprint("copy", n)))
	}
	if err := server.Unmount(); err != nil {
		t.Error(err)
	}
	server.Wait()
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
}

// tinyPoint is point n in the mount.
func (w *world) tinyPoint(n int) string {
	return filepath.Join(w.path("mnt"), "snapshots", time.Unix(epoch+int64(n)*86400, 0).UTC().Format(time.RFC3339))
}

// tinyBackup makes set n and returns how many volumes it has.
func (w *world) tinyBackup(st *store.Store, a *snapshot.Archive, layer chain.Layer, n int) int {
	w.t.Helper()
	o := backup.Options{
		Now: time.Unix(epoch+int64(n)*86400, 0), Layer: layer, TempDir: w.path("tmp"),
		VolSize: 100_000, PieceSize: 700, MaxBlock: 512,
	}
	var on backup.Base
	if n > 0 {
		base, err := a.Base(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		on, o.Last = &baseAdapter{base}, base.Chain().End()
	}
	stats, err := backup.Run(w.t.Context(), w.path("src"), st, on, o)
	if err != nil || stats.Errors > 0 {
		w.t.Fatalf("set %d: %+v, %v", n, stats, err)
	}
	if err := a.Refresh(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	files, err := os.ReadDir(w.path("archive"))
	if err != nil {
		w.t.Fatal(err)
	}
	count := 0
	for _, f := range files {
		name, ok := chain.ParseName(f.Name(), chain.Prefixes{})
		if ok && name.Kind == chain.VolumeFile && name.End.Equal(stats.Set.End) {
			count++
		}
	}
	return count
}
