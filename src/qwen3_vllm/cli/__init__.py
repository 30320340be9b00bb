"""The `qwen3-vllm` command: a face on the library, imported by nobody."""

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False)
