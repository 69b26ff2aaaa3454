# vm.sh    a virtual machine for run.sh: Debian, systemd, one processor
#
# Set before: here (this directory), work (for everything that is made), dupfs.
# shellcheck shell=bash

say() { echo "== $*"; }
die() { echo "vm: $*" >&2; exit 1; }

packages=systemd-sysv,linux-image-cloud-amd64,fuse3,nfs-kernel-server,nfs-common,udev,dbus,kmod,iproute2,procps,psmisc,e2fsprogs,findutils,diffutils,attr,openssh-server,netbase,libpam-systemd,dbus-user-session

# vm_image makes root.img, kernel and initrd, unless they are there.
vm_image() {
	[ -f "$work/root.img" ] && return
	say "make the image"
	local root=$work/root
	[ -f "$root/etc/debian_version" ] && [ -f "$work/debootstrap.done" ] || {
		rm -rf "$root"
		debootstrap --variant=minbase --include=$packages bookworm "$root" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$work/debootstrap.log" 2>&1 ||
			die "debootstrap failed: see $work/debootstrap.log"
		touch "$work/debootstrap.done"
	}
	[ -f "$work/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$work/key"
	install -d -m 700 "$root/root/.ssh"
	cp "$work/key.pub" "$root/root/.ssh/authorized_keys"
	echo dupfs-vm >"$root/etc/hostname"
	echo "127.0.0.1 localhost dupfs-vm" >"$root/etc/hosts"
	echo "/dev/vda / ext4 defaults 0 1" >"$root/etc/fstab"
	printf '[Match]\nType=ether\n[Network]\nAddress=10.0.2.15/24\nLinkLocalAddressing=no\n' >"$root/etc/systemd/network/vm.network"
	ln -sf /lib/systemd/system/systemd-networkd.service "$root/etc/systemd/system/multi-user.target.wants/"
	ln -sf /dev/null "$root/etc/systemd/system/nfs-server.service" # begun by hand
	mkdir -p "$root/var/log/journal"
	ln -sf /dev/null "$root/etc/systemd/system/apt-daily.timer"
	ln -sf /dev/null "$root/etc/systemd/system/apt-daily-upgrade.timer"
	cp "$root"/boot/vmlinuz-* "$work/kernel"
	cp "$root"/boot/initrd.img-* "$work/initrd"
	truncate -s 3G "$work/root.tmp"
	mkfs.ext4 -q -F -E lazy_itable_init=1 -d "$root" "$work/root.tmp"
	mv "$work/root.tmp" "$work/root.img"
	rm -rf "$root" "$work/debootstrap.done"
}

# vm_fresh gives the machine a system disk as it was made.
vm_fresh() { rm -f "$work/system.qcow2"; qemu-img create -q -f qcow2 -b root.img -F raw "$work/system.qcow2"; }

# vm_accel tells what qemu runs on: KVM needs a processor that says so, since some machines have /dev/kvm that boot no common kernel.
vm_accel() {
	if [ -n "${DUPFS_VM_ACCEL:-}" ]; then
		echo "$DUPFS_VM_ACCEL"
	elif grep -qwE 'vmx|svm' /proc/cpuinfo && [ -w /dev/kvm ]; then
		echo "-accel kvm -cpu host"
	else
		echo "-accel tcg -cpu max"
	fi
}

# vm_boot [QEMU OPTIONS...] begins the machine and waits until one can log in.
vm_boot() {
	port=${DUPFS_VM_PORT:-52222}
	: >"$work/console.log"
	# shellcheck disable=SC2046
	setsid qemu-system-x86_64 $(vm_accel) -m 1024 -smp 1 -display none -monitor none \
		-serial "file:$work/console.log" -kernel "$work/kernel" -initrd "$work/initrd" \
		-append "root=/dev/vda rw console=ttyS0 quiet systemd.mask=serial-getty@ttyS0.service systemd.mask=nfs-blkmap.service mitigations=off" \
		-drive "file=$work/system.qcow2,if=virtio,format=qcow2,cache=unsafe" \
		-netdev "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:$port-:22" -device virtio-net-pci,netdev=net \
		-device virtio-rng-pci "$@" >"$work/qemu.log" 2>&1 &
	vm=$!
	vm_await
}

# vm_await waits until one can log in, ten minutes at most.
vm_await() {
	local began=$SECONDS
	until guest true 2>/dev/null; do
		kill -0 "$vm" 2>/dev/null || die "the machine is gone: $(tail -n 3 "$work/qemu.log" "$work/console.log")"
		[ $((SECONDS - began)) -lt 600 ] || die "nobody can log in: $(tail -n 20 "$work/console.log")"
		sleep 1
	done
	say "up after $((SECONDS - began)) s"
}

# guest COMMAND runs a command in the machine; its status is that of the
# command, 255 if there is no machine.
guest() {
	timeout "${GUEST_TIMEOUT:-1800}" ssh -q -i "$work/key" -p "$port" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
		-o ConnectTimeout=20 -o ServerAliveInterval=30 -o ControlPath=none root@127.0.0.1 "$@"
}

# guest_put FILE PATH copies a file into the machine.
guest_put() { guest "cat >'$2' && chmod 755 '$2'" <"$1"; }

# vm_off shuts the machine down in order and prints how many seconds it took;
# vm_kill does not.
vm_off() {
	local began=$SECONDS
	guest "systemctl poweroff" || true
	while kill -0 "$vm" 2>/dev/null; do
		[ $((SECONDS - began)) -lt "${1:-300}" ] || { vm_kill; die "shutting down takes over $((SECONDS - began)) s: $(tail -n 20 "$work/console.log")"; }
		sleep 0.2
	done
	say "off after $((SECONDS - began)) s"
}
vm_kill() {
	[ "$vm" = 0 ] || kill -KILL "$vm" 2>/dev/null || true
	wait
}

# bundle gathers what the machine gets.
bundle() {
	rm -rf "$work/bundle"
	mkdir -p "$work/bundle"
	cp "$dupfs" "$work/bundle/dupfs"
	cp "$here"/guest/*.sh "$work/bundle/"
	cp -r "$here/../../contrib/systemd" "$work/bundle/systemd"
	tar -C "$work" -cf "$work/bundle.tar" bundle
	[ -f "$work/data.img" ] && return
	rm -f "$work/data.tmp"
	truncate -s 256M "$work/data.tmp"
	mkfs.ext4 -q -F -L data "$work/data.tmp"
	unshare --mount --uts bash -ec '
		hostname dupfs-vm
		mkdir -p /src
		mount -o loop "$1" /mnt
		python3 "$0/data.py" /mnt
		for k in 1 2 3; do
			mount --bind /mnt/$k /src
			PASSPHRASE="a pass phrase" "$2" backup --archive-dir "$3" --current-time $((1750000000 + k * 86400)) /src file:///mnt/archive >/dev/null
			umount /src
		done
		umount /mnt' "$here" "$work/data.tmp" "$dupfs" "$work/cache"
	rm -rf "$work/cache"
	mv "$work/data.tmp" "$work/data.img"
}

# begin boots a machine that has dupfs, the scripts and, as /dev/vdb, the data.
begin() {
	vm_fresh
	vm_boot -drive "file=$work/data.img,if=virtio,format=raw,readonly=on" \
		-drive "file=$work/bundle.tar,if=virtio,format=raw,readonly=on" "$@"
	guest "tar -C /root -xf /dev/vdc && mv /root/bundle /root/vm"
}

# again lets it boot anew.
again() {
	say "reboot"
	guest "systemctl reboot" || true
	sleep 5
	vm_await
}
