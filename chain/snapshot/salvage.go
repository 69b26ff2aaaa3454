package snapshot

import (
	"context"
	"fmt"

	"dupfs/chain"
	"dupfs/chain/manifest"
	"dupfs/chain/repair"
)

// standIn is the size of a manifest that is not there: its set is salvaged from
// its volumes. No listing has it, so that no catalog takes one for the other.
const standIn = -2

func standsIn(s *chain.Set) bool { return s.Manifest != nil && s.Manifest.Size == standIn }

// standIns returns manifests for the sets that have none, if these are to be
// salvaged. The lock is held.
func (a *Archive) standIns() (files []chain.Stored) {
	if !a.o.Salvage {
		return nil
	}
	for _, s := range a.col.Incomplete {
		if len(s.Volumes) == 0 {
			continue
		}
		n := chain.Name{Kind: chain.ManifestFile, Full: s.Full, Start: s.Start, End: s.End, Layer: s.Volumes[0].Layer}
		if n.Layer == chain.Gzip {
			n.Layer = chain.Plain
		}
		n.File = a.st.Prefixes().Format(n)
		files = append(files, chain.Stored{Name: n, Size: standIn})
	}
	return files
}

// madeManifest returns what the manifest of a set that has none would say of
// those of its volumes that can be read.
func (a *Archive) madeManifest(ctx context.Context, s *chain.Set) (*manifest.Manifest, error) {
	a.mu.Lock()
	m := a.made[s.Manifest.File]
	a.mu.Unlock()
	if m != nil {
		return m, nil
	}
	a.note("set %s has no manifest: its volumes are read", s.Times())
	next := 1
	rows, err := repair.Volumes(ctx, a.st, s, func(v chain.Stored, err error) error {
		if !final(err) {
			return err
		}
		a.note("set %s: %v", s.Times(), err)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, v := range s.Volumes {
		for ; next < v.Volume; next++ {
			a.note("set %s: volume %d is missing", s.Times(), next)
		}
		next++
	}
	if len(rows) == 0 {
		return nil, chain.Corrupt("set "+s.Times(), fmt.Sprintf("none of its %d volumes can be read", len(s.Volumes)))
	}
	m = &manifest.Manifest{Volumes: rows}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.made == nil {
		a.made = map[string]*manifest.Manifest{}
	}
	a.made[s.Manifest.File] = m
	return m, nil
}
