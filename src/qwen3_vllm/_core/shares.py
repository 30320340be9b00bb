"""Many texts for several servers: cut into shares, and what one server fails given to another."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from qwen3_vllm import errors
from qwen3_vllm._core.http.flow import Ended, Flow, Shares
from qwen3_vllm._core.http.retries import may_succeed_elsewhere
from qwen3_vllm._core.texts import Failures

M = TypeVar("M")
R = TypeVar("R")
T = TypeVar("T")

# The flow of one share, given what is known of one server: failures by index into the share, and a result.
Part: TypeAlias = Flow[tuple[Mapping[int, errors.Qwen3VLLMError], R]]


@dataclass(frozen=True, slots=True)
class _Share:
    indexes: list[int]
    avoid: object = None
    because: errors.Qwen3VLLMError | None = None


def share_out(
    parts: list[list[int]],
    work: Callable[[M, list[int]], Part[R]],
    take: Callable[[list[int], R], object],
    *,
    bulk: bool,
    retries: int,
) -> Flow[Failures]:
    """Have each part of a call's texts, by index, done by one of several servers.

    Args:
        take: Given the indexes of a part and its result; some of them may have failed.
        retries: How often a text is given to another server, and once at least.

    Returns:
        What failed for good, by index.
    """
    failures: Failures = {}
    todo = [_Share(part) for part in parts]
    for left in range(max(1, retries), -1, -1):
        again: list[_Share] = []

        def deliver(number: int, ended: Ended) -> None:
            indexes = todo[number].indexes  # noqa: B023  it is called before the next round
            if isinstance(ended.result, errors.Qwen3VLLMError):
                failed = dict.fromkeys(indexes, ended.result)
            else:
                take(indexes, ended.result)
                failed = {indexes[place]: error for place, error in ended.failures.items()}
            failures.update(failed)
            movable = [index for index, error in failed.items() if may_succeed_elsewhere(error)]
            if movable and ended.by is not None:
                again.append(_Share(movable, ended.by, failed[movable[0]]))  # noqa: B023

        avoid = {number: share.avoid for number, share in enumerate(todo) if share.avoid is not None}
        because = {number: share.because for number, share in enumerate(todo) if share.because is not None}
        yield Shares([_flow_of(work, share.indexes) for share in todo], deliver, bulk, avoid, because)
        if not again or not left:
            break
        for share in again:
            for index in share.indexes:
                del failures[index]
        todo = again
    return failures


def _flow_of(work: Callable[[M, list[int]], Part[R]], indexes: list[int]) -> Callable[[M], Part[R]]:
    return lambda member: work(member, indexes)


def ask_any(work: Callable[[M], Flow[T]]) -> Flow[T]:
    """Run a flow on one of several servers; raises its error."""
    found: list[T] = []

    def once(member: M, _: list[int]) -> Part[T]:
        return {}, (yield from work(member))

    def take(_: list[int], result: T) -> None:
        found.append(result)

    failures = yield from share_out([[0]], once, take, bulk=False, retries=1)
    if failures:
        raise failures[0]
    return found[0]
