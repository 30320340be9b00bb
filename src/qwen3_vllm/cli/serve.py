"""`qwen3-vllm serve`: start servers, show how far they are, stop them."""

import dataclasses
import inspect
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import typer
from packaging.version import InvalidVersion, Version
from typer.core import TyperCommand

from qwen3_vllm._core.official_models import ROLES, Role
from qwen3_vllm.cli._server_set import print_commands, servers_of, set_of, sharing_gpu
from qwen3_vllm.cli._supervise import supervise, until_a_signal
from qwen3_vllm.cli._terminal import errors_in_one_line
from qwen3_vllm.errors import LaunchError
from qwen3_vllm.serving.balancer import Balancer
from qwen3_vllm.serving.command.memory import share_gpu
from qwen3_vllm.serving.machine.checkpoint import resolve_model
from qwen3_vllm.serving.machine.hardware import Machine
from qwen3_vllm.serving.machine.ports import free_port
from qwen3_vllm.serving.machine.vllm_build import VllmBuild
from qwen3_vllm.serving.options import Device, Help, ServeOptions
from qwen3_vllm.serving.plan import read_plans

_VLLM_ARGS = "qwen3_vllm.vllm_args"


What = Literal[Role, "both"]


class _PassesArgumentsOn(TyperCommand):
    """Keeps what follows `--` for vLLM; otherwise its first word would be read as MODEL."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args:
            cut = args.index("--")
            ctx.meta[_VLLM_ARGS] = tuple(args[cut + 1 :])
            args = args[:cut]
        return super().parse_args(ctx, args)


COMMAND_CLASS = _PassesArgumentsOn


def serve(
    ctx: typer.Context,
    what: Annotated[What, typer.Argument(help="`both` supervises two, and stops both if one dies.")],
    model: Annotated[
        str | None,
        typer.Argument(help="Folder, name inside --models-dir, or hub id. Default: the one there."),
    ] = None,
    models_dir: Annotated[
        Path, typer.Option(envvar="QWEN3_MODELS", help="Folder that holds the models.")
    ] = Path("models"),
    embedding_model: Annotated[str | None, typer.Option(help="MODEL for the embeddings of `both`.")] = None,
    reranker_model: Annotated[str | None, typer.Option(help="MODEL for the reranker of `both`.")] = None,
    replicas: Annotated[
        str,
        typer.Option(metavar="N|auto", help="Servers of a model on one GPU; auto: as many as fill it."),
    ] = "auto",
    balancer: Annotated[
        Literal["auto", Balancer],
        typer.Option(help="What makes several servers one address; auto: HAProxy, if installed."),
    ] = "auto",
    mps: Annotated[
        bool,
        typer.Option(help="CUDA MPS for several embedding servers of an H100, where the driver brings it."),
    ] = True,
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
    **server_options: Any,
) -> None:
    """Serve Qwen3-Embedding, Qwen3-Reranker, or both, with vLLM.

    What follows `--` goes to vLLM as it is, and wins over what this command would send.

    Exit status: 0 stopped on request, 1 a server died, 2 refused before the start.

    Example: `qwen3-vllm serve embedding ./models/Qwen3-Embedding-0.6B --port 8000`

    Example: `qwen3-vllm serve both --models-dir ./models --dry-run --vllm-version 0.10.0 -- --seed 1`
    """
    names: dict[Role, str | None] = {
        "embedding": embedding_model or model,
        "reranker": reranker_model or model,
    }
    with errors_in_one_line():
        _check_selection(what, model, server_options["served_model_name"], dry_run, vllm_version)
        count = _count(replicas)
        options = [
            ServeOptions(
                role=role,
                model=resolve_model(names[role], role, models_dir, elsewhere=vllm_version is not None),
                extra_args=ctx.meta.get(_VLLM_ARGS, ()),
                **{**server_options, "port": role_port},
            )
            for role, role_port in _roles_and_ports(what, server_options["port"])
        ]
        build = None if vllm_version is None else _build_elsewhere(options[0].device, vllm_version)
        plans = read_plans(options, vllm=build, machine=None if build is None else Machine())
        if what == "both" and build is None:
            plans = share_gpu(plans)
        sets = [
            set_of(plan, count, balancer, roles=len(plans), elsewhere=build is not None) for plan in plans
        ]
        if dry_run:
            for each in sets:
                print_commands(each, mps=mps and len(sets) == 1)
            return
        with until_a_signal() as check_signals, ExitStack() as stack:
            if mps and len(sets) == 1:  # beside a reranker it was not measured
                sets = [stack.enter_context(sharing_gpu(sets[0], log_dir, check_signals))]
            servers = [server for each in sets for server in servers_of(each, log_dir)]
            servers.sort(key=lambda server: server.command.after_others)
            supervise(servers, check_signals, boot_timeout=boot_timeout, show_log=show_log)


def _count(replicas: str) -> int | None:
    if replicas == "auto":
        return None
    if not (replicas.isascii() and replicas.isdecimal() and int(replicas)):
        raise LaunchError(f"--replicas is a number from 1 on, or auto, not {replicas!r}")
    return int(replicas)


def _whole_signature() -> inspect.Signature:
    """Return the signature of `serve` with a parameter for each field of ServeOptions that has a help."""
    signature = inspect.signature(serve, eval_str=True)
    *own, _ = signature.parameters.values()
    several = list(signature.parameters).index("replicas")  # from here on they are not about one server
    return signature.replace(parameters=[*own[:several], *_server_options(), *own[several:]])


def _server_options() -> Iterator[inspect.Parameter]:
    hints = get_type_hints(ServeOptions, include_extras=True)
    for field in dataclasses.fields(ServeOptions):
        kind, *metadata = get_args(hints[field.name]) or (hints[field.name],)
        said = next((each for each in metadata if isinstance(each, Help)), None)
        if said is None:
            continue
        # A switch that is off needs no form to turn it off.
        flags = [f"--{field.name.replace('_', '-')}"] if field.default is False else []
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=field.default,
            annotation=Annotated[kind, typer.Option(*flags, help=said.text)],
        )


serve.__signature__ = _whole_signature()  # type: ignore[attr-defined]


def _check_selection(
    what: What,
    model: str | None,
    served_model_name: str | None,
    dry_run: bool,
    vllm_version: str | None,
) -> None:
    if what == "both" and model is not None:
        raise LaunchError(
            "`both` takes its models from --embedding-model and --reranker-model, not from MODEL"
        )
    if what == "both" and served_model_name is not None:
        raise LaunchError("`both` cannot give two servers one --served-model-name; leave it out")
    if vllm_version is not None and not dry_run:
        raise LaunchError("--vllm-version is for another machine's command; add --dry-run")


def _roles_and_ports(what: What, port: int | None) -> Iterator[tuple[Role, int | None]]:
    for number, role in enumerate(role for role in ROLES if what in (role, "both")):
        if port == 0:
            yield role, free_port()
        else:
            yield role, port + number if port else None


def _build_elsewhere(device: Device, version: str) -> VllmBuild:
    try:
        return VllmBuild(Version(version), is_cpu_build=device == "cpu", plugins=None)
    except InvalidVersion as error:
        raise LaunchError(f"--vllm-version {version} is not a version; give one like 0.33.0") from error
