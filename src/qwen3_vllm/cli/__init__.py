"""The `qwen3-vllm` command line; no other module imports it.

A command's module is imported when it runs, or shows its own help: the list of commands appears at once.
"""

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.main import get_command

from qwen3_vllm import __version__
from qwen3_vllm.cli._program import Program

# The first sentence of each command's docstring, in the order of the list.
SUMMARIES = {
    "serve": "Serve Qwen3-Embedding, Qwen3-Reranker, or both, with vLLM.",
    "download": "Download models, resumable and verified; again, it verifies and repairs.",
    "embed": "Embed the documents of JSONL, CSV, Parquet or text files into a folder of Parquet files.",
    "doctor": "Examine running servers: reachable, right model, right scores, guarded, how fast.",
    "rerank": "Rank the texts of a file by how well they answer a query.",
    "search": "Search a folder of embedded documents, and show what reranking changes.",
    "evaluate": "Measure search and reranking on your own data, and what each set-up costs.",
}
_STYLE: dict[str, Any] = {"rich_markup_mode": "markdown", "pretty_exceptions_enable": False}


def load(name: str) -> Any:
    """Import a command: the function of its name in the module of its name."""
    module = import_module(f"{__name__}.{name}")
    alone = typer.Typer(add_completion=False, **_STYLE)
    alone.command(name, cls=getattr(module, "COMMAND_CLASS", None))(getattr(module, name))
    return get_command(alone)


class _Commands(Program):
    """Lists commands by their summaries, and imports the one that is used."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else load(name), rest


app = typer.Typer(cls=_Commands, no_args_is_help=True, **_STYLE)


def _print_version(asked: bool) -> None:
    if asked:
        print(f"qwen3-vllm {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Qwen3-Embedding and Qwen3-Reranker, served by vLLM."""


def _not_imported_yet() -> None:
    """Stand for a command in the list."""


for _name, _summary in SUMMARIES.items():
    app.command(_name, help=_summary)(_not_imported_yet)
