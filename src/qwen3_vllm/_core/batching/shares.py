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

_MOST_LOSSES = 64  # of servers while one share is done; each that returns may fail again

# The flow of one share, given what is known of one server: failures by index into the share, and a result.
Part: TypeAlias = Flow[tuple[Mapping[int, errors.Qwen3VLLMError], R]]


@dataclass(frozen=True, slots=True)
class _Share:
    """Texts by index; how often they may still be given to another server, and may still lose one."""

    indexes: list[int]
    tries: int
    losses: int = _MOST_LOSSES
    avoid: object = None
    because: errors.Qwen3VLLMError | None = None

    def again(self, indexes: list[int], failed: Failures, ended: Ended) -> "_Share | None":
        """What is left of the share, for another server; None where that is enough."""
        if not indexes or ended.by is None:
            return None
        because = failed[indexes[0]]
        # Once after a time-out, as with one server: more would multiply the user's time limit.
        tries = min(self.tries, 1) if isinstance(because, errors.RequestTimeoutError) else self.tries
        tries, losses = (tries, self.losses - 1) if ended.lost else (tries - 1, self.losses)
        return _Share(indexes, tries, losses, ended.by, because) if min(tries, losses) >= 0 else None


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
        retries: How often a text is given to another server, and once at least. That a server fails as a
            whole does not count.

    Returns:
        What failed for good, by index.
    """
    failures: Failures = {}
    todo = [_Share(part, max(1, retries)) for part in parts]
    while todo:
        again: list[_Share] = []

        def deliver(number: int, ended: Ended) -> None:
            share = todo[number]  # noqa: B023  it is called before the next round
            if isinstance(ended.result, errors.Qwen3VLLMError):
                failed = dict.fromkeys(share.indexes, ended.result)
            else:
                take(share.indexes, ended.result)
                failed = {share.indexes[place]: error for place, error in ended.failures.items()}
            movable = [index for index, error in failed.items() if may_succeed_elsewhere(error)]
            rest = share.again(movable, failed, ended)
            if rest is not None:
                again.append(rest)  # noqa: B023
                failed = {index: error for index, error in failed.items() if index not in movable}
            failures.update(failed)

        avoid = {number: share.avoid for number, share in enumerate(todo) if share.avoid is not None}
        because = {number: share.because for number, share in enumerate(todo) if share.because is not None}
        yield Shares([_flow_of(work, share.indexes) for share in todo], deliver, bulk, avoid, because)
        todo = again
    return failures


def _flow_of(work: Callable[[M, list[int]], Part[R]], indexes: list[int]) -> Callable[[M], Part[R]]:
    def begin(member: M) -> Part[R]:
        failures, result = yield from work(member, indexes)
        if len(failures) == len(indexes) and all(map(may_succeed_elsewhere, failures.values())):
            raise failures[0]  # nothing of it is this server's, which need not be asked who it is
        return failures, result

    return begin


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
