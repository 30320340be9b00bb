"""How servers share the memory of one GPU. Pure."""

from collections.abc import Sequence

from qwen3_vllm.errors import LaunchError
from qwen3_vllm.serving.machine.hardware import Machine
from qwen3_vllm.serving.plan import SMALL_MODEL_BYTES, Plan

WHOLE_GPU, HALF_GPU = 0.9, 0.45
_GIB = 2**30
_ANY_NUMBER = 1_000_000


def default_memory_share(plan: Plan) -> float:
    """Half of a GPU when the weights leave room in it for activations and cache, else nearly all.

    Pooling needs little cache beyond the running batch, so half costs no speed, and a second server
    started later finds memory left.
    """
    memory, needed = _smallest_gpu(plan.machine), _needed(plan)
    if plan.replicas == 1 and not plan.checkpoint.weights_bytes:
        return HALF_GPU
    if not memory or not needed:
        return HALF_GPU if plan.replicas == 1 else WHOLE_GPU
    return HALF_GPU if plan.replicas * needed <= HALF_GPU * memory else WHOLE_GPU


def memory_share(plan: Plan) -> float:
    """Return the share of the GPU for all servers of the plan's model together."""
    return plan.options.gpu_memory_utilization or default_memory_share(plan)


def how_many_fit(plan: Plan, *, whole: bool = False) -> int:
    """Return how many servers of a model fit into the share that one would take, or into the whole GPU.

    As many as one likes where the memory or the model's size is not known.
    """
    memory, needed = _smallest_gpu(plan.machine), _needed(plan)
    if not memory or not needed:
        return _ANY_NUMBER
    share = WHOLE_GPU if whole else memory_share(plan)
    return int(share * memory / (needed + _context_bytes(plan)))


def cache_bytes(plan: Plan) -> int | None:
    """Return the bytes of each replica's key-value cache, so that vLLM need not measure what is free.

    None where the memory or the model's size is not known.
    """
    memory, needed = _smallest_gpu(plan.machine), _needed(plan)
    if not memory or not needed:
        return None
    return int(max(memory_share(plan) * memory / plan.replicas - needed, _context_bytes(plan)))


def cache_bytes_per_token(plan: Plan) -> int:
    """Return the bytes of one token's keys and values; 0 where the checkpoint does not say."""
    checkpoint = plan.checkpoint
    size = 4 if "32" in f"{plan.options.dtype}{checkpoint.dtype}" else 2
    return 2 * checkpoint.layers * checkpoint.key_value_heads * checkpoint.head_dim * size


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
            f"{memory / _GIB:.0f}: use smaller or quantised ones, or start each on a GPU of its own "
            "(CUDA_VISIBLE_DEVICES)"
        )
    return [round(WHOLE_GPU * need / sum(needs), 2) for need in needs]


def _needed(plan: Plan) -> float:
    """Bytes on each GPU: its part of the weights, and 2.5 GiB for all else; 0 where that is not known."""
    weights = plan.checkpoint.weights_bytes or (SMALL_MODEL_BYTES if plan.is_small else 0)
    return weights and 1.1 * weights / plan.options.tensor_parallel_size + 2.5 * _GIB


def _context_bytes(plan: Plan) -> int:
    """Return the least cache that vLLM starts with: that of one text of full length."""
    return cache_bytes_per_token(plan) * (plan.longest_input + 1) or _GIB


def _smallest_gpu(machine: Machine) -> int:
    return min((gpu.memory_bytes for gpu in machine.gpus or ()), default=0)
