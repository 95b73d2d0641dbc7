#!/usr/bin/env bash
# tests/cluster/install_apptainer.sh PREFIX: put Apptainer at PREFIX/usr/bin, for tests on a machine that has none.
#
# The stable Debian suites do not carry Apptainer and sid's build wants sid's C library. So both are unpacked, never
# installed, under PREFIX, and the two binaries are pointed at that library: the system's own packages stay as they are.
# On success the last line of stdout is the folder to put on PATH. An Apptainer that is on PATH already is used as it is.
#
# Exit codes: 0 there is one; 2 wrong call; 77 it cannot be had on this machine (the reason is on stderr; tests skip).
set -euo pipefail

cannot() {
  printf 'skip: no Apptainer on this machine: %s\n' "$1" >&2
  exit 77
}

[ "$#" = 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
for name in apptainer singularity; do
  if found=$(command -v "$name"); then
    echo "using $("$name" --version)"
    dirname "$found"
    exit 0
  fi
done

prefix=$(realpath -m "$1")
if "$prefix/usr/bin/apptainer" --version 2> /dev/null; then
  echo "$prefix/usr/bin"
  exit 0
fi

case "$(. /etc/os-release 2> /dev/null; echo "${ID:-unknown}") $(uname -m)" in
  "debian x86_64") ;;
  *) cannot "this way is for Debian on x86_64; instead: the administrator's package, or 'module load apptainer'" ;;
esac
missing=()
for tool in patchelf mksquashfs squashfuse newuidmap debootstrap; do
  command -v "$tool" > /dev/null || [ -x "/usr/sbin/$tool" ] || missing+=("$tool")
done
[ "${#missing[@]}" = 0 ] || cannot "missing tools: ${missing[*]}; instead: as root,
  apt-get install --no-install-recommends patchelf squashfs-tools squashfuse uidmap debootstrap"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# An apt of its own for sid: this machine's mirror, with lists and cache in the work folder.
private_apt() {
  local mirror release
  release=$(. /etc/os-release; echo "${VERSION_CODENAME:-}")
  mirror=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' |
    awk -v release="$release" '$1 == release && $2 == "main" && !found { print $3; found = 1 }')
  [ -n "$mirror" ] || cannot "its apt has no lists of Debian $release; instead: as root, apt-get update"
  mkdir -p "$work"/{lists/partial,cache/archives/partial,debs,tree}
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror sid main" > "$work/sid.list"
  {
    printf 'Dir::Etc::%s;\n' "sourcelist \"$work/sid.list\"" 'sourceparts "/dev/null"'
    printf 'Dir::%s;\n' "State::lists \"$work/lists\"" "Cache \"$work/cache\""
    printf '%s;\n' 'Acquire::Languages "none"' 'APT::Sandbox::User "root"'
  } > "$work/apt.conf"
}

private_apt
packages=(apptainer libc6 libseccomp2 libsqlite3-0)
(
  export APT_CONFIG="$work/apt.conf"
  apt-get -qq update && cd "$work/debs" && apt-get -qq download "${packages[@]}"
) > "$work/log" 2>&1 || cannot "Debian sid did not hand out ${packages[*]}: $(tail -n 1 "$work/log")"

tree=$work/tree
for package in "${packages[@]}"; do
  to=$tree
  [ "$package" = apptainer ] || to=$tree/glibc
  dpkg -x "$work/debs/${package}"_*.deb "$to"
done
rm -rf "$tree/usr/share/doc" "$tree/glibc/usr/share"

# Each binary looks for etc/ and var/ beside the folder that holds it: usr/bin and usr/lib.
for at in usr/etc usr/var; do ln -s "../${at#usr/}" "$tree/$at"; done
for at in usr/lib/etc usr/lib/var; do ln -s "../../${at#usr/lib/}" "$tree/$at"; done

# RPATH and not RUNPATH: only the former also serves the libraries that these libraries need.
libraries=$prefix/glibc/usr/lib/x86_64-linux-gnu
for binary in "$tree/usr/bin/apptainer" "$tree/usr/lib/x86_64-linux-gnu/apptainer/bin/starter"; do
  patchelf --set-interpreter "$libraries/ld-linux-x86-64.so.2" "$binary"
  patchelf --force-rpath --set-rpath "$libraries" "$binary"
done

rm -rf "$prefix"
mkdir -p "$(dirname "$prefix")"
mv "$tree" "$prefix"

# Builds with --fakeroot want a range of subordinate ids, for root too; only root may write it.
for file in /etc/subuid /etc/subgid; do
  if ! grep -qs "^$(id -un):" "$file" && [ -w "$file" ]; then echo "$(id -un):100000:65536" >> "$file"; fi
done
"$prefix/usr/bin/apptainer" --version || cannot "the unpacked binary does not start (its C library changed?)"
echo "$prefix/usr/bin"
