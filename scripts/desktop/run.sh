#!/bin/bash
# run.sh DUPFS [SHOTS]    looks at a mount with graphical file managers
#
# In a home and on a screen of its own: `dupfs mount --open` shows the mount, then
# pcmanfm and thunar, as far as they are installed, go to a point, show pictures
# small and the properties of a file, and copy one out with their own copying.
# Screenshots go to the directory SHOTS, if it is given: look at them. It takes a
# minute and ends with status 0 if what was copied is right and the mount met no
# error.
#
# Debian's packages: pcmanfm thunar tumbler xvfb openbox xdotool imagemagick
# dbus-daemon xdg-utils adwaita-icon-theme gvfs
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,4s/^# //p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
dupfs=$(realpath "$1")
for p in xvfb-run openbox xdotool import convert dbus-run-session xdg-open; do
	command -v $p >/dev/null || { echo "desktop: $p is not installed: see the packages in $0" >&2; exit 2; }
done
dir=$(mktemp -d "${TMPDIR:-/tmp}/dupfs-desktop.XXXXXX")
trap 'fusermount3 -uqz "$dir/home/back" || true; rm -rf "$dir"' EXIT
mkdir -p "$dir"/{home/photos,home/.local/share/applications,run,bin,shots} && chmod 700 "$dir/run"
export SHOTS=${2:-$dir/shots}
mkdir -p "$SHOTS"
env -u DISPLAY -u WAYLAND_DISPLAY -u DBUS_SESSION_BUS_ADDRESS DUPFS="$dupfs" SESSION="$dir" \
	HOME="$dir/home" XDG_RUNTIME_DIR="$dir/run" XDG_CACHE_HOME="$dir/home/.cache" \
	XDG_CONFIG_HOME="$dir/home/.config" XDG_DATA_HOME="$dir/home/.local/share" LANG=C.UTF-8 TZ=UTC GDK_BACKEND=x11 \
	xvfb-run -a -s "-screen 0 1024x768x24" dbus-run-session -- "$here/session.sh" 2>"$dir/log" ||
	{ tail -n 40 "$dir/log" >&2; exit 1; }
