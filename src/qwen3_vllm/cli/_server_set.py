"""The servers of one model that `qwen3-vllm serve` starts, and what makes them one address."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.text import Text

from qwen3_vllm.cli._terminal import err, print_line
from qwen3_vllm.errors import LaunchError
from qwen3_vllm.serving.balancer import (
    Balancer,
    balancer_config,
    choose_balancer,
    make_balancer,
    router_command,
)
from qwen3_vllm.serving.command.replicas import how_many, mps_helps, replicate
from qwen3_vllm.serving.launch import command_of, default_log_path, server_of
from qwen3_vllm.serving.machine.ports import free_port, free_ports
from qwen3_vllm.serving.plan import Plan
from qwen3_vllm.serving.process.mps import PIPES, PROGRAM, mps_daemon, mps_program
from qwen3_vllm.serving.process.server import Server

_DEFAULT_PIPES = "/tmp/nvidia-mps"


@dataclass(frozen=True)
class ServerSet:
    """The servers of one model; `plan` is of the address that all of them have behind a balancer."""

    plan: Plan
    replicas: list[Plan]
    balancer: Balancer

    def through_mps(self, folder: Path) -> "ServerSet":
        """Return the set whose servers use the GPU through the MPS daemon of a folder."""
        return replace(self, replicas=[replace(each, mps_folder=folder) for each in self.replicas])


def set_of(
    plan: Plan, count: int | None, asked: Balancer | Literal["auto"], *, roles: int, elsewhere: bool
) -> ServerSet:
    """Choose how many servers a model has, and what stands in front; `elsewhere`: on another machine."""
    options = plan.options
    kind, obstacle = choose_balancer(plan, asked, elsewhere=elsewhere)
    if count is None:
        count, why = how_many(plan, roles=roles, obstacle=obstacle)
        _explain(options.role, (f"replicas: {count}; {why}",))
    if count == 1:
        return ServerSet(plan, [plan], "none")
    if options.port == 0:
        plan = plan.changed(port=free_port())
    command_of(plan)  # refuses what cannot work at the address that users see
    if obstacle is None:
        return ServerSet(plan, replicate(plan, free_ports(count), behind_balancer=True), kind)
    if roles > 1:
        raise LaunchError(f"`both` has no ports for --replicas without a balancer, and {obstacle}")
    err.print(f"no balancer in front: {obstacle}; put one before the {count} ports yourself")
    first = plan.options.served_port
    return ServerSet(plan, replicate(plan, range(first, first + count), behind_balancer=False), "none")


def servers_of(chosen: ServerSet, log_dir: Path | None) -> list[Server]:
    """Make the servers of a set and, after them, the balancer."""
    plan, log_path = chosen.plan, _log_path(log_dir, chosen.plan)
    if len(chosen.replicas) == 1:
        server = server_of(plan, log_path=log_path)
        _explain(server.name, server.command.notes)
        return [server]
    servers = [
        server_of(
            each,
            log_path=log_path.with_name(f"{log_path.stem}-{number}.log"),
            name=f"{plan.options.role}-{number}",
        )
        for number, each in enumerate(chosen.replicas)
    ]
    _explain(plan.options.role, servers[0].command.notes)
    if chosen.balancer != "none":
        servers.append(make_balancer(chosen.balancer, plan, chosen.replicas, log_path))
    return servers


@contextmanager
def sharing_gpu(
    chosen: ServerSet, log_dir: Path | None, check_signals: Callable[[], None]
) -> Iterator[ServerSet]:
    """Have the servers share the GPU by MPS inside the block, where one of them is kept for queries.

    Measured on an H100 (docs/benchmark.md): bulk is 7 % faster. Where MPS does not work, they go without.
    """
    if not mps_helps(chosen.replicas):
        yield chosen
        return
    role, log_path = chosen.plan.options.role, _log_path(log_dir, chosen.plan)
    with ExitStack() as stack:
        try:
            own = os.environ.get(PIPES)
            if own == "":
                raise LaunchError(f"{PIPES} is empty in your environment")
            if own is not None:
                folder, why = Path(own), f"the daemon of {PIPES}, from your environment"
            else:
                mps_log = log_path.with_name(f"{log_path.stem}-mps.log")
                folder = stack.enter_context(mps_daemon(mps_log, check_signals))
                why = "the servers compute side by side, and queries go before bulk"
            chosen = chosen.through_mps(folder)
        except LaunchError as error:
            why = f"not used; {error}"
        _explain(role, (f"mps: {why}",))
        yield chosen


def print_commands(chosen: ServerSet, *, mps: bool) -> None:
    pipes = os.environ.get(PIPES, _DEFAULT_PIPES)
    if mps and pipes and mps_helps(chosen.replicas) and mps_program() is not None:
        chosen = chosen.through_mps(Path(pipes))
        if PIPES not in os.environ:
            print_line(f"{PROGRAM} -d")
    commands = [command_of(plan) for plan in chosen.replicas]
    options = chosen.plan.options
    _explain(options.role, commands[0].notes)
    if options.api_key is not None:
        err.print("the key is read from VLLM_API_KEY: export it in the shell that runs the command")
    for command in commands:
        print_line(str(command))
    if chosen.balancer == "haproxy":
        print_line("haproxy -db -f /dev/stdin <<'END'")
        for line in balancer_config(chosen.plan, chosen.replicas).splitlines():
            print_line(line)
        print_line("END")
    elif chosen.balancer == "vllm-router":
        print_line(str(router_command(chosen.plan, chosen.replicas)))


def _log_path(log_dir: Path | None, plan: Plan) -> Path:
    default = default_log_path(plan.options)
    return log_dir / default.name if log_dir else default


def _explain(name: str, notes: tuple[str, ...]) -> None:
    for note in notes:
        err.print(Text.assemble((f"{name}: ", "dim"), note))
