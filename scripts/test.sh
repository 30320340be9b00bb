#!/usr/bin/env bash
# Everything that CI checks. With arguments, only pytest with those: scripts/test.sh tests -k prompt
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Without bytecode, importing vLLM takes 20 s instead of 9, in two processes of each server.
unset PYTHONDONTWRITEBYTECODE
scripts/setup.sh
scripts/install_prometheus.sh
PATH=$PWD/.venv/bin:$PATH

if (($#)); then
  exec pytest "$@"
fi
ruff check .
ruff format --check .
mypy >.cache/mypy.log 2>&1 & # a minute of one core, of which tests/ leave most
types=$!
trap 'kill "$types" 2>/dev/null || true' EXIT
pytest tests
wait "$types" || status=$?
cat .cache/mypy.log
((${status:-0} == 0))
pytest integrations_tests
