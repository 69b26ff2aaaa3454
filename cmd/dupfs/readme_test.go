package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The README's example, word by word, on a copy of Go's source tree: the
// lines are taken out of README.md, with its names put in.
func TestReadmeExample(t *testing.T) {
	w := newWorld(t)
	goroot := strings.TrimSpace(w.sh("go env GOROOT"))
	source := filepath.Join(goroot, "src", "net")
	w.sh("cp -r " + source + " home/documents; mkdir disk home/bin; ln -s " + binary + " home/bin/dupfs")
	w.write("home/documents/letter.txt", "three days ago\n")
	w.write("home/documents/landlord.odt", "three days ago\n")
	old := time.Now().Add(-15 * 24 * time.Hour)
	w.dupfs("backup", "--current-time", fmt.Sprint(old.Unix()), w.path("home/documents"), w.url("disk/documents"))
	w.sh("cp -a home/documents kept; echo changed > home/documents/letter.txt; rm home/documents/http/server.go")

	script := "export PATH=$HOME/bin:$PATH; cd $HOME; set -x\n"
	for _, block := range readmeExamples(t) {
		for _, line := range strings.Split(block, "\n") {
			command, _, _ := strings.Cut(line, "   #")
			command = strings.TrimSpace(command)
			if strings.HasPrefix(command, "export PASSPHRASE") {
				command = "export PASSPHRASE=fixture"
			}
			// Differences are what diff is asked for.
			if strings.HasPrefix(command, "diff -r") || strings.HasPrefix(command, "dupfs diff") {
				command += " && exit 9 || [ $? = 1 ]"
			}
			script += command + "\n"
		}
	}
	script = strings.NewReplacer(
		"file:///mnt/disk/documents", w.url("disk/documents"),
		" URL", " "+w.url("disk/documents"),
		"2026-11-01", "3D", "URL letters", "URL http", "etc/fstab", "letter.txt",
		" letters/landlord.odt", " landlord.odt",
		"--path-to-restore letters", "--path-to-restore http", "./letters", "./restored",
		" letters", " http",
	).Replace(script)
	r := w.exec(nil, "/bin/bash", "-euc", script)
	if r.code != 0 {
		t.Fatalf("exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	if got, _ := os.ReadFile(w.path("home/letter.txt")); string(got) != "three days ago\n" {
		t.Errorf("the letter is %q", got)
	}
	same(t, "restored", w.path("home/restored"), w.path("kept/http"))
	if n := strings.Count(r.stderr, "+ dupfs"); n < 9 {
		t.Errorf("only %d commands were run:\n%s", n, r.stderr)
	}
}

// readmeExamples returns the indented blocks of the README's section "Use it".
func readmeExamples(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## Use it\n")
	if !ok {
		t.Fatal("no section Use it")
	}
	section, _, _ = strings.Cut(section, "\n### ")
	var blocks []string
	for _, block := range strings.Split(section, "\n\n") {
		if strings.HasPrefix(block, "    ") || strings.HasPrefix(block, "\n    ") {
			blocks = append(blocks, block)
		}
	}
	if len(blocks) < 3 {
		t.Fatalf("%d examples", len(blocks))
	}
	return blocks
}
