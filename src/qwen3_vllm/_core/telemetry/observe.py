"""Whether a process uses OpenTelemetry: then it has imported its API.

Nothing is imported here for its sake, so others pay for a look-up.
"""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from inspect import signature
from typing import Literal, TypeAlias

from qwen3_vllm._core.telemetry.observer import NOBODY, Observer

logger = logging.getLogger(__name__)

Operation: TypeAlias = Literal["embeddings", "rerank"]
# A server's model, and the numbers of its vectors; None for what is not known yet, or does not exist.
Learned: TypeAlias = tuple[str | None, int | None]


def observe(operation: Operation, addresses: Sequence[str], learned: Callable[[], Learned]) -> Observer:
    """Begin to observe a call; `learned` is asked now, and when the call ends."""
    if not _is_in_use():
        return NOBODY
    from qwen3_vllm._core.telemetry.spans import ObservedCall

    return ObservedCall(operation, addresses, learned)


def trace_headers() -> Mapping[str, str]:
    """The headers by which a server's spans join the trace of the current task."""
    if not _is_in_use():
        return {}
    from qwen3_vllm._core.telemetry.spans import headers_of_context

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
