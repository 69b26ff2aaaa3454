#!/bin/bash
# power.sh DUPFS [CUTS]    power goes while dupfs backs up to a disk
#
# Three backups are made to ext4 on a disk that notes every write and flush it
# is told (disk.py, by way of qemu-storage-daemon and a loop device: no virtual
# machine). Then, CUTS times (60), what such a disk holds when power goes after
# a random one of these is made: all that was flushed, and of the rest each
# 4 KiB or not, by chance, every fourth time nothing. There the file system is
# mounted, which replays its journal, the interrupted backup is run again, and
# every point is compared with the copy that was kept of it. Both the archive
# and the local cache with its journal are on that disk.
#
# SEED chooses the places. It needs root, Debian's packages qemu-system-common
# qemu-utils fuse3 python3 e2fsprogs, and some 5 s for each of CUTS.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2s/^# //p' "$0"; exit 2; }
if [ -z "${DUPFS_POWER:-}" ]; then # mounts and a host name of our own
	[ "$(id -u)" = 0 ] || { echo "power: it needs root, for mounts" >&2; exit 2; }
	DUPFS_POWER=$(mktemp -d "${TMPDIR:-/tmp}/dupfs-power.XXXXXX")
	export DUPFS_POWER
	status=0
	unshare --mount --uts "$0" "$@" || status=$?
	rm -rf "$DUPFS_POWER"
	exit $status
fi
here=$(cd "$(dirname "$0")" && pwd)
dupfs=$(realpath "$1")
cuts=${2:-60}
: "${SEED:=1}"
cd "$DUPFS_POWER"
hostname dupfs-vm # an archive belongs to a host
mkdir disk states
export dupfs disk=$PWD/disk data=$PWD/states
act() { bash "$here/guest/power.sh" "$@"; }

python3 "$here/data.py" states
truncate -s 256M base
mkfs.ext4 -q -F -L volatile base
cp --sparse=always base image
python3 "$here/disk.py" serve image log socket &
disk_py=$!
exporter=0
trap 'kill $exporter $disk_py 2>/dev/null || true; wait' EXIT
until [ -S socket ]; do sleep 0.1; done
: >file
qemu-storage-daemon --blockdev "driver=nbd,node-name=disk,server.type=unix,server.path=$PWD/socket" \
	--export "type=fuse,id=file,node-name=disk,mountpoint=$PWD/file,writable=on" &
exporter=$!
until grep -q "$PWD/file fuse" /proc/mounts; do kill -0 $exporter; sleep 0.1; done
mount -o loop file disk
ends=()
for k in 1 2 3; do
	act backup $k >out 2>&1 || { cat out; exit 1; }
	ends+=("$(python3 "$here/disk.py" count log)")
	echo "backup $k: the disk was told ${ends[-1]}"
	cp log "log$k" # what comes later is not part of it
	sleep 1.1       # a set has a second of its own
done
umount disk
kill $exporter
wait $exporter || true

failed=0
for ((i = 0; i < cuts + 3; i++)); do
	if [ $i -lt 3 ]; then # just after each end: what is done is there without another write
		k=$((i + 1)) cut=-1 seed=0 log=log$k
	else
		log=log3 seed=$((i % 4 ? SEED * 1000 + i : 0))
		cut=$(python3 -c "import random; print(random.Random('$SEED $i').randrange(${ends[2]%% *}))")
		k=1
		[ "$cut" -lt "${ends[0]%% *}" ] || k=2
		[ "$cut" -lt "${ends[1]%% *}" ] || k=3
	fi
	told=$(python3 "$here/disk.py" lose base $log "$cut" $seed left)
	mount -o loop left disk
	status=0
	[ $i -lt 3 ] || act backup $k >out 2>&1 || status=$?
	# shellcheck disable=SC2046
	if act check $(seq $k) >checked 2>&1 && [ $status = 0 ]; then
		echo "ok    $i: in backup $k; $told"
	else
		failed=$((failed + 1))
		echo "FAIL  $i: in backup $k; $told; run again it ended with $status"
		cat out checked | head -n 30
	fi
	umount disk || { sleep 1; umount disk; }
done
echo "$failed of $((cuts + 3)) failed"
exit $((failed > 0))
