#!/bin/bash
# run.sh DUPFS [PART...]    tries a static dupfs in a whole Debian 12 system
#
# In a virtual machine with systemd: the units of contrib/systemd and lines in
# /etc/fstab, both over reboots; an export of the mount by the kernel's NFS
# server; shutting down while the mount is in use. Parts are units, fstab, nfs
# and shutdown; all of them without a name. It ends with status 0 if all went
# well. power.sh, beside it, is for losses of power.
#
# It needs root, 4 GB in DUPFS_VM (kept for the next time; default: .vm in the
# clone) and Debian's packages qemu-system-x86 qemu-utils debootstrap
# openssh-client python3 e2fsprogs. Without KVM each part takes some ten minutes.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,4s/^# //p' "$0"; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
dupfs=$(realpath "$1")
shift
for p in qemu-system-x86_64 qemu-img debootstrap ssh python3 mkfs.ext4; do
	command -v $p >/dev/null || { echo "vm: $p is not installed: see the packages in $0" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "vm: it needs root, for debootstrap and mounts" >&2; exit 2; }
mkdir -p "${DUPFS_VM:=$here/../../.vm}"
work=$(realpath "$DUPFS_VM")
. "$here/vm.sh"
vm=0
trap 'vm_kill' EXIT
failures=0

# part NAME runs a script in the machine.
part() {
	say "$*"
	guest "bash /root/vm/$1.sh ${*:2}" || { failures=$((failures + 1)); say "$1: something failed"; }
}

# ready has an archive, too.
ready() { begin && part setup; }
vm_image
bundle
[ $# -gt 0 ] || set -- units fstab nfs shutdown
for name; do
	case $name in
	units) ready; part units; again; part units-booted; vm_off ;;
	fstab) ready; part fstab; again; part fstab-booted; vm_off ;;
	nfs) ready; part nfs; vm_off ;;
	shutdown) ready; part shutdown; vm_off 150 ;;
	*) die "$name: no such part" ;;
	esac
done
say "$failures parts failed"
exit $((failures > 0))
