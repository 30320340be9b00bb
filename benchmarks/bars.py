"""This package's promises about speed, held against a run. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from benchmarks import clients
from benchmarks.measure import Bar, Result, Series, Spread, ratio, spread

_LISTS_US, _NUMPY_US = 40, 25
_FRAMEWORKS_TIMES, _ARTICLE_TIMES = 5, 50
_QUERY_MS = 1.0
_OF_BARE = 0.95
_OF_BEST_SPLIT = 1.1


def with_bars(result: Result, *, canned: bool) -> Result:
    """Add the promises that this run can tell of.

    CPU is promised for canned answers, where the client's own work is not lost in waiting; throughput for
    real ones, where the server and not the client's core is the limit.
    """
    documents = {series.client: series for series in result.of("documents")}
    queries = {series.client: series for series in result.of("query")}
    rankings = {series.client: series for series in result.of("rerank")}
    bars = _cost(documents) if canned else _speed(documents) + _ranking(rankings)
    return replace(result, bars=tuple(bars + _latency(queries)))


def _cost(documents: dict[str, Series]) -> list[Bar]:
    bars = []
    for client, most in ((clients.OUR_LISTS, _LISTS_US), (clients.OUR_NUMPY, _NUMPY_US)):
        if client in documents:
            bars.append(_at_most(f"{client}: CPU µs per document", spread(documents[client].cpu_us), most))
    # Like with like: the lists of one framework's class against those of another class of the same framework.
    for other, ours, least in (
        (clients.LANGCHAIN, clients.OUR_LISTS, _FRAMEWORKS_TIMES),
        (clients.LLAMA_INDEX, clients.OUR_LLAMA_INDEX, _FRAMEWORKS_TIMES),
        (clients.ARTICLE, clients.OUR_LISTS, _ARTICLE_TIMES),
    ):
        if ours in documents and other in documents:
            times = ratio(documents[other].cpu_us, documents[ours].cpu_us)
            bars.append(_at_least(f"CPU of {other} over {ours}", times, least))
    return bars


def _speed(documents: dict[str, Series]) -> list[Bar]:
    ours, bare = documents.get(clients.OUR_NUMPY), documents.get(clients.BARE)
    if not ours or not bare:
        return []
    share = ratio(ours.per_second, bare.per_second)
    return [_at_least(f"documents per second of {ours.client} over {bare.client}", share, _OF_BARE)]


def _latency(queries: dict[str, Series]) -> list[Bar]:
    raw = queries.get(clients.REQUESTS)
    if not raw:
        return []
    base = [_median_ms(turn.latencies) for turn in raw.rounds]
    bars = []
    for client in (clients.SYNC, clients.ASYNC):
        if client in queries:
            more = [_median_ms(turn.latencies) for turn in queries[client].rounds]
            over = spread([a - b for a, b in zip(more, base, strict=True)])
            bars.append(_at_most(f"{client}: ms over {raw.client}, medians", over, _QUERY_MS))
    return bars


def _ranking(rankings: dict[str, Series]) -> list[Bar]:
    ours = rankings.get(clients.OUR_RANKING)
    splits = [series for name, series in rankings.items() if name != clients.OUR_RANKING]
    if not ours or not splits:
        return []
    best = min(splits, key=lambda series: series.latency_ms(50))
    times = ratio([1 / value for value in ours.per_second], [1 / value for value in best.per_second])
    return [_at_most(f"time of {ours.client} over the best split ({best.client})", times, _OF_BEST_SPLIT)]


def _median_ms(latencies: Sequence[float]) -> float:
    return 1e3 * spread(latencies).median


def _at_most(name: str, measured: Spread, limit: float) -> Bar:
    return Bar(name, f"≤ {limit:g}", measured, measured.median <= limit)


def _at_least(name: str, measured: Spread, limit: float) -> Bar:
    return Bar(name, f"≥ {limit:g}", measured, measured.median >= limit)
