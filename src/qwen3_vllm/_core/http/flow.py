"""Flows say what to ask a server, and do no I/O: sync and async share every line of them."""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, TypeAlias, TypeVar, cast

from qwen3_vllm import errors
from qwen3_vllm._core.http.loop import now
from qwen3_vllm._core.vllm_api.calls import Call

T = TypeVar("T")
# A flow yields calls, and is sent their results, errors among them, in the same order; or it yields a
# lock, and goes on when it holds it.
Flow: TypeAlias = Generator[Sequence[Call[Any]] | asyncio.Lock, list[Any], T]


def send(*calls: Call[T]) -> Flow[list[T | errors.Qwen3VLLMError]]:
    """Send calls, as many at once as the settings allow; a call that failed for good gives its error."""
    results = yield calls
    return cast(list[T | errors.Qwen3VLLMError], results)


def send_one(call: Call[T]) -> Flow[T]:
    """Send one call and raise its error."""
    (result,) = yield from send(call)
    if isinstance(result, errors.Qwen3VLLMError):
        raise result
    return result


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
            f"{self._root} did not answer the whole call within total_timeout, {self._seconds:g} s.",
            "total_timeout",
        )


async def drive(
    flow: Flow[T],
    deadline: Deadline,
    send_round: Callable[[Sequence[Call[Any]]], Coroutine[Any, Any, list[Any]]],
) -> T:
    """Run a flow to its end: `send_round` sends what it yields."""
    try:
        step = flow.send(cast(list[Any], None))
        while True:
            if not isinstance(step, asyncio.Lock):
                step = flow.send(await send_round(step))
            elif await deadline.met_by(step.acquire()):
                step = flow.send([])
            else:
                step = flow.throw(deadline.missed())
    except StopIteration as stop:
        return cast(T, stop.value)
    finally:
        flow.close()
