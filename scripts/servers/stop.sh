#!/bin/bash
# stop.sh DIR    stops what start.sh started in DIR, by process id; data and logs stay
here=$(cd "$(dirname "$0")" && pwd)
D=$(cd "$1" 2>/dev/null && pwd) || exit 0
for n in toxiproxy webdav sftp s3 azurite swift keystone; do
	[ ! -d "$D/$n" ] || "$here/$n-stop.sh" "$D/$n"
done
