"""From options to running servers."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from qwen3_vllm.errors import LaunchError
from qwen3_vllm.serving.command.flags import build_command
from qwen3_vllm.serving.command.preflight import contradictions, in_environment
from qwen3_vllm.serving.machine.ports import check_port, free_port
from qwen3_vllm.serving.machine.weights import check_tokenizer, check_weights
from qwen3_vllm.serving.options import Command, ServeOptions
from qwen3_vllm.serving.plan import Plan, read_plans
from qwen3_vllm.serving.process.server import OnProgress, Server, wait_until_ready


def command_of(plan: Plan) -> Command:
    """Build the command of a plan; starts nothing.

    Raises:
        LaunchError: The options contradict each other, the checkpoint or the machine; says every reason.
    """
    wrong = contradictions(plan) + in_environment(plan.environment, plan.vllm)
    if wrong:
        raise LaunchError("\n".join(wrong))
    return _without_users(build_command(plan), plan.environment)


def make_server(options: ServeOptions, *, log_path: Path | None = None) -> Server:
    """Make a server of the installed vLLM, ready to be started.

    Raises:
        LaunchError: Something cannot be read or cannot work, the port is taken, or the weights are not whole.
    """
    (plan,) = read_plans([options])
    return server_of(plan, log_path=log_path)


def server_of(plan: Plan, *, log_path: Path | None = None, name: str | None = None) -> Server:
    """Make the server of a plan for this machine, as `make_server`; `name` is by default its role."""
    if plan.options.port == 0:
        plan = plan.changed(port=free_port())
    command, options = command_of(plan), plan.options
    check_port(options.host, options.served_port)
    folder = Path(options.model)
    if folder.is_dir():
        check_weights(folder)
        if not plan.vllm_args.has("--tokenizer"):
            check_tokenizer(folder)
    return Server(
        name or options.role,
        command,
        plan.base_url,
        log_path or default_log_path(options),
        api_key=plan.keys[0] if plan.keys else None,
        secret_env={"VLLM_API_KEY": options.api_key} if options.api_key else None,
    )


def start_server(
    options: ServeOptions,
    *,
    log_path: Path | None = None,
    timeout: float = 1800.0,
    on_progress: OnProgress | None = None,
) -> Server:
    """Start one server and return it when it answers; use it as a context manager to have it stopped.

    Raises:
        LaunchError: Refused before boot.
        ServerDied: It ended, or was not ready within `timeout` seconds; nothing of it is left.
    """
    server = make_server(options, log_path=log_path)
    try:
        server.start()
        wait_until_ready([server], timeout=timeout, on_progress=on_progress)
    except BaseException:
        server.stop()
        raise
    return server


@contextmanager
def running(
    servers: Sequence[Server],
    *,
    timeout: float = 1800.0,
    on_progress: OnProgress | None = None,
) -> Iterator[None]:
    """Have all of the servers ready inside the block, and none after it, however it is left.

    Those that measure the free memory of a GPU at their boot start one after another: two at once count each
    other's.
    """
    try:
        for number, server in enumerate(servers, start=1):
            if server.command.after_others:
                wait_until_ready(servers[: number - 1], timeout=timeout, on_progress=on_progress)
            server.start()
            if server.command.measures_memory:
                wait_until_ready(servers[:number], timeout=timeout, on_progress=on_progress)
        wait_until_ready(servers, timeout=timeout, on_progress=on_progress)
        yield
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.stop()


def default_log_path(options: ServeOptions) -> Path:
    """One file per role and port, in the user's state folder."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "qwen3-vllm" / f"{options.role}-{options.served_port}.log"


def _without_users(command: Command, environment: Mapping[str, str]) -> Command:
    """Leave alone what the user has set."""
    own = {name for name in command.env if name in environment and not name.startswith("QWEN3_VLLM_")}
    notes = [f"{name}: {environment[name]}, from your environment" for name in sorted(own)]
    env = {name: value for name, value in command.env.items() if name not in own}
    return replace(command, env=env, notes=(*command.notes, *notes))
