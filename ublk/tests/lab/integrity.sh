# shellcheck shell=sh disable=SC2154 source-path=SCRIPTDIR
# What is written is read back, at several depths and sizes, over each kind of backing.
. "$(dirname "$0")/common.sh"

verify() {
  depth=$1
  fio --name=verify --filename="$device" --size=24M --direct=1 --ioengine=libaio --iodepth="$depth" \
    --rw=randwrite --bssplit=512/15:4k/45:20k/15:128k/15:1m/10 --serialize_overlap=1 --randseed="$depth" \
    --verify=crc32c --verify_fatal=1 --output=/dev/shm/fio.out || fail "fio at depth $depth: $(cat /dev/shm/fio.out)"
}

cycle() {
  name=$1 image=$2
  shift 2
  serve "$@" "$image"
  for depth in 1 8 32; do verify $depth; done
  same "$image"
  stop
  pass "$name: $(tail -1 $log)"
}

truncate -s 24M /dev/shm/image
cycle "tmpfs, mapped" /dev/shm/image
cycle "tmpfs, copied" /dev/shm/image --no-map
cycle "tmpfs, copied, one queue, shallow" /dev/shm/image --no-map --queues 1 --depth 4

mkfs.ext4 -q /dev/vda && mkdir -p /dev/shm/host && mount /dev/vda /dev/shm/host || fail "no ext4 on the host's disk"
truncate -s 24M /dev/shm/host/image
cycle "ext4, direct" /dev/shm/host/image
cycle "ext4, buffered" /dev/shm/host/image --buffered
cycle "block device" /dev/vdb
