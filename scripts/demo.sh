#!/usr/bin/env bash
# Search and rerank a corpus with Qwen3-Embedding and Qwen3-Reranker, served here by vLLM.
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: scripts/demo.sh                  the corpus in demo/, three queries
       scripts/demo.sh FILE "query"     your .txt, .md or .jsonl file ({"text": "..."} a line)

QWEN3_MODELS=DIR   serve the checkpoints Qwen3-Embedding-* and Qwen3-Reranker-* in DIR
                   (default: the small ones of demo/models, trained for this)
PYTHON=python3.12  make .venv with this interpreter
TEXT
}

if [[ ${1:-} == --help || ${1:-} == -h ]]; then
  usage
  exit 0
fi
if (($# != 0 && $# != 2)); then
  usage >&2
  exit 2
fi
# Told before the installation, which takes minutes.
if (($#)) && [[ ! -f $1 ]]; then
  echo "demo: no file $1" >&2
  exit 2
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
"$root/scripts/setup.sh"
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$root/.venv/bin/python" -m demo "$@"
