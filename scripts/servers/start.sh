#!/bin/bash
# start.sh DIR [NAME...]    starts real storage servers on 127.0.0.1 for the tests,
# with their state in DIR, and writes DIR/env, which tells the tests where they are:
#     . DIR/env; go test ./...; scripts/servers/stop.sh DIR
# NAME: keystone swift azurite sftp webdav s3 toxiproxy; by default all of them but
# toxiproxy that setup.sh fetched. Starting again what runs already does nothing. DIR/base holds the
# first of the 100 ports used, chosen once among free ones. Needs no network.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
[ $# -ge 1 ] || die "usage: $0 DIR [NAME...]"
mkdir -p "$1" && D=$(cd "$1" && pwd) || exit 1
shift
if [ $# = 0 ]; then
	set -- keystone swift azurite sftp webdav
	[ ! -x "$SERVERS/bin/versitygw" ] || set -- "$@" s3
fi

offsets=(0 1 2 3 4 5 10 20 30 40 50 80)
pick() { # a base whose ports are free, below those the kernel hands out
	local try b o
	for try in {1..50}; do
		b=$((10000 + RANDOM % 220 * 100))
		for o in "${offsets[@]}"; do
			! port_open $((b + o)) || continue 2
		done
		echo "$b"
		return
	done
	return 1
}

start() { # NAME: with its arguments
	local a b rc=0 ks=http://$LO:$((B + 10))
	[ -d "$D/keystone/run" ] || ks=
	a=$(date +%s%N)
	case $1 in
	keystone) "$here/keystone-start.sh" "$D/keystone" $((B + 10)) "http://$LO:$((B + 5))" "http://$LO:$((B + 90))" ;;
	# small pages, so that few objects are enough to need several
	swift) SWIFT_LISTING_LIMIT=${SWIFT_LISTING_LIMIT:-50} SWIFT_S3_LISTING_LIMIT=${SWIFT_S3_LISTING_LIMIT:-49} "$here/swift-start.sh" "$D/swift" "$B" $ks ;;
	azurite) "$here/azurite-start.sh" "$D/azurite" $((B + 20)) ;;
	s3) "$here/s3-start.sh" "$D/s3" $((B + 30)) ;;
	sftp) "$here/sftp-start.sh" "$D/sftp" $((B + 40)) ;;
	webdav) "$here/webdav-start.sh" "$D/webdav" $((B + 50)) ;;
	toxiproxy) "$here/toxiproxy-start.sh" "$D/toxiproxy" $((B + 80)) ;;
	*) die "unknown server: $1" ;;
	esac || rc=$?
	b=$(date +%s%N)
	printf 'server %-10s %s in %d ms\n' "$1" "$([ $rc = 0 ] && echo ready || echo FAILED)" $(((b - a) / 1000000))
	return $rc
}

all() {
	local n
	for n; do start "$n" || return 1; done
}

# somebody else may take a port between the look and the use: then another base
for try in 1 2 3; do
	[ -f "$D/base" ] || { pick || die "no free ports"; } >"$D/base"
	B=$(cat "$D/base")
	if all "$@"; then ok=1; break; fi
	"$here/stop.sh" "$D"
	rm -f "$D/base"
done
[ -n "${ok:-}" ] || die "gave up"

has() { [ -f "$D/$1" ]; }
{
	echo "export DUPFS_TEST_STOCK='$here/in-root.sh'"
	if has swift/env-v1; then
		echo "export DUPFS_TEST_SWIFT_AUTHURL=http://$LO:$B/auth/v1.0"
		echo "export DUPFS_TEST_SWIFT_USERNAME=test:tester DUPFS_TEST_SWIFT_PASSWORD=testing"
		echo "export DUPFS_TEST_SWIFT_MEMCACHED=$LO:$((B + 4))"
		echo "export DUPFS_TEST_SWIFT_LOG='$D/swift/log/proxy'"
	fi
	if has keystone/env-v3; then
		echo "export DUPFS_TEST_KEYSTONE_URL=http://$LO:$((B + 10))"
	fi
	if has azurite/env; then
		(. "$D/azurite/env" && echo "export DUPFS_TEST_AZURITE='$AZURE_CONNECTION_STRING'")
	fi
	if has s3/env; then
		echo "export DUPFS_TEST_S3_ENDPOINT=http://$LO:$((B + 30)) DUPFS_TEST_S3_ACCESS_KEY=testaccess DUPFS_TEST_S3_SECRET_KEY=testsecret"
	fi
	if has sftp/env; then
		(. "$D/sftp/env" && for v in HOST PORT USER KEY KNOWN_HOSTS DATA; do
			n=SFTP_$v
			echo "export DUPFS_TEST_SFTP_$v='${!n}'"
		done)
	fi
	if has webdav/env; then
		echo "export DUPFS_TEST_WEBDAV=http://tester:testing@$LO:$((B + 50))/"
	fi
	if has toxiproxy/env; then
		echo "export DUPFS_TEST_TOXIPROXY=http://$LO:$((B + 80))"
	fi
	rclone=$(PATH="$PATH:$ROOT/usr/bin" command -v rclone) && echo "export DUPFS_TEST_RCLONE='$rclone'"
} >"$D/env"
