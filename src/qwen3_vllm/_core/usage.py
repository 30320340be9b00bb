"""Tokens and requests, as servers count them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests that were answered with embeddings or scores of a caller's texts.

    A request that is sent again, or in halves, counts once; so does a text that occurs several times.
    Questions about the server, and counting tokens before a text is cut, are left out.

    Attributes:
        requests: How many.
        tokens: Input tokens that the server reported for them.
        uncounted: Requests among them whose responses report no tokens: binary ones (vLLM's `bytes_only`),
            and those of proxies that drop `usage`. If there are any, `tokens` is too low.
    """

    requests: int = 0
    tokens: int = 0
    uncounted: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.requests + other.requests, self.tokens + other.tokens, self.uncounted + other.uncounted
        )

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(
            self.requests - other.requests, self.tokens - other.tokens, self.uncounted - other.uncounted
        )


class UsageCount:
    """A sum that grows; only the thread that sends all requests adds to it."""

    def __init__(self) -> None:
        self._total = self._from = Usage()

    @property
    def usage(self) -> Usage:
        """What was counted so far."""
        return self._total - self._from

    def add(self, usage: Usage) -> None:
        self._total += usage

    def reset(self) -> None:
        self._from = self._total


_counts: ContextVar[tuple[UsageCount, ...]] = ContextVar("qwen3_vllm_usage", default=())


@contextmanager
def count_usage() -> Iterator[UsageCount]:
    """Count what the calls of a block use: of every client and adapter, of tasks and threads it starts too.

    Threads count if they run in a copy of this context, as those of asyncio and LangChain do.

    >>> with count_usage() as count:
    ...     store.add_documents(documents)  # doctest: +SKIP
    >>> count.usage.tokens
    0
    """
    count = UsageCount()
    token = _counts.set((*_counts.get(), count))
    try:
        yield count
    finally:
        _counts.reset(token)


def note(usage: Usage, total: UsageCount) -> None:
    """Add to a client's total, and to every count that the call began in."""
    total.add(usage)
    for count in _counts.get():
        count.add(usage)
