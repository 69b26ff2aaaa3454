# fstab.sh    lines of /etc/fstab, before a reboot
. /root/vm/lib.sh
mkdir -p /back /eager /lost
sed -i '/ fuse\.dupfs /d' /etc/fstab
cat >>/etc/fstab <<'F'
file:///srv/archive /back fuse.dupfs noauto,x-systemd.automount,x-systemd.idle-timeout=4s,_netdev,allow_other,passphrase-file=/etc/dupfs/documents.pass 0 0
file:///srv/archive /eager fuse.dupfs _netdev,nofail,allow_other,passphrase-file=/etc/dupfs/documents.pass 0 0
F
systemctl daemon-reload
ok "mount -a" timeout 120 mount -a
ok "mounts what is not noauto" mounted /eager
ok "not the other" gone /back
ok "everything is there" same /data/3 /eager/snapshots/latest
ok "mount -a again" timeout 120 mount -a
ok "mounts it once" sh -c '[ "$(grep -c " /eager fuse.dupfs " /proc/mounts)" = 1 ]'
ok "findmnt knows it" findmnt -t fuse.dupfs /eager
ok "umount" umount /eager
ok "nothing is mounted" gone /eager
ok "no process is left" within 5 dead
ok "mount /back" mount /back
ok "shows everything" same /data/3 /back/snapshots/latest
ok "umount /back" umount /back
ok "no process is left" within 5 dead
ok "remount of a read-only mount, ro" sh -c 'mount /eager && mount -o remount,ro /eager && test -d /eager/snapshots/latest/small'
umount /eager
echo 'file:///srv/nothing /lost fuse.dupfs _netdev,nofail,passphrase-file=/etc/dupfs/documents.pass 0 0' >>/etc/fstab
systemctl daemon-reload
fails "mount -a with a line that cannot work" timeout 120 mount -a
ok "mounts the rest" mounted /eager
umount /eager
done_
