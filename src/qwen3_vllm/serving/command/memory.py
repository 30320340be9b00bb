"""How servers share the memory of one GPU. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from qwen3_vllm.errors import LaunchError
from qwen3_vllm.serving.machine.hardware import Machine
from qwen3_vllm.serving.plan import Plan

WHOLE_GPU, HALF_GPU = 0.9, 0.45
_GIB = 2**30


def default_memory_share(plan: Plan) -> float:
    """Half of a GPU when the weights leave room in it for activations and cache, else nearly all.

    Pooling needs little cache beyond the running batch, so half costs no speed, and a second server
    started later finds memory left.
    """
    memory = _smallest_gpu(plan.machine)
    if not memory or not plan.checkpoint.weights_bytes:
        return HALF_GPU
    return HALF_GPU if _needed(plan) <= HALF_GPU * memory else WHOLE_GPU


def share_gpu(plans: Sequence[Plan]) -> list[Plan]:
    """Give each of several servers that start together its part of the GPU; a share asked for stays.

    Raises:
        LaunchError: They do not fit together.
    """
    if any(plan.options.gpu_memory_utilization is not None for plan in plans):
        return list(plans)
    shares = memory_shares(plans)
    return [plan.changed(gpu_memory_utilization=share) for plan, share in zip(plans, shares, strict=True)]


def memory_shares(plans: Sequence[Plan]) -> list[float]:
    """Split a GPU between servers by what their weights need; evenly where that is not known.

    Raises:
        LaunchError: They do not fit together.
    """
    memory = _smallest_gpu(plans[0].machine)
    if not memory or not all(plan.checkpoint.weights_bytes for plan in plans):
        return [round(WHOLE_GPU / len(plans), 2)] * len(plans)
    needs = [_needed(plan) for plan in plans]
    if sum(needs) > WHOLE_GPU * memory:
        raise LaunchError(
            f"together the models need about {sum(needs) / _GIB:.0f} GiB, and the GPU has "
            f"{memory / _GIB:.0f}: take smaller or quantised ones, or start each on a GPU of its own "
            "(CUDA_VISIBLE_DEVICES)"
        )
    return [round(WHOLE_GPU * need / sum(needs), 2) for need in needs]


def _needed(plan: Plan) -> float:
    """Bytes on each GPU: its part of the weights, and 2.5 GiB for CUDA, activations and cache."""
    return 1.1 * plan.checkpoint.weights_bytes / plan.options.tensor_parallel_size + 2.5 * _GIB


def _smallest_gpu(machine: Machine) -> int:
    return min((gpu.memory_bytes for gpu in machine.gpus or ()), default=0)
