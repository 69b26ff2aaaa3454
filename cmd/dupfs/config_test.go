package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// configure writes the configuration file of the world.
func (w *world) configure(text string) {
	w.t.Helper()
	w.write("home/.config/dupfs/config", strings.ReplaceAll(text, "DIR", w.dir))
}

// An archive in the configuration is known by its name in every command, with
// its source, its passphrase and its options.
func TestNamedArchive(t *testing.T) {
	w := newWorld(t)
	w.env = slices.DeleteFunc(w.env, func(v string) bool { return strings.HasPrefix(v, "PASSPHRASE=") })
	w.write("home/pass", "from a file\n")
	w.sh("mkdir -p home/docs/.cache; echo one > home/docs/letter; echo junk > home/docs/.cache/x; echo odd > home/docs/odd.tmp; echo keep > home/docs/keep.tmp")
	w.configure(`
# for all of them
num-retries = 2

[home]
url = file://DIR/archive
source = ~/docs
passphrase-file = ~/pass
include = ~/docs/keep.tmp
exclude = ~/docs/*.tmp
exclude = "**/.cache"
volsize = 7
no-compression = no

[other]
url = file://DIR/elsewhere
`)
	w.dupfs("backup", "home")
	if out := w.dupfs("ls", "-R", "home"); out != ".\nkeep.tmp\nletter\n" {
		t.Errorf("ls:\n%s", out)
	}
	if out := w.dupfs("cat", "home", "letter"); out != "one\n" {
		t.Errorf("cat: %q", out)
	}
	w.dupfs("full", w.path("home/docs"), "home")
	if r := w.exec(nil, binary, "verify", "--compare-data", "home"); !strings.Contains(r.stdout, "Verify complete: ") {
		t.Errorf("verify: exit %d\n%s", r.code, r.stderr)
	}
	w.dupfs("verify", "home")
	w.dupfs("status", "home")
	w.dupfs("restore", "home", "out")
	w.sh("cmp out/letter home/docs/letter")
	w.dupfs("remove-all-but-n-full", "1", "home")
	mnt, err := os.MkdirTemp(w.dir, "mnt")
	if err != nil {
		t.Fatal(err)
	}
	w.dupfs("mount", "home", mnt)
	w.sh("cmp " + mnt + "/snapshots/latest/letter home/docs/letter")
	w.dupfs("umount", mnt)

	// The command line is stronger: of a list its values come first.
	w.dupfs("backup", "--exclude", "**/letter", "home")
	if out := w.dupfs("ls", "home"); out != "keep.tmp\n" {
		t.Errorf("with an option:\n%s", out)
	}
	testDefaultURL(t, w)
}

// DUPFS_URL stands in for a URL that is left out, and never for one that is
// given.
func testDefaultURL(t *testing.T, w *world) {
	for _, url := range []string{"home", w.url("archive")} {
		env := []string{"DUPFS_URL=" + url, "PASSPHRASE=from a file"}
		run := func(args ...string) string {
			r := w.exec(env, binary, args...)
			if r.code != 0 {
				t.Errorf("%s: exit %d\n%s", r.line, r.code, r.stderr)
			}
			return r.stdout
		}
		for _, args := range [][]string{{"ls"}, {"ls", "keep.tmp"}, {"ls", "--time", "2099-01-01", "home"}} {
			if out := run(args...); out != "keep.tmp\n" {
				t.Errorf("%v: %q", args, out)
			}
		}
		if out := run("cat", "keep.tmp"); out != "keep\n" {
			t.Errorf("cat: %q", out)
		}
		run("status")
		run("find", "k*")
		run("diff", "now", "now")
		run("remove-all-but-n-full", "3")
		run("backup", "--exclude", "**/letter", "--exclude", "**/.cache", "--exclude", "**/odd.tmp", w.path("home/docs"))
		run("restore", "out-"+fmt.Sprint(len(url)))
		if r := w.exec(env, binary, "ls", "one", "two"); r.code != exitUsage {
			t.Errorf("exit %d: %s", r.code, r.stderr)
		}
	}
	r := w.exec([]string{"DUPFS_URL=nowhere"}, binary, "ls")
	if r.code != exitUsage || !strings.Contains(r.stderr, "DUPFS_URL is \"nowhere\"") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
}

