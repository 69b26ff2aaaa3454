# Common helpers of the scripts in this directory, which set $here and source it.
# pid files hold "PID STARTTIME" so that a recycled pid is never signalled.

LO=127.0.0.1
PY=/usr/bin/python3

# What setup.sh fetched. "${in_root[@]}" CMD runs CMD with the Debian packages that
# were unpacked there.  (Without the compiled modules that Python
# writes beside them, every start would take seconds longer.)
SERVERS=${DUPFS_SERVERS:-$here/../../.servers}
ROOT=$SERVERS/root
in_root=(env -u PYTHONDONTWRITEBYTECODE)
if [ -d "$ROOT" ]; then
	in_root+=(PYTHONPATH="$ROOT/usr/lib/python3/dist-packages:$SERVERS/azure-python"
		LD_LIBRARY_PATH="$(ls -d "$ROOT"/usr/lib/*-linux-gnu "$ROOT"/lib/*-linux-gnu 2>/dev/null | paste -sd:)"
		PATH="$PATH:$ROOT/usr/bin:$ROOT/usr/sbin:$ROOT/bin")
fi
umask 022

_starttime() { # PID -> kernel start time, or nothing
	local s
	s=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
	s=${s##*) }
	set -- $s
	echo "${20}"
}

alive() { # PIDFILE
	local pid st
	[ -f "$1" ] || return 1
	read -r pid st <"$1" || return 1
	[ -n "$pid" ] && [ "$(_starttime "$pid")" = "$st" ] || return 1
	case $(awk '{print $3}' "/proc/$pid/stat" 2>/dev/null) in Z) return 1 ;; esac
}

# spawn PIDFILE LOGFILE CMD...   (own session, stdin closed, output to LOGFILE)
spawn() {
	local pf=$1 log=$2 pid
	shift 2
	alive "$pf" && return 0
	setsid "$@" </dev/null >>"$log" 2>&1 &
	pid=$!
	echo "$pid $(_starttime "$pid")" >"$pf"
}

# wait_for SECONDS CMD...  poll every 50 ms
wait_for() {
	local end
	end=$(($(date +%s%N) + $1 * 1000000000))
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$(date +%s%N)" -lt "$end" ] || return 1
		sleep 0.05
	done
}

# ready PIDFILE SECONDS CMD...  like wait_for, but gives up when the daemon is dead
ready() {
	local pf=$1 end
	end=$(($(date +%s%N) + $2 * 1000000000))
	shift 2
	until "$@" >/dev/null 2>&1; do
		alive "$pf" && [ "$(date +%s%N)" -lt "$end" ] || return 1
		sleep 0.05
	done
}

port_open() { (exec 3<>"/dev/tcp/$LO/$1") 2>/dev/null; }
http_ok() { curl -fsS -o /dev/null --noproxy '*' --max-time 2 "$1"; }

# need_free PORT...  fail early when a port is taken by somebody else
need_free() {
	local p
	for p; do
		if port_open "$p"; then
			echo "port $p on $LO is already in use" >&2
			return 1
		fi
	done
}

# stop PIDFILE [SECONDS]  TERM, wait, then KILL; whole session (process group)
stop() {
	local pf=$1 t=${2:-5} pid st
	if alive "$pf"; then
		read -r pid st <"$pf"
		kill -TERM -- "-$pid" 2>/dev/null || kill -TERM "$pid" 2>/dev/null
		if ! wait_for "$t" not_alive "$pf"; then
			kill -KILL -- "-$pid" 2>/dev/null || kill -KILL "$pid" 2>/dev/null
			wait_for 2 not_alive "$pf"
		fi
	fi
	rm -f "$pf"
}
not_alive() { ! alive "$1"; }

die() { echo "$0: $*" >&2; exit 1; }
# fail_logs DIR  show the end of every log, then exit 1
fail_logs() {
	local f
	for f in "$1"/log/*; do [ -s "$f" ] && { echo "== $f" >&2; tail -n 15 "$f" >&2; }; done
	exit 1
}
