# shellcheck shell=bash
# Fetching, patching and building QEMU. Sourced by scripts/build-qemu after lib/apt.sh and
# lib/kernel.sh (for private_apt). Every function fails with one line on stderr.

# The suite whose source the patches are made for, and the version they were made on.
qemu_suite=trixie
patches=$(cd "$here/../patches" && pwd)

qemu_cache() { echo "${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/gammaray/qemu"; }
patched_qemu() { echo "$(qemu_cache)/bin/qemu-system-x86_64"; }

# The recipe's own text and the patches are part of what was built.
qemu_recipe_sum() { cat "$here/lib/qemu.sh" "$patches"/*.patch | sha256sum; }
patched_qemu_is_current() {
  [ -x "$(patched_qemu)" ] && [ "$(cat "$(qemu_cache)/bin/recipe" 2>/dev/null)" = "$(qemu_recipe_sum)" ]
}

build_qemu() {
  local jobs=$1 cache
  cache=$(qemu_cache)
  need_qemu_packages || return 1
  mkdir -p "$cache"
  (
    # The first one builds, the others wait and find it built.
    flock 9
    patched_qemu_is_current && exit 0
    set -e
    [ -e "$cache/orig/.complete" ] || fetch_qemu "$cache"
    [ -e "$cache/python/.complete" ] || make_python "$cache/python"
    patch_qemu "$cache"
    configure_qemu "$cache"
    compile_qemu "$cache" "$jobs"
    install_qemu "$cache"
  ) 9>"$cache/lock"
}

need_qemu_packages() {
  "$here/setup" --qemu --check || { echo "build-qemu: run scripts/setup --qemu as root first" >&2; return 1; }
}

# The source as Debian patched it, unpacked in $cache/orig.
fetch_qemu() (
  cache=$1
  apt_root=$cache/apt
  rm -rf "$apt_root" "$cache/fetch"
  mkdir -p "$apt_root"/{sources,state/lists/partial,cache/archives/partial} "$cache/fetch"
  trap 'rm -rf "$apt_root"' EXIT
  apt_entry "$qemu_suite" | sed 's/^Types:.*/Types: deb-src/' >"$apt_root/sources/qemu.sources"
  [ -s "$apt_root/sources/qemu.sources" ] || { echo "build-qemu: no Debian entry under /etc/apt to fetch the source from" >&2; exit 1; }
  echo "build-qemu: fetching QEMU's source from $qemu_suite (once)"
  log=$cache/fetch.log
  { private_apt apt-get update && cd "$cache/fetch" && private_apt apt-get source qemu; } >"$log" 2>&1 ||
    { echo "build-qemu: cannot fetch QEMU's source: $(grep -m1 '^[EW]:' "$log") (see $log)" >&2; exit 1; }
  rm -rf "$cache/orig"
  mv "$cache"/fetch/qemu-*/ "$cache/orig"
  rm -rf "$cache/fetch"
  touch "$cache/orig/.complete"
)

# QEMU's configure wants a newer meson than Debian 12 has, in a Python environment of its own.
make_python() {
  echo "build-qemu: making a Python environment with meson"
  rm -rf "$1"
  { /usr/bin/python3 -m venv "$1" && "$1/bin/pip" -q install 'meson>=1.5,<1.10' pycotap==1.3.1 tomli; } >"$1.log" 2>&1 ||
    { echo "build-qemu: cannot install meson with pip: $(tail -1 "$1.log")" >&2; return 1; }
  touch "$1/.complete"
}

# A copy of the source with our patches in $cache/src.
patch_qemu() {
  local p
  rm -rf "$1/src"
  cp -a --reflink=auto "$1/orig" "$1/src"
  for p in "$patches"/*.patch; do
    patch -d "$1/src" -p1 --no-backup-if-mismatch -s <"$p" ||
      { echo "build-qemu: $(basename "$p") does not fit $(cat "$1/orig/VERSION")" >&2; return 1; }
  done
  # Debian's tarball lacks these, and the build only copies them.
  local f
  sed -n "s/.*'\(edk2-[^']*\.fd\.bz2\)'.*/\1/p" "$1/src/pc-bios/meson.build" | while read -r f; do
    [ -e "$1/src/pc-bios/$f" ] || bzip2 -c </dev/null >"$1/src/pc-bios/$f"
  done
}

configure_qemu() {
  rm -rf "$1/build"
  mkdir "$1/build"
  cd "$1/build" || return 1
  ../src/configure --target-list=x86_64-softmmu --without-default-features --enable-system --enable-tcg \
    --enable-tools --enable-virtfs --enable-attr --enable-linux-aio --enable-fdt=system \
    --enable-trace-backends=log --disable-docs --disable-user --disable-install-blobs \
    --disable-download --python="$1/python/bin/python3" >"$1/configure.log" 2>&1 ||
    { echo "build-qemu: configure failed: $(grep -m1 -i error "$1/configure.log") (see $1/configure.log)" >&2; return 1; }
}

compile_qemu() {
  echo "build-qemu: compiling (some minutes)"
  nice -n 15 ninja -C "$1/build" -j "$2" qemu-system-x86_64 qemu-img qemu-io >"$1/build.log" 2>&1 ||
    { echo "build-qemu: compiling failed: $(grep -m1 -E 'error:|FAILED' "$1/build.log") (see $1/build.log)" >&2; return 1; }
}

install_qemu() {
  rm -rf "$1/bin"
  mkdir "$1/bin"
  cp "$1"/build/qemu-system-x86_64 "$1"/build/qemu-img "$1"/build/qemu-io "$1/bin/"
  qemu_recipe_sum >"$1/bin/recipe"
}
