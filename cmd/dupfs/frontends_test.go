package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dupfs/internal/need"
)

// Wrappers take the second word of the version, or the last one.
func TestVersion(t *testing.T) {
	w := newWorld(t)
	w.asDuplicity()
	for _, args := range []string{"--version", "-V", "--vers", "full --version", "--version --name x"} {
		if got := w.sh("duplicity " + args); got != "duplicity "+duplicityVersion+"\n" {
			t.Errorf("duplicity %s: %q", args, got)
		}
		if got := w.dupfs(strings.Fields(args)...); !strings.HasPrefix(got, "dupfs version ") {
			t.Errorf("dupfs %s: %q", args, got)
		}
	}
	w.want(2, "--name needs a value", nil, "--version", "--name")
	w.want(2, "no such command: --version", nil, "--", "--version")
}

// duply is a profile of the real duply, whose clock the test sets.
type duply struct{ *world }

// newDuply makes a profile that backs src up to archive.
func newDuply(w *world, conf string) *duply {
	w.t.Helper()
	need.Program(w.t, "duply")
	w.asDuplicity()
	w.write("src/letter", "dear\n")
	w.write("src/dir/deep", "deep\n")
	w.write("src/skip", "not this\n")
	w.write("home/.duply/p/conf", conf+`
TARGET='`+w.url("archive")+`'
SOURCE='`+w.path("src")+`'
TEMP_DIR='`+w.path("tmp")+`'
MAX_AGE=2M
MAX_FULL_BACKUPS=1
MAX_FULLS_WITH_INCRS=1
DUPL_PARAMS="$DUPL_PARAMS --current-time $NOW"
`)
	w.write("home/.duply/p/exclude", "- "+w.path("src/skip")+"\n")
	w.sh("chmod -R go= home/.duply")
	return &duply{world: w}
}

// run runs duply on a day, which must succeed, and returns what it printed.
func (d *duply) run(day int, args ...string) string {
	d.t.Helper()
	r := d.exec([]string{"NOW=" + at(day)}, "duply", append([]string{"p"}, args...)...)
	out := r.stdout + r.stderr
	if r.code != 0 || strings.Contains(out, "FAILED") {
		d.t.Fatalf("%s: exit %d\n%s", r.line, r.code, out)
	}
	return out
}

// files returns how many stored files have a part in their name.
func (d *duply) files(part string) int {
	names, _ := filepath.Glob(d.path("archive", "*"+part+"*"))
	return len(names)
}

// contains checks what a program printed.
func contains(t *testing.T, out string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(out, p) {
			t.Errorf("no %q in\n%s", p, out)
		}
	}
}

// The life of a profile of duply that encrypts to a passphrase.
func TestDuply(t *testing.T) {
	w := newWorld(t)
	d := newDuply(w, "GPG_PW='fixture'\nGPG_TEST='disabled'\n")
	contains(t, d.run(0, "status_backup"), "Last full backup date: none", "No backup chains with active signatures found", "NewFiles 4")
	w.write("src/letter", "dear all\n")
	contains(t, d.run(1, "incr_list_status_verify", "--compare-data"), " letter\n", " dir/deep\n", "Number of contained backup sets: 2", "0 differences")
	d.run(1, "restore", w.path("old"), at(0))
	d.run(1, "fetch", "letter", w.path("fetched"), at(0))
	if got := w.sh("cat old/letter fetched; ls old"); got != "dear\ndear\ndir\nletter\n" {
		t.Errorf("restored: %q", got)
	}
	w.write("archive/duplicity-inc.20231115T221320Z.to.20231120T000000Z.vol1.difftar.gpg", "interrupted")
	contains(t, d.run(2, "cleanup", "--force"), "20231120T000000Z.vol1.difftar.gpg")
	if n := d.files("20231120T000000Z"); n != 0 {
		t.Errorf("%d files of the interrupted set are left", n)
	}
	w.dupfs("full", "--current-time", at(40), w.path("src"), w.url("archive"))
	w.dupfs("incremental", "--current-time", at(41), w.path("src"), w.url("archive"))
	d.run(80, "full")
	d.run(80, "purge_purgeIncr", "--force") // one chain ended before two months
	if full, inc := d.files("full.*vol"), d.files("inc.*vol"); full != 2 || inc != 0 {
		t.Errorf("after purge and purgeIncr: %d full and %d incremental volumes", full, inc)
	}
	contains(t, d.run(80, "purgeFull_status", "--force"), "Found 0 secondary backup chain", "Number of contained backup sets: 1")
}

