"""`python -m benchmarks.load`: what servers do under load, with this library at its defaults.

Bulk runs in a process of its own, as where an index is built beside a service that answers queries.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.measure import spread
from benchmarks.texts import fresh_texts
from qwen3_vllm import EmbeddingClient, RerankClient
from qwen3_vllm.errors import Qwen3VLLMError

_QUERY_GAP = 0.05  # seconds between an answer and the next query
_QUERY_WORDS = 12
_WARM_UP = 64  # documents
_FEW, _MANY = 20, 100  # documents of a ranking
_AT_ONCE = 16  # rankings

app = typer.Typer(add_completion=False)
_out = Console(highlight=False)


@dataclass(frozen=True)
class Load:
    """How much is asked: documents of a bulk call, words of a document, seconds of an arm."""

    documents: int
    words: int
    seconds: float


@dataclass
class Figures:
    """Each figure's value in each round, by its name."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)

    def add_latencies(self, name: str, seconds: list[float]) -> None:
        for percentile in (50, 95):
            self.add(f"{name}, p{percentile} ms", float(np.percentile(seconds, percentile)) * 1e3)


@app.command()
def load(
    embedding_url: Annotated[str | None, typer.Option(help="Embedding server to load.")] = None,
    reranker_url: Annotated[str | None, typer.Option(help="Reranker to load.")] = None,
    documents: Annotated[int, typer.Option(min=1, help="Documents of a bulk call.")] = 8192,
    words: Annotated[int, typer.Option(min=1, help="Words of a document; 1.1 to 1.3 tokens each.")] = 116,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long each arm runs.")] = 6.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the arms take turns.")] = 3,
) -> None:
    """Measure bulk, one query alone and beside bulk, and rankings, in turns.

    The key, where servers need one, is `VLLM_API_KEY`.

    Example: `python -m benchmarks.load --embedding-url http://127.0.0.1:8000`
    """
    if embedding_url is None and reranker_url is None:
        raise typer.BadParameter("give --embedding-url, --reranker-url, or both")
    figures = Figures()
    each = Load(documents, words, seconds)
    try:
        if embedding_url is not None:
            with _bulk_process(embedding_url, each) as bulk:
                for _ in range(rounds):
                    _embed(embedding_url, each, bulk, figures)
        if reranker_url is not None:
            for _ in range(rounds):
                _rank(reranker_url, each, figures)
    except (Qwen3VLLMError, EOFError) as error:
        _out.print(f"error: {error or 'the bulk process ended'}", style="red", soft_wrap=True)
        raise typer.Exit(1) from error
    table = Table("", "median", "least", "most", box=None)
    for name, values in figures.values.items():
        seen = spread(values)
        table.add_row(name, *(f"{value:,.1f}" for value in (seen.median, seen.low, seen.high)))
    _out.print(table)


def _embed(url: str, load: Load, bulk: Callable[[], Connection], figures: Figures) -> None:
    """One round at an embedding server: bulk alone, a query alone, a query beside bulk."""
    figures.add("documents/s", bulk().recv())
    figures.add_latencies("query alone", asyncio.run(_query(url, load.seconds)))
    answer = bulk()
    time.sleep(load.seconds / 10)  # until bulk is under way
    figures.add_latencies("query beside bulk", asyncio.run(_query(url, load.seconds * 0.8)))
    figures.add("documents/s beside queries", answer.recv())


async def _query(url: str, seconds: float) -> list[float]:
    """Return the seconds of each of the queries that one user asks one after another."""
    client = EmbeddingClient(base_url=url)
    texts = fresh_texts(words=_QUERY_WORDS, count=1)
    await client.aembed_queries(texts())
    latencies = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        await client.aembed_queries(texts())
        latencies.append(time.perf_counter() - start)
        await asyncio.sleep(_QUERY_GAP)
    return latencies


def _rank(url: str, load: Load, figures: Figures) -> None:
    """One round at a reranker: one ranking at a time, then several at once."""
    client = RerankClient(base_url=url)
    query, many = fresh_texts(words=10, count=1), fresh_texts(words=load.words, count=_MANY)
    client.score(query()[0], many())
    latencies = []
    end = time.perf_counter() + load.seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        client.score(query()[0], many())
        latencies.append(time.perf_counter() - start)
    figures.add_latencies(f"one query, {_MANY} documents", latencies)
    figures.add(f"rankings/s of {_FEW} documents, {_AT_ONCE} at once", asyncio.run(_rank_at_once(url, load)))


async def _rank_at_once(url: str, load: Load) -> float:
    client = RerankClient(base_url=url)
    query, few = fresh_texts(words=10, count=1), fresh_texts(words=load.words, count=_FEW)
    start = time.perf_counter()
    done = 0

    async def ask() -> None:
        nonlocal done
        while time.perf_counter() - start < load.seconds:
            await client.ascore(query()[0], few())
            done += 1

    await asyncio.gather(*(ask() for _ in range(_AT_ONCE)))
    return done / (time.perf_counter() - start)


@contextmanager
def _bulk_process(url: str, load: Load) -> Iterator[Callable[[], Connection]]:
    """Start the process that embeds in bulk; each call starts an arm, and gives where its figure comes."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_bulk, args=(theirs, url, load), daemon=True)
    process.start()
    theirs.close()

    def begin() -> Connection:
        ours.send(load.seconds)
        return ours

    try:
        ours.recv()
        yield begin
    finally:
        process.terminate()
        process.join()


def _bulk(pipe: Connection, url: str, load: Load) -> None:
    client = EmbeddingClient(base_url=url)
    texts = fresh_texts(words=load.words, count=load.documents)
    client.embed_documents(texts()[:_WARM_UP])
    pipe.send("ready")
    while True:
        seconds = pipe.recv()
        start = time.perf_counter()
        done = 0
        while time.perf_counter() - start < seconds:
            done += len(client.embed_documents(texts()))
        pipe.send(done / (time.perf_counter() - start))


if __name__ == "__main__":
    app()
