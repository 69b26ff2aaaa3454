package snapshot

import (
	"testing"

	"dupfs/backends/backendtest"
	"dupfs/chain"
)

// planOf adds files up: what must be fetched, and in how many requests.
func (w *world) planOf(a *archive, nodes ...chain.Node) (sum VolumeCost, known bool) {
	w.t.Helper()
	p := a.NewPlan()
	known = true
	for _, n := range nodes {
		ok, err := p.Add(w.t.Context(), n.Version)
		w.must(err)
		known = known && ok
	}
	vols, err := p.Volumes(w.t.Context())
	w.must(err)
	for _, v := range vols {
		sum.Bytes += v.Bytes
		sum.Cached += v.Cached
		sum.Requests += v.Requests
		sum.MostRequests += v.MostRequests
	}
	return sum, known
}

// What a plan says is what reading does: the same bytes, in as many requests
// as it says; afterwards all of it is cached, and a plan costs nothing ever.
func TestPlan(t *testing.T) {
	for _, layer := range []chain.Layer{chain.OpenPGP, chain.Gzip, chain.Plain} {
		t.Run(layer.String(), func(t *testing.T) { testPlan(t, layer) })
	}
}

func testPlan(t *testing.T, layer chain.Layer) {
	w := newWorld(t, layer)
	w.history()
	count := backendtest.NewCount(w.b)
	for point := range 4 {
		a := w.open(count)
		tree := w.treeOf(a, point)
		for _, path := range []chain.Path{"a/big", "b.c", "z", "a/empty"} {
			n, err := Resolve(t.Context(), tree, path)
			w.must(err)
			count.Reset()
			plan, known := w.planOf(a, n)
			if got := count.Total().Calls; got != 0 || !known {
				t.Errorf("point %d, %s: a plan cost %d requests, known %v", point, path, got, known)
			}
			read(t, a, n)
			got := count.Total()
			// Reading ahead may take a few chunks that follow.
			if got.Bytes < plan.Fetch() || got.Bytes > plan.Fetch()+int64(8*w.chunk) {
				t.Errorf("point %d, %s: %d bytes were read, planned %d", point, path, got.Bytes, plan.Fetch())
			}
			if int64(got.Calls) < plan.Requests || int64(got.Calls) > plan.MostRequests {
				t.Errorf("point %d, %s: %d requests, planned %d to %d", point, path, got.Calls, plan.Requests, plan.MostRequests)
			}
			if again, _ := w.planOf(a, n); again.Fetch() != 0 || again.Cached < plan.Bytes || again.MostRequests != 0 {
				t.Errorf("point %d, %s: when all was read: %+v", point, path, again)
			}
		}
	}
}

func read(t *testing.T, a *archive, n chain.Node) {
	t.Helper()
	c, err := a.OpenVersion(t.Context(), n.Version)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, c.Size())
	if n, err := c.ReadAt(t.Context(), b, 0); n < len(b) {
		t.Fatal(err)
	}
}

// Of a volume that nobody has read, all is planned; a volume that is missing
// is told.
func TestPlanUnknown(t *testing.T) {
	w := newWorld(t, chain.Gzip)
	w.backup(true)
	bare := w.without(has("dupfs-index"))
	a := w.open(bare)
	n, err := Resolve(t.Context(), w.treeOf(a, 0), "b.c")
	w.must(err)
	// Looking it up learned its size, so it is known; z is not.
	z := a.NewPlan()
	if _, err := z.Add(t.Context(), n.Version); err != nil {
		t.Fatal(err)
	}
	fresh := w.open(bare)
	tree := w.treeOf(fresh, 0)
	var big chain.Node
	w.must(tree.ReadDir(t.Context(), rootDir, "", false, func(c chain.Node) error {
		if c.Name == "b.c" {
			big = c
		}
		return nil
	}))
	plan, known := w.planOf(fresh, big)
	var all int64
	for _, name := range w.names("difftar") {
		all += int64(len(w.get(name)))
	}
	if known || plan.Fetch() < 70_000 || plan.Fetch() > all {
		t.Errorf("%+v known %v, of %d", plan, known, all)
	}
	gone := w.open(w.without(has("vol2.difftar")))
	p := gone.NewPlan()
	n, err = Resolve(t.Context(), w.treeOf(gone, 0), "a/big")
	w.must(err)
	_, err = p.Add(t.Context(), n.Version)
	w.must(err)
	vols, err := p.Volumes(t.Context())
	w.must(err)
	missing := 0
	for _, v := range vols {
		if v.Missing {
			missing++
		}
	}
	if missing != 1 {
		t.Errorf("%d volumes are missing", missing)
	}
}
