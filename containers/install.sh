#!/usr/bin/env bash
# containers/install.sh python | LOCK: inside an image that is being built, as root; `python` does the first half only.
#
# Puts Python 3.11 in place, then the hashed lock /opt/image/envs/LOCK.txt into /opt/env, by envs/install.sh as on a
# laptop. The builder's own pip settings are read from /mnt/pip.conf if something is mounted there (builder_pip.py).
# Environment: TORCH_INDEX, TORCH_HASH (see envs/install.sh).
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
part=${1:?usage: install.sh python | LOCK}

if [ -f /mnt/ca.crt ]; then # the builder's own certificate authority
  export SSL_CERT_FILE=/mnt/ca.crt REQUESTS_CA_BUNDLE=/mnt/ca.crt HTTPLIB2_CA_CERTS=/mnt/ca.crt
fi
apt_get() {
  apt-get -qq -o APT::Sandbox::User=root -o Acquire::Retries=3 ${SSL_CERT_FILE:+-o Acquire::https::CAInfo=$SSL_CERT_FILE} "$@" > /dev/null
}

python311() {
  local packages=(python3.11 python3.11-venv ca-certificates tzdata git) # git: manifests record the commit
  apt_get update
  # shellcheck source=/dev/null
  if [ "$(. /etc/os-release; echo "$ID")" = ubuntu ]; then
    # Ubuntu 22.04 carries a release candidate of 3.11; the PPA carries its last release.
    apt_get install -y --no-install-recommends software-properties-common gpg-agent
    add-apt-repository -y ppa:deadsnakes/ppa > /dev/null
    apt_get update
    apt_get install -y --no-install-recommends "${packages[@]}"
    apt_get purge -y --auto-remove software-properties-common gpg-agent
  else
    apt_get install -y --no-install-recommends "${packages[@]}"
  fi
  apt-get clean
  rm -rf /var/lib/apt/lists/*
}

environment() {
  if [ -f /mnt/pip.conf ]; then export PIP_CONFIG_FILE=/mnt/pip.conf; fi
  export PYTHON=/usr/bin/python3.11 PIP_NO_CACHE_DIR=1 TORCH_INDEX=${TORCH_INDEX:-} TORCH_HASH=${TORCH_HASH:-}
  bash /opt/image/envs/install.sh /opt/env "/opt/image/envs/$part.txt"
  # Nothing can be compiled later: the image is read-only. What pip has compiled is skipped here.
  /opt/env/bin/python -m compileall -q -j 0 /opt/env/lib > /dev/null || true # some packages ship templates that are no Python
}

command -v python3.11 > /dev/null || python311
[ "$part" = python ] || environment
