package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const fixtureDir = "../../testdata/fixtures"

// expectedEntry is an entry of a fixture's listing.
type expectedEntry struct {
	Path   string  `json:"path"`
	B64    string  `json:"path_b64"`
	Type   string  `json:"type"`
	Mode   string  `json:"mode"`
	UID    uint32  `json:"uid"`
	GID    uint32  `json:"gid"`
	Mtime  int64   `json:"mtime"`
	Size   int64   `json:"size"`
	SHA256 string  `json:"sha256"`
	Target string  `json:"target_b64"`
	Rdev   []int64 `json:"rdev"`
}

// line writes what is compared. The time of a link is that of the restore, so
// the listings do not have it.
func (e expectedEntry) line(t *testing.T) string {
	path, err := base64.StdEncoding.DecodeString(e.B64)
	if err != nil {
		t.Fatal(err)
	}
	target, _ := base64.StdEncoding.DecodeString(e.Target)
	mtime := e.Mtime
	if e.Type == "link" {
		mtime = 0
	}
	return fmt.Sprintf("%q %s %s %d:%d mtime %d size %d sha %s -> %q rdev %v",
		path, e.Type, e.Mode, e.UID, e.GID, mtime, e.Size, e.SHA256, target, e.Rdev)
}

// fixture is a chain that was made by a real program.
type fixture struct {
	Name      string `json:"name"`
	KeyFile   string `json:"key_file"` // of the secret key; "": there is a passphrase
	Signer    string `json:"signer"`   // "": nothing is signed
	Snapshots []struct {
		Time    int64  `json:"time"`
		Label   string `json:"label"`
		Restore string `json:"restore"`
		Source  string `json:"source"`
	} `json:"snapshots"`
	dir string
}

// fixtures returns all fixtures with an archive of their own.
func fixtures(t *testing.T) []fixture {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(fixtureDir, "*", "fixture.json"))
	if err != nil || len(names) < 6 {
		t.Fatalf("%d fixtures, %v", len(names), err)
	}
	var all []fixture
	for _, n := range names {
		text, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		var f fixture
		if err := json.Unmarshal(text, &f); err != nil {
			t.Fatal(err)
		}
		f.dir = filepath.Dir(n)
		all = append(all, f)
	}
	return all
}

// open returns the options that open the archive, the URL last.
func (f fixture) open(t *testing.T) []string {
	t.Helper()
	dir, err := filepath.Abs(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	var args []string
	if f.KeyFile != "" {
		args = append(args, "--gpg-binary=/nonexistent/gpg", "--key-file", filepath.Join(dir, f.KeyFile))
	}
	if f.Signer != "" {
		args = append(args, "--sign-key", f.Signer)
	}
	return append(args, "file://"+filepath.Join(dir, "archive"))
}

// expected returns the lines of a point's listing: what stock restored, which
// in the fixtures kept here is right wherever the point exists.
func (f fixture) expected(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(f.dir, file))
	if err != nil {
		t.Fatal(err)
	}
	var entries []expectedEntry
	if err := json.Unmarshal(text, &entries); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, e := range entries {
		lines = append(lines, e.line(t))
	}
	return lines
}

// absentPoints are points of a fixture that cannot be read, because a set is
// missing: stock restores an older state in their place, in silence.
var absentPoints = map[string][]string{
	"orphans": {"1-incremental", "2-incremental"},
}

func TestFixtures(t *testing.T) {
	for _, f := range fixtures(t) {
		t.Run(f.Name, func(t *testing.T) { testFixture(t, f) })
	}
}

func testFixture(t *testing.T, f fixture) {
	w := newWorld(t)
	archive := f.open(t)
	url := archive[len(archive)-1]
	with := func(args ...string) []string { return append(args, archive...) }
	mnt, _ := w.mount(url, archive[:len(archive)-1]...)
	if absentPoints[f.Name] == nil {
		w.dupfs(with("verify", "--all-points")...)
	}
	for _, s := range f.Snapshots {
		t.Run(s.Label, func(t *testing.T) {
			at := fmt.Sprint(s.Time)
			point := filepath.Join(mnt, "snapshots", time.Unix(s.Time, 0).UTC().Format(time.RFC3339))
			if slices.Contains(absentPoints[f.Name], s.Label) {
				if _, err := os.ReadDir(point); err == nil {
					t.Errorf("%s can be listed, but its set is not whole", point)
				}
				if _, err := os.Lstat(point); err == nil { // it has a manifest
					if reason := fact(t, point, "damaged"); !strings.Contains(reason, "missing") {
						t.Errorf("%s: damaged %q", point, reason)
					}
				}
				w.sh("find " + mnt + "/versions " + mnt + "/deleted > walk && grep -q 2 walk")
				r := w.exec(nil, binary, append(with("restore", "--time", at), w.path("absent"))...)
				if r.code == exitOK && !strings.Contains(r.stderr, "warning: ") {
					t.Errorf("an older state was restored in silence: %s", r.stderr)
				}
				return
			}
			want := f.expected(t, s.Restore)
			compareLines(t, "mount", diskLines(t, point), want)

			out := w.path("restored-" + s.Label)
			w.dupfs(append(with("restore", "--numeric-owner", "--time", at), out)...)
			compareLines(t, "restore", diskLines(t, out), want)

			compareLines(t, "ls --json", jsonLines(t, w.dupfs(with("ls", "-R", "--json", "--time", at)...), want), want)
		})
	}
}

