#!/bin/bash
# run.sh DUPFS [SHOTS]    drives the real Deja Dup with dupfs in duplicity's place
#
# In a home and on a screen of its own: a first and a second backup with a wrong
# and the right password, browsing an older backup, restoring one file of it, a
# cancelled backup, one after it with the password of the keyring, and at last
# what stock duplicity restores. Screenshots go to the directory SHOTS, if it is
# given. It takes two minutes and ends with status 0 if all went well.
#
# Debian's packages: deja-dup duplicity xvfb openbox xdotool imagemagick
# dbus-daemon gnome-keyring libsecret-tools at-spi2-core python3-gi
# gir1.2-atspi-2.0 gvfs dconf-gsettings-backend adwaita-icon-theme
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,4s/^# //p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
dupfs=$(realpath "$1")
for p in deja-dup duplicity xvfb-run openbox xdotool import dbus-run-session gnome-keyring-daemon secret-tool gsettings; do
	command -v $p >/dev/null || { echo "dejadup: $p is not installed: see the packages in $0" >&2; exit 2; }
done
dir=$(mktemp -d "${TMPDIR:-/tmp}/dupfs-dejadup.XXXXXX")
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir"/{home/docs,home/.cache,run,tmp,bin,shots} && chmod 700 "$dir/run"
ln -s "$dupfs" "$dir/bin/duplicity"
export SHOTS=${2:-$dir/shots}
mkdir -p "$SHOTS"
env -u PASSPHRASE -u DISPLAY -u WAYLAND_DISPLAY -u DBUS_SESSION_BUS_ADDRESS \
	HOME="$dir/home" XDG_RUNTIME_DIR="$dir/run" XDG_CACHE_HOME="$dir/home/.cache" \
	XDG_CONFIG_HOME="$dir/home/.config" XDG_DATA_HOME="$dir/home/.local/share" \
	TMPDIR="$dir/tmp" BACKUP="$dir/backup" LANG=C.UTF-8 TZ=UTC PATH="$dir/bin:$PATH" \
	STOCK="$(command -v duplicity)" GDK_BACKEND=x11 GSK_RENDERER=cairo XDG_CURRENT_DESKTOP=GNOME \
	xvfb-run -a -s "-screen 0 1024x768x24" dbus-run-session -- "$here/session.sh" 2>"$dir/log" ||
	{ tail -n 40 "$dir/log" >&2; exit 1; }
