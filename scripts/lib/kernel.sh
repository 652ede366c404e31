# shellcheck shell=bash
# Getting and unpacking the lab VM's kernel. Sourced by scripts/vm after lib/apt.sh.
# Every function fails with one line on stderr.

# What the lab uses and a kernel may have as modules, dependencies left to modprobe.
lab_modules=(
  virtio_pci virtio_blk 9p 9pnet_virtio overlay ext4 crc32c_generic crc32c-intel
  loop nbd brd ublk_drv ntfs3 fuse dm-mod dm-flakey dm-log-writes
)

# lab_kernel FLAVOUR: prints the folder with vmlinux and initrd, made on first use.
lab_kernel() {
  local flavour=$1 lab dir
  lab=${GAMMARAY_LAB:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/gammaray/lab}
  dir=$lab/$flavour
  if ! kernel_is_current "$dir"; then
    mkdir -p "$lab" || return 1
    (
      # The first one makes it, the others wait and find it made.
      flock 9 && { kernel_is_current "$dir" || make_kernel "$flavour" "$lab"; }
    ) 9>"$lab/lock" || return 1
  fi
  echo "$dir"
}

# The recipe's own text is part of what was made: a changed recipe makes it anew.
recipe_sum() { cat "$here/lib/kernel.sh" "$here/lib/vm-init" | sha256sum; }

kernel_is_current() { [ "$(cat "$1/recipe" 2>/dev/null)" = "$(recipe_sum)" ]; }

make_kernel() (
  flavour=$1 lab=$2
  work=$lab/new.$flavour
  # An interrupted attempt may have left it; the lock is ours.
  rm -rf "$work"
  mkdir -p "$work"
  trap 'rm -rf "$work"' EXIT
  local_kernel "$lab/debs.$flavour" || fetch_kernel "$flavour" "$lab/debs.$flavour" || exit 1
  unpack_kernel "$lab/debs.$flavour" "$work/root" || exit 1
  mkdir "$work/out"
  extract_vmlinux "$work/root" "$work/out/vmlinux" || exit 1
  make_initrd "$work/root" "$work/ird" "$work/out/initrd" || exit 1
  recipe_sum >"$work/out/recipe"
  rm -rf "$lab/$flavour"
  mv "$work/out" "$lab/$flavour"
)

local_kernel() { compgen -G "$1/*.deb" >/dev/null; }

# A private apt: its own sources and lists, so that neither root nor a change to the system is needed.
private_apt() {
  local tool=$1
  shift
  "$tool" -q -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$apt_root/sources" \
    -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
    -o Dir::State="$apt_root/state" -o Dir::Cache="$apt_root/cache" -o Acquire::Languages=none \
    -o APT::Sandbox::User="$(id -un)" -o Acquire::Retries=3 "$@"
}

# fetch_kernel FLAVOUR DIR: the .deb files of the newest kernel of that flavour.
fetch_kernel() (
  flavour=$1 dir=$2
  command -v apt-get >/dev/null || { echo "vm: the lab kernel is fetched with apt, and there is none" >&2; exit 1; }
  apt_root=$dir.apt
  rm -rf "$apt_root" "$dir.new"
  mkdir -p "$apt_root"/{sources,state/lists/partial,cache/archives/partial} "$dir.new"
  trap 'rm -rf "$apt_root" "$dir.new"' EXIT
  apt_entry "$(kernel_suite "$flavour")" >"$apt_root/sources/lab.sources" ||
    { echo "vm: no Debian entry under /etc/apt to fetch the lab kernel from" >&2; exit 1; }
  echo "vm: fetching the $flavour lab kernel (once)" >&2
  private_apt apt-get update >"$dir.log" 2>&1 || { echo "vm: cannot fetch the lab kernel: $(grep -m1 '^[EW]:' "$dir.log")" >&2; exit 1; }
  mapfile -t names < <(kernel_packages "$flavour")
  [ ${#names[@]} != 0 ] || { echo "vm: no $flavour lab kernel in $(kernel_suite "$flavour")" >&2; exit 1; }
  cd "$dir.new" && private_apt apt-get download "${names[@]}" >>"$dir.log" 2>&1 ||
    { echo "vm: cannot download ${names[*]}: $(grep -m1 '^E:' "$dir.log")" >&2; exit 1; }
  mv "$dir.new" "$dir" && rm -f "$dir.log"
)

kernel_suite() {
  local codename
  # shellcheck disable=SC1091
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  case $1:$codename in
    newest:*) echo sid ;;
    *:bookworm) echo bookworm-backports ;;
    *) echo trixie ;;
  esac
}

