"""CUDA MPS: what several servers compute on a GPU runs side by side, and queries go before bulk.

Without it they take turns on the GPU. NVIDIA's control daemon comes with the driver; it changes no setting of
the GPU.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from qwen3_vllm.errors import LaunchError, ServerDied
from qwen3_vllm.serving.options import Command
from qwen3_vllm.serving.process.server import Server

PROGRAM = "nvidia-cuda-mps-control"
# The folder of the daemon's sockets, by which a program finds it.
PIPES = "CUDA_MPS_PIPE_DIRECTORY"
_LOGS = "CUDA_MPS_LOG_DIRECTORY"
_SECONDS_TO_START = 30.0
_SECONDS_TO_QUIT = 5
# Any program may be refused by the daemon, or by the GPU; this one needs no packages.
_CUDA_PROGRAM = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
status = cuda.cuInit(0) or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(ctypes.c_void_p()), 0)
sys.exit(f"CUDA error {status}" if status else 0)
"""


def mps_program() -> str | None:
    """Find the control daemon, which the driver brings."""
    return shutil.which(PROGRAM)


@contextmanager
def mps_daemon(log_path: Path, while_waiting: Callable[[], object] = lambda: None) -> Iterator[Path]:
    """Have a control daemon of our own inside the block; yields the folder of its sockets.

    Args:
        while_waiting: Called now and then until it listens; what it raises ends the daemon.

    Raises:
        LaunchError: The daemon is not installed, it does not start, or CUDA does not work through it.
    """
    if mps_program() is None:
        raise LaunchError(f"{PROGRAM} is not there")
    # A socket's path may have 107 bytes, so it is not beside the log.
    with tempfile.TemporaryDirectory(prefix="qwen3-mps-") as name:
        folder = Path(name)
        # It would number the GPUs anew by this variable, and its clients once more.
        argv = ("env", "-u", "CUDA_VISIBLE_DEVICES", PROGRAM, "-f")
        daemon = Server("mps", Command(argv, {PIPES: name, _LOGS: name}), "", log_path)
        try:
            try:
                daemon.start()
                _wait(daemon, folder, while_waiting)
                _check(folder)
            except (ServerDied, OSError, subprocess.SubprocessError) as error:
                raise LaunchError(str(error)) from error
            yield folder
        finally:
            _quit(daemon, folder)
            daemon.stop()


def _wait(daemon: Server, folder: Path, while_waiting: Callable[[], object]) -> None:
    """Wait until the daemon listens."""
    deadline = time.monotonic() + _SECONDS_TO_START
    while not (folder / "control").exists():
        if daemon.exit_status is not None:
            raise daemon.death()
        if time.monotonic() > deadline:
            raise LaunchError(f"{PROGRAM} was not ready after {_SECONDS_TO_START:.0f} s")
        while_waiting()
        time.sleep(0.05)


def _check(folder: Path) -> None:
    """Use the GPU once, and see that it went through the daemon: what cannot reach it goes without."""
    tried = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _CUDA_PROGRAM],
        env={**os.environ, PIPES: str(folder)},
        capture_output=True,
        text=True,
        timeout=_SECONDS_TO_START,
        check=False,
    )
    if tried.returncode:
        reason = tried.stderr.strip().splitlines() or [f"exit status {tried.returncode}"]
        raise LaunchError(f"CUDA does not work through it: {reason[-1]}")
    if not _tell(folder, "get_server_list").strip():
        raise LaunchError("CUDA does not go through it")


def _quit(daemon: Server, folder: Path) -> None:
    """Have the daemon, if it listens, end itself and its server, which may be in another process group."""
    if not (folder / "control").exists():
        return
    deadline = time.monotonic() + 2 * _SECONDS_TO_QUIT
    try:
        _tell(folder, f"quit -t {_SECONDS_TO_QUIT}")
    except (OSError, subprocess.SubprocessError):
        return
    while daemon.pid is not None and daemon.exit_status is None and time.monotonic() < deadline:
        time.sleep(0.05)


def _tell(folder: Path, command: str) -> str:
    return subprocess.run(
        [PROGRAM],
        env={**os.environ, PIPES: str(folder)},
        input=f"{command}\n",
        capture_output=True,
        text=True,
        timeout=_SECONDS_TO_START,
        check=False,
    ).stdout
