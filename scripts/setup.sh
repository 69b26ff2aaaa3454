#!/bin/bash
# setup.sh demo|test|bench    installs on Debian 12 what `make demo`, `make test` or
# bench/run needs.
#
#   demo   fuse3, and Go where it is missing or too old
#   test   also stock duplicity, par2, duply, backupninja, rdiff, gnupg of two ages,
#          a smartcard in software, gnome-keyring, attr, acl, rsync, ncdu, sshd, a C
#          compiler for the race detector, node, rclone, samba, and in .servers/
#          (not installed):
#          OpenStack Swift, Keystone, memcached, Azurite, the S3 server versitygw,
#          and the Python libraries with which duplicity speaks to Swift and Azure
#   bench  besides, the proxy Toxiproxy, which delays answers
#
# Only what is missing is fetched, with apt-get, npm and go; when nothing is, this
# takes a moment and needs no network. Programs are installed as root or by sudo.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD
what=${1:-}
servers=${DUPFS_SERVERS:-$top/.servers}
azurite=3.35.0
versitygw=v1.8.0
toxiproxy=v2.5.0
export PATH="$top/.build/go/bin:$PATH:/usr/sbin:/sbin" DEBIAN_FRONTEND=noninteractive

say() { echo "setup: $*"; }
die() { echo "setup: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null; }

as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"; else
		have sudo || die "not root, and there is no sudo: cannot run: $*"
		sudo --preserve-env=DEBIAN_FRONTEND "$@"
	fi
}

updated=
apt_update() {
	[ -z "$updated" ] || return 0
	have apt-get || die "this is not Debian: install what scripts/setup.sh names by hand"
	as_root apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 update
	updated=1
}

# install PACKAGE...   without starting services
install() {
	[ $# -gt 0 ] || return 0
	say "installing $*"
	apt_update
	local policy=/usr/sbin/policy-rc.d made= rc=0 out
	if [ ! -e $policy ]; then
		made=1
		printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
		as_root chmod 755 $policy
	fi
	out=$(as_root apt-get install -qq -y --no-install-recommends -o DPkg::Lock::Timeout=300 \
		-o Acquire::Retries=3 "$@" </dev/null 2>&1) || rc=$?
	[ -z "$made" ] || as_root rm -f $policy
	[ $rc = 0 ] || die "$out"
}

# unpack DIR PACKAGE...   as unpack.sh, all or nothing; a file in DIR says that it is done
unpack() {
	local dir=$1
	shift
	[ "$(cat "$dir/.complete" 2>/dev/null)" != "$*" ] || return 0
	say "unpacking $* in $dir"
	apt_update
	rm -rf "$dir"
	scripts/servers/unpack.sh "$dir" "$@"
	echo "$*" >"$dir/.complete"
}

# go_fits: is there a Go that can build this? One of 1.21 or newer may fetch what
# go.mod asks for by itself, and then tells that version.
go_fits() {
	have go || return 1
	local want has
	want=$(awk '$1 == "go" {print $2}' go.mod)
	has=$(go version 2>/dev/null | awk '{sub(/^go/, "", $3); print $3}')
	[ -n "$has" ] && [ "$(printf '%s\n%s\n' "$want" "$has" | sort -V | head -n 1)" = "$want" ]
}

# get_go puts Go into .build/go. Debian 12 has only Go 1.19, which is too old to
# build this, but can fetch and check a newer one from the Go module proxy: it is
# unpacked for just that, then thrown away.
get_go() {
	local version=1.26.8 arch sum tmp old got
	arch=$(dpkg --print-architecture)
	case $arch in
	amd64) sum=h1:ZOmGe1OnfREDMIdb1Qi4G9JSuDPBLGExZMQ4nis1RXM= ;;
	arm64) sum=h1:sYL/O6MqS68ML0kjsQ36WoYIpJqkw60TxizWUYUKQMc= ;;
	*) die "install Go $version or newer by hand: no checksum of it for $arch is kept here" ;;
	esac
	say "fetching Go $version to .build/go"
	mkdir -p .build
	tmp=$(mktemp -d "$top/.build/go.XXXXXX")
	trap 'chmod -R u+w "$tmp"; rm -rf "$tmp"' RETURN
	if have go && go version | grep -qE 'go1\.(19|[2-9][0-9])'; then
		old=(go)
	else
		apt_update
		(cd "$tmp" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download golang-1.19-go golang-1.19-src)
		for f in "$tmp"/*.deb; do dpkg-deb -x "$f" "$tmp"; done
		old=(env GOROOT="$tmp/usr/lib/go-1.19" "$tmp/usr/lib/go-1.19/bin/go")
	fi
	echo 'module tmp' >"$tmp/go.mod" # else it would read ours, which it does not understand
	got=$(cd "$tmp" && GOTOOLCHAIN=local GOFLAGS=-modcacherw GOMODCACHE="$tmp/mod" GOCACHE="$tmp/cache" \
		"${old[@]}" mod download -json "golang.org/toolchain@v0.0.1-go$version.linux-$arch") ||
		die "Go $version could not be fetched: $got"
	grep -qF "\"Sum\": \"$sum\"" <<<"$got" || die "Go $version from the module proxy is not the one expected: $got"
	local dir="$tmp/mod/golang.org/toolchain@v0.0.1-go$version.linux-$arch"
	# a module's zip keeps no modes and no go.mod beneath the top
	chmod 755 "$dir"/bin/* "$dir"/pkg/tool/*/*
	cp "$dir/src/_go.mod" "$dir/src/go.mod"
	cp "$dir/src/cmd/_go.mod" "$dir/src/cmd/go.mod"
	rm -rf .build/go
	mv "$dir" .build/go
}

