# shellcheck shell=sh disable=SC2154 source-path=SCRIPTDIR
# A guest's life on the disk: partitions, a file system, discards, zeroes, flushes.
. "$(dirname "$0")/common.sh"

image=/dev/shm/image

zeros() { # zeros FROM_MIB MIB
  cmp -n $(($2 << 20)) -i $(($1 << 20)):0 "$device" /dev/zero || fail "no zeros at $1 MiB"
}

life() {
  truncate -s 64M $image
  printf 'label: gpt\nstart=2048, size=100000\n' | sfdisk -q $image
  serve "$@" $image
  sleep 0.5
  [ -b "${device}p1" ] || fail "no partition appeared"
  mkfs.ext4 -q "${device}p1" && mkdir -p /dev/shm/mnt && mount "${device}p1" /dev/shm/mnt || fail "mount"
  cp -r /usr/share/doc/bash /usr/share/doc/e2fsprogs /usr/share/doc/fio /dev/shm/mnt/
  rm -r /dev/shm/mnt/bash && sync && fstrim /dev/shm/mnt || fail "fstrim"
  umount /dev/shm/mnt
  e2fsck -fn "${device}p1" >/dev/shm/fsck 2>&1 || fail "e2fsck: $(cat /dev/shm/fsck)"
  same $image
  dd if=/dev/urandom of="$device" bs=1M count=8 seek=40 oflag=direct conv=fsync 2>/dev/null
  blkdiscard -o $((40 << 20)) -l $((2 << 20)) "$device" || fail "blkdiscard"
  blkdiscard -z -o $((44 << 20)) -l $((2 << 20)) "$device" || fail "blkdiscard -z"
  fallocate -z -o $((46 << 20)) -l $((1 << 20)) "$device" || fail "fallocate -z"
  blockdev --flushbufs "$device"
  zeros 40 2
  zeros 44 3
  cmp -s -n $((2 << 20)) -i $((42 << 20)):0 "$device" /dev/zero && fail "more was discarded than asked"
  dd if=/dev/zero of="$device" bs=4k count=1 seek=9000 oflag=direct,dsync 2>/dev/null || fail "FUA write"
  same $image
  stop
  for c in writes zeros flushes; do [ "$(counter $c)" -gt 0 ] || fail "the tap saw no $c: $(cat $log)"; done
  pass "life on a disk $*: $(tail -1 $log)"
}

life
life --no-map
life --no-map --want

serve --no-scan $image
sleep 0.5
[ ! -e "${device}p1" ] || fail "--no-scan, and yet a partition appeared"
stop
pass "no scan, no partition"
