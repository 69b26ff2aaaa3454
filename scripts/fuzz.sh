#!/bin/bash
# fuzz.sh [TIME [WORKERS [PACKAGE...]]]    every fuzz target for TIME (1m), one after
# the other; a row for each as it ends: how often it ran, and what it found. What
# failed is kept by go under testdata/fuzz of its package, to become a test.
#
# Minimizing is cut short: by default go spends a minute on each input that it
# finds interesting, and does nothing else meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-1m} workers=${2:-$(nproc)}
shift $(($# < 2 ? $# : 2))
[ $# -gt 0 ] || set -- ./...

rc=0
printf '| package | target | runs | inputs kept | result |\n| --- | --- | --- | --- | --- |\n'
while read -r dir; do
	pkg=${dir#"$PWD/"}
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\)(.*/\1/p' "$dir"/*_test.go 2>/dev/null); do
		result=ok
		out=$(go test "./$pkg" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x -parallel "$workers" 2>&1) || { result=FAILED rc=1; }
		last=$(grep -o "execs: [0-9].*" <<<"$out" | tail -n 1) || true
		runs=$(grep -o 'execs: [0-9]*' <<<"$last" | tr -dc 0-9) || runs=0
		kept=$(grep -o 'total: [0-9]*' <<<"$last" | tr -dc 0-9) || kept=?
		printf '| `%s` | `%s` | %s | %s | %s |\n' "$pkg" "$target" "${runs:-0}" "${kept:-?}" "$result"
		[ $result = ok ] || echo "$out" >&2
	done
done < <(go list -f '{{.Dir}}' "$@")
exit $rc
