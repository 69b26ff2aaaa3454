#!/bin/bash
# cover.sh [DIR]    which statements of delta, cache, chain and fusefs the tests run: a
# row for each package, by its own tests alone, and merged with the tests of all
# others and of cmd/dupfs, whose programs count as well. Starts the servers, and takes
# half an hour. What was counted stays in DIR (.build/cover):
#     go tool cover -html .build/cover/merged.txt
#
# Programs that are killed count nothing, and those that a mount leaves running
# count when it is unmounted.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(realpath -m "${1:-.build/cover}")
rm -rf "$dir" && mkdir -p "$dir/all"
export PATH="$PATH:/usr/sbin:/sbin" CGO_ENABLED=0 DUPFS_TEST_COVER="$dir/all"
trap 'scripts/servers/stop.sh "$dir/servers" || true' EXIT
scripts/servers/start.sh "$dir/servers"
. "$dir/servers/env"

# count PROFILE    package, statements, and how many of them did not run
count() {
	awk -F'[: ]' '$1 != "mode" { key = $1 ":" $2; n[key] = $3; ran[key] += $4 }
		END { for (k in n) { p = k; sub("/[^/]*$", "", p); all[p] += n[k]; if (!ran[k]) left[p] += n[k] }
			for (p in all) print p, all[p], left[p] + 0 }' "$1"
}

packages=$(go list ./delta ./cache ./chain/... ./fusefs)
rc=0
for p in $packages; do
	alone=$dir/${p//\//_}
	mkdir "$alone"
	go test "$p" -timeout 30m -cover -coverpkg=./... -args -test.gocoverdir="$alone" >&2 || rc=1
	if [ -n "$(ls "$alone")" ]; then
		go tool covdata textfmt -i="$alone" -o "$alone.txt"
		cp "$alone"/* "$dir/all"
	fi
done
go test ./cmd/dupfs ./backends/... -p 1 -timeout 60m -cover -coverpkg=./... -args -test.gocoverdir="$dir/all" >&2 || rc=1
go tool covdata textfmt -i="$dir/all" -o "$dir/merged.txt"

printf '| package | statements | %% alone | %% merged | not run |\n| --- | --- | --- | --- | --- |\n'
count "$dir/merged.txt" | sort | while read -r p all left; do
	grep -qx "$p" <<<"$packages" || continue
	alone=$(count "$dir/${p//\//_}.txt" 2>/dev/null | awk -v p="$p" '$1 == p { printf "%.1f", 100 - 100 * $3 / $2 }') || true
	awk -v p="${p#*/}" -v a="${alone:-–}" -v n="$all" -v l="$left" \
		'BEGIN { printf "| `%s` | %d | %s | %.1f | %d |\n", p, n, a, 100 - 100 * l / n, l }'
done
exit $rc
