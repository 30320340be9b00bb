"""`qwen3-vllm doctor`: is a deployment right?"""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from qwen3_vllm import doctor as doctoring
from qwen3_vllm.cli._terminal import (
    EXIT_FAILED,
    EXIT_REFUSED,
    Console,
    err,
    errors_in_one_line,
    fail,
    out,
    print_json,
)

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "dim"}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("doctor")(doctor)


def doctor(
    embedding_url: Annotated[
        str | None, typer.Option(help="Embedding server, with or without /v1.", show_default=False)
    ] = None,
    reranker_url: Annotated[str | None, typer.Option(help="Reranker.", show_default=False)] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File whose first line is the key; without it VLLM_API_KEY, if set.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that one request may take.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write the table to this HTML file too.")] = None,
) -> None:
    """Examine running servers: reachable, right model, right scores, guarded, how fast.

    With no address given, both servers are examined where the clients look for them: `QWEN3_EMBEDDING_URL` or
    127.0.0.1:8000, and `QWEN3_RERANKER_URL` or 127.0.0.1:8001.

    Exit status: 0 nothing failed, 1 a check failed, 2 wrong usage.

    Example: `qwen3-vllm doctor --embedding-url http://127.0.0.1:8000/v1`
    """
    key = _read_key(api_key_file)
    both = embedding_url is None and reranker_url is None
    logging.getLogger("qwen3_vllm").setLevel(logging.ERROR)  # what is retried ends up in a check
    with errors_in_one_line(), err.status("examining the servers"):
        checks = doctoring.examine(
            embedding_url=doctoring.default_embedding_url() if both else embedding_url,
            reranker_url=doctoring.default_reranker_url() if both else reranker_url,
            api_key=key,
            timeout=timeout,
        )
    if as_json:
        print_json(doctoring.as_json(checks))
    else:
        _print_checks(checks, out)
    if html is not None:
        page = Console(file=io.StringIO(), record=True, width=150)
        _print_checks(checks, page)
        try:
            page.save_html(str(html))
        except OSError as error:
            fail(f"cannot write {html}: {error.strerror}", EXIT_REFUSED)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(EXIT_FAILED)


def _read_key(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        fail(f"cannot read the key in {file}: {type(error).__name__}", EXIT_REFUSED)
    key = next((line.strip() for line in lines if line.strip() and not line.startswith("#")), "")
    if not key:
        fail(f"there is no key in {file}", EXIT_REFUSED)
    return key


def _print_checks(checks: list[doctoring.Check], console: Console) -> None:
    table = Table("", "check", "seen", box=None, pad_edge=False, header_style="dim")
    for check in checks:
        seen = Text(check.seen)
        if check.advice:
            seen.append(f"\n→ {check.advice}", style="italic")
        table.add_row(Text(check.status, style=_COLOURS[check.status]), check.name, seen)
    console.print(table)
    counts = {status: sum(check.status == status for check in checks) for status in _COLOURS}
    console.print(", ".join(f"{number} {status}" for status, number in counts.items() if number))
