package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"dupfs/backends"
	"dupfs/chain"
	"dupfs/chain/snapshot"
)

func costCommand(e *environ) *cli.Command {
	return &cli.Command{
		Name:      "cost",
		Usage:     "tell what restoring the archive, or a path in it, would take: requests, bytes, tiers",
		ArgsUsage: "URL [PATH]",
		Description: `dupfs cost --time 1M URL home/letters
It answers from the local catalog and the last listing of the archive; --refresh
lists the archive again.`,
		Flags: slices.Concat(archiveFlags(), []cli.Flag{
			timeFlag(), jsonFlag(),
			&cli.BoolFlag{Name: "refresh", Usage: "list the archive again, as every other command does"},
			currentTimeFlag(),
		}),
		Action: func(c *cli.Context) error { return runCost(c.Context, e, c) },
	}
}

// tierCost is what is needed of the volumes in one tier.
type tierCost struct {
	Tier    string `json:"tier"`
	Volumes int64  `json:"volumes"`
	Bytes   int64  `json:"bytes"` // to fetch
	// Rehydrate says that they cannot be read before they are rehydrated.
	Rehydrate      bool  `json:"rehydrate"`
	RehydrateBytes int64 `json:"rehydrate_bytes,omitempty"` // of whole volumes
}

// cost is what cost tells.
type cost struct {
	Path         string     `json:"path"`
	PathB64      string     `json:"path_b64,omitempty"`
	Time         string     `json:"time"`   // of the point
	Listed       string     `json:"listed"` // when the archive was listed
	Files        int64      `json:"files"`
	Size         int64      `json:"size"`          // of the files, as far as it is known
	Unknown      int64      `json:"unknown_files"` // whose place in the volumes nobody knows yet
	Bytes        int64      `json:"bytes"`         // to fetch
	Cached       int64      `json:"cached_bytes"`
	Requests     int64      `json:"requests"`
	MostRequests int64      `json:"most_requests"` // if they are not read in order
	Volumes      int64      `json:"volumes"`       // that something must be fetched of
	Whole        int64      `json:"whole_volumes"` // of them: read to their end
	Missing      int64      `json:"missing_volumes"`
	Tiers        []tierCost `json:"tiers"`
}

func runCost(ctx context.Context, e *environ, c *cli.Context) error {
	url, p, err := urlAndPath(c)
	if err != nil {
		return err
	}
	got, err := e.localCost(ctx, c, url, p)
	if isOffline(err) {
		got, err = e.askedCost(ctx, c, url, p)
	}
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return encoder(e.stdout).Encode(got)
	}
	return got.print(e.stdout, e.clock(c))
}

// isOffline reports whether the archive must be asked.
func isOffline(err error) bool {
	return errors.Is(err, errOffline) || errors.Is(err, errNothingKept)
}

// errNothingKept says that there is nothing local to answer from.
var errNothingKept = errors.New("nothing is known of this archive yet")

// localCost answers from what is kept.
func (e *environ) localCost(ctx context.Context, c *cli.Context, url string, p chain.Path) (*cost, error) {
	if c.Bool("refresh") {
		return nil, errNothingKept
	}
	a, at, err := e.openKept(c, url)
	if err != nil {
		return nil, errNothingKept
	}
	defer a.Close()
	return a.cost(ctx, c, p, at)
}

// askedCost lists the archive, and reads of it what the catalog lacks.
func (e *environ) askedCost(ctx context.Context, c *cli.Context, url string, p chain.Path) (*cost, error) {
	a, err := e.open(ctx, c, url)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	return a.cost(ctx, c, p, e.now())
}

// cost plans the reading of a path.
func (a *archive) cost(ctx context.Context, c *cli.Context, p chain.Path, listed time.Time) (*cost, error) {
	tree, point, err := a.tree(ctx, c)
	if err != nil {
		return nil, err
	}
	out := &cost{Path: p.String(), PathB64: bytesIfOdd(p.String()), Time: stamp(point.Time), Listed: stamp(listed)}
	plan := a.snapshot.NewPlan()
	seen := map[uint64]bool{} // files with several names
	top, err := nameOf(ctx, tree, p)
	if err == nil {
		err = namesBelow(ctx, tree, top, 0, func(n chain.Node) error {
			if n.Type != chain.File || seen[n.Version] {
				return ctx.Err()
			}
			if n.Nlink > 1 {
				seen[n.Version] = true
			}
			return out.add(ctx, plan, n)
		})
	}
	if errors.Is(err, fs.ErrNotExist) && !isOffline(err) {
		return nil, notInArchive(p, point)
	}
	if err != nil {
		return nil, err
	}
	volumes, err := plan.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	return out, out.sum(ctx, a, volumes)
}

// nameOf returns the node at a path, without reading volumes for its size.
func nameOf(ctx context.Context, t chain.Tree, p chain.Path) (chain.Node, error) {
	n, err := t.Root(ctx)
	n.Path = chain.Root
	for _, name := range p.Components() {
		if err != nil {
			return n, err
		}
		if n.Type != chain.Dir {
			return n, fs.ErrNotExist
		}
		n, err = childNamed(ctx, t, n, name)
	}
	return n, err
}

