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
	{"Never older data in silence", "A point whose sets are not all there is no point: duplicity restores an older state in its place. A time before the first backup is an error (20), where duplicity takes the first backup without a word."},
	{"Damage stays where it is", "What is intact is restored although something else is damaged or missing; the rest is named, and the status is 21. duplicity stops, or with --ignore-errors and on unfinished sets writes cut files and ends with 0."},
	{"Nothing unchecked", "No byte is given out that was not authenticated, where the archive makes that possible. Archives of GnuPG without protection of integrity need --accept-unauthenticated. A volume without a hash in the manifest is read and checked by what else there is; duplicity fails."},
	{"verify", "Without --compare-data everything is read and checked, and damage is named; duplicity prints that there is no difference whatever the directory holds. Paths are given as seen from --path-to-restore, as duplicity gives them."},
	{"Signatures", "A set that the wrong key has signed ends with 22; duplicity may wait for ever after it has said so. Ids of keys may begin with 0x, which never match there."},
	{"More of a file", "Nanoseconds, times before 1970, extended attributes, ACLs, hard links and holes are stored, in records that duplicity ignores, and restored; duplicity cuts times to seconds, makes earlier ones 1970, and loses the rest."},
	{"Changes within a second", "A file is saved if its size, nanoseconds, inode or ctime changed, not only if the second of its mtime, its mode or its owner did: duplicity never saves one whose time was put back."},
	{"What cannot be read", "A file or directory that cannot be read stays as it was in the backup before, and is named; duplicity records it as deleted, and what can be read in part it stores cut. A signature that cannot be read costs its file a new copy; duplicity leaves the file out of all increments that follow."},
	{"Interrupted backups", "They go on without a mixture: a file that has changed since is stored anew, one that vanished or came is stored by an increment. duplicity continues old blocks with new ones, lets files that came meanwhile go unsaved, and leaves entries that --path-to-restore does not find."},
	{"cleanup", "Nothing is deleted without --force; duplicity gives up a partial set without it. A set that can still be restored stays, and with a set its signatures go."},
	{"remove- commands", "The newest chain stays also if its signatures are lost; duplicity then deletes it with the others."},
	{"Restoring", "A restore that left out or could not write something never ends with 0, makes missing directories above its target, and without root sets modes and times also where owners cannot be set; duplicity warns, ends with 0 also where it has restored nothing at all, and leaves out the mode and time of what it cannot give away. --rename fails before anything is written where its target is taken or has no directory."},
	{"Foreign files", "Prefixes are text, not regular expressions, and a file that happens to look like one of the archive's stops nothing."},
	{"Passphrases", "--passphrase-file and --password-command; a chain written with several passphrases is read with several. A passphrase that is given must be right also where a cache would do, and a mistyped one never begins or continues a set of an archive that another one opens: duplicity writes an increment that nobody can restore."},
	{"The local copy", "The archive directory is a cache, kept apart from duplicity's. It may be deleted, and is not needed to resume. Nothing is synchronized and only what writes takes the lock (23), so that reading goes on beside a backup."},
	{"Copied links", "--copy-links stores a link that leads nowhere, or in a circle, as a link."},
	{"More files in the archive", "A file dupfs-index... beside each set tells where everything is; duplicity ignores it."},
	{"Azure", "--azure-max-block-size is minded; duplicity takes the value of --azure-max-single-put-size for it."},
	{"Selection", "ignorecase: works also where the source's path has capitals, as in duplicity 3; 0.8 refuses such a pattern (14)."},
	{"Words", "Names are escaped on the console, so that a file cannot write to the terminal; the log has them in full. Python's b'...' around names, tracebacks, and messages about duplicity's own workings are missing."},
	{"Status 60", "Says that everything was done but for what the warnings name: files that could not be read, owners that could not be set. Called as duplicity, such a backup ends with 0 and warnings, as front ends expect."},
	{"Commands without their effect", "restore with --include or --exclude restores everything, with a warning, as duplicity 0.8. replicate copies the stored files as they are, encrypted as they are. --progress measures by the source, without a dry run before."},
	{"Ignored options", "Options that tune what does not exist here are accepted and change nothing, so that scripts run."},
}
