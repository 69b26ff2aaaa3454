#!/bin/bash
# unpack.sh DIR PACKAGE...
# Unpacks Debian packages, and those they need that are not installed, into DIR
# without installing them: no maintainer scripts, no services, no users, nothing
# changed outside DIR, no root needed. in-root.sh runs programs with them.
set -eu
D=$1
shift
mkdir -p "$D/debs"
cd "$D/debs"
# installed ones among those asked for are not in the list: they are there already
list=$(apt-get -qq -s install --no-install-recommends "$@" | awk '/^Inst /{print $2}')
if [ -n "$list" ]; then
	# shellcheck disable=SC2086 # names, one word each
	apt-get -qq -o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=3 download $list
	for f in *.deb; do dpkg-deb -x "$f" "$D"; done
fi
rm -rf "$D/debs"
