# shellcheck shell=bash
# Finding cargo and what it built. Sourced by scripts/run and scripts/test.

# need_cargo NAME: cargo is in PATH afterwards, or NAME ends with a line that says how to get it.
need_cargo() {
  command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin
  command -v cargo >/dev/null && return 0
  echo "$1: there is no cargo: install Rust $(rust_version) or later (https://rustup.rs), then run this again" >&2
  exit 1
}

rust_version() { sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml"; }

# built PROFILE: the path of the binary of that profile (release or debug).
built() { echo "${CARGO_TARGET_DIR:-$root/target}/$1/gammaray"; }

# setup NAME: scripts/setup, without apt's chatter.
setup() {
  "$here/setup" | sed -un 's/^setup: /  setup: /p' || { echo "$1: scripts/setup failed" >&2; exit 1; }
}
