"""The cores and GPUs of this machine."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path

# Of the class to which vLLM gives 8,192 tokens per step (`EngineArgs.get_batch_defaults`: 70 GiB or more, and
# no A100 or GB10) these were measured. A part of one, cut off by MIG, has less memory, or none that is told.
H100_NAMES, H100_BYTES = ("h100", "h200"), 70 * 2**30


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

    @property
    def has_h100s(self) -> bool:
        """Whether all GPUs are of the kind that was measured."""
        return bool(self.gpus) and all(
            gpu.memory_bytes >= H100_BYTES and any(name in gpu.name.lower() for name in H100_NAMES)
            for gpu in self.gpus or ()
        )


def this_machine() -> Machine:
    """Look at this machine; CPU affinity and CUDA_VISIBLE_DEVICES count."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Machine(cores, _visible_gpus())


def _visible_gpus() -> tuple[Gpu, ...] | None:
    nvidia_smi = shutil.which("nvidia-smi")
    if nvidia_smi is None:
        return None if Path("/dev/kfd").exists() else ()  # an AMD GPU is there, and not looked into
    query = [nvidia_smi, "--query-gpu=name,memory.total,mig.mode.current", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, timeout=30, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return ()
    lines = answer.decode("utf-8", "replace").splitlines()
    gpus = [gpu for line in lines if (gpu := _read_gpu(line)) is not None]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(gpus)
    chosen = list(takewhile(partial(_may_be_one_of, gpus), map(str.strip, visible.split(","))))
    if all(map(str.isdecimal, chosen)):
        return tuple(gpus[int(item)] for item in chosen)
    # UUIDs and MIG names cannot be told apart from here; only their number counts.
    return tuple(gpus[: len(chosen)])


def _may_be_one_of(gpus: Sequence[Gpu], item: str) -> bool:
    """Whether a word of CUDA_VISIBLE_DEVICES can name a GPU; CUDA stops at the first that cannot."""
    return int(item) < len(gpus) if item.isdecimal() else item.startswith(("GPU-", "MIG-"))


def _read_gpu(line: str) -> Gpu | None:
    """Read one line of nvidia-smi; None for words that are not about a GPU.

    Memory that is not told, as [N/A] or [Not Supported], is unknown, and so is the part of it that a GPU
    cut up by MIG gives to one server.
    """
    name, memory, mig, *_ = [part.strip() for part in f"{line},,".split(",")]
    if memory.isdecimal():
        return Gpu(name, 0 if mig == "Enabled" else int(memory) * 2**20)
    return Gpu(name, 0) if name and memory.startswith(("[", "N/A")) else None
