#!/bin/bash
# toxiproxy-start.sh DIR PORT     network-fault proxy; PORT is its HTTP control port.
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
[ $# -ge 2 ] || die "usage: $0 DIR PORT"
mkdir -p "$1" && D=$(cd "$1" && pwd) || exit 1
P=$2
mkdir -p "$D/log" "$D/run"
alive "$D/run/toxiproxy.pid" || need_free "$P" || exit 1
spawn "$D/run/toxiproxy.pid" "$D/log/toxiproxy" "$SERVERS/bin/toxiproxy-server" -host $LO -port "$P"
ready "$D/run/toxiproxy.pid" 120 http_ok "http://$LO:$P/version" || fail_logs "$D"
echo "export TOXIPROXY_URL=http://$LO:$P" >"$D/env"
