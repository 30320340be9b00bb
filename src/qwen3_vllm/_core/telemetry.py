"""What a call of a client shows to OpenTelemetry, in processes that use it.

Such a process has imported its API. Nothing is imported here for its sake, so others pay for a look-up.
"""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from inspect import signature
from types import TracebackType
from typing import Literal, Protocol, Self, TypeAlias

logger = logging.getLogger(__name__)

Operation: TypeAlias = Literal["embeddings", "rerank"]
# A server's model, and the numbers of its vectors; None for what is not known yet, or does not exist.
Learned: TypeAlias = tuple[str | None, int | None]


class Observer(Protocol):
    """Observes one call, from `with` to its end, whatever that is."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def begin_requests(self) -> None:
        """Make this call the parent of all that the current task does; the task is for this call alone."""

    def answered(self, address: str, tokens: int | None) -> None:
        """Note a request answered with embeddings or scores; None: its tokens were not reported."""

    def sent_again(self, error: Exception) -> None:
        """Note a failure after which a request is sent again."""


class _Nobody:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        pass

    def begin_requests(self) -> None:
        pass

    def answered(self, address: str, tokens: int | None) -> None:
        pass

    def sent_again(self, error: Exception) -> None:
        pass


NOBODY: Observer = _Nobody()


def observe(operation: Operation, addresses: Sequence[str], learned: Callable[[], Learned]) -> Observer:
    """Begin to observe a call; `learned` is asked now, and when the call ends."""
    if not _is_in_use():
        return NOBODY
    from qwen3_vllm._core.spans import ObservedCall

    return ObservedCall(operation, addresses, learned)


def trace_headers() -> Mapping[str, str]:
    """The headers by which a server's spans join the trace of the current task."""
    if not _is_in_use():
        return {}
    from qwen3_vllm._core.spans import headers_of_context

    return headers_of_context()


def _is_in_use() -> bool:
    return "opentelemetry.context" in sys.modules and _is_new_enough()


@cache
def _is_new_enough() -> bool:
    """Whether the API has what `spans` uses; another package may have brought an old one."""
    from opentelemetry.metrics import Meter

    if "explicit_bucket_boundaries_advisory" in signature(Meter.create_histogram).parameters:
        return True
    logger.info("opentelemetry-api is older than 1.30: no spans; pip install 'qwen3-vllm[opentelemetry]'")
    return False
