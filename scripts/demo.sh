#!/bin/bash
# demo.sh    what dupfs is for, on this source tree: two backups with a change in
# between, a mount of both points, and a file copied out of the older one. All in a
# temporary directory, which is removed again.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD
[ -x dupfs ] || { echo "demo: no ./dupfs here: run make build" >&2; exit 1; }
[ -e /dev/fuse ] || { echo "demo: there is no /dev/fuse here, so nothing can be mounted" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/dupfs-demo.XXXXXX")
mounted=
finish() {
	local rc=$?
	cd /
	[ -z "$mounted" ] || dupfs umount "$work/mnt" || fusermount3 -u -z "$work/mnt" || true
	rm -rf "$work"
	[ $rc = 0 ] && echo "demo: done, all as it should be" || echo "demo: FAILED" >&2
}
trap finish EXIT
trap 'exit 130' INT TERM
export PATH="$top:$PATH" HOME="$work" XDG_CACHE_HOME="$work/cache"

say() { printf '\n# %s\n' "$*"; }
run() { # shows a command as one would type it, then runs it
	local a line='$'
	for a; do
		[[ $a =~ ^[A-Za-z0-9_./:=@%+~-]+$ ]] && line+=" $a" || line+=" '$a'"
	done
	echo "$line"
	"$@"
}

mkdir "$work/project" "$work/mnt"
tar -c --exclude=./.git --exclude=./.build --exclude=./.servers --exclude=./dupfs -C "$top" . | tar -x -C "$work/project"
cp "$work/project/LICENSE" "$work/LICENSE.kept"
cd "$work"

say "Back up a directory, encrypted with the passphrase in the environment."
export PASSPHRASE="demo-$RANDOM$RANDOM"
echo '$ export PASSPHRASE=...'
run dupfs backup project "file://$work/backup"

say "Change it, and back it up again: only what changed is stored."
sleep 1.1 # two backups in one second would be one point
run sed -i 's/Apache/Navajo/' project/LICENSE
run rm project/Makefile
run dupfs backup project "file://$work/backup"

say "Mount the backup: every point of it is a directory."
run dupfs mount "file://$work/backup" mnt
mounted=1
run ls mnt/snapshots
points=()
for p in mnt/snapshots/*Z; do points+=("$p"); done
[ ${#points[@]} = 2 ] || { echo "demo: ${#points[@]} points instead of 2" >&2; exit 1; }
old=${points[0]}
run ls -l "$old/LICENSE" mnt/snapshots/latest/LICENSE

say "Copy a file out of the older point, and compare."
run cp -p "$old/LICENSE" LICENSE.old
run cmp LICENSE.old LICENSE.kept
run cmp mnt/snapshots/latest/LICENSE project/LICENSE
[ ! -e mnt/snapshots/latest/Makefile ] || { echo "demo: the removed file is still there" >&2; exit 1; }
run cp -p "$old/Makefile" project/Makefile
run cmp project/Makefile "$top/Makefile"

say "The same without a mount."
run dupfs ls -l --time "${old##*/}" "file://$work/backup" scripts

say "Done."
run dupfs umount mnt
mounted=
