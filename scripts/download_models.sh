#!/usr/bin/env bash
# Download Qwen3-Embedding and Qwen3-Reranker (0.6B each unless told), as `qwen3-vllm download` does.
#   scripts/download_models.sh [embedding|reranker|both] [--size 0.6B|4B|8B] [--source modelscope|huggingface]
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
command="$root/.venv/bin/qwen3-vllm"
[[ -x $command ]] || command=qwen3-vllm
exec "$command" download "$@"
