#!/bin/bash
# session.sh    the desktop session that run.sh begins
set -euo pipefail
cd "$HOME"
openbox &
say() { echo "desktop: $*"; }
die() { say "$*"; shot failed; exit 1; }
shot() { import -window root "$SHOTS/$1.png"; }
# window PATTERN: waits for a window and brings it to the front
window() {
	local i w
	for i in {1..300}; do
		w=$(xdotool search --onlyvisible --name "$1" 2>/dev/null | tail -n 1) || true
		if [ -n "$w" ]; then
			xdotool windowactivate --sync "$w"
			sleep 2 # it draws
			return
		fi
		sleep 0.2
	done
	die "no window $1 appears"
}
# keys KEY...    slowly enough for a busy machine
keys() { for k in "$@"; do xdotool key --clearmodifiers "$k"; sleep 1; done; }
go() { keys ctrl+l ctrl+a; xdotool type --delay 20 "$1"; keys Return; }
# pane: gives the keys to the files, by a click beside them
pane() {
	local X Y WIDTH HEIGHT SCREEN WINDOW
	eval "$(xdotool getactivewindow getwindowgeometry --shell)"
	xdotool mousemove $((X + WIDTH * 3 / 4)) $((Y + HEIGHT * 3 / 4)) click 1
	sleep 1
}

for n in 1 2 3; do convert -size 400x300 plasma:red-blue -pointsize 90 -annotate +150+180 "$n" "photos/picture$n.png"; done
head -c 3000000 /dev/urandom >photos/film.bin
echo "a letter" >photos/letter.txt
"$DUPFS" backup --no-encryption photos "file://$SESSION/archive" >/dev/null
cp -a photos kept
rm photos/picture1.png photos/film.bin
"$DUPFS" incremental --no-encryption photos "file://$SESSION/archive" >/dev/null

managers=()
for m in pcmanfm thunar; do ! command -v $m >/dev/null || managers+=($m); done
[ ${#managers[@]} -gt 0 ] || { say "neither pcmanfm nor thunar is installed"; exit 2; }
xdg-mime default "${managers[0]}.desktop" inode/directory
mkdir back
"$DUPFS" mount --open --no-encryption "file://$SESSION/archive" back
window '^back'
shot 1-open
say "mount --open: shown by ${managers[0]}"
first=$(basename "$(find back/snapshots -mindepth 1 -maxdepth 1 -type d | sort | head -n 1)")

for m in "${managers[@]}"; do
	mkdir "out-$m"
	[ "$m" = "${managers[0]}" ] || { $m "$HOME/back" & window '^back'; }
	go "$HOME/back/snapshots/$first"
	window "^$first"
	sleep 3 # small pictures
	shot "2-$m"
	pane
	xdotool type --delay 50 film
	sleep 1
	shot "3-$m-chosen"
	keys Escape
	pane
	keys ctrl+a ctrl+c
	go "$HOME/out-$m"
	window "^out-$m"
	pane
	keys ctrl+v
	for i in {1..150}; do ! diff -r kept "out-$m" >/dev/null || break; sleep 0.2; done
	shot "4-$m-copied"
	diff -r kept "out-$m" || die "$m has copied something else"
	say "$m: went to the first point and copied it out"
	go "$HOME/back/deleted"
	window '^deleted'
	pane
	keys ctrl+a alt+Return
	sleep 3
	shot "5-$m-properties"
	keys Escape alt+F4
done
grep -q '"errors": *0' back/.dupfs/status.json || die "the mount met errors: $(cat back/.dupfs/status.json)"
"$DUPFS" umount back
say "no error at the mount, and it could be unmounted"
