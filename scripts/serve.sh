#!/usr/bin/env bash
# Serve a Qwen3 model with vLLM: scripts/serve.sh embedding|reranker|both [options of `qwen3-vllm serve`]
# The command of this checkout's .venv if there is one, else the one on PATH.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

command="$root/.venv/bin/qwen3-vllm"
if [[ ! -x $command ]] && ! command=$(command -v qwen3-vllm); then
  echo "qwen3-vllm is not installed: python3 -m venv $root/.venv && $root/.venv/bin/pip install -e '$root[serve]'" >&2
  exit 2
fi
exec "$command" serve "$@"
