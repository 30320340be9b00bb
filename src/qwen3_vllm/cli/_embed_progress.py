"""How far `qwen3-vllm embed` is: a bar, or a line now and then, and the summary at the end."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from qwen3_vllm._core.plurals import counted
from qwen3_vllm.cli._terminal import err, print_json

if TYPE_CHECKING:
    from qwen3_vllm.bulk import Progress as Done

_LINE_EVERY_SECONDS = 30.0


def shown_progress() -> AbstractContextManager[Callable[[Done], None]]:
    """Show progress on standard error; yields what to call with it."""
    return _bar() if err.is_terminal else _lines()


@contextmanager
def _lines() -> Iterator[Callable[[Done], None]]:
    """A line on standard error every half minute, whether the run advances or hangs."""
    told: deque[Done] = deque(maxlen=1)
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(_LINE_EVERY_SECONDS):
            err.print(_line(told[-1]) if told else "reading inputs")

    teller = threading.Thread(target=tell, name="qwen3-vllm-progress", daemon=True)
    teller.start()
    try:
        yield told.append
    finally:
        ended.set()
        teller.join()


def _line(done: Done) -> str:
    words = [f"{done.rows:,} of {done.total_rows:,} rows", *_rates(done)]
    if done.failed:
        words.append(f"{done.failed:,} failed")
    if done.embedded and done.seconds:
        minutes = round((done.total_rows - done.rows) / done.embedded * done.seconds / 60)
        hours = f"{minutes // 60} h " if minutes >= 60 else ""
        words.append(f"about {hours}{minutes % 60} min left" if minutes else "less than a minute left")
    return ", ".join(words)


@contextmanager
def _bar() -> Iterator[Callable[[Done], None]]:
    """A progress bar on standard error."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,} rows"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("reading inputs", total=0, rate="")

        def show(done: Done) -> None:
            bar.update(
                task,
                description="embedding",
                total=done.total_rows,
                completed=done.rows,
                rate=", ".join(_rates(done)),
            )

        yield show


def _rates(done: Done) -> Iterator[str]:
    """What this run embedded per second; tokens are an estimate from the first documents."""
    if not done.embedded or not done.seconds:
        return
    yield f"{done.embedded / done.seconds:,.0f} documents/s"
    if done.tokens_per_character is not None:
        yield f"about {done.characters * done.tokens_per_character / done.seconds:,.0f} tokens/s"
    else:
        yield f"{done.characters / done.seconds:,.0f} characters/s"


def print_summary(summary: Done, out: Path, *, as_json: bool) -> None:
    """Say what a run gave; as JSON on standard output."""
    if as_json:
        print_json({"out": str(out), **asdict(summary)})
        return
    err.print(
        f"{counted(summary.embedded, 'document')} embedded in {summary.seconds:,.1f} s"
        f"{''.join(f', {rate}' for rate in _rates(summary))}"
    )
    if summary.kept:
        err.print(f"{summary.kept:,} kept from before")
    if summary.tokens:
        err.print(f"{counted(summary.tokens, 'token')} in {counted(summary.requests, 'request')}, in all")
    if summary.truncation:
        documents = summary.embedded + summary.kept
        err.print(summary.truncation.of_texts(documents, "document"), style="yellow")
    if summary.failed:
        err.print(f"{counted(summary.failed, 'row')} failed, see {out / 'errors.jsonl'}", style="red")
    err.print(f"{out}{os.sep}part-*.parquet")
