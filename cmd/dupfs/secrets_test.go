package main

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dupfs/internal/need"
)

// noPassphrase takes PASSPHRASE out of the environment.
func (w *world) noPassphrase() {
	w.env = slices.DeleteFunc(w.env, func(v string) bool { return strings.HasPrefix(v, "PASSPHRASE=") })
}

// systemd lays credentials out as files that nobody may write.
func TestCredentials(t *testing.T) {
	w := keyWorld(t)
	url, dir := w.url("archive"), w.path("credentials")
	w.write("src/letter", "dear\n")
	w.write("file", "other\n")
	w.sh("mkdir credentials; printf geheim > credentials/dupfs.passphrase; chmod 400 credentials/*; chmod 500 credentials")
	env := []string{"CREDENTIALS_DIRECTORY=" + dir}
	w.want(0, "", env, "full", "--current-time", at(0), "src", url)
	w.want(0, "", env, "verify", url)
	w.want(0, "", []string{"PASSPHRASE=geheim"}, "verify", url)
	w.want(31, "wrong passphrase", append(env, "PASSPHRASE=other"), "verify", url) // what is said counts
	w.want(31, "wrong passphrase", env, "verify", "--passphrase-file", w.path("file"), url)
	w.want(30, "nobody to ask", []string{"CREDENTIALS_DIRECTORY=" + w.path("src")}, "full", "src", w.url("new"))

	id := w.key("al <al@example.org>", "sesame", "ed25519", "cv25519")
	w.sh("chmod 700 credentials; echo sesame > credentials/dupfs.sign-passphrase")
	w.lock()
	w.want(0, "", env, "full", "--encrypt-sign-key", id, "src", w.url("signed"))
	w.lock()
	w.want(31, "", append(env, "SIGN_PASSPHRASE=other"), "full", "--encrypt-sign-key", id, "src", w.url("signed2"))
	w.sh("chmod 700 credentials; rm credentials/dupfs.passphrase; mkdir credentials/dupfs.passphrase")
	w.want(1, "credential", env, "verify", url)
}

// A passphrase comes from the first line of a file or of what a command prints,
// and what is wrong with either is said.
func TestPassphraseSources(t *testing.T) {
	w := newWorld(t)
	w.noPassphrase()
	w.write("src/letter", "dear\n")
	w.sh("printf 'geheim\\r\\nmore' > pw; chmod 600 pw; mkdir dir")
	url := w.url("archive")
	w.want(0, "", nil, "full", "--passphrase-file", "pw", "src", url)
	for _, c := range []struct {
		code int
		text string
		args []string
	}{
		{0, "", []string{"--password-command", "cat pw"}},
		{0, "", []string{"--password-command", "printf geheim; sleep 5 &"}},
		{31, "wrong passphrase", []string{"--password-command", "tail -n 1 pw"}},
		{30, "it printed nothing", []string{"--password-command", "true"}},
		{30, "exit status 3", []string{"--password-command", "cat pw; exit 3"}},
		{30, "exit status 127", []string{"--password-command", "dupfs-no-such-command"}},
		{30, "--passphrase-file: open none", []string{"--passphrase-file", "none"}},
		{30, "--passphrase-file: dir", []string{"--passphrase-file", "dir"}},
	} {
		w.want(c.code, c.text, nil, append([]string{"cat", url, "letter"}, c.args...)...)
	}
	for mode, warned := range map[string]int{"600": 0, "400": 0, "640": 1, "604": 1, "620": 1} {
		w.sh("chmod " + mode + " pw")
		r := w.exec(nil, binary, "restore", "--force", "--passphrase-file", "pw", url, "out")
		if r.code != 0 || strings.Count(r.stderr, "pw: others than you have rights to it (mode 0"+mode+"): chmod 600 it") != warned {
			t.Errorf("%s: exit %d\n%s", mode, r.code, r.stderr)
		}
	}
}

// A command that does not answer is not waited for for ever, nor one that does
// not cease to.
func TestPasswordCommandBounds(t *testing.T) {
	for _, command := range []string{"exec sleep 1000", "sleep 20 & wait", "yes"} {
		e := &environ{stderr: io.Discard, commandLimit: 100 * time.Millisecond}
		if _, err := e.passwordCommand(t.Context(), command); err == nil || !strings.Contains(err.Error(), "has not ended within 100ms") {
			t.Errorf("%s: %v", command, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&environ{stderr: io.Discard}).passwordCommand(ctx, "exec sleep 1000"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// The keyring of a desktop is asked by its own tool.
func TestKeyring(t *testing.T) {
	for _, name := range []string{"dbus-run-session", "gnome-keyring-daemon", "secret-tool"} {
		need.Program(t, name)
	}
	w := newWorld(t)
	w.noPassphrase()
	w.write("src/letter", "dear\n")
	w.sh("mkdir -m 700 run")
	w.env = append(w.env, "XDG_RUNTIME_DIR="+w.path("run"), "DUPFS="+binary, "URL="+w.url("archive"))
	w.write("session", `set -eu
printf unlock | gnome-keyring-daemon --unlock --components=secrets >/dev/null
from='secret-tool lookup application dupfs url '"$URL"
! "$DUPFS" full --password-command "$from" src "$URL" 2>missing
printf geheim | secret-tool store --label=backup application dupfs url "$URL"
"$DUPFS" full --password-command "$from" src "$URL" >/dev/null
PASSPHRASE=geheim "$DUPFS" cat "$URL" letter
`)
	if got := w.sh("setsid -w dbus-run-session -- bash session 2>session.log || { cat session.log >&2; exit 1; }"); got != "dear\n" {
		t.Errorf("%q", got)
	}
	contains(t, w.sh("cat missing"), "--password-command: exit status 1")
}

// Prompts come as duplicity's do, where a script answers them by a pipe.
func TestPrompts(t *testing.T) {
	w := newWorld(t)
	w.asDuplicity()
	w.noPassphrase()
	w.write("src/letter", "dear\n")
	stock := need.Program(t, "duplicity")
	for _, typed := range []string{"", `a\nb\n\n\npw\npw\n`} {
		var got [2]string
		for i, program := range []string{stock, "duplicity"} {
			url := w.url("archive" + filepath.Base(filepath.Dir(program)))
			got[i] = w.sh(`rc=0; printf '` + typed + `' | setsid -w ` + program + ` full --no-print-statistics src ` + url + ` >out 2>err || rc=$?
				echo $rc; grep 'try again' out || true; grep -o 'GnuPG passphrase.*: \|Retype.*: ' err`)
		}
		if got[0] != got[1] || !strings.Contains(got[0], "GnuPG passphrase for decryption: ") {
			t.Errorf("typed %q: duplicity\n%s\ndupfs\n%s", typed, got[0], got[1])
		}
	}
	w.want(0, "", []string{"PASSPHRASE=pw"}, "verify", w.url("archive."))
}

// TestPassphrasePipe: a file with a passphrase may be one that can be read once
// only.
func TestPassphrasePipe(t *testing.T) {
	w := newWorld(t)
	w.write("src/file", "x")
	w.sh("unset PASSPHRASE; bash -c '" + binary + " backup --passphrase-file <(echo fixture) src " + w.url("archive") + "'")
	if got := w.dupfs("cat", w.url("archive"), "file"); got != "x" {
		t.Errorf("got %q", got)
	}
}
