# shutdown.sh    mounts in use when the system is shut down
. /root/vm/lib.sh
cp /root/vm/systemd/dupfs@.service /etc/systemd/system/
mkdir -p /srv/home /eager
printf 'URL=file:///srv/archive\nDIR=/srv/home\nOPTIONS=--allow-other\n' >/etc/dupfs/home.env
echo 'file:///srv/archive /eager fuse.dupfs _netdev,nofail,allow_other,passphrase-file=/etc/dupfs/documents.pass 0 0' >>/etc/fstab
systemctl daemon-reload
ok "mount by fstab" systemctl start eager.mount
ok "mount by the service" systemctl start dupfs@home
# readers that do not end by themselves, one of which is deaf to SIGTERM
systemd-run -q --unit=reader1 sh -c 'while :; do cat /eager/snapshots/*/big/* >/dev/null; done'
systemd-run -q --unit=reader2 sh -c 'cd /srv/home/snapshots/latest/small; trap "" TERM; exec 3<../big/noise; while :; do find . >/dev/null; done'
setsid sh -c 'cd /eager/snapshots/latest; trap "" TERM HUP; while :; do find . -type f -exec cat {} + >/dev/null; done' >/dev/null 2>&1 &
sleep 3
ok "the readers read" sh -c 'systemctl is-active reader1 reader2'
done_