// compareLines reports how two listings differ.
func compareLines(t *testing.T, what string, got, want []string) {
	t.Helper()
	gs, ws := map[string]bool{}, map[string]bool{}
	for _, l := range got {
		gs[l] = true
	}
	for _, l := range want {
		ws[l] = true
	}
	shown := 0
	for _, l := range want {
		if !gs[l] && shown < 20 {
			shown++
			t.Errorf("%s lacks   %s", what, l)
		}
	}
	for _, l := range got {
		if !ws[l] && shown < 40 {
			shown++
			t.Errorf("%s has     %s", what, l)
		}
	}
	if shown == 0 && !slices.Equal(got, want) {
		t.Errorf("%s: order or number differs: %d entries for %d", what, len(got), len(want))
	}
}

// diskLines lists a directory, or a single file, in path order.
func diskLines(t *testing.T, dir string) []string {
	t.Helper()
	var lines []string
	var visit func(name, rel string)
	visit = func(name, rel string) {
		e, isDir := diskEntry(t, name, rel)
		lines = append(lines, e.line(t))
		if !isDir {
			return
		}
		names, err := os.ReadDir(name) // sorted by bytes
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			below := n.Name()
			if rel != "." {
				below = rel + "/" + n.Name()
			}
			visit(name+"/"+n.Name(), below)
		}
	}
	visit(dir, ".")
	return lines
}

// diskEntry looks at one file.
func diskEntry(t *testing.T, name, rel string) (e expectedEntry, isDir bool) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	e = expectedEntry{
		B64: base64.StdEncoding.EncodeToString([]byte(rel)), Mode: fmt.Sprintf("%04o", st.Mode&0o7777),
		UID: st.Uid, GID: st.Gid, Mtime: st.Mtim.Sec,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		e.Type, e.Size, e.SHA256 = "file", st.Size, fileHash(t, name)
	case unix.S_IFDIR:
		e.Type = "dir"
	case unix.S_IFLNK:
		target, err := os.Readlink(name)
		if err != nil {
			t.Fatal(err)
		}
		e.Type, e.Target = "link", base64.StdEncoding.EncodeToString([]byte(target))
	case unix.S_IFIFO:
		e.Type = "fifo"
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Type = "chr"
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			e.Type = "blk"
		}
		e.Rdev = []int64{int64(unix.Major(uint64(st.Rdev))), int64(unix.Minor(uint64(st.Rdev)))}
	}
	return e, e.Type == "dir"
}

func fileHash(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// jsonLines turns the output of ls --json into lines. Chains that dupfs did
// not write hold no hashes of contents: then the expected one stands in.
func jsonLines(t *testing.T, out string, want []string) []string {
	t.Helper()
	sums := map[string]string{}
	for _, l := range want {
		name, _, isFile := strings.Cut(l, `" file `)
		if _, rest, ok := strings.Cut(l, " sha "); ok && isFile {
			sums[name+`"`], _, _ = strings.Cut(rest, " ")
		}
	}
	var lines []string
	scan := bufio.NewScanner(strings.NewReader(out))
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		var l listing
		if err := json.Unmarshal(scan.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, listingLine(t, l, sums))
	}
	return lines
}

func listingLine(t *testing.T, l listing, sums map[string]string) string {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, l.Mtime)
	if err != nil {
		t.Fatal(err)
	}
	e := expectedEntry{
		B64: orBytes(l.PathB64, l.Path), Type: l.Type, Mode: l.Mode, UID: l.UID, GID: l.GID,
		Mtime: at.Unix(), SHA256: l.SHA256,
	}
	if l.Size != nil {
		e.Size = *l.Size
	}
	if l.Target != nil {
		e.Target = orBytes(l.TargetB64, *l.Target)
	}
	if l.Rdev != nil {
		e.Rdev = []int64{int64(l.Rdev[0]), int64(l.Rdev[1])}
	}
	if e.Type == "file" && e.SHA256 == "" {
		name, _ := base64.StdEncoding.DecodeString(e.B64)
		e.SHA256 = sums[fmt.Sprintf("%q", name)]
	}
	return e.line(t)
}

func orBytes(b64, text string) string {
	if b64 != "" {
		return b64
	}
	return base64.StdEncoding.EncodeToString([]byte(text))
}
