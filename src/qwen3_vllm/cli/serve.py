"""`qwen3-vllm serve`: start servers, show how far they are, stop them."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from packaging.version import InvalidVersion, Version
from rich.text import Text
from typer.core import TyperCommand

from qwen3_vllm._core.official_models import Role
from qwen3_vllm.cli._supervise import supervise
from qwen3_vllm.cli._terminal import err, errors_in_one_line, print_line
from qwen3_vllm.errors import LaunchError
from qwen3_vllm.serving.command.memory import share_gpu
from qwen3_vllm.serving.command.replicas import replicate, router, why_no_router
from qwen3_vllm.serving.launch import command_of, default_log_path, server_of
from qwen3_vllm.serving.machine.checkpoint import resolve_model
from qwen3_vllm.serving.machine.hardware import Machine
from qwen3_vllm.serving.machine.ports import free_port
from qwen3_vllm.serving.machine.vllm_build import VllmBuild
from qwen3_vllm.serving.options import ServeOptions
from qwen3_vllm.serving.plan import Plan, read_plans

_VLLM_ARGS = "qwen3_vllm.vllm_args"


class What(StrEnum):
    """Which servers to start."""

    EMBEDDING = "embedding"
    RERANKER = "reranker"
    BOTH = "both"


class ComputeDevice(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CUDA = "cuda"
    CPU = "cpu"


class _PassesArgumentsOn(TyperCommand):
    """Keeps what follows `--` for vLLM; otherwise its first word would be read as MODEL."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args:
            cut = args.index("--")
            ctx.meta[_VLLM_ARGS] = tuple(args[cut + 1 :])
            args = args[:cut]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("serve", cls=_PassesArgumentsOn)(serve)


def serve(
    ctx: typer.Context,
    what: Annotated[What, typer.Argument(help="`both` supervises two, and stops both if one dies.")],
    model: Annotated[
        str | None,
        typer.Argument(help="Folder, name inside --models-dir, or hub id. Default: the one there."),
    ] = None,
    models_dir: Annotated[Path, typer.Option(envvar="QWEN3_MODELS", help="Where models lie.")] = Path(
        "models"
    ),
    embedding_model: Annotated[str | None, typer.Option(help="MODEL for the embeddings of `both`.")] = None,
    reranker_model: Annotated[str | None, typer.Option(help="MODEL for the reranker of `both`.")] = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="Default 8000 (embedding), 8001 (reranker); 0: a free one; `both`: this and the next."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; a public one needs a key.")] = "127.0.0.1",
    served_model_name: Annotated[
        str | None, typer.Option(help="Default qwen3_embedding, qwen3_reranker.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto, bfloat16, float16 or float32.")] = "auto",
    device: Annotated[
        ComputeDevice, typer.Option(help="auto: the GPU, if there is one.")
    ] = ComputeDevice.AUTO,
    quantization: Annotated[
        str | None, typer.Option(help="fp8 on request; GPTQ, AWQ and the like are read from the checkpoint.")
    ] = None,
    tensor_parallel_size: Annotated[int, typer.Option(help="GPUs that share one copy of the model.")] = 1,
    data_parallel_size: Annotated[int, typer.Option(help="Copies of the model, a GPU each.")] = 1,
    api_server_count: Annotated[
        int | None, typer.Option(help="HTTP processes; default 2 with a GPU and 8 cores.")
    ] = None,
    replicas: Annotated[
        int,
        typer.Option(min=1, help="Servers of the model on one GPU, behind vllm-router if it is installed."),
    ] = 1,
    max_num_seqs: Annotated[int, typer.Option(help="Texts computed at once.")] = 256,
    max_model_len: Annotated[
        int | None, typer.Option(help="Longest text in tokens; default 8192, or what the checkpoint allows.")
    ] = None,
    gpu_memory_utilization: Annotated[
        float | None, typer.Option(help="Share of the GPU a server; default 0.45, or 0.9 if weights need it.")
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", help="Run code that the checkpoint brings. Qwen3 needs none."),
    ] = False,
    chat_template: Annotated[bool, typer.Option(help="Let the server write the rerank prompt.")] = True,
    prefix_caching: Annotated[
        bool | None, typer.Option(help="Default: off for embeddings, on for reranking.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="One key a line; without it the key is VLLM_API_KEY, if set.")
    ] = None,
    open_metrics: Annotated[
        bool, typer.Option("--open-metrics", help="Let /metrics be scraped without the key.")
    ] = False,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow a public address without a key.")
    ] = False,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Write one line per request to vLLM's log.")
    ] = False,
    log_dir: Annotated[
        Path | None, typer.Option(help="Where vLLM's logs go; default ~/.local/state/qwen3-vllm.")
    ] = None,
    show_log: Annotated[bool, typer.Option("--show-log", help="Print vLLM's log here too.")] = False,
    boot_timeout: Annotated[float, typer.Option(help="Seconds until a boot counts as failed.")] = 1800.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the command, ready to paste, and start nothing.")
    ] = False,
    vllm_version: Annotated[
        str | None, typer.Option(help="With --dry-run: for another machine, which has this vLLM.")
    ] = None,
) -> None:
    """Serve Qwen3-Embedding, Qwen3-Reranker, or both, with vLLM.

    What follows `--` goes to vLLM as it is, and wins over what this command would send.

    Exit status: 0 stopped on request, 1 a server died, 2 refused before the start.

    Example: `qwen3-vllm serve embedding ./models/Qwen3-Embedding-0.6B --port 8000`

    Example: `qwen3-vllm serve both --models-dir ./models --dry-run --vllm-version 0.10.0 -- --seed 1`
    """
    names = {What.EMBEDDING: embedding_model or model, What.RERANKER: reranker_model or model}
    with errors_in_one_line():
        _check_selection(what, model, served_model_name, replicas, dry_run, vllm_version)
        options = [
            ServeOptions(
                role=role,
                model=resolve_model(names[What(role)], role, models_dir, elsewhere=vllm_version is not None),
                port=role_port,
                host=host,
                served_model_name=served_model_name,
                dtype=dtype,
                device=device.value,
                quantization=quantization,
                tensor_parallel_size=tensor_parallel_size,
                data_parallel_size=data_parallel_size,
                api_server_count=api_server_count,
                max_num_seqs=max_num_seqs,
                max_model_len=max_model_len,
                gpu_memory_utilization=gpu_memory_utilization,
                trust_remote_code=trust_remote_code,
                chat_template=chat_template,
                prefix_caching=prefix_caching,
                api_key_file=api_key_file,
                open_metrics=open_metrics,
                access_log=access_log,
                insecure=insecure,
                extra_args=ctx.meta.get(_VLLM_ARGS, ()),
            )
            for role, role_port in _roles_and_ports(what, port)
        ]
        build = None if vllm_version is None else _build_elsewhere(device, vllm_version)
        plans = read_plans(options, vllm=build, machine=None if build is None else Machine())
        front = None
        if replicas > 1:
            plans, front = _replicate(plans[0], replicas)
        if what is What.BOTH and build is None:
            plans = share_gpu(plans)
        if dry_run:
            _print_commands(plans)
            return
        servers = [server_of(plan, log_path=_log_path(log_dir, plan)) for plan in plans]
        for server in servers:
            _explain(server.name, server.command.notes)
        if front is not None:
            servers.append(router(front, servers, _log_path(log_dir, front)))
        supervise(servers, boot_timeout=boot_timeout, show_log=show_log)


