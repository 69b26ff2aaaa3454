package retention

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dupfs/chain"
	"dupfs/internal/need"
)

// at is a fixed time and n days after it.
func at(days int) time.Time { return time.Unix(1700000000+86400*int64(days), 0).UTC() }

// set lists the files of a set, full if from < 0: m, s, i and digits stand for
// manifest, sigtar, index and volumes.
func set(from, to int, kinds string) []chain.Stored {
	var files []chain.Stored
	for _, kind := range kinds {
		n := chain.Name{Full: from < 0, Start: at(max(from, 0)), End: at(to), Layer: chain.Gzip}
		switch kind {
		case 'm':
			n.Kind, n.Layer = chain.ManifestFile, chain.Plain
		case 's':
			n.Kind = chain.SigtarFile
		case 'i':
			n.Kind = chain.IndexFile
		default:
			n.Kind, n.Volume = chain.VolumeFile, int(kind-'0')
		}
		if n.Full {
			n.Start = n.End
		}
		n.File = chain.Prefixes{}.Format(n)
		files = append(files, chain.Stored{Name: n, Size: 1})
	}
	return files
}

// brief names files by day and kind: "0-1:m".
func brief(files []chain.Stored) string {
	var words []string
	for _, f := range files {
		day := func(t time.Time) int64 { return (t.Unix() - at(0).Unix()) / 86400 }
		word := fmt.Sprint(day(f.End))
		if !f.Full {
			word = fmt.Sprintf("%d-%d", day(f.Start), day(f.End))
		}
		switch f.Kind {
		case chain.VolumeFile:
			word += fmt.Sprintf(":%d", f.Volume)
		case chain.ManifestFile:
			word += ":m"
		case chain.SigtarFile:
			word += ":s"
		case chain.IndexFile:
			word += ":i"
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// A policy keeps the newest chain of each span, and in any case the newest and
// the newest good one.
func TestPrune(t *testing.T) {
	var files []chain.Stored // a chain on each of 400 days from 14 November 2023 on
	for day := range 400 {
		files = append(files, set(-1, day, "1m")...)
	}
	files = append(files, set(399, 401, "1m")...)
	col := chain.Collect(files)
	good := func(days ...int) func(*chain.Chain) bool {
		return func(ch *chain.Chain) bool {
			return slices.ContainsFunc(days, func(d int) bool { return ch.Start().Equal(at(d)) })
		}
	}
	for _, test := range []struct {
		o    Policy
		good func(*chain.Chain) bool
		want string // days whose chains stay
	}{
		{Policy{Last: 3}, nil, "397 398 399"},
		{Policy{Daily: 3}, nil, "397 398 399"},
		// The last chain ends on Thursday, 19 December 2024; day 397 is the
		// Sunday before, 382 the last of November, 47 the last of 2023.
		{Policy{Weekly: 3}, nil, "390 397 399"},
		{Policy{Monthly: 3}, nil, "352 382 399"},
		{Policy{Yearly: 9}, nil, "47 399"},
		{Policy{Daily: 2, Yearly: 1, Weekly: 2}, nil, "397 398 399"},
		{Policy{Yearly: 1}, good(100, 200), "200 399"},
		{Policy{Last: 2}, good(), "398 399"},
	} {
		test.o.Location = time.UTC
		p := Prune(col, test.o, test.good)
		var stay []string
		for _, ch := range col.Chains {
			if !slices.Contains(p.Chains, ch) {
				stay = append(stay, fmt.Sprint((ch.Start().Unix()-at(0).Unix())/86400))
			}
		}
		if got := strings.Join(stay, " "); got != test.want {
			t.Errorf("%+v: %s stay, want %s", test.o, got, test.want)
		}
		if n := 2 * (400 - len(stay)); len(p.Delete) != n {
			t.Errorf("%+v: %d files are deleted, want %d", test.o, len(p.Delete), n)
		}
	}
	if p := Prune(chain.Collect(nil), Policy{Last: 1}, nil); len(p.Delete) > 0 {
		t.Error("of nothing something is deleted")
	}
}

func needed(p *Plan) string {
	var words []string
	for _, s := range p.Needed {
		words = append(words, fmt.Sprint((s.End.Unix()-at(0).Unix())/86400))
	}
	return strings.Join(words, " ")
}

func TestPlans(t *testing.T) {
	chains := slices.Concat(
		set(-1, 0, "12msi"), set(0, 1, "1ms"), set(1, 2, "1msi"),
		set(-1, 3, "1ms"), set(3, 5, "1m"),
		set(-1, 6, "1ms"), set(6, 8, "1ms"))
	// 10 12 has a fork at 10: 10-11, and 11-14 on that.
	forked := slices.Concat(set(-1, 10, "1m"), set(10, 11, "1m"), set(10, 12, "1m"), set(11, 14, "1m"), set(-1, 20, "1m"))
	broken := slices.Concat(set(-1, 0, "1ms"), set(0, 1, "1s"), set(1, 2, "1ms"), set(2, 3, "1m"), set(4, 5, "si"), set(-1, 6, "si"), set(5, 9, "1i"))
	older := func(days int) func(*chain.Collection) *Plan {
		return func(c *chain.Collection) *Plan { return RemoveOlderThan(c, at(days)) }
	}
	full := func(n int) func(*chain.Collection) *Plan {
		return func(c *chain.Collection) *Plan { return RemoveAllButNFull(c, n) }
	}
	inc := func(n int) func(*chain.Collection) *Plan {
		return func(c *chain.Collection) *Plan { return RemoveAllIncOfButNFull(c, n) }
	}
	const first = "1-2:m 1-2:i 1-2:s 1-2:1 0-1:m 0-1:s 0-1:1 0:m 0:i 0:s 0:1 0:2"
	const second = "3-5:m 3-5:1 3:m 3:s 3:1"
	tests := []struct {
		name           string
		files          []chain.Stored
		plan           func(*chain.Collection) *Plan
		delete, needed string
		activeOld      bool
		warnings       int
	}{
		{"nothing there", nil, older(9), "", "", false, 0},
		{"older than all", chains, older(0), "", "", false, 0},
		{"within the first", chains, older(2), "", "0 1", false, 0},
		{"just after the first", chains, older(3), first, "", false, 0},
		{"within the second", chains, older(4), first, "3", false, 0},
		{"all but the newest", chains, older(7), second + " " + first, "6", false, 0},
		{"newer than all", chains, older(100), second + " " + first, "", true, 0},
		{"newest without sigtars", slices.Concat(set(-1, 0, "1m"), set(-1, 1, "1m")), older(100), "0:m 0:1", "", true, 0},
		{"but 0", chains, full(0), "", "", false, 0},
		{"but 1", chains, full(1), second + " " + first, "", false, 0},
		{"but 2", chains, full(2), first, "", false, 0},
		{"but 3", chains, full(3), "", "", false, 0},
		{"but 4", chains, full(4), "", "", false, 0},
		{"inc 1", chains, inc(1), "3-5:m 3-5:1 1-2:m 1-2:i 1-2:s 1-2:1 0-1:m 0-1:s 0-1:1", "", false, 0},
		{"inc 2", chains, inc(2), "1-2:m 1-2:i 1-2:s 1-2:1 0-1:m 0-1:s 0-1:1", "", false, 0},
		{"inc 4", chains, inc(4), "", "", false, 0},
		{"fork goes with its chain", forked, older(15), "11-14:m 11-14:1 10-12:m 10-12:1 10-11:m 10-11:1 10:m 10:1", "", false, 0},
		{"fork keeps its chain", forked, older(14), "", "10 11 12", false, 0},
		{"incs of a fork", forked, inc(1), "11-14:m 11-14:1 10-12:m 10-12:1 10-11:m 10-11:1", "", false, 0},
		{"cleanup of nothing", chains, Cleanup, "", "", false, 0},
		{"cleanup leaves forks", forked, Cleanup, "", "", false, 1},
		{"cleanup", broken, Cleanup, "2-3:m 2-3:1 1-2:m 1-2:s 1-2:1 5-9:i 5-9:1 0-1:s 0-1:1 6:s 4-5:s 6:i 4-5:i", "", false, 2},
		{"loose and old", slices.Concat(set(-1, 0, "s"), set(-1, 3, "i"), set(-1, 9, "1m")), older(3), "0:s", "", false, 0},
	}
	for _, test := range tests {
		p := test.plan(chain.Collect(test.files))
		if got := brief(p.Delete); got != test.delete {
			t.Errorf("%s: deletes %s\nwant %s", test.name, got, test.delete)
		}
		if got := needed(p); got != test.needed || p.ActiveOld != test.activeOld {
			t.Errorf("%s: needs %q, active is old %v; want %q, %v", test.name, got, p.ActiveOld, test.needed, test.activeOld)
		}
		if len(p.Warnings) != test.warnings {
			t.Errorf("%s: warnings %q", test.name, p.Warnings)
		}
	}
}

// random lists an archive of a few sets whose times meet, no two of which end
// at one time.
func random(r *rand.Rand, sigtars bool) []chain.Stored {
	var files []chain.Stored
	ends := map[int]bool{}
	for range 1 + r.IntN(9) {
		to := r.IntN(12)
		if ends[to] {
			continue
		}
		ends[to] = true
		kinds := "1"
		if sigtars {
			kinds = "1s"
		}
		if sigtars || r.IntN(5) > 0 {
			kinds += "m"
		}
		if to == 0 || r.IntN(3) == 0 {
			files = append(files, set(-1, to, kinds)...)
		} else {
			files = append(files, set(r.IntN(to), to, kinds)...)
		}
	}
	return files
}

// TestSafe stops each plan after every number of deletions.
func TestSafe(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 300 {
		files := random(r, r.IntN(2) == 0)
		c := chain.Collect(files)
		when, n := at(r.IntN(13)), 1+r.IntN(3)
		for _, p := range []*Plan{RemoveOlderThan(c, when), RemoveAllButNFull(c, n), RemoveAllIncOfButNFull(c, n), Cleanup(c)} {
			gone := map[string]bool{}
			for _, f := range p.Delete {
				if gone[f.File] {
					t.Fatalf("%s is deleted twice", f.File)
				}
				gone[f.File] = true
				checkRest(t, c, files, gone)
			}
		}
	}
}

// checkRest checks that what is left in lines is whole, and that the newest
// chain and what is not deleted at all can still be restored.
func checkRest(t *testing.T, before *chain.Collection, files []chain.Stored, gone map[string]bool) {
	t.Helper()
	var rest []chain.Stored
	for _, f := range files {
		if !gone[f.File] {
			rest = append(rest, f)
		}
	}
	after := chain.Collect(rest)
	whole := map[string]int{}
	for _, l := range after.Lines {
		for _, s := range l.Sets {
			whole[s.Times()] = len(s.Files())
		}
	}
	for _, l := range before.Lines {
		for _, s := range l.Sets {
			n, there := whole[s.Times()]
			if there && n != len(s.Files()) {
				t.Fatalf("%s is not whole after deleting %v", s.Times(), gone)
			}
			if !there && !gone[s.Manifest.File] {
				t.Fatalf("%s cannot be restored after deleting %v", s.Times(), gone)
			}
		}
	}
	if n := len(before.Chains); n > 0 {
		for _, s := range before.Chains[n-1].Sets {
			if _, there := whole[s.Times()]; !there {
				t.Fatalf("%s, of the newest chain, is gone", s.Times())
			}
		}
	}
}

// TestStockChoice compares the chains chosen with duplicity's choice, where
// the newest chain has its sigtars: without them duplicity protects nothing.
func TestStockChoice(t *testing.T) {
	need.Program(t, "duplicity")
	type query struct {
		Names []string `json:"names"`
		Time  int64    `json:"time"`
		N     int      `json:"n"`
	}
	type answer struct {
		Active, Nth    int64
		Chains, Needed []int64
		AllButN        []int64 `json:"all_but_n"`
	}
	r := rand.New(rand.NewPCG(9, 10))
	var queries []query
	var archives [][]chain.Stored
	for range 500 {
		files := random(r, true)
		q := query{Time: at(r.IntN(13)).Unix() - int64(r.IntN(2)), N: 1 + r.IntN(4)}
		for _, f := range files {
			q.Names = append(q.Names, f.File)
		}
		queries, archives = append(queries, q), append(archives, files)
	}
	in, err := json.Marshal(queries)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/python3", "testdata/oracle.py")
	cmd.Stdin = bytes.NewReader(in)
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var answers []answer
	if err := json.Unmarshal(out, &answers); err != nil {
		t.Fatal(err)
	}
	compared := 0
	for i, a := range answers {
		c := chain.Collect(archives[i])
		if len(c.Lines) != len(c.Chains) || len(c.Chains) == 0 || a.Active != c.Chains[len(c.Chains)-1].End().Unix() {
			continue // forks, which duplicity does not know of; or no active chain
		}
		compared++
		p := RemoveOlderThan(c, time.Unix(queries[i].Time, 0))
		if got := ends(p.Chains); !same(got, a.Chains) {
			t.Errorf("%s older than %d: %v, want %v", brief(archives[i]), queries[i].Time, got, a.Chains)
		}
		var need []int64
		for _, s := range p.Needed {
			need = append(need, s.End.Unix())
		}
		if !same(need, a.Needed) {
			t.Errorf("%s needed %d: %v, want %v", brief(archives[i]), queries[i].Time, need, a.Needed)
		}
		if got := ends(RemoveAllButNFull(c, queries[i].N).Chains); !same(got, a.AllButN) {
			t.Errorf("%s but %d: %v, want %v", brief(archives[i]), queries[i].N, got, a.AllButN)
		}
	}
	if compared < 100 {
		t.Errorf("only %d archives were compared", compared)
	}
}

func ends(chains []*chain.Chain) (ts []int64) {
	for _, c := range chains {
		ts = append(ts, c.End().Unix())
	}
	return ts
}

// same compares as sets.
func same(a, b []int64) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// TestStockForce lets duplicity itself remove things from copies of an archive
// of three chains (days 0 to 2, 4, and 5 to 6, roughly), and compares what is
// left.
func TestStockForce(t *testing.T) {
	duplicity := need.Program(t, "duplicity")
	times := []string{"20231114T221320Z", "20231116T020000Z", "20231117T054640Z", "20231118T093320Z", "20231119T132000Z", "20231120T170640Z"}
	inc := func(i int) string { return times[i] + ".to." + times[i+1] }
	older := func(s string) ([]string, func(*chain.Collection) *Plan) {
		return []string{"remove-older-than", s}, func(c *chain.Collection) *Plan {
			when, ok := chain.ParseTime(s)
			if !ok {
				t.Fatal(s)
			}
			return RemoveOlderThan(c, when)
		}
	}
	number := func(verb string, n int, f func(*chain.Collection, int) *Plan) ([]string, func(*chain.Collection) *Plan) {
		return []string{verb, fmt.Sprint(n)}, func(c *chain.Collection) *Plan { return f(c, n) }
	}
	type test struct {
		name   string
		remove []string // before
		args   []string
		plan   func(*chain.Collection) *Plan
	}
	var tests []test
	add := func(name string, args []string, plan func(*chain.Collection) *Plan, remove ...string) {
		tests = append(tests, test{name, remove, args, plan})
	}
	for _, s := range append(slices.Clone(times), "20231119T132001Z", "20301231T000000Z") {
		args, plan := older(s)
		add(s, args, plan)
	}
	for n := 1; n < 5; n++ {
		args, plan := number("remove-all-but-n-full", n, RemoveAllButNFull)
		add(fmt.Sprint("but ", n), args, plan)
		args, plan = number("remove-all-inc-of-but-n-full", n, RemoveAllIncOfButNFull)
		add(fmt.Sprint("inc of but ", n), args, plan)
	}
	cleanup := []string{"cleanup"}
	add("cleanup of nothing", cleanup, Cleanup)
	add("cleanup, a manifest lost", cleanup, Cleanup, "duplicity-inc."+inc(0)+".manifest")
	add("cleanup, the last manifest lost", cleanup, Cleanup, "duplicity-inc."+inc(4)+".manifest")
	add("cleanup, the full lost", cleanup, Cleanup, "duplicity-full."+times[0]+".manifest", "duplicity-full-signatures."+times[0]+".sigtar.gz")
	add("cleanup, an increment lost", cleanup, Cleanup, "duplicity-inc."+inc(0)+".manifest", "duplicity-inc."+inc(0)+".vol1.difftar.gz", "duplicity-new-signatures."+inc(0)+".sigtar.gz")
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := archive(t, test.remove)
			before := names(t, dir)
			args := slices.Concat(test.args, []string{"--force", "--no-encryption", "--archive-dir", t.TempDir(), "file://" + dir})
			if out, err := exec.Command(duplicity, args...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			gone := map[string]bool{}
			for _, f := range test.plan(collect(before)).Delete {
				gone[f.File] = true
			}
			rest := slices.DeleteFunc(before, func(name string) bool { return gone[name] })
			stock := names(t, dir)
			if test.args[0] == "cleanup" {
				stock = withoutLoose(stock)
			}
			if !slices.Equal(rest, stock) {
				t.Errorf("we leave\n%s\nduplicity leaves\n%s", strings.Join(rest, "\n"), strings.Join(stock, "\n"))
			}
		})
	}
}

func collect(names []string) *chain.Collection {
	var files []chain.Stored
	for _, name := range names {
		n, _ := chain.ParseName(name, chain.Prefixes{})
		files = append(files, chain.Stored{Name: n})
	}
	return chain.Collect(files)
}

// withoutLoose takes out the sigtars of no set, which duplicity leaves where
// they still follow each other.
func withoutLoose(names []string) []string {
	loose := collect(names).LooseSigtars
	return slices.DeleteFunc(names, func(name string) bool {
		return slices.ContainsFunc(loose, func(f chain.Stored) bool { return f.File == name })
	})
}

// archive copies the test archive without some files.
func archive(t *testing.T, without []string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/multichain")); err != nil {
		t.Fatal(err)
	}
	for _, name := range without {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}
