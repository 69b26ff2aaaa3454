# units.sh    contrib/systemd, before a reboot
. /root/vm/lib.sh
cp /root/vm/systemd/{dupfs@.service,back.mount,back.automount} /etc/systemd/system/
sed -i 's|/mnt/disk/documents|/srv/archive|' /etc/systemd/system/back.mount
mkdir -p /etc/systemd/system/back.automount.d
printf '[Automount]\nTimeoutIdleSec=4s\n' >/etc/systemd/system/back.automount.d/idle.conf
printf 'URL=file:///srv/archive\nDIR=/srv/home\nOPTIONS=--allow-other\n' >/etc/dupfs/home.env
mkdir -p /srv/home
systemctl daemon-reload
ok "the units are sound" bash -c 'out=$(systemd-analyze verify /etc/systemd/system/{dupfs@home.service,back.mount,back.automount} 2>&1 | grep -E "dupfs|back\."); [ -z "$out" ] || { echo "$out"; exit 1; }'

say_status() { systemctl status --no-pager --lines=4 "$1" | sed 's/^/      /'; }

ok "dupfs@home begins" systemctl start dupfs@home
ok "it can be used at once" test -d /srv/home/snapshots/latest/small
say_status dupfs@home
ok "status says where" sh -c 'systemctl show -p StatusText dupfs@home | grep -qx "StatusText=mounted on /srv/home"'
ok "no secret is in its command line or environment" sh -c 'p=$(systemctl show -P MainPID dupfs@home); ! tr "\0" "\n" </proc/$p/cmdline | grep -q "pass phrase" && ! tr "\0" "\n" </proc/$p/environ | grep -q "pass phrase"'
ok "its cache is in /var/cache" test -d /var/cache/dupfs
ok "everything is there" same /data/3 /srv/home/snapshots/latest
ok "another user reads it, too" setpriv --reuid 1000 --regid 1000 --clear-groups cat /srv/home/snapshots/latest/small/3/3/file3
fails "but not what is root's" setpriv --reuid 1000 --regid 1000 --clear-groups ls /srv/home/snapshots/latest/small/4
kill -KILL "$(systemctl show -P MainPID dupfs@home)"
ok "killed, it comes back" within 60 sh -c 'test -d /srv/home/snapshots/latest/small && systemctl is-active dupfs@home'
exec 3</srv/home/snapshots/latest/big/noise
ok "it stops while a file is open" timeout 60 systemctl stop dupfs@home
exec 3<&-
ok "nothing is mounted" gone /srv/home
ok "no process is left" within 5 dead
ok "the unit did not fail" sh -c '! systemctl is-failed dupfs@home'
mv /etc/dupfs/home.pass /etc/dupfs/keep; echo wrong >/etc/dupfs/home.pass; chmod 600 /etc/dupfs/home.pass
fails "a wrong passphrase" timeout 60 systemctl start dupfs@home
ok "the journal says why" sh -c 'journalctl -b -u dupfs@home --no-pager | grep -i passphrase'
mv -f /etc/dupfs/keep /etc/dupfs/home.pass
systemctl stop dupfs@home; systemctl reset-failed dupfs@home

ok "the automount begins" systemctl start back.automount
ok "nothing is mounted yet" gone /back
ok "who looks mounts it" test -d /back/snapshots/latest/small
say_status back.mount
ok "everything is there" same /data/3 /back/snapshots/latest
ok "idle, it goes" within 40 gone /back
ok "and its process" within 5 dead
ok "and the unit did not fail" sh -c '! systemctl is-failed back.mount'
ok "it comes again" test -d /back/snapshots/latest/small
ok "stop both" systemctl stop back.automount back.mount
ok "nothing is mounted" gone /back
ok "start the mount alone" systemctl start back.mount
ok "the secret is in no list" sh -c '! grep -q "pass phrase" /proc/mounts && ! ps axww | grep -v grep | grep -q "pass phrase"'
exec 3</back/snapshots/latest/big/noise
timeout 100 systemctl stop back.mount; echo "      stop with a reader: status $?, $(systemctl is-active back.mount)"
ok "the reader goes on, or has an error" timeout 20 sh -c 'cat <&3 >/dev/null || true'
exec 3<&-
ok "stop" systemctl stop back.mount
ok "nothing is mounted" gone /back
ok "and no process" within 5 dead
mv /etc/dupfs/documents.pass /etc/dupfs/keep; echo wrong >/etc/dupfs/documents.pass; chmod 600 /etc/dupfs/documents.pass
fails "a wrong passphrase" timeout 60 systemctl start back.mount
ok "the journal says why" sh -c 'journalctl -b -u back.mount --no-pager | grep -i passphrase'
mv -f /etc/dupfs/keep /etc/dupfs/documents.pass
systemctl reset-failed
ok "enable them for the next boot" systemctl enable dupfs@home back.automount
done_
