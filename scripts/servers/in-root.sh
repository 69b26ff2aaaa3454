#!/bin/bash
# in-root.sh CMD...   runs CMD, e.g. stock duplicity or swift, with the packages
# that setup.sh unpacked, among them what duplicity's swift:// and azure:// import
here=$(cd "$(dirname "$0")" && pwd)
. "$here/lib.sh"
exec "${in_root[@]}" "$@"
