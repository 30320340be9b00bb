"""Several servers of one model on one GPU, behind a balancer when there is one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from qwen3_vllm._core.loopback import is_loopback
from qwen3_vllm.serving.command.memory import WHOLE_GPU
from qwen3_vllm.serving.machine.ports import check_port, free_port
from qwen3_vllm.serving.options import Command
from qwen3_vllm.serving.plan import Plan
from qwen3_vllm.serving.process.server import Server

CORES_A_REPLICA = 8


def replicate(plan: Plan, count: int, *, behind_router: bool) -> list[Plan]:
    """Return the plan of each replica; they share the GPU's memory evenly.

    Behind a router they take free ports, as nobody else speaks to them; else consecutive ones.
    """
    options, cores = plan.options, plan.machine.cores
    share = options.gpu_memory_utilization or round(WHOLE_GPU / count, 2)
    enough = cores is None or cores >= CORES_A_REPLICA * count * options.data_parallel_size
    first = options.served_port or free_port()
    return [
        plan.changed(
            port=free_port() if behind_router else first + number,
            gpu_memory_utilization=share,
            api_server_count=options.api_server_count or (None if enough else options.data_parallel_size),
        )
        for number in range(count)
    ]


def router_program() -> Path | None:
    """Find vllm-router beside this Python."""
    program = Path(sys.executable).with_name("vllm-router")
    return program if program.exists() else None


def why_no_router(plan: Plan) -> str | None:
    """Say why no router can stand in front; None when one can.

    vllm-router (seen with 0.1.17) forwards the key to /v1/embeddings but not to /v1/score, and lets anybody
    add and remove workers: it fits servers without a key, on the loopback address.
    """
    if plan.options.guarded:
        return "vllm-router does not pass the API key on to every route"
    if not is_loopback(plan.options.host):
        return "vllm-router lets anybody who reaches it add and remove servers"
    if router_program() is None:
        return "vllm-router is not installed (pip install vllm-router)"
    return None


def router(plan: Plan, replicas: Sequence[Server], log_path: Path) -> Server:
    """Make the router that listens where a single server would."""
    options = plan.options
    port = options.served_port or free_port()
    check_port(options.host, port)
    argv = (
        *(str(router_program()), "--host", options.host, "--port", str(port), "--policy", "round_robin"),
        *("--prometheus-port", str(free_port()), "--worker-urls", *(each.base_url for each in replicas)),
    )
    return Server("router", Command(argv, {}), f"http://{options.host}:{port}", log_path)
