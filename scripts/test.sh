#!/usr/bin/env bash
# scripts/test.sh             all that CI checks, real servers included; as root, installs Prometheus and HAProxy for it
# scripts/test.sh --nightly   that, and the checks that take too long for CI
# scripts/test.sh ARGUMENT…   only pytest with those: scripts/test.sh integrations_tests/test_parity.py -k langchain
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Without bytecode, importing vLLM takes 20 s instead of 9, in two processes of each server.
unset PYTHONDONTWRITEBYTECODE
scripts/setup.sh
PATH=$PWD/.venv/bin:$PATH

if (($#)) && [[ $1 != --nightly ]]; then
  exec pytest "$@"
fi
(($#)) || scripts/install_test_programs.sh
ruff check .
ruff format --check .
mypy
lint-imports
NO_MKDOCS_2_WARNING=1 mkdocs build --strict --site-dir .cache/site
pytest tests
if (($#)); then
  pytest integrations_tests
else
  pytest integrations_tests -m 'not nightly'
fi
