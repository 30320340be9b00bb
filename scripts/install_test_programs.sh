#!/usr/bin/env bash
# Install Debian's Prometheus and HAProxy for the tests that run them where that is possible; do nothing where they are
# there or cannot be had. The services that the packages would start are kept from starting.
set -euo pipefail

PATH=$PATH:/usr/sbin
if command -v prometheus >/dev/null && command -v promtool >/dev/null && command -v haproxy >/dev/null; then
  exit 0
fi
if ! command -v apt-get >/dev/null || [[ $(id -u) != 0 ]]; then
  echo "prometheus or haproxy is not installed, and this user cannot install it: some tests need it" >&2
  exit 0
fi
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y -q --no-install-recommends prometheus haproxy >/dev/null; }
install 2>/dev/null || { apt-get update -q >/dev/null && install; } ||
  echo "prometheus and haproxy could not be installed: some tests need them" >&2
