"""Runs flows from sync and from async code, on the one event loop of the process.

It is in a background thread, over one pool of connections.
"""

import asyncio
from abc import ABC, abstractmethod
from typing import TypeVar

from qwen3_vllm._core.http.connections.loop import background
from qwen3_vllm._core.http.connections.unpatched import run_on
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.telemetry.observer import NOBODY, Observer
from qwen3_vllm._core.usage import UsageCount

T = TypeVar("T")


class Runner(ABC):
    """Runs flows, whatever number of servers is behind it.

    Attributes:
        root: Where they are, for messages.
        usage: What they have done for the caller.
    """

    usage: UsageCount

    def count_in(self, usage: UsageCount) -> None:
        """Count together with others from here on."""
        self.usage = usage

    @property
    @abstractmethod
    def root(self) -> str: ...

    @abstractmethod
    async def _drive(self, flow: Flow[T], observer: Observer) -> T: ...

    def run(self, flow: Flow[T], observer: Observer = NOBODY) -> T:
        """Run a flow to its end from sync code."""
        return run_on(background.get(), self._drive(flow, observer))

    async def arun(self, flow: Flow[T], observer: Observer = NOBODY) -> T:
        """Run a flow to its end; cancelling ends its requests."""
        loop = background.get()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._drive(flow, observer), loop))