kernel_packages() {
  case $1 in
    # Not -cloud (no 9p), not -rt, not -dbg, not -unsigned.
    stable) private_apt apt-cache pkgnames linux-image-6.12 | grep -E '^linux-image-6\.12[^-]*-amd64$' | sort -V | tail -1 ;;
    newest)
      # Images came as one package up to 7.1 and as two from 7.2 on.
      local version
      version=$(private_apt apt-cache pkgnames linux-binary- | sed -nE 's/^linux-binary-([0-9][^-]*-amd64)$/\1/p' | sort -V | tail -1)
      [ -n "$version" ] && printf '%s\n' "linux-binary-$version" "linux-modules-$version"
      ;;
  esac
}

unpack_kernel() {
  local deb
  for deb in "$1"/*.deb; do
    dpkg -x "$deb" "$2" || { echo "vm: cannot unpack $deb: remove it and try again" >&2; return 1; }
  done
  # Merged or not: what follows looks in lib/modules.
  [ -d "$2/lib/modules" ] || ln -s usr/lib "$2/lib"
}

# The uncompressed kernel, which QEMU starts by its PVH entry, seconds sooner than a bzImage. Where
# the payload lies: Documentation/arch/x86/boot.rst, setup_sects, payload_offset, payload_length.
extract_vmlinux() {
  local image sectors offset length unpack
  image=$(find "$1" -name 'vmlinuz*' -type f | head -1)
  [ -n "$image" ] || { echo "vm: the kernel package holds no vmlinuz" >&2; return 1; }
  field() { od -An -t"u$2" -j "$1" -N "$2" "$image" | tr -d ' '; }
  sectors=$(field 497 1) offset=$(field 584 4) length=$(field 588 4)
  payload() { tail -c +$(((sectors + 1) * 512 + offset + 1)) "$image" | head -c $((length - 4)); }
  case $(payload | head -c 4 | od -An -tx1 | tr -d ' ') in
    28b52ffd) unpack=zstd ;;
    fd377a58) unpack=xz ;;
    1f8b*) unpack=gzip ;;
    *) echo "vm: $image is compressed in an unknown way" >&2; return 1 ;;
  esac
  payload | $unpack -dcq >"$2" 2>/dev/null
  [ "$(head -c 4 "$2" | od -An -tx1 | tr -d ' ')" = 7f454c46 ] || { echo "vm: $image does not unpack to an ELF file" >&2; return 1; }
}

# An uncompressed initramfs of a static busybox, the modules in load order, and vm-init.
make_initrd() {
  local root=$1 ird=$2 version busybox
  version=$(basename "$(find "$root/lib/modules/" -mindepth 1 -maxdepth 1 -type d | head -1)")
  busybox=$(command -v busybox) || { echo "vm: busybox-static is missing: run scripts/setup" >&2; return 1; }
  mkdir -p "$ird/bin" "$ird/modules"
  cp "$busybox" "$ird/bin/busybox"
  local name
  for name in sh mkdir mount cat insmod grep ip stty switch_root poweroff sleep; do ln -s busybox "$ird/bin/$name"; done
  cp "$here/lib/vm-init" "$ird/init" && chmod +x "$ird/init"
  /sbin/depmod -b "$root" "$version" 2>/dev/null
  local module file
  for module in "${lab_modules[@]}"; do
    # A module that this kernel lacks or has built in lists nothing.
    /sbin/modprobe -d "$root" -S "$version" --show-depends "$module" 2>/dev/null | sed -n 's/^insmod \([^ ]*\).*/\1/p'
  done | awk '!seen[$0]++' | while read -r file; do
    name=$(basename "$file" | sed 's/\.ko.*/.ko/')
    case $file in
      *.xz) xz -dc "$file" ;;
      *.zst) zstd -dcq "$file" ;;
      *) cat "$file" ;;
    esac >"$ird/modules/$name" && echo "$name"
  done >"$ird/modules/order"
  grep -q '^ublk_drv.ko$' "$ird/modules/order" || { echo "vm: the lab kernel has no ublk_drv" >&2; return 1; }
  (cd "$ird" && find . | cpio -o -H newc --quiet) >"$3"
}
