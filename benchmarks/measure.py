"""What a run measures and what follows from it. Pure, but for `rounds`, which holds the clock."""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

import numpy as np

Case = Literal["documents", "query", "rerank"]
Work = Callable[[], object]
# What one call of a case is made of: one of it, and many.
CASES: dict[Case, tuple[str, str]] = {
    "documents": ("document", "documents"),
    "query": ("query", "queries"),
    "rerank": ("ranking", "rankings"),
}


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        embedding_url: Server of the cases `documents` and `query`; None leaves them out.
        reranker_url: Server of the case `rerank`; None leaves it out.
        documents: Documents per call.
        calls: Calls a round, of each client.
        rounds: Rounds; in each, every client has its turn, in another order.
        batch: Documents per request, where a client lets one choose.
        concurrency: Requests in flight, where a client can be told.
        words: Words per document; about 1.3 tokens each.
        queries: Queries a round, of each client.
        rankings: Rankings of 100 documents per round, of each way.
        only: Clients to measure, by a part of the name; empty: all that are installed.
    """

    embedding_url: str | None = None
    reranker_url: str | None = None
    documents: int = 128
    calls: int = 8
    rounds: int = 7
    batch: int = 128
    concurrency: int = 16
    words: int = 96
    queries: int = 30
    rankings: int = 2
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Round:
    """One client's turn: seconds of each call, and seconds of CPU of this process for all of them."""

    latencies: tuple[float, ...]
    cpu: float


@dataclass(frozen=True)
class Series:
    """All turns of one client in one case. `size`: documents, queries or rankings of a call."""

    case: Case
    client: str
    size: int
    rounds: tuple[Round, ...]

    @property
    def per_second(self) -> tuple[float, ...]:
        """Documents (queries, rankings) per second, of each round."""
        return tuple(self.size * len(turn.latencies) / sum(turn.latencies) for turn in self.rounds)

    @property
    def cpu_us(self) -> tuple[float, ...]:
        """Microseconds of CPU per document (query, ranking), of each round."""
        return tuple(1e6 * turn.cpu / (self.size * len(turn.latencies)) for turn in self.rounds)

    def latency_ms(self, percentile: float) -> float:
        """A percentile of the milliseconds of a call, over all rounds."""
        every = [latency for turn in self.rounds for latency in turn.latencies]
        return float(np.percentile(every, percentile)) * 1e3


@dataclass(frozen=True)
class Spread:
    """The median of a figure over the rounds, and its smallest and largest value."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Bar:
    """A promise of this package, and what this run says of it."""

    name: str
    limit: str
    measured: Spread
    met: bool


@dataclass(frozen=True)
class Result:
    """A run: what was asked, where, what came out. `left_out`: clients that are not installed."""

    plan: Plan
    environment: Mapping[str, str]
    series: tuple[Series, ...]
    left_out: tuple[str, ...] = ()
    bars: tuple[Bar, ...] = field(default=())

    def of(self, case: Case) -> list[Series]:
        return [series for series in self.series if series.case == case]

    def against_first(self, series: Series) -> tuple[Spread, Spread]:
        """How many times the first client of its case this one is: in speed, and in CPU."""
        first = self.of(series.case)[0]
        return ratio(series.per_second, first.per_second), ratio(series.cpu_us, first.cpu_us)

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON values: each client's figures and the rounds they come from."""
        return {
            "kind": "bench",
            "plan": asdict(self.plan),
            "environment": dict(self.environment),
            "left_out": list(self.left_out),
            "results": [self._figures(series) for series in self.series],
            "bars": [asdict(bar) for bar in self.bars],
        }

    def _figures(self, series: Series) -> dict[str, Any]:
        speed_ratio, cpu_ratio = self.against_first(series)
        return {
            "case": series.case,
            "client": series.client,
            "size": series.size,
            "per_second": asdict(spread(series.per_second)),
            "cpu_us": asdict(spread(series.cpu_us)),
            "latency_ms": {f"p{p}": series.latency_ms(p) for p in (50, 95, 99)},
            "speed_ratio_to_first": asdict(speed_ratio),
            "cpu_ratio_to_first": asdict(cpu_ratio),
            "rounds": [asdict(turn) for turn in series.rounds],
        }


def rounds(case: Case, size: int, calls: int, count: int, clients: Mapping[str, Work]) -> list[Series]:
    """Give every client its turn `count` times, each time starting with another.

    A load that comes and goes on the machine then hits all alike, and ratios hold within a round.
    """
    turns: dict[str, list[Round]] = {name: [] for name in clients}
    names = list(clients)
    for number in range(count):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            turns[name].append(_turn(clients[name], calls))
    return [Series(case, name, size, tuple(done)) for name, done in turns.items()]


def _turn(work: Work, calls: int) -> Round:
    gc.collect()
    latencies = []
    cpu = time.process_time()
    for _ in range(calls):
        start = time.perf_counter()
        work()
        latencies.append(time.perf_counter() - start)
    return Round(tuple(latencies), time.process_time() - cpu)


def spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values))


def ratio(of: Sequence[float], to: Sequence[float]) -> Spread:
    """How many times `of` is `to`, round by round."""
    return spread([a / b for a, b in zip(of, to, strict=True)])
