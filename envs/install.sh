#!/usr/bin/env bash
# envs/install.sh VENV LOCK...: install hashed locks into a virtual environment, made if it is not there.
#
# Environment: PYTHON (a Python 3.11), TORCH_INDEX (index of the CPU wheel of torch, asked only where pip's own
# configuration has none), TORCH_HASH (accept this SHA-256 of the wheel of torch in place of the lock's).
# $VENV/installed keeps the digest of the main locks: another one means a new environment, not one on top of the old.
set -euo pipefail

fail() {
  printf 'error: %s\n' "$1" >&2
  shift
  printf '  %s\n' "$@" >&2
  exit 2
}

venv=$1
shift
[ "$(uname -sm)" = "Linux x86_64" ] || fail "the locked environment is for Linux on x86_64, this is $(uname -sm)" \
  "instead: a Linux machine or container; or resolve envs/*.in for this platform with 'make lock'"
version=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null) ||
  fail "no Python 3.11 was found (tried: $PYTHON)" "instead: make PYTHON=<path of a Python 3.11>"
[ "$version" = 3.11 ] || fail "$PYTHON is Python $version, the locks are for 3.11" "instead: make PYTHON=<path of a Python 3.11>"

digest=$(cat "$@" | sha256sum | cut -c1-64)
name=$([ "$#" = 1 ] && basename "$1" .txt || echo main)
stamp=$venv/installed$([ "$name" = main ] || echo "-$name")
if [ -f "$stamp" ] && [ -x "$venv/bin/python" ]; then
  if [ "$(cat "$stamp")" = "$digest" ]; then # a checkout touched the lock, nothing else
    touch "$stamp"
    exit 0
  fi
  [ "$name" != main ] || rm -rf "$venv"
fi
[ -x "$venv/bin/python" ] || "$PYTHON" -m venv "$venv" ||
  fail "no virtual environment could be made at $venv" "on Debian and Ubuntu: apt-get install python3.11-venv"

pip=("$venv/bin/python" -m pip --disable-pip-version-check --no-input)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# torch apart: its index holds other packages too, which must not be asked for there.
awk -v torch="$work/torch.txt" -v rest="$work/rest.txt" \
  '/^[a-z0-9]/ { file = /^torch==/ ? torch : rest } { print > file }' "$@"
echo "installing $(grep -hc '==' "$work/rest.txt") locked packages into $venv"
"${pip[@]}" install -qq --require-hashes --no-deps -r "$work/rest.txt" ||
  fail "the locked packages could not be installed (above: pip's reason)" \
    "a network problem passes: run the command again"

if [ -f "$work/torch.txt" ]; then
  torch=$(sed -n 's/^\(torch==[^ ]*\).*/\1/p' "$work/torch.txt")
  index=()
  if ! "${pip[@]}" install --quiet --dry-run --no-deps "$torch" > /dev/null 2>&1; then
    index=(--index-url "$TORCH_INDEX")
  fi
  if [ -n "${TORCH_HASH:-}" ]; then
    printf '%s --hash=sha256:%s\n' "$torch" "$TORCH_HASH" > "$work/torch.txt"
  fi
  echo "installing $torch ${index[*]:+from $TORCH_INDEX}"
  "${pip[@]}" install -qq --require-hashes --no-deps "${index[@]}" -r "$work/torch.txt" ||
    fail "$torch could not be installed (above: pip's reason)" \
      "'No matching distribution': neither pip's configuration nor $TORCH_INDEX has it; set TORCH_INDEX or PIP_FIND_LINKS" \
      "'do not match the hashes': the lock holds the SHA-256 of one build of this version and the index serves another." \
      "If you trust the index, run again with TORCH_HASH=<the 'Got' value that pip printed>."
fi
echo "$digest" > "$stamp"
