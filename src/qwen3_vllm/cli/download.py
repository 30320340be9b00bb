"""`qwen3-vllm download`: fetch Qwen3 models from a hub, verified."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.text import Text

from qwen3_vllm._core.official_models import ROLES, SMALLEST, Role, Size, official_model
from qwen3_vllm.cli._terminal import EXIT_FAILED, EXIT_INTERRUPTED, err
from qwen3_vllm.errors import DownloadError
from qwen3_vllm.serving.download import model_folder
from qwen3_vllm.serving.download.hubs import Source, choose_hub


def download(
    what: Annotated[Literal[Role, "both"], typer.Argument(help="Which model.")] = "both",
    size: Annotated[
        Size | None, typer.Option(help="Parameters of the official model.", show_default="0.6B")
    ] = None,
    source: Annotated[
        Source | None,
        typer.Option(help="Hub to download from.", show_default="modelscope if installed, else huggingface"),
    ] = None,
    quantized: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME", help="A GPTQ, AWQ or compressed-tensors repository, instead of Qwen's own."
        ),
    ] = None,
    directory: Annotated[Path, typer.Option("--dir", help="Folder that holds the models.")] = Path("models"),
) -> None:
    """Download models, resumable and verified; again, it verifies and repairs.

    Disk space is checked first. A model's folder appears when every file in it has the size and hash that the
    hub lists. Mirrors, proxies and tokens: `MODELSCOPE_ENDPOINT`, `MODELSCOPE_API_TOKEN`, `HF_ENDPOINT`,
    `HF_TOKEN`, `HTTPS_PROXY`.
    """
    try:
        repos = _repositories(what, size, quantized)
        hub = choose_hub(source)
        for role, repo in repos.items():
            err.print(Text.assemble((repo, "bold"), f" from {hub.name}"))
            done = model_folder.download(hub, repo, directory, report=err.print)
            err.print(
                f"  {done.folder}: {done.files} files, {model_folder.in_gigabytes(done.size)}, verified"
            )
            if done.unhashed:
                err.print(f"  by size only, the hub lists no hash: {', '.join(done.unhashed)}")
            err.print(f"  next: qwen3-vllm serve {role} {done.folder}")
    except (DownloadError, OSError) as error:
        err.print(Text.assemble(("download failed:", "red"), f" {error}"))
        raise typer.Exit(EXIT_FAILED) from error
    except KeyboardInterrupt:
        err.print("stopped; run the command again to continue")
        os._exit(EXIT_INTERRUPTED)  # the threads that fetch cannot be interrupted; what they wrote is kept


def _repositories(what: Literal[Role, "both"], size: Size | None, quantized: str | None) -> dict[Role, str]:
    """Return the repository for each role asked for."""
    roles = [role for role in ROLES if what in (role, "both")]
    if quantized is None:
        return {role: official_model(role, size or SMALLEST) for role in roles}
    if len(roles) != 1:
        raise typer.BadParameter("--quantized names one repository: give `embedding` or `reranker`")
    if size is not None:
        raise typer.BadParameter("--quantized names the whole repository; leave --size out")
    if quantized.count("/") != 1 or not all(quantized.split("/")):
        raise typer.BadParameter(f"--quantized needs OWNER/NAME, not {quantized!r}")
    return {roles[0]: quantized}
