#!/bin/bash
# s3-start.sh DIR PORT     versitygw (S3 gateway over a plain directory), state in DIR.
# S3_CERT / S3_KEY: PEM files, serves https.   S3_VERSIONING=1: versioning possible
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
[ $# -ge 2 ] || die "usage: $0 DIR PORT"
mkdir -p "$1" && D=$(cd "$1" && pwd) || exit 1
P=$2 proto=http opt=() be=()
mkdir -p "$D/log" "$D/run" "$D/data" "$D/ver"
alive "$D/run/s3.pid" || need_free "$P" || exit 1
[ -n "${S3_CERT:-}" ] && { opt+=(--cert "$(readlink -f "$S3_CERT")" --key "$(readlink -f "$S3_KEY")"); proto=https; }
[ -n "${S3_VERSIONING:-}" ] && be+=(--versioning-dir "$D/ver")
ROOT_ACCESS_KEY=testaccess ROOT_SECRET_KEY=testsecret spawn "$D/run/s3.pid" "$D/log/s3" \
	"$SERVERS/bin/versitygw" --port "$LO:$P" --region us-east-1 --health /healthz --keep-alive \
	--access-log "$D/log/access" --quiet ${opt[@]+"${opt[@]}"} posix ${be[@]+"${be[@]}"} "$D/data"
ready "$D/run/s3.pid" 120 port_open "$P" || fail_logs "$D"
cat >"$D/env" <<X
export AWS_ACCESS_KEY_ID=testaccess
export AWS_SECRET_ACCESS_KEY=testsecret
export AWS_REGION=us-east-1
export AWS_DEFAULT_REGION=us-east-1
export AWS_ENDPOINT_URL=$proto://$LO:$P
X
