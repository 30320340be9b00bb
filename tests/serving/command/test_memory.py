"""How servers on one GPU share its memory."""

import pytest
from packaging.version import Version

from qwen3_vllm.serving import LaunchError
from qwen3_vllm.serving.command.memory import default_memory_share, memory_shares
from qwen3_vllm.serving.machine.hardware import Gpu, Machine
from qwen3_vllm.serving.machine.vllm_build import VllmBuild
from qwen3_vllm.serving.options import Checkpoint, ServeOptions
from qwen3_vllm.serving.plan import Plan

GIB = 2**30
SMALL = Checkpoint(weights_bytes=int(1.2 * GIB))
LARGE = Checkpoint(weights_bytes=16 * GIB)


def machine(*gibibytes: int) -> Machine:
    return Machine(16, tuple(Gpu("GPU", size * GIB) for size in gibibytes))


def plan(checkpoint: Checkpoint, machine: Machine, parallel: int = 1) -> Plan:
    options = ServeOptions("embedding", "./m", tensor_parallel_size=parallel)
    return Plan.of(options, checkpoint, VllmBuild(Version("0.33.0")), machine)


@pytest.mark.parametrize(
    ("checkpoint", "gpus", "parallel", "share"),
    [
        (SMALL, (16,), 1, 0.45),
        (SMALL, (6,), 1, 0.9),
        (LARGE, (24,), 1, 0.9),
        (LARGE, (80,), 1, 0.45),
        (LARGE, (24, 24, 24, 24), 4, 0.45),
        (LARGE, (80, 24), 1, 0.9),
        (LARGE, (), 1, 0.45),
        (Checkpoint(), (24,), 1, 0.45),
    ],
)
def test_one_server_leaves_half_where_it_can(
    checkpoint: Checkpoint, gpus: tuple[int, ...], parallel: int, share: float
) -> None:
    assert default_memory_share(plan(checkpoint, machine(*gpus), parallel)) == share


def test_equal_models_get_equal_shares() -> None:
    assert memory_shares([plan(each, machine(16)) for each in (SMALL, SMALL)]) == [0.45, 0.45]


def test_a_larger_model_gets_more() -> None:
    large, small = memory_shares([plan(each, machine(48)) for each in (LARGE, SMALL)])
    assert large * 48 > 16 * 1.1 + 2.5
    assert small * 48 > 1.2 * 1.1 + 2.5
    assert large + small <= 0.9 + 1e-9


def test_unknown_sizes_share_evenly() -> None:
    assert memory_shares([plan(each, machine(16)) for each in (Checkpoint(), SMALL, SMALL)]) == [
        0.3,
        0.3,
        0.3,
    ]


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(LaunchError, match=r"need about 24 GiB, and the GPU has 24.*CUDA_VISIBLE_DEVICES"):
        memory_shares([plan(each, machine(24)) for each in (LARGE, SMALL)])
