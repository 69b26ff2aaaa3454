package chain

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

	"dupfs/internal/need"
)

// listing makes what a store lists from names.
func listing(names ...string) []Stored {
	var files []Stored
	for i, name := range names {
		n, _ := ParseName(name, Prefixes{})
		files = append(files, Stored{Name: n, Size: int64(100 + i)})
	}
	return files
}

// set returns the names of the files of a set; sort is of the letters m, s, i
// and 1 to 9 for manifest, sigtar, index and volumes. from < 0: a full set.
func set(from, to int, sorts string) []string {
	var names []string
	for _, sort := range sorts {
		n := Name{Full: from < 0, Start: at(max(from, 0)), End: at(to), Layer: Gzip}
		switch sort {
		case 'm':
			n.Kind, n.Layer = ManifestFile, Plain
		case 's':
			n.Kind = SigtarFile
		case 'i':
			n.Kind = IndexFile
		case 'j':
			n.Kind = JSONStatFile
		default:
			n.Kind, n.Volume = VolumeFile, int(sort-'0')
		}
		if n.Full {
			n.Start = n.End
		}
		names = append(names, Prefixes{}.Format(n))
	}
	return names
}

// short describes sets by days since the first time: "0 0-1 1-2".
func short(sets []*Set) string {
	var words []string
	day := func(s int64) int64 { return (s - at(0).Unix()) / 86400 }
	for _, s := range sets {
		if s.Full {
			words = append(words, fmt.Sprint(day(s.End.Unix())))
		} else {
			words = append(words, fmt.Sprintf("%d-%d", day(s.Start.Unix()), day(s.End.Unix())))
		}
	}
	return strings.Join(words, " ")
}

func describe(c *Collection) string {
	var b strings.Builder
	for _, ch := range c.Chains {
		fmt.Fprintf(&b, "chain %s\n", short(ch.Sets))
	}
	for _, l := range c.Lines {
		if l.Fork {
			fmt.Fprintf(&b, "fork of %s: %s\n", short(l.Chain.Sets[:1]), short(l.Sets))
		}
	}
	if len(c.Orphaned) > 0 {
		fmt.Fprintf(&b, "orphaned %s\n", short(c.Orphaned))
	}
	if len(c.Incomplete) > 0 {
		fmt.Fprintf(&b, "incomplete %s\n", short(c.Incomplete))
	}
	for _, s := range c.LooseSigtars {
		fmt.Fprintf(&b, "loose %s\n", s.File)
	}
	for _, s := range c.LooseIndexes {
		fmt.Fprintf(&b, "loose %s\n", s.File)
	}
	for _, s := range c.Unknown {
		fmt.Fprintf(&b, "unknown %s\n", s)
	}
	return b.String()
}

func TestCollect(t *testing.T) {
	tests := []struct {
		name  string
		files [][]string
		want  string
	}{
		{"nothing", nil, ""},
		{"one chain", [][]string{set(-1, 0, "1ms"), set(0, 1, "1ms"), set(1, 2, "1msi")}, "chain 0 0-1 1-2\n"},
		{"two chains", [][]string{set(-1, 0, "1ms"), set(0, 2, "1ms"), set(-1, 1, "1ms")}, "chain 1\nchain 0 0-2\n"},
		{"no manifest", [][]string{set(-1, 0, "1ms"), set(0, 1, "1s")}, "chain 0\nincomplete 0-1\n"},
		{"manifest of the middle lost", [][]string{set(-1, 0, "1ms"), set(0, 1, "1s"), set(1, 2, "1ms")},
			"chain 0\norphaned 1-2\nincomplete 0-1\n"},
		{"full lost", [][]string{set(0, 1, "1ms"), set(1, 2, "1ms")}, "orphaned 0-1 1-2\n"},
		{"fork", [][]string{set(-1, 0, "1ms"), set(0, 1, "1ms"), set(1, 2, "1ms"), set(1, 3, "1ms"), set(3, 4, "1ms")},
			"chain 0 0-1 1-3 3-4\nfork of 0: 0 0-1 1-2\n"},
		{"fork twice", [][]string{set(-1, 0, "1m"), set(0, 1, "1m"), set(0, 2, "1m"), set(0, 3, "1m")},
			"chain 0 0-3\nfork of 0: 0 0-1\nfork of 0: 0 0-2\n"},
		{"fork goes on", [][]string{set(-1, 0, "1m"), set(0, 1, "1m"), set(0, 2, "1m"), set(1, 3, "1m"), set(3, 4, "1m")},
			"chain 0 0-2\nfork of 0: 0 0-1 1-3 3-4\norphaned 1-3 3-4\n"},
		{"fork too early", [][]string{set(-1, 0, "1m"), set(0, 1, "1m"), set(1, 2, "1m"), set(0, 3, "1m")},
			"chain 0 0-1 1-2\nfork of 0: 0 0-3\norphaned 0-3\n"},
		{"loose", [][]string{set(-1, 0, "1m"), set(0, 1, "si"), set(0, 2, "j"), {"x", "df.s44we8.0.dt"}},
			"chain 0\nloose duplicity-new-signatures.20231114T221320Z.to.20231115T221320Z.sigtar.gz\n" +
				"loose dupfs-index.20231114T221320Z.to.20231115T221320Z.gz\n" +
				"unknown df.s44we8.0.dt\nunknown duplicity-inc.20231114T221320Z.to.20231116T221320Z.jsonstat.gz\nunknown x\n"},
		{"only parts", [][]string{{"duplicity-full.20231114T221320Z.manifest.part"}, set(-1, 0, "12")}, "incomplete 0\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			files := listing(slices.Concat(test.files...)...)
			for range 5 {
				if got := describe(Collect(files)); got != test.want {
					t.Fatalf("got\n%swant\n%s", got, test.want)
				}
				rand.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
			}
		})
	}
}

