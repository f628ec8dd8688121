# SPDX-License-Identifier: Apache-2.0
# Shared by the scripts of this folder; sourced, never run.
# shellcheck shell=bash

# shellcheck disable=SC2034  # used by the scripts that source this
vallum_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Configures when needed and builds a preset; with names, only those targets.
#   $1: preset (see CMakePresets.json)
build_preset() {
  local preset=$1; shift
  local dir=$vallum_root/build/$preset
  if [ ! -e "$dir/build.ninja" ]; then
    say "configuring ($preset)"
    mkdir -p "$vallum_root/build"
    (cd "$vallum_root" && cmake --preset "$preset" >"$dir.configure.log" 2>&1) || {
      cat "$dir.configure.log" >&2
      die "cmake --preset $preset failed"
    }
  fi
  say "building ($preset)"
  # Nothing of it is of interest unless it fails, and then all of it is.
  # Other checkouts of the same tree share what was compiled.
  export CCACHE_BASEDIR=$vallum_root CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=time_macros
  if [ -t 2 ]; then ninja -C "$dir" "$@" >&2; else ninja -C "$dir" --quiet "$@" >&2; fi ||
    die "the build failed; the first error above says where"
}
