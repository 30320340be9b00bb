"""How many servers of one model a GPU gets, and what each is started with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

from qwen3_vllm.serving import LaunchError
from qwen3_vllm.serving.command.flags import build_command
from qwen3_vllm.serving.command.memory import share_gpu
from qwen3_vllm.serving.command.replicas import how_many, mps_helps, replicate
from qwen3_vllm.serving.machine.hardware import Gpu, Machine
from qwen3_vllm.serving.machine.vllm_build import VllmBuild
from qwen3_vllm.serving.options import Checkpoint, ServeOptions
from qwen3_vllm.serving.plan import Plan

GIB = 2**30
H100 = Gpu("NVIDIA H100 80GB HBM3", 85520809984)
SMALL = Checkpoint(
    is_local=True,
    layers=28,
    key_value_heads=8,
    head_dim=128,
    dtype="bfloat16",
    max_position_embeddings=32768,
    weights_bytes=int(1.2 * GIB),
)


def plan(
    role: Any = "embedding",
    checkpoint: Checkpoint = SMALL,
    machine: Machine = Machine(16, (H100,)),  # noqa: B008
    version: str = "0.33.0",
    **options: Any,
) -> Plan:
    serve = ServeOptions(role, "./m", **options)
    return Plan.of(serve, checkpoint, VllmBuild(Version(version)), machine)


@pytest.mark.parametrize("role", ["embedding", "reranker"])
@pytest.mark.parametrize(
    ("cores", "roles", "count"), [(16, 1, 4), (64, 1, 4), (15, 1, 3), (8, 1, 2), (7, 1, 1), (16, 2, 2)]
)
def test_a_server_for_every_four_cores_of_an_h100(role: str, cores: int, roles: int, count: int) -> None:
    found, why = how_many(plan(role, machine=Machine(cores, (H100,))), roles=roles)
    assert found == count
    assert "cores" in why


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"device": "cpu"}, "CPU"),
        ({"tensor_parallel_size": 2}, "several GPUs"),
        ({"data_parallel_size": 2}, "several GPUs"),
        ({"extra_args": ("-tp", "2")}, "several GPUs"),
        ({"extra_args": ("--gpu-memory-utilization", "0.3")}, "--gpu-memory-utilization is about one server"),
        ({"extra_args": ("--nnodes", "2")}, "about one server"),
        ({"machine": Machine()}, "not known"),
        ({"machine": Machine(16, (Gpu("NVIDIA A10", 24 * GIB),))}, "measured only on an H100"),
        ({"machine": Machine(16, (Gpu("NVIDIA H100 80GB HBM3", 0),))}, "measured only on an H100"),
        ({"checkpoint": Checkpoint(weights_bytes=8 * GIB)}, "0.6B"),
        ({"checkpoint": Checkpoint()}, "0.6B"),
        ({"version": "0.10.2"}, "before 0.11.0"),
        ({"gpu_memory_utilization": 0.06}, "memory"),
    ],
)
def test_one_server_where_more_were_not_measured(changed: dict[str, Any], why: str) -> None:
    count, reason = how_many(plan(**changed))
    assert count == 1
    assert why in reason


def test_one_server_without_a_balancer_and_it_is_said() -> None:
    count, why = how_many(plan(), obstacle="HAProxy is not installed")
    assert (count, why) == (1, "4 would fill the GPU, but HAProxy is not installed")


@pytest.mark.parametrize("given", [None, 0.3])
@pytest.mark.parametrize("version", ["0.26.0", "0.33.0"])
def test_together_they_take_the_memory_of_one(given: float | None, version: str) -> None:
    one = plan(version=version, gpu_memory_utilization=given)
    commands = [build_command(each) for each in replicate(one, (1, 2, 3, 4), behind_balancer=True)]
    share = given or 0.45
    for command in commands:
        part = float(command.argv[command.argv.index("--gpu-memory-utilization") + 1])
        cache = int(command.argv[command.argv.index("--kv-cache-memory-bytes") + 1])
        assert share / 4 - 0.001 < part <= share / 4
        assert GIB < cache < part * 80 * GIB - 1.2 * GIB
        assert not command.measures_memory


def test_a_cache_without_its_flag_is_measured_one_after_another() -> None:
    (first, _) = replicate(plan(version="0.10.1"), (1, 2), behind_balancer=True)
    command = build_command(first)
    assert command.measures_memory
    assert "--kv-cache-memory-bytes" not in command.argv


def test_the_half_of_one_role_is_what_its_replicas_share() -> None:
    embedding, _ = share_gpu([plan(), plan("reranker")])
    first, *_ = replicate(embedding, (1, 2), behind_balancer=True)
    argv = build_command(first).argv
    assert argv[argv.index("--gpu-memory-utilization") + 1] == "0.225"


def test_each_has_one_http_process_and_behind_a_balancer_the_loopback_address() -> None:
    public = plan(host="0.0.0.0", api_key="k")
    first, second = replicate(public, (9101, 9102), behind_balancer=True)
    assert (first.options.host, first.options.port, second.options.port) == ("127.0.0.1", 9101, 9102)
    assert "--api-server-count" not in build_command(first).argv
    assert "--middleware" in build_command(first).argv
    (alone,) = replicate(public, (9101,), behind_balancer=False)
    assert alone.options.host == "0.0.0.0"


def test_more_than_fit_are_refused() -> None:
    large = replace(SMALL, weights_bytes=16 * GIB)
    with pytest.raises(LaunchError, match=r"4 servers of \./m do not fit"):
        replicate(plan(checkpoint=large), (1, 2, 3, 4), behind_balancer=True)


@pytest.mark.parametrize(
    ("role", "count", "machine", "helps"),
    [
        ("embedding", 3, Machine(16, (H100,)), True),
        ("embedding", 2, Machine(16, (H100,)), False),
        ("reranker", 4, Machine(16, (H100,)), False),
        ("embedding", 4, Machine(16, (Gpu("NVIDIA A100-SXM4-80GB", 80 * GIB),)), False),
        ("embedding", 4, Machine(16, ()), False),
    ],
)
def test_mps_is_for_embedding_servers_of_which_one_is_kept_for_queries(
    role: str, count: int, machine: Machine, helps: bool
) -> None:
    replicas = replicate(plan(role, machine=machine), range(count), behind_balancer=True)
    assert mps_helps(replicas) == helps


@pytest.mark.parametrize("folder", [None, Path("/run/mps")])
def test_those_for_bulk_give_way_on_the_gpu(folder: Path | None) -> None:
    replicas = replicate(plan(), range(4), behind_balancer=True)
    found = [build_command(replace(each, mps_folder=folder)).env for each in replicas]
    assert [env.get("CUDA_MPS_PIPE_DIRECTORY") for env in found] == [folder and str(folder)] * 4
    assert [env.get("CUDA_MPS_CLIENT_PRIORITY") for env in found] == [None, *[folder and "1"] * 3]
