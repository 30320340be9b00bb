"""How servers share the memory of one GPU. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from qwen3_vllm.errors import LaunchError
from qwen3_vllm.serving.machine.hardware import Machine
from qwen3_vllm.serving.options import Checkpoint

WHOLE_GPU, HALF_GPU = 0.9, 0.45
_GIB = 2**30


def default_memory_share(checkpoint: Checkpoint, machine: Machine, tensor_parallel_size: int = 1) -> float:
    """Half of a GPU when the weights leave room in it for activations and cache, else nearly all.

    Pooling needs little cache beyond the running batch, so half costs no speed, and a second server
    started later finds memory left.
    """
    memory = _smallest_gpu(machine)
    if not memory or not checkpoint.weights_bytes:
        return HALF_GPU
    return HALF_GPU if _needed(checkpoint, tensor_parallel_size) <= HALF_GPU * memory else WHOLE_GPU


def memory_shares(
    checkpoints: Sequence[Checkpoint], machine: Machine, tensor_parallel_size: int = 1
) -> list[float]:
    """Split a GPU between servers by what their weights need; evenly where that is not known.

    Raises:
        LaunchError: They do not fit together.
    """
    memory = _smallest_gpu(machine)
    if not memory or not all(checkpoint.weights_bytes for checkpoint in checkpoints):
        return [round(WHOLE_GPU / len(checkpoints), 2)] * len(checkpoints)
    needs = [_needed(checkpoint, tensor_parallel_size) for checkpoint in checkpoints]
    if sum(needs) > WHOLE_GPU * memory:
        raise LaunchError(
            f"together the models need about {sum(needs) / _GIB:.0f} GiB, and the GPU has "
            f"{memory / _GIB:.0f}: take smaller or quantised ones, or start each on a GPU of its own "
            "(CUDA_VISIBLE_DEVICES)"
        )
    return [round(WHOLE_GPU * need / sum(needs), 2) for need in needs]


def _needed(checkpoint: Checkpoint, tensor_parallel_size: int) -> float:
    """Bytes on each GPU: its part of the weights, and 2.5 GiB for CUDA, activations and cache."""
    return 1.1 * checkpoint.weights_bytes / tensor_parallel_size + 2.5 * _GIB


def _smallest_gpu(machine: Machine) -> int:
    return min((gpu.memory_bytes for gpu in machine.gpus or ()), default=0)
