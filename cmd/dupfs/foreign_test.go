package main

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
	"time"
)

// Every option that duplicity 0.8 and 3 have, as far as it concerns neither
// keys nor the selection; "=" stands before a value.
const duplicityOptions = `
	--archive-dir=DIR/cache --name=some --no-encryption --no-compression --volsize=5
	--verbosity=9 -v5 -vinfo --full-if-older-than=1M --restore-time=1D --time=now -t=now
	--file-to-restore=a --path-to-restore=a -r=a --force --allow-source-mismatch
	--compare-data --tempdir=DIR --num-retries=3 --backend-retry-delay=1 --timeout=10
	--no-print-statistics --log-fd=1 --log-file=DIR/log --ssh-options=-oPort=1
	--gpg-options=--homedir=DIR --rsync-options=-x --gpg-binary=gpg --use-agent --null-separator
	--numeric-owner --do-not-restore-ownership --no-restore-ownership
	--metadata-sync-mode=full --progress --progress-rate=3 --asynchronous-upload
	--file-prefix=a --file-prefix-manifest=a --file-prefix-archive=a
	--file-prefix-signature=a --file-prefix-jsonstat=a --max-blocksize=2048
	--ignore-errors --log-timestamp --exclude-if-present=x --exclude-other-filesystems
	--exclude-device-files --exclude-older-than=1Y --no-files-changed --time-separator=_
	--current-time=1700000000 --pydevd --config-dir=DIR --old-filenames --short-filenames
	--swift-storage-policy=a --mp-segment-size=100 --azure-blob-tier=Cool
	--azure-max-single-put-size=1000000 --azure-max-block-size=1000000
	--azure-max-connections=2 --s3-endpoint-url=http://h --s3-region-name=a
	--s3-unencrypted-connection --s3-multipart-chunk-size=20 --s3-multipart-max-procs=2
	--s3-use-rrs --s3-use-ia --s3-use-onezone-ia --s3-use-glacier --s3-use-glacier-ir
	--s3-use-deep-archive --s3-use-server-side-encryption
	--s3-use-server-side-kms-encryption --s3-kms-key-id=a --s3-kms-grant=a
	--s3-european-buckets --s3-use-new-style --s3-use-multiprocessing
	--s3-multipart-max-timeout=9 --ftp-passive --ftp-regular --ssl-cacert-file=/dev/null
	--ssl-cacert-path=DIR --ssl-no-check-certificate --imap-full-address --imap-mailbox=a
	--cf-backend=a --b2-hide-files --mf-purge --idr-fakeroot --scp-command=scp
	--sftp-command=sftp --ssh-askpass --par2-redundancy=10 --par2-options=x
	--par2-volumes=1 --webdav-headers=a,b --encrypt-secret-keyring=a --concurrency=2
	--jsonstat --skip-if-no-change --copy-blocksize=128 --no-check-remote
	--full-if-n-inc=3 --gio --include=a --exclude=b --include-regexp=a
	--exclude-regexp=a --include-filelist=/dev/null --exclude-filelist=/dev/null
	--include-globbing-filelist=/dev/null --exclude-globbing-filelist=/dev/null`

// runHere runs a command line in this process, with nothing in the environment
// but a home and a passphrase.
func runHere(t *testing.T, dir string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	env := map[string]string{"HOME": dir, "PASSPHRASE": "fixture"}
	e := &environ{
		stdin: bufio.NewReader(strings.NewReader("")), stdout: &out, stderr: &errs, now: time.Now,
		lookup: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
	}
	code = run(t.Context(), e, args)
	return code, out.String(), errs.String()
}

// Every action takes every option of duplicity, before and after its
// arguments, with the value attached or not.
func TestDuplicityOptions(t *testing.T) {
	for _, field := range strings.Fields(duplicityOptions) {
		dir := t.TempDir()
		option, value, has := strings.Cut(strings.ReplaceAll(field, "DIR", dir), "=")
		words := []string{option}
		if has {
			words = append(words, value)
		}
		for _, line := range [][]string{
			append([]string{"collection-status", "file://" + dir}, words...),
			append(append([]string{}, words...), "cleanup", "file://"+dir),
		} {
			if code, _, stderr := runHere(t, dir, line...); code != 0 {
				t.Errorf("%q: exit %d: %s", line, code, stderr)
			}
		}
		// Backups and restores parse it, too, whatever comes of it.
		for _, line := range [][]string{
			append([]string{dir + "/no-source", "file://" + dir + "/x"}, words...),
			append([]string{"file://" + dir + "/none", dir + "/out"}, words...),
			append([]string{"verify", "file://" + dir + "/none", dir}, words...),
			append([]string{"remove-older-than", "1Y", "file://" + dir}, words...),
		} {
			if code, _, stderr := runHere(t, dir, line...); code == exitUsage || strings.Contains(stderr, "no such option") {
				t.Errorf("%q: exit %d: %s", line, code, stderr)
			}
		}
	}
}

// What cannot be ignored is refused, with a way out.
func TestRefusedOptions(t *testing.T) {
	for name, hint := range refusedOptions() {
		code, _, stderr := runHere(t, t.TempDir(), "collection-status", "--"+name, "file:///x")
		if code != exitUsage || !strings.Contains(stderr, "--"+name+" is not supported") || !strings.Contains(stderr, hint) {
			t.Errorf("%s: exit %d: %s", name, code, stderr)
		}
	}
	dir := t.TempDir()
	code, _, stderr := runHere(t, dir, "drill", "--dry-run", "file://"+dir)
	if code != exitUsage || !strings.Contains(stderr, "this command has no option --dry-run") {
		t.Errorf("drill --dry-run: exit %d: %s", code, stderr)
	}
}

func TestVerbosity(t *testing.T) {
	for text, want := range map[string]int{
		"": 3, "0": 0, "9": 9, "info": 5, "INFO": 5, "i": 5, "w": 2, "Warning": 2, "debug": 9, "error": 0, "n": 3,
	} {
		if got, err := parseVerbosity(text); err != nil || got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"10", "-1", "loud", "5x"} {
		if _, err := parseVerbosity(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestWebDAVHeaders(t *testing.T) {
	h, err := webdavHeaders(`Cookie,"a=b, c", X-Two, 2`)
	if err != nil || h.Get("Cookie") != "a=b, c" || h.Get("X-Two") != "2" {
		t.Errorf("%v, %v", h, err)
	}
	if _, err := webdavHeaders("one"); err == nil {
		t.Error("a name without a value was accepted")
	}
}
