#!/bin/bash
# test.sh [PACKAGE...]    all tests (or those of the packages), with real storage
# servers running, which are stopped again. setup.sh has fetched what it needs.
# DUPFS_RACE=all|none overrides which packages run under the race detector.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- ./...
export PATH="$PATH:/usr/sbin:/sbin"
# nothing may be skipped, but what only root can test
[ "$(id -u)" != 0 ] || export DUPFS_REQUIRE=1

# Swift waits for the disk with every write: in memory it is twice as fast. It needs
# extended attributes of the user, which tmpfs has since Linux 6.6.
in_memory() {
	local probe
	[ "$(df --output=avail -k /dev/shm 2>/dev/null | tail -n 1)" -gt 2000000 ] || return 1
	probe=$(mktemp /dev/shm/dupfs-test.XXXXXX) || return 1
	setfattr -n user.probe -v 1 "$probe"
	local rc=$?
	rm -f "$probe"
	return $rc
}
base=${TMPDIR:-/tmp}
! in_memory 2>/dev/null || base=/dev/shm
dir=$(mktemp -d "$base/dupfs-test.XXXXXX")
stop() {
	local rc=$?
	jobs -p | xargs -r kill 2>/dev/null || true
	scripts/servers/stop.sh "$dir" || true
	[ $rc = 0 ] || { echo "test: ends of the servers' logs:"; tail -n 5 "$dir"/*/log/* 2>/dev/null || true; }
	chmod -R u+w "$dir" && rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT TERM
scripts/servers/start.sh "$dir"
. "$dir/env"

# SQLite and the C library in Go take the race detector minutes to compile and make
# it crawl: who needs them runs without it here. DUPFS_RACE=all runs them with it.
race=() plain=()
while read -r pkg deps; do
	[[ $pkg == *.test ]] || continue
	pkg=${pkg%.test} with=race
	[[ " $deps " != *" modernc.org/sqlite "* ]] || with=plain
	case ${DUPFS_RACE:-some} in all) with=race ;; none) with=plain ;; esac
	if [ $with = race ]; then race+=("$pkg"); else plain+=("$pkg"); fi
done < <(go list -test -f '{{.ImportPath}} {{join .Deps " "}}' "$@")
[ $((${#race[@]} + ${#plain[@]})) -gt 0 ] || { echo "test: no tests in $*" >&2; exit 1; }

# halves PACKAGE    its tests in two processes at a time: most of them wait, for
# servers and other programs
halves() {
	local bin=$dir/${1##*/}.test half='^Test[A-F]' first rc=0
	go test -c -o "$bin" "$1" || return 1
	cd "$(go list -f '{{.Dir}}' "$1")" || return 1
	set -- -test.shuffle=on -test.timeout=30m
	"$bin" "$@" -test.run "$half" >"$dir/first.out" 2>&1 &
	first=$!
	"$bin" "$@" -test.skip "$half" || rc=1
	wait "$first" || rc=1
	cat "$dir/first.out"
	return $rc
}

rc=0
flags=(-shuffle=on -p 3 -timeout 20m)
if [ ${#race[@]} -gt 0 ]; then
	echo "test: with the race detector: ${race[*]}"
	CGO_ENABLED=1 go test -race "${flags[@]}" "${race[@]}" || rc=1
fi
if [ ${#plain[@]} -gt 0 ]; then
	echo "test: without: ${plain[*]}"
	export CGO_ENABLED=0 # as it is shipped, and compiled once
	whole=() end=
	for pkg in "${plain[@]}"; do
		[[ $pkg == */cmd/dupfs ]] && end=$pkg || whole+=("$pkg")
	done
	others=
	if [ ${#whole[@]} -gt 0 ]; then
		go test "${flags[@]}" -p 1 "${whole[@]}" &
		others=$!
	fi
	[ -z "$end" ] || (halves "$end") || rc=1
	[ -z "$others" ] || wait "$others" || rc=1
fi
exit $rc
