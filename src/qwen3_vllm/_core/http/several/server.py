"""One of several servers of a client, and how to see that all do the same."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.http.several.health import Health
from qwen3_vllm._core.http.transport import Transport

M = TypeVar("M")


@dataclass(frozen=True)
class Check(Generic[M]):
    """How to see that servers do the same.

    Attributes:
        ask: What a server answers to a few fixed texts; `anew`, with all that was known of it forgotten.
        differ: Given an address, its answer and that of another: what is different at the other, in words;
            None where they do the same.
    """

    ask: Callable[[M, bool], Flow[Any]]
    differ: Callable[[str, Any, Any], str | None]


@dataclass(eq=False, slots=True)
class Server(Generic[M]):
    """One of several.

    Attributes:
        member: Makes flows for it.
        connections: Made to it when it was last seen to be the same; while none is added, it is.
        confirmed_at: When the last look at that began.
        used_at: When it was last sent work, or gave it back.
    """

    member: M
    transport: Transport
    health: Health
    in_flight: int = 0
    connections: int = 0
    confirmed_at: float = 0.0
    used_at: float = 0.0
    checking: asyncio.Task[None] | None = None
    confirming: asyncio.Task[None] | None = None
    sign: asyncio.Task[bool] | None = None

    @property
    def usable(self) -> bool:
        return self.health.usable

    @property
    def allowed(self) -> int:
        return self.transport.allowed

    @property
    def pausing(self) -> bool:
        return self.transport.pausing

    async def lives(self, seconds: float) -> bool:
        """Ask for a sign of life within a time, once for all who wait for one."""
        if self.sign is None or self.sign.done():
            self.sign = asyncio.create_task(self.transport.lives(seconds))
        return await asyncio.shield(self.sign)
