"""The `qwen3-vllm` command line; no other module imports it."""

import typer

from qwen3_vllm.cli import doctor as check
from qwen3_vllm.cli import download, embed, rerank, search, serve
from qwen3_vllm.cli._program import Program

app = typer.Typer(
    cls=Program, no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False
)


@app.callback()
def main() -> None:
    """Qwen3-Embedding and Qwen3-Reranker, served by vLLM."""


serve.register(app)
download.register(app)
embed.register(app)
check.register(app)
rerank.register(app)
search.register(app)
