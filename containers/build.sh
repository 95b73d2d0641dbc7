#!/usr/bin/env bash
# containers/build.sh [ml] [light]: build the container images (both, if none is named) and write containers/images.yaml.
#
# Environment:
#   BASE       vendor: the CUDA 12.1 image of containers/ml.def, from its registry, by digest;
#              distribution: a bootstrap of Debian bookworm, CUDA 12.1 from the locked wheels;
#              auto (default): vendor if the registry answers, else distribution
#   FROM       another address of the vendor's image, such as a mirror of your site: host/name@sha256:<64 hex>
#   MIRROR     where the bootstrap takes Debian from; on Debian the machine's own mirror is the default
#   LOCK       the lock of the ml image: ml-cuda121 (default) or ml-cpu, smaller, for tests
#   FORCE      1: build even if an image of the same recipe is there
#   SQUASH     options of mksquashfs; default: -comp zstd -Xcompression-level 3
#   TORCH_INDEX, TORCH_HASH   see envs/install.sh
#   TMPDIR     room for the unpacked image, about three times its size
# Needs Apptainer; a bootstrap also needs debootstrap.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  printf 'error: %s\n' "$1" >&2
  shift
  printf '  %s\n' "$@" >&2
  exit 2
}

kinds=()
for word in "$@"; do
  case "$word" in
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
    ml | light) kinds+=("$word") ;;
    *) fail "no image is called $word" "instead: ml, light or nothing for both; --help" ;;
  esac
done
[ "${#kinds[@]}" -gt 0 ] || kinds=(light ml)

base=${BASE:-auto}
ml_lock=${LOCK:-ml-cuda121}
case "$base" in auto | vendor | distribution) ;; *) fail "no base is called $base" "instead: BASE=auto, vendor or distribution" ;; esac
case "$ml_lock" in ml-cuda121 | ml-cpu) ;; *) fail "no lock of the ml image is called $ml_lock" "instead: LOCK=ml-cuda121 or ml-cpu" ;; esac

apptainer=$(command -v apptainer || command -v singularity) ||
  fail "there is no Apptainer on PATH" "instead: install it, or 'module load apptainer'; docs/containers.md has the way for buildah and docker"
built=containers/built
names=containers/images.yaml
from=${FROM:-$(sed -n 's/^ *FROM=//p' containers/ml.def)}
[[ "$from" =~ @sha256:[0-9a-f]{64}$ ]] || fail "the base $from is not named by its digest" "instead: FROM=host/name@sha256:<64 hex>"
mkdir -p "$built"
work=$(mktemp -d "${TMPDIR:-/tmp}/images.XXXXXX")
trap 'rm -rf "$work" "$built"/.building-$$-*' EXIT

