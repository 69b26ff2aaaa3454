#!/bin/bash
# azurite-start.sh DIR PORT     Azure Blob emulator (npm azurite 3.x), state in DIR.
# AZURITE_INMEM=1: nothing on disk (faster; data lost at stop)
# AZURITE_CERT / AZURITE_KEY: PEM files, serves https instead of http
# AZURITE_ARGS: more options, e.g. "--loose"
set -u
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
[ $# -ge 2 ] || die "usage: $0 DIR PORT"
mkdir -p "$1" && D=$(cd "$1" && pwd) || exit 1
P=$2 proto=http
mkdir -p "$D/log" "$D/run" "$D/data"
alive "$D/run/azurite.pid" || need_free "$P" || exit 1
# azblob v1.8.0 sends x-ms-version 2026-06-06, Azurite 3.35.0 knows up to 2025-11-05
opt=(--silent --disableTelemetry --skipApiVersionCheck)
[ -n "${AZURITE_INMEM:-}" ] && opt+=(--inMemoryPersistence) || opt+=(--location "$D/data")
[ -n "${AZURITE_CERT:-}" ] && { opt+=(--cert "$AZURITE_CERT" --key "$AZURITE_KEY"); proto=https; }
[ -n "${AZURITE_DEBUG:-}" ] && opt+=(--debug "$D/log/debug")
# account:key1[:key2];...  default is devstoreaccount1 with the well-known key
spawn "$D/run/azurite.pid" "$D/log/azurite" node "$SERVERS/azurite/node_modules/azurite/dist/src/blob/main.js" \
	--blobHost $LO --blobPort "$P" "${opt[@]}" ${AZURITE_ARGS:-}
ready "$D/run/azurite.pid" 120 port_open "$P" || fail_logs "$D"
K='Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=='
cat >"$D/env" <<X
export AZURE_CONNECTION_STRING="DefaultEndpointsProtocol=$proto;AccountName=devstoreaccount1;AccountKey=$K;BlobEndpoint=$proto://$LO:$P/devstoreaccount1;"
X