def _check_selection(
    what: What,
    model: str | None,
    served_model_name: str | None,
    replicas: int,
    dry_run: bool,
    vllm_version: str | None,
) -> None:
    if what is What.BOTH and model is not None:
        raise LaunchError(
            "`both` takes its models from --embedding-model and --reranker-model, not from MODEL"
        )
    if what is What.BOTH and served_model_name is not None:
        raise LaunchError("`both` cannot give two servers one --served-model-name; leave it out")
    if what is What.BOTH and replicas > 1:
        raise LaunchError("`both` takes no --replicas; start the two roles in two terminals")
    if vllm_version is not None and not dry_run:
        raise LaunchError("--vllm-version is for another machine's command; add --dry-run")


def _roles_and_ports(what: What, port: int | None) -> Iterator[tuple[Role, int | None]]:
    roles: tuple[Role, ...] = ("embedding", "reranker")
    chosen = [role for role in roles if what in (What.BOTH, role)]
    for number, role in enumerate(chosen):
        if port == 0:
            yield role, free_port()
        else:
            yield role, port + number if port else None


def _replicate(plan: Plan, count: int) -> tuple[list[Plan], Plan | None]:
    """Return the replicas' plans, and the plan of the router before them, if there can be one."""
    obstacle = why_no_router(plan)
    if obstacle is not None:
        err.print(f"no router in front: {obstacle}; put a balancer before the {count} ports yourself")
    return replicate(plan, count, behind_router=obstacle is None), plan if obstacle is None else None


def _print_commands(plans: list[Plan]) -> None:
    for plan in plans:
        command = command_of(plan)
        _explain(plan.options.role, command.notes)
        if plan.options.api_key is not None:
            err.print("the key is read from VLLM_API_KEY: export it in the shell that runs the command")
        print_line(str(command))


def _build_elsewhere(device: ComputeDevice, version: str) -> VllmBuild:
    try:
        return VllmBuild(Version(version), is_cpu_build=device is ComputeDevice.CPU, plugins=None)
    except InvalidVersion as error:
        raise LaunchError(f"--vllm-version {version} is no version; give one like 0.33.0") from error


def _log_path(log_dir: Path | None, plan: Plan) -> Path:
    default = default_log_path(plan.options)
    return log_dir / default.name if log_dir else default


def _explain(name: str, notes: tuple[str, ...]) -> None:
    for note in notes:
        err.print(Text.assemble((f"{name}: ", "dim"), note))
