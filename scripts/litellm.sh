#!/usr/bin/env bash
# scripts/litellm.sh FOLDER   a virtual environment in FOLDER with the LiteLLM proxy of integrations_tests/test_gateways.py
set -euo pipefail
version=1.108.7
folder=$1
if [[ -x $folder/bin/litellm ]] && "$folder/bin/python" -c "
import importlib.metadata, sys
sys.exit(importlib.metadata.version('litellm') != '$version')"; then
  exit
fi
"${PYTHON:-python3}" -m venv --clear "$folder"
"$folder/bin/pip" install --quiet "litellm[proxy]==$version"