// duplicity's own grammar does not change: a directory is a directory, and a
// name alone implies no command.
func TestNameIsNoVerb(t *testing.T) {
	w := newWorld(t)
	w.sh("mkdir home/x; cp -r home/x data; echo 1 > data/f")
	w.configure("[data]\nurl = file://DIR/wrong\nsource = DIR/nowhere\n")
	w.dupfs("data", w.url("archive")) // SOURCE URL
	w.dupfs("full", "data", w.url("archive"))
	if out := w.dupfs("list-current-files", w.url("archive")); !strings.Contains(out, " f\n") {
		t.Errorf("%s", out)
	}
	if r := w.exec(nil, binary, "data", "dir"); r.code != exitUsage || !strings.Contains(r.stderr, "no such command: data") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	if r := w.exec([]string{"DUPFS_URL=" + w.url("archive")}, binary, "backup", "data"); r.code != exitUsage || !strings.Contains(r.stderr, "./data") {
		t.Errorf("which data? exit %d: %s", r.code, r.stderr)
	}
	w.dupfs("full", "./data", w.url("archive"))
	if _, err := os.Stat(w.path("wrong")); err == nil {
		t.Error("the name was taken for a directory that was given")
	}
}

// Mistakes in the file are told with their lines; it matters only to those who
// use it, and holds no secrets that others can read.
func TestConfigMistakes(t *testing.T) {
	w := newWorld(t)
	w.sh("mkdir src")
	url := "file://DIR/archive"
	for text, want := range map[string]string{
		"[a]\nurl = " + url + "\nvolsiez = 3\n":               "config:3: there is no option volsiez",
		"[a]\nurl = " + url + "\npassphrase = geheim\n":       "config:3: secrets do not belong",
		"[a]\nsource = /x\n":                                  "[a] has no url",
		"[a]\nurl = " + url + "\n[a]\n":                       "config:3: there is an archive [a]",
		"[a/b]\nurl = " + url + "\n":                          "config:1: [a/b] is no [NAME]",
		"url = " + url + "\n":                                 "config:1: url stands before",
		"[a]\nurl = relative\n":                               "config:2: relative is not a URL",
		"[a]\nurl = " + url + "\nsource = src\n":              "config:3: source src is not an absolute",
		"[a]\nurl = " + url + "\nno-encryption = perhaps\n":   "config:3: no-encryption: \"perhaps\" is neither",
		"[a]\nurl = " + url + "\nwhatever\n":                  "config:3: no KEY = VALUE",
		"[a]\nurl = " + url + "\nuse-gpgsm = yes\n":           "config:3: option use-gpgsm is not supported",
		"[b]\nurl = " + url + "\n":                            "a is neither a URL nor an archive",
		"[a]\nurl = ftp://user:geheim@host/dir\n":             "open to others",
		"[a]\nurl = " + url + "\nfile-prefix = x\nsource=/\n": "no backup chains found",
	} {
		w.configure(text)
		r := w.exec(nil, binary, "ls", "a")
		if r.code == 0 || !strings.Contains(r.stderr, want) || strings.Contains(r.stderr, "geheim") || !strings.Contains(r.stderr, "hint: ") {
			t.Errorf("%q: exit %d\n%s", text, r.code, r.stderr)
		}
		if r := w.exec(nil, binary, "ls", w.url("archive")); r.code != exitException {
			t.Errorf("%q: a URL: exit %d\n%s", text, r.code, r.stderr)
		}
	}
	w.configure("[a]\nurl = file://DIR/archive\npassword-command = cat DIR/pass\n")
	w.write("pass", "word\n")
	w.sh("chmod 666 home/.config/dupfs/config")
	if r := w.exec(nil, binary, "ls", "a"); r.code != exitUser || !strings.Contains(r.stderr, "which command to run") {
		t.Errorf("exit %d: %s", r.code, r.stderr)
	}
	w.sh("chmod 644 home/.config/dupfs/config")
	w.env = slices.DeleteFunc(w.env, func(v string) bool { return strings.HasPrefix(v, "PASSPHRASE=") })
	w.dupfs("full", "src", "a")
}
