# shellcheck shell=sh disable=SC2154 source-path=SCRIPTDIR
# What goes wrong: the guest hears of it, the tap does not, and no device is left behind.
. "$(dirname "$0")/common.sh"

mkdir -p /dev/shm/small

refused() { # refused TEXT ARGS...
  text=$1 said=/dev/shm/refused.log
  shift
  timeout 20 "$FILTER" "$@" >$said 2>&1
  [ $? = 1 ] || fail "filter $* was not refused: $(cat $said)"
  grep -q "$text" $said || fail "filter $*: $(cat $said)"
  [ "$(wc -l <$said)" = 1 ] || fail "more than a line: $(cat $said)"
}

full_host() {
  mount -t tmpfs -o size=4M tmpfs /dev/shm/small
  truncate -s 16M /dev/shm/small/image
  serve "$@" /dev/shm/small/image
  dd if=/dev/zero of="$device" bs=1M count=2 oflag=direct 2>/dev/null || fail "a write that fits"
  dd if=/dev/zero of="$device" bs=1M seek=8 count=6 oflag=direct 2>/dev/shm/dd && fail "a write that does not fit"
  grep -qi 'no space\|input/output' /dev/shm/dd || fail "odd error: $(cat /dev/shm/dd)"
  dd if="$device" of=/dev/null bs=1M count=16 iflag=direct 2>/dev/null
  stop
  # Two that fit, and what fits of the rest.
  [ "$(counter bytes)" -le $((4 << 20)) ] || fail "the tap heard of a failed write: $(cat $log)"
  umount /dev/shm/small
  pass "a full host $*: $(tail -1 $log)"
}

cut_image() {
  truncate -s 16M /dev/shm/cut
  serve "$@" /dev/shm/cut
  truncate -s 1M /dev/shm/cut
  dd if="$device" of=/dev/null bs=1M skip=4 count=1 iflag=direct 2>/dev/null && fail "a read of what is gone"
  dd if="$device" of=/dev/null bs=512k count=1 iflag=direct 2>/dev/null || fail "a read of what is left"
  stop
  pass "an image that is cut off under us $*"
}

# dm-mod's error target would need dmsetup; a full or cut file fails the same way.
full_host
full_host --no-map
cut_image
cut_image --no-map

truncate -s 16M /dev/shm/image
serve /dev/shm/image
refused 'in use by another gammaray' /dev/shm/image
stop
loop=$(losetup -f --show /dev/shm/image)
refused 'in use by the loop device' /dev/shm/image
losetup -d "$loop"
refused 'no such image' /dev/shm/none
refused 'neither' /dev/shm
pass "images that are in use or none"

mkfs.ext4 -q /dev/vda && mount /dev/vda /dev/shm/small && refused 'in use by a mount' /dev/vda && umount /dev/shm/small
pass "a mounted block device"

serve /dev/shm/image
kill -KILL $pid
wait $pid 2>/dev/null
for _ in $(seq 50); do [ -e "$device" ] || break; sleep 0.1; done
[ ! -e "$device" ] || fail "$device outlived its killed server"
serve /dev/shm/image
stop
pass "killed, and served again"

# Removed while something holds it open and writes.
serve /dev/shm/image --no-map
sleep 30 <"$device" &
holder=$!
fio --name=w --filename="$device" --size=16M --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=32 \
  --time_based --runtime=20 >/dev/shm/fio.out 2>&1 &
writer=$!
until [ "$(awk '{print $5}' "/sys/block/${device#/dev/}/stat")" -gt 100 ]; do sleep 0.2; done
stop
wait $writer && fail "the writer noticed nothing"
kill $holder
for _ in $(seq 50); do [ -e /dev/ublkc0 ] || break; sleep 0.1; done
serve /dev/shm/image
stop
pass "stopped under load"

mv /dev/ublk-control /dev/ublk-control.away
refused 'modprobe ublk_drv' /dev/shm/image
pass "no driver"
dmesg | grep -E 'BUG:|WARNING:|Oops|blocked for more' && fail "the kernel complains"
exit 0