func TestDuplicates(t *testing.T) {
	files := listing(
		"duplicity-full.20231114T221320Z.vol1.difftar.gz",
		"duplicity-full.20231114T221320Z.vol1.difftar.gz.idx",
		"duplicity-full.20231114T221320Z.vol1.difftar.gpg",
		"duplicity-full.20231114T221320Z.vol2.difftar.old",
		"duplicity-full.20231114T221320Z.vol2.difftar.gpg",
		"duplicity-full.20231114T221320Z.vol2.difftar.gpg", // listed twice
		"df.s44we8.3.dt.z",
		"df.s44we8.m",
		"duplicity-full.20231114T221320Z.manifest.gpg",
		"duplicity-full.20231114T221320Z.manifest.part",
		"duplicity-full-signatures.20231114T221320Z.sigtar.gz",
		"duplicity-full-signatures.20231114T221320Z.sigtar.gz.1",
		"duplicity-full.20231114T221320Z.jsonstat.gz",
		"dupfs-index.20231114T221320Z.gz",
		"dupfs-index.20231114T221320Z.gpg")
	for range 10 {
		rand.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
		c := Collect(files)
		if len(c.Chains) != 1 || len(c.Chains[0].Sets) != 1 {
			t.Fatal(describe(c))
		}
		s := c.Chains[0].Sets[0]
		var volumes, dups []string
		for _, f := range s.Volumes {
			volumes = append(volumes, f.File)
		}
		for _, f := range s.Duplicates {
			dups = append(dups, f.File)
		}
		got := []string{s.Manifest.File, s.Sigtar.File, s.Index.File, s.JSONStat.File, strings.Join(volumes, " "), strings.Join(dups, " ")}
		want := []string{
			"duplicity-full.20231114T221320Z.manifest.gpg",
			"duplicity-full-signatures.20231114T221320Z.sigtar.gz",
			"dupfs-index.20231114T221320Z.gz",
			"duplicity-full.20231114T221320Z.jsonstat.gz",
			"duplicity-full.20231114T221320Z.vol1.difftar.gpg duplicity-full.20231114T221320Z.vol2.difftar.gpg df.s44we8.3.dt.z",
			"df.s44we8.m dupfs-index.20231114T221320Z.gpg duplicity-full-signatures.20231114T221320Z.sigtar.gz.1 " +
				"duplicity-full.20231114T221320Z.manifest.part duplicity-full.20231114T221320Z.vol1.difftar.gz " +
				"duplicity-full.20231114T221320Z.vol1.difftar.gz.idx duplicity-full.20231114T221320Z.vol2.difftar.old",
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if n := len(s.Files()); n != len(files)-1 || s.Files()[0].Kind != ManifestFile {
			t.Fatalf("%d files, want %d, the manifest first", n, len(files)-1)
		}
	}
}

func TestBase(t *testing.T) {
	tests := []struct {
		files [][]string
		want  string
	}{
		{nil, ""},
		{[][]string{set(-1, 0, "1ms"), set(0, 1, "1ms")}, "0 0-1"},
		{[][]string{set(-1, 0, "1ms"), set(0, 1, "1m")}, "0"},
		{[][]string{set(-1, 0, "1ms"), set(0, 1, "1m"), set(1, 2, "1ms")}, ""},
		{[][]string{set(-1, 0, "1m")}, ""},
		{[][]string{set(-1, 0, "1ms"), set(-1, 2, "1m")}, ""},
		{[][]string{set(-1, 0, "1ms"), set(-1, 2, "1ms"), set(0, 1, "1ms")}, "2"},
	}
	for _, test := range tests {
		if got := short(Collect(listing(slices.Concat(test.files...)...)).Base()); got != test.want {
			t.Errorf("%v: base %q, want %q", test.files, got, test.want)
		}
	}
}

// status writes what duplicity's collection-status prints of chains.
func status(c *Collection) string {
	var b strings.Builder
	const line = "-------------------------\n"
	chain := func(ch *Chain) {
		volumes := 0
		for _, s := range ch.Sets {
			volumes += len(s.Volumes)
		}
		fmt.Fprintf(&b, "%sChain start time: %s\nChain end time: %s\n", line, ch.Start().Format("Mon Jan _2 15:04:05 2006"), ch.End().Format("Mon Jan _2 15:04:05 2006"))
		fmt.Fprintf(&b, "Number of contained backup sets: %d\nTotal number of contained volumes: %d\n", len(ch.Sets), volumes)
		fmt.Fprintf(&b, " Type of backup set:                            Time:      Num volumes:\n")
		for _, s := range ch.Sets {
			kind := "Incremental"
			if s.Full {
				kind = "Full"
			}
			fmt.Fprintf(&b, "%20s %32s %17d\n", kind, s.End.Format("Mon Jan _2 15:04:05 2006"), len(s.Volumes))
		}
		b.WriteString(line + "\n")
	}
	last := len(c.Chains) - 1
	fmt.Fprintf(&b, "Found %d secondary backup chain%s.\n", last, map[bool]string{false: "s"}[last == 1])
	for i, ch := range c.Chains[:last] {
		fmt.Fprintf(&b, "Secondary chain %d of %d:\n", i+1, last)
		chain(ch)
	}
	b.WriteString("\nFound primary backup chain with matching signature chain:\n")
	chain(c.Chains[last])
	text := strings.TrimSuffix(b.String(), "\n")
	if len(c.Orphaned)+len(c.Incomplete) == 0 {
		return text + "No orphaned or incomplete backup sets found.\n"
	}
	return text + fmt.Sprintf("Also found %d backup set not part of any chain,\nand %d incomplete backup set.\n"+
		"These may be deleted by running duplicity with the \"cleanup\" command.\n", len(c.Orphaned), len(c.Incomplete))
}

// TestStatus compares with what duplicity 0.8.22 said of real archives.
func TestStatus(t *testing.T) {
	lists, err := filepath.Glob("testdata/status/*.files")
	if err != nil || len(lists) == 0 {
		t.Fatal("no listings", err)
	}
	for _, list := range lists {
		names, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(strings.TrimSuffix(list, "files") + "txt")
		if err != nil {
			t.Fatal(err)
		}
		c := Collect(listing(strings.Fields(string(names))...))
		if got := status(c); got != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", list, got, want)
		}
	}
}

