# power.sh    a backup to a disk whose power may go; also run outside of the
# machine, where $disk, $data and $dupfs are elsewhere
#
#   power.sh backup K          backs up state K of the source
#   power.sh points            prints how many there are
#   power.sh check K1 K2 ...   the points must be these states, the newest the
#                              last; there may be more of the last one
. "$(dirname "$0")/lib.sh"
: "${disk:=/disk}" "${data:=/data}" "${dupfs:=/root/vm/dupfs}"
export PASSPHRASE='a pass phrase'
run() { "$dupfs" "$1" --archive-dir "$disk/cache" "${@:2}"; }
case $1 in
backup)
	mkdir -p /src "$disk/archive"
	mount --bind "$data/$2" /src
	run backup --volsize 3 /src "file://$disk/archive"
	status=$?
	umount /src
	exit $status
	;;
points)
	run status --json "file://$disk/archive" | grep -c '"state":"ok"'
	;;
check)
	shift
	at=$(mktemp -d)
	run mount "file://$disk/archive" "$at" || exit
	mapfile -t points < <(find "$at/snapshots" -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | LC_ALL=C sort)
	[ ${#points[@]} -ge $# ] || { echo "FAIL  there are ${#points[@]} points"; failed=1; }
	for i in "${!points[@]}"; do
		k=${*:$((i < $# ? i + 1 : $#)):1}
		ok "point ${points[i]} is state $k" same "$data/$k" "$at/snapshots/${points[i]}"
	done
	umount "$at"
	rmdir "$at"
	exit $((failed > 0))
	;;
esac
