#!/usr/bin/env bash
# Install Debian's Prometheus for the monitoring test where that is possible; do nothing where it is there or
# cannot be had. The service that the package would start is kept from starting.
set -euo pipefail

if command -v prometheus promtool >/dev/null; then
  exit 0
fi
if ! command -v apt-get >/dev/null || [[ $(id -u) != 0 ]]; then
  echo "prometheus is not installed, and this user cannot install it: the monitoring tests need it" >&2
  exit 0
fi
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y -q --no-install-recommends prometheus >/dev/null; }
install 2>/dev/null || { apt-get update -q >/dev/null && install; } ||
  echo "prometheus could not be installed: the monitoring tests need it" >&2
