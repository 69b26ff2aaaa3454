# units-booted.sh    after the reboot
. /root/vm/lib.sh
ok "dupfs@home is active" within 60 systemctl is-active dupfs@home
ok "and shows everything" same /data/3 /srv/home/snapshots/latest
ok "the automount is active" systemctl is-active back.automount
ok "and shows everything" same /data/3 /back/snapshots/latest
ok "nothing failed" sh -c '! systemctl --failed --no-legend | grep .'
ok "disable them" systemctl disable --now dupfs@home back.automount
systemctl stop back.mount
rm /etc/systemd/system/back.{mount,automount}
systemctl daemon-reload
ok "nothing is mounted" gone /back
done_
