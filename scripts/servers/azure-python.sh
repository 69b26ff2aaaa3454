#!/bin/bash
# azure-python.sh DIR    unpacks into DIR the 3 MB of Debian's python3-azure (577 MB
# when installed) that stock duplicity needs for azure://. in-root.sh uses them.
set -eu
[ ! -e "$1/.complete" ] || exit 0
rm -rf "$1"
mkdir -p "$1"
cd "$1"
apt-get -qq -o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=3 download python3-azure python3-azure-storage
b=./usr/lib/python3/dist-packages/azure
for d in python3-azure_*.deb python3-azure-storage_*.deb; do
	# neither package has all of these: tar complains of the others
	dpkg-deb --fsys-tarfile "$d" | tar x --strip-components=5 --wildcards \
		"$b/__init__.py" "$b/core/*" "$b/storage/__init__.py" "$b/storage/blob/*" 2>/dev/null || true
done
rm -f python3-azure*.deb
[ -f azure/core/__init__.py ] && [ -f azure/storage/blob/__init__.py ]
touch .complete
