# fstab-booted.sh    after the reboot
. /root/vm/lib.sh
ok "the machine is up" within 90 sh -c 's=$(systemctl is-system-running); [ "$s" = running ] || [ "$s" = degraded ]'
ok "/eager is mounted" mounted /eager
ok "by systemd" systemctl is-active eager.mount
ok "and shows everything" same /data/3 /eager/snapshots/latest
ok "/back is not" gone /back
ok "its automount is" systemctl is-active back.automount
ok "who looks mounts it" same /data/3 /back/snapshots/latest
ok "idle, it goes" within 40 gone /back
ok "what cannot be mounted failed alone" sh -c '[ "$(systemctl --failed --no-legend --plain | cut -d" " -f1)" = lost.mount ]'
ok "and says why" sh -c 'journalctl -b -u lost.mount --no-pager | grep -i "srv/nothing"'
systemd-analyze blame --no-pager | grep -E 'eager|lost|back' | sed 's/^/      /'
sed -i '/ \/lost /d' /etc/fstab
systemctl daemon-reload; systemctl reset-failed
done_
