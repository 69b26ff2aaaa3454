# nfs.sh    the kernel's NFS server exports the mount, the kernel's client uses it
. /root/vm/lib.sh
mount_archive() { dupfs mount --allow-other --passphrase-file /etc/dupfs/documents.pass file:///srv/archive /exported; }
drop() { sync; echo 3 >/proc/sys/vm/drop_caches; }
mkdir -p /exported /client /copy
systemctl unmask nfs-server >/dev/null 2>&1
ok "mount" mount_archive
echo '/exported 127.0.0.1(ro,fsid=77,no_subtree_check,no_root_squash,insecure)' >/etc/exports
ok "serve" timeout 120 systemctl start nfs-server
ok "export" exportfs -ra
for version in 3 4.2; do
	echo "-- NFS $version"
	options=vers=$version,ro,soft,timeo=600,retrans=2
	[ $version = 3 ] && options+=,nolock
	ok "client mounts" timeout 120 mount -t nfs -o $options 127.0.0.1:/exported /client
	ok "points are listed" sh -c '[ "$(ls /client/snapshots | wc -l)" = 4 ]'
	ok "ls -lR" sh -c 'ls -lR /client/snapshots/latest/ >/tmp/ls'
	ok "every name, attribute and byte is right" same /data/3 /client/snapshots/latest
	drop
	ok "after the caches are dropped, too" same /data/3 /client/snapshots/latest
	first=$(ls /client/snapshots | head -n 1)
	ok "an older point" same /data/1 "/client/snapshots/$first"
	rm -rf /copy/*
	ok "cp -a" cp -a "/client/snapshots/$first" /copy/1
	ok "what cp -a copied is the same" same /data/1 /copy/1
	(cd "/client/snapshots/$first/deep/x/x/x/x" && drop && ls -R . >/dev/null && cat $(printf 'x/%.0s' {1..56})bottom && pwd -P) >/tmp/deep 2>&1
	ok "in a deep directory while caches are dropped" grep -q here /tmp/deep
	# caches are dropped all the time, below readers
	(while :; do echo 2 >/proc/sys/vm/drop_caches; sleep 0.05; done) & dropper=$!
	ok "under constant dropping" same /data/2 "/client/snapshots/$(ls /client/snapshots | sed -n 2p)"
	ok "find over every point" sh -c 'find /client/snapshots >/dev/null'
	ok "versions" sh -c 'find /client/versions/small /client/versions/big >/dev/null && find /client/versions/big -type f | grep -q noise'
	ok "deleted" sh -c 'find /client/deleted >/tmp/deleted && [ "$(grep -c "many/name-" /tmp/deleted)" = 700 ]'
	ok "changes" sh -c 'ls -lR /client/changes >/dev/null; ls -lR /client/changes/1W..now >/dev/null'
	kill $dropper; wait $dropper 2>/dev/null
	exec 3</client/snapshots/latest/big/noise
	head -c 100000 <&3 >/dev/null
	cd "/client/snapshots/$first/small/3"
	ok "umount refuses while exported" sh -c '! umount /exported'
	# the server goes away and comes again: handles are good still
	exportfs -ua; echo 3 >/proc/sys/vm/drop_caches
	dupfs umount /exported # NFS 4 may hold a file open: then it is detached
	ok "dupfs is unmounted" gone /exported
	ok "and is mounted again" mount_archive
	exportfs -ra
	ok "an open file is read on" bash -c 'cat <&3 | cmp - <(tail -c +100001 /data/3/big/noise)'
	ok "a directory that one is in is there" sh -c 'ls -l . >/dev/null && cat 3/file3 >/dev/null'
	cd /; exec 3<&-
	ok "everything is right after it" same /data/3 /client/snapshots/latest
	ok "client unmounts" within 60 umount /client
done
exportfs -ua
systemctl stop nfs-server
ok "nothing holds the mount" umount /exported
done_
