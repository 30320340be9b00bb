"""Options in, running servers out: what the command line and the tests use."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from qwen3_vllm.errors import LaunchError
from qwen3_vllm.serving.command.config_file import with_config_file
from qwen3_vllm.serving.command.flags import build_command
from qwen3_vllm.serving.command.memory import memory_shares
from qwen3_vllm.serving.command.preflight import contradictions, in_environment
from qwen3_vllm.serving.command.vllm_args import ExtraArgs
from qwen3_vllm.serving.guard import read_keys
from qwen3_vllm.serving.machine.checkpoint import read_checkpoint
from qwen3_vllm.serving.machine.hardware import Machine, this_machine
from qwen3_vllm.serving.machine.ports import check_port, free_port
from qwen3_vllm.serving.machine.vllm_build import VllmBuild, installed_vllm
from qwen3_vllm.serving.machine.weights import check_tokenizer, check_weights
from qwen3_vllm.serving.options import Checkpoint, Command, ServeOptions
from qwen3_vllm.serving.process.server import OnProgress, Server, wait_until_ready


def prepare(
    options: ServeOptions, *, vllm: VllmBuild | None = None, machine: Machine | None = None
) -> tuple[ServeOptions, Command]:
    """Complete the options from the environment and build their command; starts nothing.

    Give `vllm` and `machine` to see the command for another machine.

    Raises:
        LaunchError: The options contradict each other, the checkpoint or the machine; every reason is told.
    """
    elsewhere = machine is not None
    options = _complete(options, elsewhere=elsewhere)
    vllm = vllm or installed_vllm()
    machine = machine or this_machine()
    checkpoint = _read(options, elsewhere=elsewhere)
    wrong = contradictions(options, checkpoint, vllm, machine)
    if not elsewhere:
        wrong += in_environment(os.environ, vllm)
    if wrong:
        raise LaunchError("\n".join(wrong))
    command = build_command(options, checkpoint, vllm, machine)
    return options, command if elsewhere else _without_users_environment(command)


def make_server(options: ServeOptions, *, log_path: Path | None = None) -> Server:
    """Make a server of the installed vLLM, ready to be started.

    Raises:
        LaunchError: As `prepare`, or the port is taken, or the weights are not whole.
    """
    if options.port == 0:
        options = replace(options, port=free_port())
    options, command = prepare(options)
    port = options.served_port
    check_port(options.host, port)
    if Path(options.model).is_dir():
        check_weights(Path(options.model))
        if not ExtraArgs(options.extra_args).has("--tokenizer"):
            check_tokenizer(Path(options.model))
    keys = read_keys(_key_environment(options)) if options.guarded else []
    return Server(
        options.role,
        command,
        base_url(options),
        log_path or default_log_path(options),
        api_key=keys[0] if keys else None,
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


def share_gpu(options: Sequence[ServeOptions]) -> list[ServeOptions]:
    """Give each of several servers that start together its part of the GPU; a share asked for stays.

    Raises:
        LaunchError: They do not fit together, or a checkpoint cannot be read.
    """
    if any(each.gpu_memory_utilization is not None for each in options):
        return list(options)
    checkpoints = [read_checkpoint(each.model) for each in options]
    shares = memory_shares(checkpoints, this_machine(), options[0].tensor_parallel_size)
    return [replace(each, gpu_memory_utilization=share) for each, share in zip(options, shares, strict=True)]


@contextmanager
def running(
    servers: Sequence[Server],
    *,
    timeout: float = 1800.0,
    on_progress: OnProgress | None = None,
) -> Iterator[None]:
    """Have all of the servers ready inside the block, and none after it, however it is left.

    Those on a GPU start one after another: vLLM measures free memory while it boots, and two at once count
    each other's.
    """
    try:
        for number, server in enumerate(servers, start=1):
            server.start()
            if server.command.uses_gpu:
                wait_until_ready(servers[:number], timeout=timeout, on_progress=on_progress)
        wait_until_ready(servers, timeout=timeout, on_progress=on_progress)
        yield
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            server.stop()


def base_url(options: ServeOptions) -> str:
    """Return the address to reach the server from this machine, without a path."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(options.host, options.host)
    scheme = "https" if ExtraArgs(options.extra_args).has("--ssl-certfile") else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{options.served_port}"


def default_log_path(options: ServeOptions) -> Path:
    """One file a role and port, in the user's state folder."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "qwen3-vllm" / f"{options.role}-{options.served_port}.log"


def _complete(options: ServeOptions, *, elsewhere: bool) -> ServeOptions:
    """Take in what a file for vLLM says, and the key from the environment where none is given."""
    options = replace(options, extra_args=with_config_file(options.extra_args, elsewhere=elsewhere))
    if not options.guarded:
        file_name = os.environ.get("QWEN3_VLLM_API_KEY_FILE")
        key = os.environ.get("VLLM_API_KEY", "").strip()
        options = replace(
            options,
            api_key_file=Path(file_name) if file_name else None,
            api_key=(not file_name and key) or None,
        )
    if options.api_key_file is not None:
        options = replace(options, api_key_file=options.api_key_file.expanduser().absolute(), api_key=None)
    if options.guarded:
        try:
            keys = read_keys(_key_environment(options))
        except RuntimeError as error:
            raise LaunchError(str(error)) from error
        if any(not key.isascii() or not key.isprintable() or " " in key for key in keys):
            raise LaunchError("an API key must be printable ASCII without spaces: it travels in a header")
    return options


def _key_environment(options: ServeOptions) -> dict[str, str]:
    if options.api_key_file is not None:
        return {"QWEN3_VLLM_API_KEY_FILE": str(options.api_key_file)}
    return {"VLLM_API_KEY": options.api_key or ""}


def _read(options: ServeOptions, *, elsewhere: bool) -> Checkpoint:
    """Read the checkpoint; for another machine a folder that is not here is taken on trust."""
    if elsewhere and not Path(options.model).is_dir():
        return replace(read_checkpoint(options.model), is_local=options.model.startswith((".", "/", "~")))
    return read_checkpoint(options.model)


def _without_users_environment(command: Command) -> Command:
    """Leave alone what the user has set himself."""
    own = {name for name in command.env if name in os.environ and not name.startswith("QWEN3_VLLM_")}
    notes = [f"{name}: {os.environ[name]}, from your environment" for name in sorted(own)]
    env = {name: value for name, value in command.env.items() if name not in own}
    return replace(command, env=env, notes=(*command.notes, *notes))
