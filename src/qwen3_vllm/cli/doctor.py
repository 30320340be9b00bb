"""`qwen3-vllm doctor`: is a deployment right?"""

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from qwen3_vllm import EmbeddingClient, RerankClient
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
from qwen3_vllm.errors import Qwen3VLLMError

_EXIT_MOVED = 3
_FIXED_TEXTS = "fixed texts"
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "dim"}


def doctor(
    embedding_url: Annotated[
        list[str] | None,
        typer.Option(help="Embedding server, with or without /v1; may be repeated.", show_default=False),
    ] = None,
    reranker_url: Annotated[
        list[str] | None, typer.Option(help="Reranker; may be repeated.", show_default=False)
    ] = None,
    embedding_model: Annotated[
        str | None,
        typer.Option(help="Name of the embedding model, if a gateway hides it.", show_default=False),
    ] = None,
    reranker_model: Annotated[
        str | None, typer.Option(help="Name of the reranker, likewise.", show_default=False)
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File whose first line is the key; without it VLLM_API_KEY, if set.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that one request may take.")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
    save: Annotated[
        Path | None, typer.Option(help="Keep vectors and scores of fixed texts in this file, as JSON.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="After an upgrade: say how far those kept in this file have moved.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the table to this HTML file too.")] = None,
) -> None:
    """Examine running servers: reachable, right model, right scores, guarded, how fast.

    With no address given, both servers are examined where the clients look for them: `QWEN3_EMBEDDING_URL` or
    127.0.0.1:8000, and `QWEN3_RERANKER_URL` or 127.0.0.1:8001.

    `--against FILE` says "the same", "moved within rounding", or that the index must be rebuilt.

    Exit status: 0 nothing failed, 1 a check failed, 2 wrong usage, 3 vectors or scores have moved.

    Example: `qwen3-vllm doctor --embedding-url http://127.0.0.1:8000/v1`
    """
    key = _read_key(api_key_file)
    both = not embedding_url and not reranker_url
    logging.getLogger("qwen3_vllm").setLevel(logging.ERROR)  # what is retried ends up in a check
    with errors_in_one_line(), err.status("examining the servers"):
        before = doctoring.read_reference(against) if against is not None else None
        options: dict[str, Any] = {"api_key": key, "timeout": timeout, "max_retries": 1}
        clients: list[EmbeddingClient | RerankClient] = []
        if embedding_url or both:
            clients.append(EmbeddingClient(base_url=embedding_url or None, model=embedding_model, **options))
        if reranker_url or both:
            clients.append(RerankClient(base_url=reranker_url or None, model=reranker_model, **options))
        checks = doctoring.examine(*clients)
        moved = False
        if save is not None or before is not None:
            compared = _compare(clients, before, save)
            moved = any(check.status == "fail" and check.name != _FIXED_TEXTS for check in compared)
            checks += compared
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
    if moved:
        raise typer.Exit(_EXIT_MOVED)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(EXIT_FAILED)


def _compare(
    clients: Sequence[EmbeddingClient | RerankClient], before: doctoring.Reference | None, save: Path | None
) -> list[doctoring.Check]:
    """Take the vectors and scores of fixed texts, to save them and to compare them with earlier ones."""
    try:
        now = doctoring.take_reference(*clients, like=before)
    except Qwen3VLLMError as error:
        advice = "See the checks above; nothing was saved or compared"
        return [doctoring.Check(_FIXED_TEXTS, "fail", str(error), advice)]
    if save is not None:
        try:
            now.write(save)
        except OSError as error:
            fail(f"cannot write {save}: {error.strerror}", EXIT_REFUSED)
    return doctoring.compare(before, now) if before is not None else []


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
