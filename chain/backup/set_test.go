package backup

import (
	"strings"
	"testing"

	"dupfs/chain/manifest"
)

// No set has more volumes than are read, and few have larger ones than asked for.
func TestGrown(t *testing.T) {
	var total int64
	for number := 1; number <= manifest.MaxVolumes; number++ {
		total += grown(25, number)
	}
	if first, last := grown(25, manifest.MaxVolumes/4), grown(25, manifest.MaxVolumes); first != 25 || last != 200 || total != manifest.MaxVolumes/4*25*15 {
		t.Errorf("%d, %d, %d in all", first, last, total)
	}
	for _, s := range []*setWriter{
		{rows: make([]manifest.Volume, manifest.MaxVolumes)},
		{paths: manifest.MaxPaths},
	} {
		if err := s.openVolume(t.Context()); err == nil || !strings.Contains(err.Error(), "needs larger volumes") {
			t.Error(err)
		}
	}
}
