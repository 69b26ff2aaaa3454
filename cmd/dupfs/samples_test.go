package main

import (
	"fmt"
	"testing"
)

// What duplicity says where nothing is done, or would be: the samples that
// TestMachineLog, TestManualExamples and TestChangesShown do not have. Not among
// them is what it gets wrong: a dry run of a full backup counts some source
// files twice, and a removal names each signature chain once for the archive and
// once for its local copy.
func TestSamples(t *testing.T) {
	p := newPair(t)
	p.both("mkdir -p s/d; echo 1 > s/a; echo 2 > s/d/b; find s -exec touch -d 2020-01-01 {} +")
	backup := func(n int, how ...string) {
		// A second of its own: stock looks at nothing else to see that a file changed.
		p.both(fmt.Sprintf("echo >> s/a; touch -d @%d s/a", epoch+n))
		p.same(append(how, "s", "file://t", "--no-encryption", "--current-time", at(n))...)
	}
	p.same("collection-status", "file://t")
	p.same("cleanup", "file://t", "--no-encryption")
	backup(0)
	p.same("remove-older-than", "1D", "file://t") // the only chain
	backup(1)
	backup(2, "full")
	backup(3, "--full-if-older-than", "12h")
	p.same("incremental", "--dry-run", "s", "file://t", "--no-encryption", "--current-time", at(4))
	backup(4)
	for _, action := range [][]string{
		{"collection-status"}, {"list-current-files"}, {"list-current-files", "--time", at(1)}, {"cleanup", "--no-encryption"},
		{"remove-older-than", at(9)}, {"remove-older-than", "30Y"}, {"remove-older-than", at(1)},
		{"remove-older-than", at(3)}, {"remove-all-but-n-full", "1"}, {"remove-all-but-n-full", "7"},
		{"remove-all-inc-of-but-n-full", "1"}, {"remove-all-inc-of-but-n-full", "7"},
	} {
		p.same(append(action, "file://t")...)
	}
	p.both("cd t; cp $(ls duplicity-full.*.vol1.* | head -1) duplicity-full.20200101T000000Z.vol1.difftar.gz")
	p.same("cleanup", "file://t", "--no-encryption")
	p.same("cleanup", "--force", "--dry-run", "file://t", "--no-encryption")
	p.same("cleanup", "--force", "file://t", "--no-encryption")
}
