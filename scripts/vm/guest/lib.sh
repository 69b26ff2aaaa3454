# lib.sh    for the scripts that run in the machine
# shellcheck shell=bash
set -uo pipefail
failed=0
# ok TEXT COMMAND... says whether the command ended with status 0.
ok() {
	local text=$1 out status
	shift
	if out=$("$@" 2>&1); then
		echo "ok    $text"
	else
		status=$?
		failed=$((failed + 1))
		printf 'FAIL  %s (status %s)\n%s\n' "$text" $status "$(printf %s "$out" | tail -n 15 | sed 's/^/      /')"
	fi
}
# fails TEXT COMMAND... is for what must not work.
fails() {
	local text=$1
	shift
	if out=$("$@" 2>&1); then
		failed=$((failed + 1)) && echo "FAIL  $text: it works"
	else
		echo "ok    $text: $(printf %s "$out" | tail -n 1)"
	fi
}
# within SECONDS COMMAND... waits for a command to work.
within() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || { "$@"; return; }
		sleep 0.3
	done
}
mounted() { awk -v d="$1" '$5 == d && / - fuse\.dupfs /{f = 1} END {exit !f}' /proc/self/mountinfo; }
gone() { ! mounted "$1"; }
dead() { ! pgrep -x dupfs; }
# listing DIR prints what there is to know of a tree, but for what a copy
# cannot have.
listing() { (cd "$1" && find . -printf '%P %y %m %U %G %n %l %T@ ' \( -type f -printf '%s\n' -o -printf '\n' \) | LC_ALL=C sort); }
# same A B compares names, attributes and contents.
same() {
	local out
	out=$(
		diff <(listing "$1/.") <(listing "$2/.")
		diff -r --no-dereference "$1/." "$2/." 2>&1 | grep -v ' is a fifo while file .* is a fifo$'
	)
	[ -z "$out" ] || { head -n 10 <<<"$out"; return 1; }
}
done_() { echo "$failed failed"; exit $((failed > 0)); }
