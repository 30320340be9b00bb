"""What this machine is found to have."""

from pathlib import Path

import pytest

from qwen3_vllm.serving.machine.hardware import this_machine


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


@pytest.mark.parametrize(
    ("visible", "count"),
    [
        *(("2", 1), ("0,1", 2), ("", 0), ("-1", 0), ("GPU-abc", 1), ("GPU-abc,MIG-def", 2), ("1,GPU-abc", 2)),
        *(("0,-1,1", 1), ("0,3,1", 1), ("7", 0), ("\u00b2", 0), ("none", 0)),
    ],
)
def test_hidden_gpus_do_not_count(
    nvidia_smi: None, monkeypatch: pytest.MonkeyPatch, visible: str, count: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert len(this_machine().gpus or ()) == count


def test_words_that_are_not_utf8_are_read(nvidia_smi: None, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_bytes(b"#!/bin/sh\necho 'NVIDIA \xae, 81559, Disabled'\n")
    assert len(this_machine().gpus or ()) == 1


def test_no_nvidia_smi_means_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert this_machine().gpus == ()
