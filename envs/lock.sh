#!/usr/bin/env bash
# Resolve envs/*.in into hashed locks that agree with each other. Needs uv (a wheel from the Python package index).
# A local folder of wheels goes into UV_FIND_LINKS: uv does not read pip's configuration.
set -euo pipefail
cd "$(dirname "$0")"
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT

resolve() { # resolve NAME [constraints]: envs/NAME.in -> envs/NAME.txt
  uv pip compile --quiet --generate-hashes --no-header --no-annotate --no-emit-find-links --no-emit-index-url \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 "$1.in" "${@:2}" --output-file "$1.txt"
}

pins_of() { # the pins of a lock, without hashes
  sed -n 's/^\([A-Za-z0-9][^ ]*==[^ ]*\).*/\1/p' "$1.txt"
}

resolve ml-cpu
pins_of ml-cpu | grep -vE '^(torch|triton|nvidia-)' > "$pins"
for name in ml-cuda121 workflow light dev; do
  resolve "$name" --constraints "$pins"
  [ "$name" = ml-cuda121 ] || pins_of "$name" >> "$pins"
done
resolve audit # an environment of its own: bound to no other lock
