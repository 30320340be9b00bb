"""How many servers of one model fill a GPU, and the plan of each. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from qwen3_vllm._core.releases import V1_ONLY
from qwen3_vllm.errors import LaunchError
from qwen3_vllm.serving.command.haproxy import has_lane
from qwen3_vllm.serving.command.memory import how_many_fit
from qwen3_vllm.serving.plan import Plan

# Measured with a 0.6B model on an H100 (docs/deployment.md): one server leaves half of the GPU idle, four
# fill it. Each has an engine, which takes one core and a bit, and an HTTP process, which takes as much.
MOST_REPLICAS = 4
CORES_A_REPLICA = 4
# What a user says of one server, so that several would not be what was meant.
_OF_ONE_SERVER = (
    "--gpu-memory-utilization",
    "--kv-cache-memory-bytes",
    "--num-gpu-blocks-override",
    "--config",
)


def how_many(plan: Plan, *, roles: int = 1, obstacle: str | None = None) -> tuple[int, str]:
    """Return how many servers of the model to start, and why.

    `roles` models share the cores. `obstacle` says why no balancer can stand in front, None if one can.
    """
    options, machine = plan.options, plan.machine
    if plan.on_cpu:
        return 1, "one server uses all cores of a CPU"
    if options.tensor_parallel_size > 1 or options.data_parallel_size > 1:
        return 1, "it has several GPUs already"
    own = next(filter(plan.vllm_args.has, _OF_ONE_SERVER), None)
    if own is not None or plan.vllm_args.is_spread:
        return 1, f"{own or 'what follows --'} is about one server"
    if machine.gpus is None or machine.cores is None:
        return 1, "the GPU of that machine is not known"
    if plan.vllm.version < V1_ONLY:
        return 1, f"several were not measured with vLLM before {V1_ONLY}"
    if not machine.has_h100s:
        return 1, "several were measured only on an H100 or H200"
    if not plan.is_small:
        return 1, "several were measured only with 0.6B models"
    cores = machine.cores // roles
    count = min(MOST_REPLICAS, cores // CORES_A_REPLICA)
    if count < 2:
        shared = f" for {roles} models" if roles > 1 else ""
        return 1, f"each needs {CORES_A_REPLICA} cores, and there are {machine.cores}{shared}"
    fit = how_many_fit(plan)
    if fit < count:
        count, why = max(1, fit), "more do not fit into its share of the memory"
    else:
        why = f"{cores} cores, {CORES_A_REPLICA} for each; one leaves half of the GPU idle"
    if count > 1 and obstacle is not None:
        return 1, f"{count} would fill the GPU, but {obstacle}"
    return count, why


def mps_helps(replicas: Sequence[Plan]) -> bool:
    """Whether servers of one model should use the GPU through CUDA MPS.

    Measured with a 0.6B model on an H100: those for bulk are faster, and can give way to the one for queries.
    Rerankers have nobody to give way to, and were not faster.
    """
    return any(each.gives_way for each in replicas) and all(
        each.machine.has_h100s and not each.on_cpu for each in replicas
    )


def replicate(plan: Plan, ports: Sequence[int], *, behind_balancer: bool) -> list[Plan]:
    """Return the plan of a server for each port; they share the memory that one would take.

    Each has one HTTP process for each copy of the model. Behind a balancer nobody else reaches them.

    Raises:
        LaunchError: They do not fit into the GPU together.
    """
    count, options = len(ports), plan.options
    if how_many_fit(plan, whole=True) < count:
        raise LaunchError(f"{count} servers of {options.model} do not fit into the GPU's memory; start fewer")
    one = replace(plan, replicas=count).changed(
        host="127.0.0.1" if behind_balancer else options.host,
        api_server_count=options.api_server_count or options.data_parallel_size,
    )
    lane = has_lane(options.role, count)
    return [
        replace(one, gives_way=lane and number > 0).changed(port=port) for number, port in enumerate(ports)
    ]
