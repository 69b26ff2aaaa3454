package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// front is Deja Dup without its windows: it makes the calls that version 44
// makes, and reads what that reads. scripts/dejadup drives the real one.
type front struct {
	*world
	t *testing.T
}

// call runs duplicity as Deja Dup does, with nobody to ask, and returns the
// stanzas of the machine log. password is PASSPHRASE; "-" is none.
func (f *front) call(code int, password string, args ...string) []string {
	f.t.Helper()
	var env []string
	if password != "-" {
		env = []string{"PASSPHRASE=" + password}
	}
	args = append(args, "--verbosity=9", "--timeout=120", "--archive-dir="+f.path("home/.cache/deja-dup"), "--tempdir="+f.path("tmp"), "--log-fd=9")
	script := `setsid -w duplicity "$@" 9>log >/dev/null 2>&1 </dev/null`
	r := f.exec(env, "/bin/bash", append([]string{"-c", script, "bash"}, args...)...)
	log, err := os.ReadFile(f.path("log"))
	if err != nil {
		f.t.Fatal(err)
	}
	if r.code != code {
		f.t.Fatalf("%s: exit %d, want %d\n%s", args[0], r.code, code, log)
	}
	return strings.Split(string(log), "\n\n")
}

// has returns the submatches of an expression in the last stanza it fits.
func (f *front) has(stanzas []string, expression string) []string {
	f.t.Helper()
	re := regexp.MustCompile(expression)
	for _, s := range slices.Backward(stanzas) {
		if m := re.FindStringSubmatch(s); m != nil {
			return m
		}
	}
	f.t.Errorf("no %q in\n%s", expression, strings.Join(stanzas, "\n\n"))
	return make([]string, re.NumSubexp()+1)
}

// What Deja Dup asks of duplicity, in its order, and what it reads from the
// answers.
func TestDejaDup(t *testing.T) {
	w := newWorld(t)
	w.asDuplicity()
	w.noPassphrase()
	f := &front{w, t}
	docs, meta := w.path("home/docs"), w.path("home/.cache/deja-dup/metadata")
	w.write("home/docs/letter", "first\n")
	w.write("home/.cache/deja-dup/metadata/README", "canary\n")
	url := "gio+file://" + w.path("backup dir")
	rules := []string{
		"--include=" + meta, "--exclude=" + w.path("home/snap/*/*/.cache"), "--include=" + docs, "--exclude=/sys",
		"--exclude=" + w.path("home/.cache"), "--exclude=" + w.path("backup dir"), "--exclude=**",
		"--exclude-if-present=CACHEDIR.TAG", "--exclude-if-present=.deja-dup-ignore",
	}
	with := func(before []string, after ...string) []string { return slices.Concat(before, rules, after) }
	status := func(password string, more ...string) []string {
		t.Helper()
		return f.call(0, password, with([]string{"collection-status"}, append(more, url)...)...)
	}
	canary := func(code int, password string) []string {
		t.Helper()
		return f.call(code, password, "restore", "--file-to-restore="+meta[1:], "--do-not-restore-ownership", "--force", url, meta)
	}

	if strings.Contains(strings.Join(status("", "--no-encryption"), "\n"), "enc") {
		t.Error("an empty place is encrypted")
	}
	f.has(f.call(0, "geheim", with([]string{"full"}, "--dry-run", "--volsize=200", "/", url)...), `^INFO 2 \d+$`)
	log := f.call(0, "geheim", with([]string{"full"}, "--volsize=200", "/", url)...)
	f.has(log, `^INFO 4 '`+docs[1:]+`/letter'`)
	full := f.has(status("geheim"), `(?s)^INFO 3 \n.*\nchain-complete\n full (\d{8}T\d{6}Z) 1 enc\n`)[1]
	canary(0, "geheim")

	w.write("home/docs/letter", "second\n")
	w.sh("while [ $(date -u +%Y%m%dT%H%M%SZ) = " + full + " ]; do sleep 0.1; done")
	incremental := with(nil, "--volsize=200", "/", url)
	f.has(f.call(30, "-", incremental...), `^ERROR 30 EOFError`)
	f.has(f.call(31, "falsch", incremental...), `(?s)^ERROR 31.*GnuPG.*Bad session key`)
	f.has(f.call(0, "geheim", incremental...), `^INFO 5 '`+docs[1:]+`/letter'`)
	f.has(status("geheim"), ` inc \d{8}T\d{6}Z 1 enc\n`)
	f.has(canary(31, "falsch"), `(?s)^ERROR 31.*GnuPG.*Bad session key`)
	f.has(canary(30, "-"), `^ERROR 30 EOFError`)

	list := f.call(0, "", "list-current-files", "--time="+full, url, "--no-encryption") // of what it knows
	f.has(list, `^INFO 10 \d{8}T\d{6}Z '`+docs[1:]+`/letter' reg`)
	f.call(0, "geheim", "restore", "--file-to-restore="+docs[1:]+"/letter", "--time="+full, "--do-not-restore-ownership", "--force", url, docs+"/letter")
	if got := w.sh("cat home/docs/letter"); got != "first\n" {
		t.Errorf("restored: %q", got)
	}
	f.has(f.call(19, "geheim", "restore", "--file-to-restore="+docs[1:]+"/none", "--force", url, docs+"/none"), `^ERROR 19`)

	// A run that was killed leaves volumes; it is cleaned up after, once.
	w.write("backup dir/duplicity-inc."+full+".to.20991231T000000Z.vol1.difftar.gpg", "broken off")
	f.has(status("geheim"), `^WARNING 5`)
	f.call(0, "geheim", "cleanup", "--force", url)
	f.call(0, "geheim", "remove-all-but-n-full", "1", "--force", url)
	if left, _ := filepath.Glob(w.path("backup dir", "*20991231*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	// Another machine's cache knows nothing.
	w.sh("rm -r home/.cache/deja-dup")
	f.has(f.call(31, "", "list-current-files", url, "--no-encryption"), `(?s)^ERROR 31.*GnuPG.*Bad session key`)
	f.call(0, "geheim", "list-current-files", url)
}
