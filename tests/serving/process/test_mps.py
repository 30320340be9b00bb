"""Starting and ending NVIDIA's MPS daemon; a small program stands in for it."""

import os
import sys
import time
from pathlib import Path

import pytest

from qwen3_vllm.errors import LaunchError
from qwen3_vllm.serving.process import mps
from qwen3_vllm.serving.process.mps import mps_daemon

DAEMON = f"""#!{sys.executable} -IS
import os, sys, time
folder = os.environ["CUDA_MPS_PIPE_DIRECTORY"]
if sys.argv[1:] == ["-f"]:
    print("GPUs", os.environ.get("CUDA_VISIBLE_DEVICES"), "pid", os.getpid(), flush=True)
    open(folder + "/control", "w").close()
    while not os.path.exists(folder + "/quit"):
        time.sleep(0.02)
    print("asked to quit", flush=True)
elif sys.stdin.readline().startswith("quit"):
    open(folder + "/quit", "w").close()
elif os.path.exists(folder + "/used"):
    print(4711)
"""
CUDA_PROGRAM = "import os; open(os.environ['CUDA_MPS_PIPE_DIRECTORY'] + '/used', 'w').close()"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / mps.PROGRAM).write_text(DAEMON)
    (programs / mps.PROGRAM).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setattr(mps, "_CUDA_PROGRAM", CUDA_PROGRAM)
    return tmp_path / "mps.log"


def test_it_runs_inside_the_block_for_all_gpus(log: Path) -> None:
    with mps_daemon(log) as folder:
        assert (folder / "control").exists()
        while not log.read_text().endswith("\n"):  # written by another process
            time.sleep(0.02)
        assert log.read_text().startswith("GPUs None pid ")
        assert "asked" not in log.read_text()
    assert log.read_text().endswith("asked to quit\n")
    assert not folder.exists()


@pytest.mark.parametrize(
    ("cuda", "reason"),
    [
        ("import sys; sys.exit('CUDA error 805')", "CUDA does not work through it: CUDA error 805"),
        ("pass", "CUDA does not go through it"),
        ("import os; os.kill(os.getpid(), 9)", "CUDA does not work through it: exit status -9"),
    ],
)
def test_where_cuda_does_not_work_through_it_it_ends_and_says_why(
    log: Path, monkeypatch: pytest.MonkeyPatch, cuda: str, reason: str
) -> None:
    monkeypatch.setattr(mps, "_CUDA_PROGRAM", cuda)
    with pytest.raises(LaunchError, match=reason), mps_daemon(log):
        pass
    assert log.read_text().endswith("asked to quit\n")


def test_a_daemon_that_cannot_start_says_what_it_said(log: Path, tmp_path: Path) -> None:
    (tmp_path / "bin" / mps.PROGRAM).write_text("#!/bin/sh\necho no permission\nexit 1\n")
    with pytest.raises(LaunchError, match=r"(?s)the mps server died.*no permission"), mps_daemon(log):
        pass


def test_without_the_program_there_is_none(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match=f"{mps.PROGRAM} is not there"), mps_daemon(log):
        pass
    assert not log.exists()
