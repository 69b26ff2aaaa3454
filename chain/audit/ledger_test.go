package audit

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dupfs/backends"
	"dupfs/backends/backendtest"
	"dupfs/chain"
	"dupfs/chain/manifest"
)

func stored(name string, size int64) File {
	return File{Stored: chain.Stored{Name: chain.Name{File: name}, Size: size}}
}

// The files that were not looked at for longest come first, and what was saved
// is remembered, of the files that are still there.
func TestLedger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "verified")
	l, err := OpenLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	a, b, c, lost := stored("a", 10), stored("b", 20), stored("c", 30), stored("d", -1)
	files := []File{a, b, c, lost}
	if got := l.Coverage(files); got != (Coverage{Total: 60}) {
		t.Errorf("before: %+v", got)
	}
	old, now := time.Unix(1700000000, 0), time.Unix(1800000000, 0)
	l.Note(a, now)
	l.Note(b, old)
	l.Note(c, now)
	l.Note(c, time.Time{})
	l.Note(stored("gone", 5), now)
	if err := l.Save(files); err != nil {
		t.Fatal(err)
	}
	if l, err = OpenLedger(path); err != nil {
		t.Fatal(err)
	}
	if got := l.Coverage(append(files, stored("gone", 5))); got != (Coverage{30, 65, old}) {
		t.Errorf("after: %+v", got)
	}
	if got := l.Coverage([]File{stored("a", 11)}); got.Bytes != 0 {
		t.Errorf("of another size: %+v", got)
	}
	for bytes, want := range map[int64]string{0: "c", 30: "c", 31: "cdb", 51: "cdba", 1000: "cdba"} {
		var got strings.Builder
		for _, f := range l.Pick(files, bytes) {
			got.WriteString(f.File)
		}
		if got.String() != want {
			t.Errorf("%d bytes: %s, want %s", bytes, got.String(), want)
		}
	}
	if got := l.Pick(nil, 10); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

// A ledger that makes no sense is an empty one; one that cannot be read, or
// written, is an error, and nothing is left beside it.
func TestLedgerFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "verified")
	for _, text := range []string{"", "null", "{", "[]", `{"a":{"size":"x"}}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := OpenLedger(path)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		l.Note(stored("a", 1), time.Unix(1700000000, 0))
		if err := l.Save([]File{stored("a", 1)}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	if _, err := OpenLedger(dir); err == nil {
		t.Error("a directory was read")
	}
	l := &Ledger{path: dir}
	if err := l.Save(nil); err == nil || !strings.Contains(err.Error(), "cannot be noted") {
		t.Errorf("in the place of a directory: %v", err)
	}
	l = &Ledger{path: filepath.Join(dir, "not there", "verified")}
	if err := l.Save(nil); err == nil {
		t.Error("written in a directory that is not there")
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		t.Errorf("left: %v, %v", all, err)
	}
}

// What the store says of a file counts as far as it can.
func TestCompareSums(t *testing.T) {
	volume := chain.VolumeFile
	for _, tt := range []struct {
		name       string
		kind       chain.Kind
		told, seen string
		sums       []string
		want       Verdict
	}{
		{"the store tells nothing", volume, "", "", []string{"a"}, Unsure},
		{"nothing to compare with", volume, "a", "", nil, Unsure},
		{"as the manifest says", volume, "a", "", []string{"a"}, Same},
		{"as it was when it was read", volume, "a", "a", []string{"b"}, Same},
		{"another volume", volume, "a", "", []string{"b"}, Differs},
		{"other signatures, which may be new ones", chain.SigtarFile, "a", "", []string{"b"}, Suspect},
		{"in parts", volume, "a-2", "", []string{"b", "a-2"}, Same},
		{"in as many parts", volume, "a-2", "", []string{"c-2"}, Suspect},
		{"in more parts", volume, "a-2", "", []string{"c-3"}, Unsure},
		{"in parts, and the manifest knows of none", volume, "a-2", "", []string{"b"}, Unsure},
	} {
		f := stored("f", 10)
		f.Kind, f.Told, f.Sums = tt.kind, tt.told, tt.sums
		l := &Ledger{seen: map[string]entry{}}
		if tt.seen != "" {
			g := f
			g.Told = tt.seen
			l.Note(g, time.Unix(1700000000, 0))
		}
		if got := l.compare(f); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if got := sums(manifest.Volume{HasMD5: true, Parts: [16]byte{1}, PartSize: 10}, 21); !slices.Equal(got,
		[]string{strings.Repeat("0", 32), "01" + strings.Repeat("0", 30) + "-3"}) {
		t.Errorf("sums %v", got)
	}
}

// Without a download: files that are what they were, one that is another, and
// a store that does not answer when it is asked once more.
func TestCompare(t *testing.T) {
	b := archive(t, chain.Gzip)
	volume := place{chain.VolumeFile, false, 1}.name(t, b)
	for _, tt := range []struct {
		name  string
		fault *backendtest.Fault
		want  Verdict
		err   bool
	}{
		{"whole", nil, Same, false},
		{"another", nil, Differs, false},
		{"no answer", &backendtest.Fault{Op: backendtest.Stat, Name: volume}, Unsure, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want != Same {
				backendtest.Write(t, b, volume, []byte("another"))
			}
			faulty := backendtest.NewFaulty(b)
			if tt.fault != nil {
				faulty.Add(*tt.fault)
			}
			count := backendtest.NewCount(faulty)
			verdicts(t, count, volume, tt.want, tt.err)
			if n := count.Of(backendtest.Get).Calls; n != 4 { // manifests and indexes
				t.Errorf("%d files were read", n)
			}
		})
	}
}

// verdicts compares all volumes; only that one may have another verdict than Same.
func verdicts(t *testing.T, b backends.Backend, volume string, want Verdict, fails bool) {
	t.Helper()
	files, _, err := look(t, b, chain.Gzip, false)
	if err != nil {
		t.Fatal(err)
	}
	st := openStore(t, b, chain.Gzip)
	l := &Ledger{seen: map[string]entry{}}
	for _, f := range files {
		got, err := l.Compare(t.Context(), st, f)
		switch {
		case f.Kind != chain.VolumeFile:
		case f.File == volume:
			if got != want || (err != nil) != fails {
				t.Errorf("%s: %v, %v, want %v", f.File, got, err, want)
			}
		case got != Same || err != nil:
			t.Errorf("%s: %v, %v", f.File, got, err)
		}
	}
}
