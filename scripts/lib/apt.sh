# shellcheck shell=bash
# Where this machine gets its Debian packages from, and the same place for another suite.
# Sourced by scripts/setup and scripts/vm.

# apt_entry SUITE: prints a deb822 entry for SUITE, made from the machine's own Debian entry, so
# that mirrors, proxies and keys stay the machine's. Fails if there is no such entry.
apt_entry() {
  local suite=$1 own dir=${APT_DIR:-/etc/apt}
  # shellcheck disable=SC1091
  own=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  [ -n "$own" ] || return 1
  local f
  for f in "$dir"/sources.list.d/*.sources; do
    [ -f "$f" ] && entry_from_deb822 "$f" "$own" "$suite" && return 0
  done
  for f in "$dir"/sources.list "$dir"/sources.list.d/*.list; do
    [ -f "$f" ] && entry_from_line "$f" "$own" "$suite" && return 0
  done
  return 1
}

# The first stanza whose Suites name the release itself and whose components include main.
entry_from_deb822() {
  awk -v own="$2" -v suite="$3" '
    BEGIN { RS = ""; FS = "\n" }
    {
      types = suites = comps = 0; out = ""
      for (i = 1; i <= NF; i++) {
        if ($i ~ /^#/) continue
        n = split($i, w, /[ \t]+/)
        for (j = 2; j <= n; j++) {
          if (w[1] == "Types:" && w[j] == "deb") types = 1
          if (w[1] == "Suites:" && w[j] == own) suites = 1
          if (w[1] == "Components:" && w[j] == "main") comps = 1
        }
        if (w[1] == "Types:") $i = "Types: deb"
        if (w[1] == "Suites:") $i = "Suites: " suite
        if (w[1] == "Components:") $i = "Components: main"
        out = out $i "\n"
      }
      if (types && suites && comps) { printf "%s", out; found = 1; exit }
    }
    END { exit !found }' "$1"
}

# The same from the one-line format: deb [options] URI SUITE COMPONENTS...
entry_from_line() {
  awk -v own="$2" -v suite="$3" '
    $1 == "deb" {
      line = $0; signed = ""
      if (match(line, /\[[^]]*\]/)) {
        opts = substr(line, RSTART + 1, RLENGTH - 2)
        line = substr(line, 1, RSTART - 1) substr(line, RSTART + RLENGTH)
        if (match(opts, /signed-by=[^ ]+/)) signed = substr(opts, RSTART + 10, RLENGTH - 10)
      }
      n = split(line, w, /[ \t]+/)
      if (w[3] != own) next
      for (i = 4; i <= n; i++) if (w[i] == "main") {
        print "Types: deb\nURIs: " w[2] "\nSuites: " suite "\nComponents: main"
        if (signed != "") print "Signed-By: " signed
        found = 1; exit
      }
    }
    END { exit !found }' "$1"
}
