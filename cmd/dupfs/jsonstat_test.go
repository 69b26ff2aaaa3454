package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// The statistics in JSON are stored as duplicity stores them and are shown; stock
// does not mind them, and they go with their set. An increment without changes
// is left out where that is asked for.
func TestJSONStat(t *testing.T) {
	w := newWorld(t)
	url := w.url("archive")
	w.write("src/a", "a\n")
	var seen jsonStat
	out := w.dupfs("full", "--jsonstat", "--no-encryption", "--current-time", at(0), "src", url)
	if err := json.Unmarshal([]byte(out[strings.Index(out, "{"):strings.LastIndex(out, "}")+1]), &seen); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if seen.SourceFiles != 2 || seen.NewFiles != 2 || seen.Meta.Action != "full" || seen.Meta.Full != epoch {
		t.Errorf("%+v", seen)
	}
	w.write("src/b", "b\n")
	w.dupfs("incremental", "--jsonstat", "--no-encryption", "--current-time", at(1), "src", url)
	text := w.sh("zcat archive/duplicity-inc.*.jsonstat.gz")
	if err := json.Unmarshal([]byte(text), &seen); err != nil || seen.Meta.Action != "inc" || len(seen.Meta.Local) != 1 ||
		!strings.HasPrefix(seen.Meta.Local[0], "duplicity-full.") {
		t.Errorf("%v: %s", err, text)
	}
	before := w.sh("ls archive")
	w.dupfs("incremental", "--skip-if-no-change", "--no-encryption", "--current-time", at(2), "src", url)
	if after := w.sh("ls archive"); after != before {
		t.Errorf("an increment without changes was written:\n%s", after)
	}
	w.stock("verify", "--compare-data", "--no-encryption", url, "src")
	w.dupfs("full", "--no-encryption", "--current-time", at(3), "src", url)
	w.dupfs("remove-all-but-n-full", "1", "--force", url)
	if left := w.sh("ls archive"); strings.Contains(left, "jsonstat") {
		t.Errorf("left behind:\n%s", left)
	}
}