get_azurite() {
	local dir="$servers/azurite"
	[ "$(cat "$dir/.complete" 2>/dev/null)" != "$azurite" ] || return 0
	say "fetching Azurite $azurite to $dir"
	rm -rf "$dir"
	mkdir -p "$dir"
	npm install --prefix "$dir" --no-audit --no-fund --loglevel=error "azurite@$azurite" </dev/null
	echo "$azurite" >"$dir/.complete"
}

get_versitygw() {
	[ ! -x "$servers/bin/versitygw" ] || return 0
	say "building versitygw $versitygw to $servers/bin"
	(cd / && GOBIN="$servers/bin" GOFLAGS='' CGO_ENABLED=0 go install -ldflags '-s -w' "github.com/versity/versitygw/cmd/versitygw@$versitygw")
}

get_toxiproxy() {
	[ ! -x "$servers/bin/toxiproxy-server" ] || return 0
	say "building toxiproxy $toxiproxy to $servers/bin"
	local tmp rc=0
	tmp=$(mktemp -d) # its package is called server, and go install keeps that name
	(cd / && GOBIN="$tmp" GOFLAGS='' CGO_ENABLED=0 go install -ldflags '-s -w' "github.com/Shopify/toxiproxy/v2/cmd/server@$toxiproxy") || rc=1
	[ $rc != 0 ] || { mkdir -p "$servers/bin" && mv "$tmp/server" "$servers/bin/toxiproxy-server"; } || rc=1
	rm -rf "$tmp"
	return $rc
}

missing=()
need() { # PROGRAM PACKAGE...: notes the packages when the program is not there
	have "$1" || missing+=("${@:2}")
}

case $what in
demo)
	need fusermount3 fuse3
	go_fits || [ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
	install ${missing[@]+"${missing[@]}"}
	go_fits || get_go
	;;
test | bench)
	need fusermount3 fuse3
	need gpg gnupg
	need gpg1 gnupg1
	need gnupg-pkcs11-scd gnupg-pkcs11-scd
	need softhsm2-util softhsm2
	need pkcs11-tool opensc
	need duplicity duplicity
	need par2 par2
	[ -e /usr/lib/python3/dist-packages/pexpect ] || missing+=(python3-pexpect) # duplicity's par2+ needs it
	need duply duply
	need backupninja backupninja
	need dbus-run-session dbus-daemon
	need gnome-keyring-daemon gnome-keyring
	need secret-tool libsecret-tools
	need rdiff rdiff
	need strace strace
	need setfattr attr
	need setfacl acl
	need patch patch
	need zsh zsh
	need fish fish
	need mandoc mandoc
	need rsync rsync
	need ncdu ncdu
	need sshd openssh-server
	need ssh-keygen openssh-client
	need curl curl
	need rclone rclone
	need smbd samba samba-vfs-modules
	need smbclient smbclient
	need git git
	need gcc gcc libc6-dev
	need npm nodejs npm
	need python3 python3
	[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
	[ -e /usr/share/zoneinfo/UTC ] || missing+=(tzdata)
	install ${missing[@]+"${missing[@]}"}
	go_fits || get_go
	get_versitygw &
	built=$!
	unpack "$servers/root" python3-swift memcached python3-keystone python3-keystonemiddleware \
		python3-swiftclient python3-keystoneclient python3-boto3 python3-paramiko \
		python3-isodate python3-typing-extensions python3-requests
	[ -e "$servers/azure-python/.complete" ] || { apt_update; scripts/servers/azure-python.sh "$servers/azure-python"; }
	get_azurite
	wait "$built" || die "versitygw could not be built"
	[ $what = test ] || get_toxiproxy || die "toxiproxy could not be built"
	;;
*) die "usage: $0 demo|test|bench" ;;
esac
go_fits || die "Go in .build/go does not work"
say "$what: everything is there ($(go version | cut -d' ' -f3))"
