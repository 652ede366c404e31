# shellcheck shell=sh disable=SC2154 source-path=SCRIPTDIR
# Sourced by the scripts here, which run in the lab VM. FILTER is the pass-through server.
set -u
log=/dev/shm/filter.log
device=''
pid=''

fail() { echo "FAILED: $*"; exit 1; }
pass() { echo "ok: $*"; }

# serve ARGS...: starts the filter; sets device and pid.
serve() {
  "$FILTER" "$@" >$log 2>&1 &
  pid=$!
  for _ in $(seq 100); do
    device=$(grep -m1 '^/dev/ublkb' $log) && [ -b "$device" ] && return 0
    kill -0 $pid 2>/dev/null || fail "filter $* ended: $(cat $log)"
    sleep 0.1
  done
  fail "filter $*: no device after 10 s"
}

# Stops the filter as a user would; then no device may be left.
stop() {
  kill -TERM $pid
  wait $pid || fail "filter did not end well: $(cat $log)"
  [ ! -e "$device" ] || fail "$device is still there"
}

# counter NAME: what the tap counted, after stop.
counter() { sed -n "s/.*\b$1: \([0-9]*\).*/\1/p" $log; }

# same IMAGE: the image holds what the guest reads.
same() {
  blockdev --flushbufs "$device"
  cmp "$1" "$device" || fail "the guest reads something else than $1 holds"
}