// childNamed finds a child, without reading volumes for its size.
func childNamed(ctx context.Context, t chain.Tree, dir chain.Node, name string) (found chain.Node, err error) {
	err = t.ReadDir(ctx, dir.Dir, before(name), false, func(n chain.Node) error {
		if n.Name < name {
			return nil
		}
		if n.Name == name {
			found, found.Path = n, dir.Path.Join(name)
		}
		return errPageFull
	})
	if found.Name == name {
		return found, nil
	}
	if err == nil || err == errPageFull {
		err = fs.ErrNotExist
	}
	return found, err
}

// before returns a name that sorts before another, close to it.
func before(name string) string {
	last := len(name) - 1
	if name[last] == 0 {
		return name[:last]
	}
	return name[:last] + string([]byte{name[last] - 1, 0xff})
}

// add adds a file.
func (o *cost) add(ctx context.Context, plan *snapshot.Plan, n chain.Node) error {
	o.Files++
	o.Size += max(n.Size, 0)
	known, err := plan.Add(ctx, n.Version)
	if err != nil {
		return err
	}
	if !known {
		o.Unknown++
	}
	return nil
}

// sum adds the volumes up, by tiers.
func (o *cost) sum(ctx context.Context, a *archive, volumes []snapshot.VolumeCost) error {
	files, err := a.store.Backend().List(ctx)
	if err != nil {
		return err
	}
	stored := map[string]backends.File{}
	for _, f := range files {
		stored[f.Name] = f
	}
	tiers := map[string]*tierCost{}
	for _, v := range volumes {
		if v.Missing {
			o.Missing++
			continue
		}
		o.Bytes += v.Fetch()
		o.Cached += v.Cached
		o.Requests += v.Requests
		o.MostRequests += v.MostRequests
		if v.MostRequests == 0 {
			continue
		}
		o.Volumes++
		if v.Whole {
			o.Whole++
		}
		f := stored[v.File]
		key := fmt.Sprint(f.Tier, f.Archived)
		if tiers[key] == nil {
			tiers[key] = &tierCost{Tier: f.Tier, Rehydrate: f.Archived}
		}
		t := tiers[key]
		t.Volumes++
		t.Bytes += v.Fetch()
		if f.Archived {
			t.RehydrateBytes += max(f.Size, 0)
		}
	}
	o.Tiers = []tierCost{}
	for _, t := range tiers {
		o.Tiers = append(o.Tiers, *t)
	}
	sort.Slice(o.Tiers, func(i, j int) bool {
		a, b := o.Tiers[i], o.Tiers[j]
		return a.Tier < b.Tier || a.Tier == b.Tier && !a.Rehydrate && b.Rehydrate
	})
	return nil
}

// print tells it to a person.
func (o *cost) print(w io.Writer, now time.Time) error {
	var b strings.Builder
	what := printable(o.Path)
	if o.Path == "." {
		what = "everything"
	}
	fmt.Fprintf(&b, "%s as of %s: %s, %s\n", what, o.Time, plural(o.Files, "file"), size(o.Size))
	if o.Volumes == 0 {
		fmt.Fprintf(&b, "nothing to fetch")
	} else {
		fmt.Fprintf(&b, "to fetch: %s in %s", size(o.Bytes), plural(o.Requests, "request"))
		if o.MostRequests > o.Requests {
			fmt.Fprintf(&b, " (at most %d)", o.MostRequests)
		}
		fmt.Fprintf(&b, " from %s", plural(o.Volumes, "volume"))
	}
	if o.Cached > 0 {
		fmt.Fprintf(&b, "; %s in the cache", size(o.Cached))
	}
	fmt.Fprintln(&b)
	for _, t := range o.Tiers {
		if t.Tier == "" && !t.Rehydrate {
			continue
		}
		fmt.Fprintf(&b, "tier %s: %s from %s", orNone(t.Tier), size(t.Bytes), plural(t.Volumes, "volume"))
		if t.Rehydrate {
			fmt.Fprintf(&b, ", which must be rehydrated before (%s)", size(t.RehydrateBytes))
		}
		fmt.Fprintln(&b)
	}
	if o.Unknown > 0 {
		fmt.Fprintf(&b, "where %s lie is not known yet: volumes that may hold them count wholly, as the first read does; `dupfs index` learns all\n", plural(o.Unknown, "file"))
	}
	if o.Missing > 0 {
		fmt.Fprintf(&b, "%s missing or damaged: `dupfs status` and `dupfs verify` tell more\n", plural(o.Missing, "volume"))
	}
	if at, err := time.Parse(time.RFC3339, o.Listed); err == nil && now.Sub(at) > time.Minute {
		fmt.Fprintf(&b, "as the archive was listed at %s; --refresh asks it\n", o.Listed)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
