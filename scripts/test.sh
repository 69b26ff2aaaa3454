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

dir=$(mktemp -d "${TMPDIR:-/tmp}/dupfs-test.XXXXXX")
stop() {
	local rc=$?
	scripts/servers/stop.sh "$dir" || true
	[ $rc = 0 ] || { echo "test: ends of the servers' logs:"; tail -n 5 "$dir"/*/log/* 2>/dev/null || true; }
	chmod -R u+w "$dir" && rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT TERM
scripts/servers/start.sh "$dir"
. "$dir/env"

# The C library and SQLite in Go take the race detector minutes to compile and make
# it crawl; their users run without it, but those in which goroutines meet.
always_race='^dupfs/(fusefs|chain/(store|backup|restore|snapshot))$'
race=() plain=()
while read -r pkg deps; do
	[[ $pkg == *.test ]] || continue
	pkg=${pkg%.test} with=race
	[[ " $deps " != *" modernc.org/sqlite "* || $pkg =~ $always_race ]] || with=plain
	case ${DUPFS_RACE:-some} in all) with=race ;; none) with=plain ;; esac
	if [ $with = race ]; then race+=("$pkg"); else plain+=("$pkg"); fi
done < <(go list -test -f '{{.ImportPath}} {{join .Deps " "}}' "$@")
[ $((${#race[@]} + ${#plain[@]})) -gt 0 ] || { echo "test: no tests in $*" >&2; exit 1; }

rc=0
flags=(-shuffle=on -p 2 -timeout 20m)
if [ ${#race[@]} -gt 0 ]; then
	echo "test: with the race detector: ${race[*]}"
	CGO_ENABLED=1 go test -race "${flags[@]}" "${race[@]}" || rc=1
fi
if [ ${#plain[@]} -gt 0 ]; then
	echo "test: without: ${plain[*]}"
	go test "${flags[@]}" "${plain[@]}" || rc=1
fi
exit $rc
