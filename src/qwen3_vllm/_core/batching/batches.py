"""Many texts in few requests: plan batches, send them, find the text that spoils one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from qwen3_vllm import errors
from qwen3_vllm._core.batching.division import Division
from qwen3_vllm._core.http.flow import Flow, Round
from qwen3_vllm._core.texts import Failures
from qwen3_vllm._core.vllm_api.calls import Call

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

# A request of some 32,000 tokens keeps a GPU busy long enough; text has about 4 bytes per token.
BATCH_BYTES = 131_072


class Collector(Protocol[T_contra]):
    """What takes the results of one call."""

    def take(self, batch: list[int], result: T_contra, /) -> None:
        """Keep the result of one batch; the order in which they come is any."""


def plan(indexes: Iterable[int], sizes: Sequence[int], max_count: int) -> list[list[int]]:
    """Group indexes, in order, into batches of at most `max_count` and about BATCH_BYTES bytes."""
    batches: list[list[int]] = []
    batch: list[int] = []
    room = -1
    for index in indexes:
        needed = sizes[index]
        if needed > room or len(batch) == max_count:
            batch = []
            batches.append(batch)
            room = BATCH_BYTES
        batch.append(index)
        room -= needed
    return batches


def send_batches(
    batches: list[list[int]],
    call: Callable[[list[int]], Call[T]],
    collector: Collector[T],
    *,
    known_good: bool = False,
) -> Flow[tuple[Failures, bool]]:
    """Send batches, each in the request that `call` makes of it.

    A batch that the server refuses, cannot queue, or answers with nonsense is halved until the text at fault
    is alone, so that it takes no other with it: each text is sent at most log2(batch) + 1 times. Before the
    server has answered anything, a full or confused one may be the problem itself: then one batch is halved,
    and the others wait for what becomes of it.

    Args:
        known_good: The server was just seen to take other texts: a batch is halved whatever it is refused
            with, and a refusal says nothing of the other batches.

    Returns:
        What failed for good, by index; and whether a batch of several texts was refused, or answered with
        nonsense.
    """
    division = Division(known_good=known_good)
    while batches:
        ended = yield from _send_once(batches, call, collector, known_good)
        batches = division.after(batches, ended)
    return division.failures, division.refused_several


def _send_once(
    batches: list[list[int]],
    call: Callable[[list[int]], Call[T]],
    collector: Collector[T],
    tentative: bool,
) -> Flow[list[errors.Qwen3VLLMError | None]]:
    """Send each batch in one request, and hand each result over as it comes.

    Returns:
        What went wrong with each batch; None where the collector has its result.
    """
    ended: list[errors.Qwen3VLLMError | None] = [None] * len(batches)

    def deliver(index: int, result: T | errors.Qwen3VLLMError) -> None:
        if isinstance(result, errors.Qwen3VLLMError):
            ended[index] = result
        else:
            collector.take(batches[index], result)

    calls = [replace(call(batch), texts=len(batch), tentative=tentative) for batch in batches]
    yield Round(calls, deliver, is_usage=True)
    return ended