registry_answers() { # 401 is an answer too: "who are you?"
  local host=${from%%/*}
  [ "$host" != docker.io ] || host=index.docker.io
  case "$(curl -s -o /dev/null -m 10 -w '%{http_code}' "https://$host/v2/")" in 200 | 401) ;; *) return 1 ;; esac
}

own_mirror() { # of a Debian machine, as apt itself understands its configuration
  local release
  release=$(. /etc/os-release && [ "$ID" = debian ] && echo "$VERSION_CODENAME") || return 1
  apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 2> /dev/null |
    awk -v release="$release" '$1 == release && $2 == "main" && !found { print $3; found = 1 }'
}

if [ "$base" = auto ]; then
  base=vendor
  if ! registry_answers; then
    base=distribution
    printf '%s\n' "*** The registry ${from%%/*} does not answer." \
      "*** The images are built on Debian bookworm, with CUDA 12.1 from the locked wheels (BASE=vendor insists)." >&2
  fi
fi
if [ "$base" = vendor ]; then
  foundation="vendor:$from"
  arguments=(BOOTSTRAP=docker FROM="$from")
else
  export PATH=$PATH:/usr/sbin
  command -v debootstrap > /dev/null || fail "there is no debootstrap, which BASE=distribution needs" "instead: apt-get install debootstrap"
  mirror=${MIRROR:-$(own_mirror || true)}
  [ -n "$mirror" ] || fail "no mirror of Debian is known: this machine is no Debian, or its apt has no lists yet" \
    "instead: MIRROR=<address of a Debian mirror>, or 'apt-get update' on Debian"
  foundation=distribution:debian-bookworm
  arguments=(BOOTSTRAP=debootstrap FROM=none MIRROR="$mirror") # FROM=none: no vendor among the labels
fi

lock_of() { [ "$1" = ml ] && echo "$ml_lock" || echo light; }

recipe_of() { # what decides what is in an image; the date, the mirror and the compression do not
  local lock
  lock=$(lock_of "$1")
  { cat "containers/$1.def" containers/install.sh containers/check.py envs/install.sh "envs/$lock.txt"; echo "$lock $foundation ${TORCH_HASH:-}"; } |
    sha256sum | cut -c1-64
}

label() { # label IMAGE NAME
  "$apptainer" inspect --labels "$1" 2> /dev/null | sed -n "s/^w2s\.$2: //p"
}

sha256() { sha256sum "$1" | cut -c1-64; }

same_recipe() { # same_recipe KIND: the newest unaltered image that was built from the recipe as it is now
  local image recipe
  recipe=$(recipe_of "$1")
  for image in $(ls -t "$built/$1"-*.sif 2> /dev/null); do
    if [ "$(label "$image" recipe)" = "$recipe" ] && [ "$image" = "$built/$1-$(sha256 "$image").sif" ]; then
      echo "$image"
      return
    fi
  done
}

build() { # build KIND: leaves the name of the new image, which has its hash, in $image
  local kind=$1 lock unfinished=$built/.building-$$-$1.sif log=$built/$1.log argument options=()
  lock=$(lock_of "$kind")
  for argument in "${arguments[@]}" "BASE=$foundation" "LOCK=$lock" "RECIPE=$(recipe_of "$kind")" "DATE=$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
    "COMMIT=$(git describe --always --dirty --abbrev=40 --exclude='*' 2> /dev/null || echo none)"; do
    options+=(--build-arg "$argument")
  done
  if [ "$kind" = ml ]; then
    options+=(--build-arg "TORCH_INDEX=${TORCH_INDEX:-}" --build-arg "TORCH_HASH=${TORCH_HASH:-}")
  fi
  echo "building the $kind image: $lock on $foundation (log: $log)"
  env -u APPTAINER_BIND -u APPTAINER_BINDPATH APPTAINER_TMPDIR="$work" "$apptainer" build --fakeroot "${binds[@]}" \
    --mksquashfs-args "${SQUASH:--comp zstd -Xcompression-level 3}" "${options[@]}" "$unfinished" "containers/$kind.def" \
    > "$log" 2>&1 || fail "the $kind image could not be built; the end of $log:" "$(tail -n 20 "$log")"
  grep "^$lock: " "$log" || fail "the $kind image was not tested" "see $log"
  image=$built/$kind-$(sha256 "$unfinished").sif
  mv "$unfinished" "$image"
}

bill_of_materials() { # bill_of_materials KIND IMAGE: beside the image, with what its system holds; the committed bill is of the default lock
  local kind=$1 image=$2 digest=${2##*-} unfinished=$built/.building-$$-$1.cdx.json
  if [ -z "$python" ] || [ "$(lock_of "$kind")" = ml-cpu ]; then
    echo "no bill of materials: it needs python3, and a lock other than ml-cpu"
    return
  fi
  "$apptainer" exec --containall "$image" bash -c '. /etc/os-release; echo "$ID"; dpkg-query -W -f "\${Package} \${Version} \${Architecture}\n"' |
    "$python" containers/sbom.py image "$kind" "${digest%.sif}" > "$unfinished" || fail "the packages of $image could not be listed"
  mv "$unfinished" "${image%.sif}.cdx.json"
}

write_name() { # write_name KIND SHA256: one line of images.yaml, the rest as it is; readers see the old file or the new one
  sed "s|^$1:.*|$1: sha256:$2|" "$names" > "$names.$$"
  grep -q "^$1:" "$names.$$" || echo "$1: sha256:$2" >> "$names.$$"
  mv "$names.$$" "$names"
}

settings=$work/builder
mkdir "$settings"
binds=()
python=$(command -v "${PYTHON:-python3}" || command -v python3 || true)
if [ -n "$python" ]; then # at /mnt, which every system has: a build can only mount over what is there
  mounts=$("$python" containers/builder_pip.py "$settings")
  binds=(-B "$settings:/mnt")
  for mount in $mounts; do binds+=(-B "$mount"); done
fi

for kind in "${kinds[@]}"; do
  image=
  [ "${FORCE:-0}" = 1 ] || image=$(same_recipe "$kind")
  if [ -n "$image" ]; then
    echo "the $kind image is there, built from the same recipe: $image (FORCE=1 builds it again)"
  else
    started=$SECONDS
    build "$kind"
    bill_of_materials "$kind" "$image"
    echo "built $image: $(du -h "$image" | cut -f1) in $((SECONDS - started)) s"
  fi
  digest=${image##*-}
  write_name "$kind" "${digest%.sif}"
done
for image in "$built"/*.sif; do
  digest=${image##*-}
  if ! grep -q "sha256:${digest%.sif}" "$names"; then echo "no longer named in $names: $image (delete it when no run needs it)"; fi
done