func FuzzCollect(f *testing.F) {
	f.Add(strings.Join(slices.Concat(set(-1, 0, "12msi"), set(0, 1, "1ms"), set(0, 2, "1m"), set(1, 3, "1m"), set(5, 6, "ms")), "\n"))
	f.Add("df.s44we8.m\ndi.s44we8.s471k0.m\ndupfs-index.20231114T221320Z\nx")
	f.Fuzz(func(t *testing.T, names string) {
		files := listing(strings.Split(names, "\n")...)
		checkCollection(t, files)
	})
}

// checkCollection checks what must hold for any listing.
func checkCollection(t *testing.T, files []Stored) {
	t.Helper()
	c := Collect(files)
	before := describe(c)
	slices.Reverse(files)
	if after := describe(Collect(files)); after != before {
		t.Fatalf("the order of the listing counts:\n%s\n%s", before, after)
	}
	have, seen := map[string]bool{}, map[string]int{}
	for _, f := range files {
		have[f.File] = true
	}
	inLine := map[*Set]bool{}
	for _, l := range c.Lines {
		for i, s := range l.Sets {
			inLine[s] = true
			if s.Full != (i == 0) || !s.Complete() {
				t.Fatalf("line %s: set %d", short(l.Sets), i)
			}
			if i > 0 && !s.Start.Equal(l.Sets[i-1].End) {
				t.Fatalf("line %s breaks", short(l.Sets))
			}
		}
	}
	sets := map[*Set]bool{}
	for _, s := range slices.Concat(c.Orphaned, c.Incomplete) {
		sets[s] = true
	}
	for s := range inLine {
		sets[s] = true
	}
	for s := range sets {
		for _, f := range s.Files() {
			seen[f.File]++
		}
	}
	for _, f := range slices.Concat(c.LooseSigtars, c.LooseIndexes) {
		seen[f.File]++
	}
	for _, f := range c.Unknown {
		seen[f]++
	}
	for f := range have {
		if seen[f] != 1 {
			t.Fatalf("%q is in %d places:\n%s", f, seen[f], before)
		}
	}
	if len(seen) != len(have) {
		t.Fatalf("%d files out of %d", len(seen), len(have))
	}
}

