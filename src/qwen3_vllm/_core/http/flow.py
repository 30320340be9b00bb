"""Flows say what to ask a server, and do no I/O: sync and async share every line of them."""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar, cast

from qwen3_vllm import errors
from qwen3_vllm._core.http.connections.loop import now
from qwen3_vllm._core.vllm_api.calls import Call

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Round:
    """Calls to send, as many at once as the settings allow.

    Attributes:
        deliver: Given the index and the result of each call as it comes: the error, if it failed for good.
        is_usage: Whether these calls are what the caller asked for, and not questions about the server.
    """

    calls: Sequence[Call[Any]]
    deliver: Callable[[int, Any], object]
    is_usage: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """How a share of work ended.

    Attributes:
        by: The server that did it; None where no server could be used.
        failures: What failed of it, by a number of its own.
        result: The error, if nothing of it was done.
        lost: Whether the server failed as a whole, so that this says nothing of the share.
    """

    by: object
    failures: Mapping[int, errors.Qwen3VLLMError]
    result: Any
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Shares:
    """Work in parts, for several servers: any of them may do any part.

    Attributes:
        work: Each makes the flow of a part, given what is known of one server; that returns failures and a
            result.
        deliver: Given the index of a part and how it ended, as it ends.
        bulk: Whether this is much work that nobody waits for.
        avoid: Servers that have failed a part before, by its index.
        because: What they failed it with, likewise.
    """

    work: Sequence[Callable[[Any], "Flow[tuple[Mapping[int, errors.Qwen3VLLMError], Any]]"]]
    deliver: Callable[[int, Ended], object]
    bulk: bool = False
    avoid: Mapping[int, object] = field(default_factory=dict)
    because: Mapping[int, errors.Qwen3VLLMError] = field(default_factory=dict)


# A flow yields rounds, or shares where a client has several servers, and resumes when all their results are
# delivered; or a lock, and resumes holding it.
Flow: TypeAlias = Generator[Round | Shares | asyncio.Lock, None, T]


def send(*calls: Call[T]) -> Flow[list[T | errors.Qwen3VLLMError]]:
    """Send calls, as many at once as the settings allow; a call that failed for good gives its error."""
    results: dict[int, T | errors.Qwen3VLLMError] = {}
    yield Round(calls, results.__setitem__)
    return [results[index] for index in range(len(calls))]


def send_one(call: Call[T]) -> Flow[T]:
    """Send one call and raise its error."""
    (result,) = yield from send(call)
    if isinstance(result, errors.Qwen3VLLMError):
        raise result
    return result


def uncounted(flow: Flow[T]) -> Flow[T]:
    """Run a flow whose calls are questions about the server, whatever it says of them; without a deadline."""
    try:
        step = next(flow)
        while True:
            yield replace(step, is_usage=False) if isinstance(step, Round) else step
            step = next(flow)
    except StopIteration as stop:
        return cast(T, stop.value)


class Deadline:
    """When one flow must have ended."""

    def __init__(self, seconds: float | None, root: str) -> None:
        """`seconds` from now; None: never."""
        self._seconds = seconds
        self._root = root
        self._at = None if seconds is None else now() + seconds

    async def met_by(self, work: Coroutine[Any, Any, object]) -> bool:
        """Do something, or as much of it as the time is enough for."""
        if self._at is None:
            await work
            return True
        if now() >= self._at:
            work.close()
            return False
        try:
            async with asyncio.timeout_at(self._at) as limit:
                await work
        except TimeoutError:
            if not limit.expired():
                raise
            return False
        return True

    def missed(self) -> errors.RequestTimeoutError:
        """Make the error of what the time was not enough for."""
        return errors.RequestTimeoutError(
            f"{self._root} did not complete the call within total_timeout, {self._seconds:g} s.",
            "total_timeout",
        )


async def drive(
    flow: Flow[T],
    deadline: Deadline,
    send_off: Callable[[Round | Shares], Coroutine[Any, Any, None]],
) -> T:
    """Run a flow to its end: `send_off` sends what it yields, and has its results delivered."""
    try:
        step = next(flow)
        while True:
            if not isinstance(step, asyncio.Lock):
                await send_off(step)
            elif not await deadline.met_by(step.acquire()):
                step = flow.throw(deadline.missed())
                continue
            step = next(flow)
    except StopIteration as stop:
        return cast(T, stop.value)
    finally:
        flow.close()
