"""`python -m benchmarks`: measure this library beside other clients, and print, keep and draw the figures."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.canned import canned_server
from benchmarks.measure import CASES, Plan, Result, Spread, spread
from benchmarks.run import run_bench
from qwen3_vllm.errors import ConfigurationError, Qwen3VLLMError

EXIT_FAILED, EXIT_USAGE = 1, 2
# A pipe has no width; a table must not be broken for that.
_out = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
_err = Console(stderr=True, highlight=False, soft_wrap=True)
app = typer.Typer(add_completion=False)


@app.command()
def bench(
    embedding_url: Annotated[str | None, typer.Option(help="Embedding server to measure at.")] = None,
    reranker_url: Annotated[str | None, typer.Option(help="Reranker to measure at.")] = None,
    stub: Annotated[
        bool, typer.Option("--stub", help="Measure at a canned server: what a client itself costs.")
    ] = False,
    stub_rate: Annotated[
        float,
        typer.Option(min=0, help="Documents per second that the canned server embeds at most; 0: no limit."),
    ] = 0.0,
    documents: Annotated[int, typer.Option(min=1, help="Documents per call.")] = 128,
    calls: Annotated[int, typer.Option(min=1, help="Calls per round, of each client.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds.")] = 7,
    batch: Annotated[int, typer.Option(min=1, help="Documents per request.")] = 128,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 16,
    words: Annotated[int, typer.Option(min=1, help="Words per document.")] = 96,
    queries: Annotated[int, typer.Option(min=1, help="Queries per round, of each client.")] = 30,
    rankings: Annotated[int, typer.Option(min=1, help="Rankings per round, of each way.")] = 2,
    only: Annotated[
        list[str] | None, typer.Option(help="Only clients with this in their name; may be repeated.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything measured to this file.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw it into this file: .svg, .png or .pdf.")] = None,
) -> None:
    """Measure this library beside other clients, in one run, in turns: speed, latency, CPU per document.

    Clients that are not installed are left out. The key, where servers need one, is `VLLM_API_KEY`.

    Exit status: 0 measured, 1 a server failed, 2 wrong usage. A bar that is missed is shown, not an error.

    Example: `python -m benchmarks --stub --json bench.json --plot bench.svg`
    """
    if stub == bool(embedding_url or reranker_url):
        _fail("give --stub, or the address of a server: --embedding-url, --reranker-url", EXIT_USAGE)
    if stub_rate and not stub:
        _fail("--stub-rate needs --stub", EXIT_USAGE)
    for file in (json_file, plot):
        if file is not None and not file.parent.is_dir():
            _fail(f"{file.parent} is not a folder", EXIT_USAGE)
    try:
        with ExitStack() as running:
            if stub:
                rest = _keep_one_core()
                embedding_url = reranker_url = running.enter_context(
                    canned_server(rate=stub_rate, cores=rest)
                )
            plan = Plan(
                embedding_url,
                reranker_url,
                documents=documents,
                calls=calls,
                rounds=rounds,
                batch=batch,
                concurrency=concurrency,
                words=words,
                queries=queries,
                rankings=rankings,
                only=tuple(only or ()),
            )
            result = run_bench(
                plan, canned=stub and not stub_rate, say=lambda line: _err.print(line, style="dim")
            )
    except ConfigurationError as error:
        _fail(str(error), EXIT_USAGE)
    except Qwen3VLLMError as error:
        _fail(str(error), EXIT_FAILED)
    _print_bench(result)
    if json_file is not None:
        json_file.write_text(json.dumps(result.as_json(), indent=1), encoding="utf-8")
    if plot is not None:
        from benchmarks.plot import draw  # matplotlib takes a quarter of a second to import

        draw(result, plot)


def _keep_one_core() -> set[int] | None:
    """Take one core for the clients; returns the others, for the server. None where there is but one."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        return None
    os.sched_setaffinity(0, {first})
    return set(others)


def _print_bench(result: Result) -> None:
    for case, (one, many) in CASES.items():
        series = result.of(case)
        if not series:
            continue
        size = f", {series[0].size} a call" if series[0].size > 1 else ""
        table = Table(title=f"{many}{size}", title_justify="left", box=None)
        table.add_column("client")
        for name in (f"{many}/s", "times first", f"CPU µs/{one}", "times first", "p50 ms", "p95", "p99"):
            table.add_column(name, justify="right")
        for each in series:
            speed_ratio, cpu_ratio = result.against_first(each)
            table.add_row(
                each.client,
                f"{spread(each.per_second).median:,.0f}",
                _in_words(speed_ratio),
                f"{spread(each.cpu_us).median:,.1f}",
                _in_words(cpu_ratio),
                *(f"{each.latency_ms(percentile):.2f}" for percentile in (50, 95, 99)),
            )
        _out.print(table)
    if result.left_out:
        _out.print(f"not installed: {', '.join(result.left_out)}", style="dim")
    bars = Table(
        "", "promise", "bar", "measured (least to most)", title="promises", title_justify="left", box=None
    )
    for bar in result.bars:
        mark = Text("met", style="green") if bar.met else Text("missed", style="red")
        bars.add_row(mark, bar.name, bar.limit, _in_words(bar.measured))
    if result.bars:
        _out.print(bars)


def _in_words(spread: Spread) -> str:
    return f"{spread.median:.3g} ({spread.low:.3g} to {spread.high:.3g})"


def _fail(message: str, status: int) -> NoReturn:
    _err.print(f"error: {message}", markup=False, style="red")
    raise typer.Exit(status)


if __name__ == "__main__":
    app(prog_name="python -m benchmarks")