// One that signs and encrypts to a key of GnuPG.
func TestDuplyKey(t *testing.T) {
	w := keyWorld(t)
	id := w.key("al <al@example.org>", "sesame", "rsa2048", "rsa2048")
	w.sh("echo " + id + ":6: | gpg --import-ownertrust")
	d := newDuply(w, "GPG_KEY='"+id[24:]+"'\nGPG_PW='sesame'\nGPG_OPTS='--pinentry-mode loopback'\n")
	d.run(0, "backup_verify")
	w.write("src/letter", "dear all\n")
	d.run(1, "incr")
	w.lock()
	w.sh("rm -r home/.cache")
	d.run(1, "restore", w.path("new"))
	if got := w.sh("cat new/letter"); got != "dear all\n" {
		t.Errorf("restored: %q", got)
	}
	if out := w.gpg("sesame", "--status-fd", "1", "--output", "/dev/null", "--decrypt", w.sh("echo -n archive/*full*.manifest.gpg")); !strings.Contains(out, "GOODSIG "+id[24:]) {
		t.Error(out)
	}
}

// backupninja cleans up, removes what is old, then backs up.
func TestBackupninja(t *testing.T) {
	need.Root(t)
	need.Program(t, "backupninja")
	w := newWorld(t)
	w.asDuplicity()
	w.write("src/letter", "dear\n")
	w.write("src/skip", "not this\n")
	w.write("backup.d/90.dup", `
options = --archive-dir `+w.path("cache")+` --current-time $(cat `+w.path("now")+`)
testconnect = no
tmpdir = `+w.path("tmp")+`
[gpg]
password = pass 'word'
[source]
include = `+w.path("src")+`
exclude = `+w.path("src/skip")+`
[dest]
increments = 30
keep = 60
keepincroffulls = 1
desturl = `+w.url("archive")+`
`)
	w.write("backupninja.conf", `
loglevel = 5
logfile = `+w.path("log")+`
configdirectory = `+w.path("backup.d")+`
scriptdirectory = /usr/share/backupninja
libdirectory = /usr/lib/backupninja
admingroup = root
when = everyday at 01:00
`)
	w.sh("chmod 600 backup.d/90.dup; chmod 770 backup.d")
	t.Cleanup(func() {
		locks, _ := filepath.Glob("/var/lock/backupninja/*" + filepath.Base(w.dir) + "*")
		for _, l := range locks {
			os.Remove(l)
		}
	})
	for _, day := range []int{0, 40, 41, 120} {
		w.write("now", at(day))
		w.write("src/letter", fmt.Sprint(day))
		w.sh("rm -f log; backupninja --now --conffile " + w.path("backupninja.conf") + " --run " + w.path("backup.d/90.dup") + "; cat log")
		contains(t, w.sh("cat log"), "Duplicity cleanup finished successfully", "Duplicity remove-older-than finished successfully",
			"Duplicity remove-all-inc-of-but-n-full finished successfully", "Duplicity finished successfully", "0 fatal. 0 error. 0 warning.")
	}
	w.env = append(w.env, "PASSPHRASE=pass 'word'")
	contains(t, w.dupfs("collection-status", w.url("archive")), "Found 1 secondary backup chain")
	w.dupfs("restore", "--path-to-restore", w.path("src")[1:], w.url("archive"), w.path("out"))
	if got := w.sh("cat out/letter; ls out"); got != "120letter\n" {
		t.Errorf("restored: %q", got)
	}
}
