// Package arrows keeps the import arrows between our packages: which may use
// which. A new package needs a row here, and a reason for each arrow.
package arrows

import (
	"go/build"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// allowed has a row for each package: what it may import of ours. Everything
// under chain may import chain, everything under backends may import backends;
// that is not written out. "*" allows all.
var allowed = map[string]string{
	"cmd/dupfs": "*",
	"fusefs":    "chain",

	"chain":           "",
	"chain/selection": "",
	"chain/manifest":  "",
	"chain/difftar":   "chain/internal/tarstream",
	"chain/sigtar":    "chain/internal/tarstream",
	"chain/when":      "",
	"chain/retention": "",
	"chain/pgp":       "",
	"chain/pgp/gnupg": "chain/pgp",
	"chain/zran":      "",
	"chain/volume":    "chain/pgp chain/zran",
	"chain/store":     "chain/volume chain/pgp backends cache",
	"chain/index":     "chain/difftar chain/sigtar chain/store chain/volume cache delta",
	"chain/snapshot":  "chain/manifest chain/repair chain/sigtar chain/difftar chain/index chain/store chain/volume delta internal/scratch",
	"chain/backup":    "chain/selection chain/manifest chain/difftar chain/sigtar chain/store chain/volume chain/index chain/pgp delta",
	"chain/restore":   "chain/internal/tarstream",
	"chain/audit":     "chain/index chain/manifest chain/sigtar chain/store",
	"chain/repair":    "chain/difftar chain/index chain/manifest chain/sigtar chain/store delta",
	"chain/chaintest": "",

	"chain/internal/tarstream": "",
	"chain/internal/tartest":   "internal/need",

	"delta": "",
	"cache": "",

	"backends":                 "",
	"backends/web":             "",
	"backends/file":            "",
	"backends/mem":             "",
	"backends/swift":           "backends/web",
	"backends/azblob":          "backends/web",
	"backends/s3":              "backends/web",
	"backends/sftp":            "backends/web",
	"backends/webdav":          "backends/web",
	"backends/rclone":          "backends/web",
	"backends/par2":            "internal/scratch",
	"backends/backendtest":     "",
	"backends/internal/server": "internal/need",
	"backends/all": "backends/web backends/file backends/mem backends/swift backends/azblob backends/s3 backends/sftp" +
		" backends/webdav backends/rclone backends/par2",

	"internal/need":   "",
	"internal/arrows": "",

	"internal/stock":     "internal/need",
	"internal/scratch":   "",
	"internal/textdiff":  "",
	"internal/typecheck": "",
}

const module = "dupfs"

// may tells whether package from may import package to.
func may(from, to string) bool {
	row := strings.Fields(allowed[from])
	for _, base := range []string{"chain", "backends"} {
		if to == base && strings.HasPrefix(from, base+"/") {
			return true
		}
	}
	return slices.Contains(row, "*") || slices.Contains(row, to)
}

// packages returns all directories of the module that hold Go files, as paths
// beneath its top.
func packages(t *testing.T, top string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != top && (name == "testdata" || name[0] == '.' || name[0] == '_') {
				return filepath.SkipDir
			}
			return nil
		}
		if dir := filepath.Dir(path); filepath.Ext(path) == ".go" && dir != top {
			rel, err := filepath.Rel(top, dir)
			if err != nil {
				return err
			}
			if !slices.Contains(all, rel) {
				all = append(all, rel)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// ours returns the imports that are ours, as paths beneath the module's top.
func ours(imports []string) []string {
	var all []string
	for _, path := range imports {
		if rel, ok := strings.CutPrefix(path, module+"/"); ok {
			all = append(all, rel)
		}
	}
	return all
}

func TestArrows(t *testing.T) {
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	all := packages(t, top)
	if len(all) < 5 {
		t.Fatalf("only %d packages in %s: looked in the wrong place?", len(all), top)
	}
	for _, name := range all {
		if _, known := allowed[name]; !known {
			t.Errorf("package %s has no row in the table", name)
			continue
		}
		p, err := build.ImportDir(filepath.Join(top, name), 0)
		if err != nil {
			if _, none := err.(*build.NoGoError); !none { // else it has only tests
				t.Error(err)
			}
			continue
		}
		for _, to := range ours(p.Imports) {
			if !may(name, to) {
				t.Errorf("%s must not import %s", name, to)
			}
		}
	}
}

// TestTable makes sure that the table itself has no circle and no ghost.
func TestTable(t *testing.T) {
	for from, row := range allowed {
		for _, to := range strings.Fields(row) {
			if _, known := allowed[to]; to != "*" && !known {
				t.Errorf("%s: allowed %s, which has no row", from, to)
			}
			if to != "*" && may(to, from) {
				t.Errorf("%s and %s may import each other", from, to)
			}
		}
	}
}
