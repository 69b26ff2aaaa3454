package snapshot

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"dupfs/backends"
	"dupfs/backends/backendtest"
	"dupfs/backends/mem"
	"dupfs/chain"
)

// Whatever goes wrong with whichever call to the store, what is shown of any
// point is right: an entry with its content, or an error; never a wrong byte, and
// never less than there is without an error. A fifth of the cases is tried; with
// DUPFS_FAULTS=all all are.
func TestEveryReadFault(t *testing.T) {
	own := func(layer chain.Layer) (*mem.Backend, []expected) {
		w := newWorld(t, layer)
		w.history()
		return w.b, listed(t, w.b)
	}
	for name, make := range map[string]func() (*mem.Backend, []expected){
		"gzip": func() (*mem.Backend, []expected) { return own(chain.Gzip) },
		"stock": func() (*mem.Backend, []expected) {
			b := load(t, "multichain")
			return b, listed(t, b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b, want := make()
			count := backendtest.NewCount(b)
			readAll(t, count, want)
			total := count.Total().Calls
			tried := 0
			random := rand.New(rand.NewPCG(5, 0))
			for nth := 1; nth <= total; nth++ {
				for kind := backendtest.Fail; kind <= backendtest.Stale; kind++ {
					if kind == backendtest.Stall { // the drivers bound that
						continue
					}
					if os.Getenv("DUPFS_FAULTS") != "all" && (6*nth+int(kind))%5 != 0 {
						continue
					}
					tried++
					at := random.Int64N(1 << random.IntN(14))
					if !readAll(t, backendtest.NewFaulty(b, backendtest.Fault{Nth: nth, Kind: kind, At: at}), want) {
						t.Fatalf("call %d of %d, kind %d, at byte %d", nth, total, kind, at)
					}
				}
			}
			t.Logf("%d faults", tried)
		})
	}
}

// listed is what an intact archive shows at each point.
func listed(t *testing.T, b *mem.Backend) (out []expected) {
	t.Helper()
	a := open(t, b, "")
	for _, p := range based(t, a) {
		tree, err := a.Tree(t.Context(), p.Number)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, expected{time: p.Time.Unix(), lines: listing(t, a, tree, true, intact(t))})
	}
	return out
}

// readAll reads all of an archive and reports whether what it showed is right.
func readAll(t *testing.T, b backends.Backend, want []expected) (ok bool) {
	t.Helper()
	ok = true
	t.Run("", func(t *testing.T) { // which closes it
		a, err := tryOpen(t, b, "")
		if err != nil {
			return
		}
		points, err := a.Points(t.Context())
		if err != nil {
			return
		}
		for _, p := range points {
			i := slices.IndexFunc(want, func(e expected) bool { return e.time == p.Time.Unix() })
			tree, err := a.Tree(t.Context(), p.Number)
			if err != nil {
				continue
			}
			errors := 0
			got := listing(t, a, tree, true, func(chain.Path, error) { errors++ })
			for _, line := range got {
				if !slices.Contains(want[i].lines, line) {
					t.Errorf("%v: shown %s", p.Time, line)
				}
			}
			if errors == 0 && len(got) < len(want[i].lines) {
				t.Errorf("%v: %d entries of %d, without an error", p.Time, len(got), len(want[i].lines))
			}
		}
		ok = !t.Failed()
	})
	return ok
}
