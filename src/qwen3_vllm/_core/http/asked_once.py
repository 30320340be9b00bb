"""A fact about a server, asked once for all threads and event loops."""

import asyncio
import copy
from collections.abc import Callable
from typing import Generic, TypeVar

from qwen3_vllm import errors
from qwen3_vllm._core.http.connections.loop import PerLoop
from qwen3_vllm._core.http.flow import Flow

T = TypeVar("T")


class AskedOnce(Generic[T]):
    """A fact that is asked for by the first that needs it; the others wait for the answer, or the failure."""

    def __init__(self) -> None:
        self.value: T | None = None
        self._failure: errors.Qwen3VLLMError | None = None
        self._asking = PerLoop(asyncio.Lock)

    def get(self, ask: Callable[[], Flow[T]]) -> Flow[T]:
        if self.value is not None:
            return self.value
        asking = self._asking.get()
        before = self._failure
        yield asking
        try:
            if self.value is None and self._failure is not before and self._failure is not None:
                raise copy.copy(self._failure)  # not a time limit for each that waited
            if self.value is None:
                self.value = yield from self._ask(ask)
            return self.value
        finally:
            asking.release()

    def _ask(self, ask: Callable[[], Flow[T]]) -> Flow[T]:
        try:
            return (yield from ask())
        except errors.RequestTimeoutError as error:
            if error.cause == "timeout":  # what another call has time for is its own affair
                self._failure = error
            raise

    def forget(self) -> None:
        self.value = None
