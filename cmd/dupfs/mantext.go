package main

import (
	_ "embed"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// codesSource is where the statuses are, with remarks that stand in for those
// that the list below does not have.
//
//go:embed codes.go
var codesSource string

var statusLine = regexp.MustCompile(`(?m)^\texit(\w+) += (\d+)(?: +// (.*))?$`)

// What the manual says beside what the commands say of themselves.

const manDescription = `dupfs backs directories up to the format of duplicity, mounts every point of any chain of it as a read-only tree, and travels in time on the command line. What it writes, duplicity restores, verifies and continues; what duplicity wrote, it reads and continues.

Command lines of duplicity work as they are, also when the program is called by that name.`

// exitText says what an exit status means.
type exitText struct {
	status int
	text   string
}

// exitTexts returns all exit statuses, in order.
func exitTexts() []exitText {
	texts := knownTexts()
	for _, m := range statusLine.FindAllStringSubmatch(codesSource, -1) {
		n, err := strconv.Atoi(m[2])
		known := slices.ContainsFunc(texts, func(t exitText) bool { return t.status == n })
		if err != nil || known {
			continue
		}
		text := m[3]
		if text == "" {
			text = m[1]
		}
		texts = append(texts, exitText{n, strings.ToUpper(text[:1]) + text[1:] + "."})
	}
	slices.SortFunc(texts, func(a, b exitText) int { return a.status - b.status })
	return texts
}

// knownTexts says what the statuses mean to a user.
func knownTexts() []exitText {
	return []exitText{
		{exitOK, "Everything that was asked for was done."},
		{exitGeneric, "Differences were found (verify, diff, yesterday -d), nothing was found (find), or an error without a status of its own."},
		{exitUsage, "A mistake on the command line or in the configuration."},
		{exitHost, "The backup is of another host."},
		{exitInterrupted, "Stopped by a signal; nothing half done was left."},
		{exitFilelist, "A list of patterns cannot be read."},
		{exitSignKey, "The id of the signing key has not the right form."},
		{exitTarget, "The target of a restore, or the file of --output, exists."},
		{exitNoVerifyDir, "The directory to compare with is missing."},
		{exitNoSource, "The source of a backup is missing."},
		{exitNoSigs, "There is nothing to build an increment on."},
		{exitNoPath, "The path is not in the archive."},
		{exitNoPoint, "There is no backup from that time or before."},
		{exitDamaged, "Something in the archive is damaged or missing; what is intact was done."},
		{exitUnsigned, "Not signed by the key that was demanded."},
		{exitUser, "Something cannot be set up: a URL, a mount point, a lock."},
		{exitException, "No backups are there, or nobody is there to type a passphrase."},
		{exitGPG, "Wrong passphrase or key."},
		{exitConnection, "Cannot connect or log in."},
		{exitSourceDir, "The backup is of another directory."},
		{exitUploadSize, "A stored file has the wrong size after an upload."},
		{exitBackend, "Any other failure of the store, archived volumes among them."},
		{exitPermission, "Permission denied."},
		{exitNotFound, "A file was not found."},
		{exitNoSpace, "No space left."},
		{exitIncomplete, "Done, but for what the warnings name. duplicity has no such status."},
	}
}

// manEnvironment are the variables that count.
var manEnvironment = [...][2]string{
	{"PASSPHRASE", "What the archive is encrypted with, or what unlocks the secret key."},
	{"SIGN_PASSPHRASE", "What unlocks the signing key."},
	{"DUPFS_URL", "The URL, or the name in the configuration, of the archive for commands that are given none."},
	{"FTP_PASSWORD", "The password for sftp, scp and webdav."},
	{"SWIFT_*, OS_*", "The login to Swift, as for duplicity, from a sourced RC file, or by OS_CLOUD from clouds.yaml."},
	{"AZURE_CONNECTION_STRING", "The login to Azure."},
	{"AWS_*", "The login to S3."},
	{"HOME", "Where the configuration and the caches are, unless the next two say so; what ~ stands for in the configuration."},
	{"XDG_CONFIG_HOME", "The directory above dupfs/config (default: ~/.config)."},
	{"XDG_CACHE_HOME", "The directory above the caches (default: ~/.cache)."},
	{"CREDENTIALS_DIRECTORY", "Where systemd puts the secrets of a service."},
	{"GNUPGHOME", "The directory of GnuPG's keys."},
	{"SSH_AUTH_SOCK", "The SSH agent."},
	{"TMPDIR", "The directory of temporary files (default: /tmp)."},
	{"NO_COLOR", "If it is not empty, there are no colours unless --color asks for them."},
	{"TERM", "If it is dumb, there are no colours."},
	{"GOMEMLIMIT", "Memory that the program tries to stay below (default: 200MiB)."},
}

// manFiles are the files that count.
var manFiles = [...][2]string{
	{"~/.config/dupfs/config", "The configuration; see below."},
	{"~/.cache/dupfs/", "Local catalogs, listings and cached volumes. All of it may be deleted at any time."},
	{"~/.cache/dupfs/*/mount.log", "Why requests of a mount in the background failed."},
	{"~/.ssh/config, ~/.config/openstack/clouds.yaml, ~/.aws/", "Are read as by the programs that they belong to."},
}

const manConfig = `The configuration gives archives names, which may stand in the place of a URL. A line is a name in brackets, a key with a value, or a remark that begins with # or ;. Keys are url, source (the directory that is backed up) and the options of the commands without dashes; each command takes those that it knows. What stands before the first name is for all archives. The order of lines is that of options, and those on the command line come first. A value goes to the end of its line, and may be in double quotes; ~/ at its beginning is the home directory.`

const manConfigExample = `cache-size = 5G

[home]
url = sftp://backup@nas//srv/home
source = ~
passphrase-file = ~/.config/dupfs/home.passphrase
exclude = ~/.cache

dupfs backup home ; dupfs mount home ~/back ; dupfs ls home letters
dupfs yesterday ~/letters/landlord.odt`

// differences from duplicity that users may meet, each with its reason.
var differences = [...][2]string{
	{"Never older data in silence", "A point whose sets are not all there is no point: duplicity restores an older state in its place. A time before the first backup is an error, not the first backup."},
	{"Damage stays where it is", "What is intact is restored although something else is damaged or missing; the rest is named, and the status is 21. duplicity stops."},
	{"Nothing unchecked", "No byte is given out that was not authenticated, where the archive makes that possible. Archives of GnuPG without protection of integrity need --accept-unauthenticated."},
	{"More of a file", "Nanoseconds, times before 1970, extended attributes, ACLs, hard links and holes are stored, in records that duplicity ignores, and restored."},
	{"Changes within a second", "A file is saved if its size, nanoseconds, inode or ctime changed, not only if the second of its mtime did."},
	{"More files in the archive", "A file dupfs-index... beside each set tells where everything is; duplicity ignores it."},
	{"Passphrases", "--passphrase-file and --password-command; a chain written with several passphrases is read with several."},
	{"The archive directory is a cache", "It may be deleted, and is not needed to resume. It is kept apart from duplicity's."},
	{"Status 60", "Says that everything was done but for what the warnings name: files that could not be read, owners that could not be set."},
	{"Ignored options", "Options that tune what does not exist here are accepted and change nothing, so that scripts run."},
}