// stock asks the installed duplicity about listings.
func stock(t *testing.T, listings [][]string) []json.RawMessage {
	t.Helper()
	need.Program(t, "duplicity")
	in, err := json.Marshal(listings)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/python3", "testdata/oracle.py")
	cmd.Stdin = bytes.NewReader(in)
	cmd.Env = append(os.Environ(), "TZ=UTC", "TMPDIR="+t.TempDir())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.Bytes())
	}
	var answers []json.RawMessage
	if err := json.Unmarshal(out, &answers); err != nil {
		t.Fatal(err)
	}
	return answers
}

// ours answers as the oracle does.
func ours(c *Collection) any {
	times := func(s *Set) string {
		if s.Full {
			return fmt.Sprint(s.End.Unix())
		}
		return fmt.Sprintf("%d-%d", s.Start.Unix(), s.End.Unix())
	}
	list := func(sets []*Set) []string {
		words := []string{}
		for _, s := range sets {
			words = append(words, times(s))
		}
		return words
	}
	sorted := func(sets []*Set) []string { words := list(sets); slices.Sort(words); return words }
	chains, volumes := [][]string{}, [][]int{}
	for _, ch := range c.Chains {
		chains = append(chains, list(ch.Sets))
		counts := []int{}
		for _, s := range ch.Sets {
			counts = append(counts, len(s.Volumes))
		}
		volumes = append(volumes, counts)
	}
	return map[string]any{"chains": chains, "volumes": volumes, "orphaned": sorted(c.Orphaned), "incomplete": sorted(c.Incomplete)}
}

// TestStockCollect makes random archives and compares with duplicity's own
// view of them: names first, then how sets join into chains.
func TestStockCollect(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var listings [][]string
	for range 400 {
		listings = append(listings, []string{randomName(r)})
	}
	for range 400 {
		listings = append(listings, randomSets(r))
	}
	for i, answer := range stock(t, listings) {
		if string(answer) == `"died"` {
			continue
		}
		got, err := json.Marshal(ours(Collect(listing(listings[i]...))))
		if err != nil {
			t.Fatal(err)
		}
		if canonical(t, got) != canonical(t, answer) {
			t.Errorf("%s\n got %s\nwant %s", strings.Join(listings[i], "\n"), canonical(t, got), canonical(t, answer))
		}
	}
}

// randomSets lists an archive of a few sets, on few days so that they meet.
// No two sets end at one time: duplicity's choice then hangs on the order of
// the listing. There are no sigtars: duplicity takes a last set that alone has
// none out of its chain, which is what Base is for.
func randomSets(r *rand.Rand) []string {
	var names []string
	ends := map[int]bool{}
	for range 1 + r.IntN(9) {
		to := r.IntN(12)
		if ends[to] {
			continue
		}
		ends[to] = true
		files := "1"
		if r.IntN(6) > 0 {
			files += "m"
		}
		if r.IntN(3) == 0 {
			files += "2"
		}
		if r.IntN(4) == 0 || to == 0 {
			names = append(names, set(-1, to, files)...)
		} else {
			names = append(names, set(r.IntN(to), to, files)...)
		}
	}
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return names
}

func canonical(t *testing.T, raw []byte) string {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	for _, key := range []string{"orphaned", "incomplete"} {
		slices.SortFunc(v[key].([]any), func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
