"""How many requests may be in flight at once: enough to fill a server, fewer while it cannot keep up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from qwen3_vllm._core.http.connections.loop import now

_MOST_ROUNDS = 64  # of responses, before a server is tried again with as many requests as were too many


@dataclass(frozen=True, slots=True)
class Slot:
    """One request's slot: when it was acquired, and how many answers there were then."""

    acquired_at: float
    answers: int


class ConcurrencyLimit:
    """An adaptive limit, to be used on one event loop.

    A server that is too full is given half as many requests; one that is too slow, half of what it answered
    within a time limit. Answers that come soon raise the limit again, by one for each full round of them. To
    reach what was too many takes twice as many rounds after each time that it was too many again.
    """

    def __init__(self, most: int, *, soon: float) -> None:
        """Start with `most` at once, and never exceed it; answers within `soon` seconds raise the limit."""
        self.allowed = self._most = most
        self._soon = soon
        self._free = asyncio.Semaphore(most)
        self._withheld = 0  # slots that vanish when they are released
        self._answers = 0
        self._answers_of_round = 0
        self._full_at = most + 1  # requests at once that were too many last
        self._rounds = 1  # before they are tried again
        self._narrowed_at = 0.0
        self._heard_at = 0.0
        self._hangs = False

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Slot]:
        """Wait for a free slot, and release it in the end."""
        await self._free.acquire()
        try:
            yield self.renewed()
        finally:
            self._release()

    def renewed(self) -> Slot:
        """The slot of a request that is sent now, in the one it holds."""
        return Slot(now(), self._answers)

    def hung_since(self, began: float) -> float:
        """Seconds for which the server, which hangs, has answered nothing; at most since `began`."""
        return now() - max(began, self._heard_at) if self._hangs else 0.0

    def heard(self) -> None:
        """Note a response of any kind: the server does not hang."""
        self._heard_at = now()
        self._hangs = False

    def answered(self, slot: Slot) -> None:
        """Note a good response."""
        self.heard()
        self._answers += 1
        if self.allowed == self._most or now() - slot.acquired_at > self._soon:
            return
        self._answers_of_round += 1
        rounds = self._rounds if self.allowed + 1 == self._full_at else 1
        if self._answers_of_round >= self.allowed * rounds:
            self._answers_of_round = 0
            if self.allowed >= self._full_at:
                self._full_at, self._rounds = self._most + 1, 1
            self.allowed += 1
            self._release()

    async def overloaded(self, slot: Slot) -> None:
        """Note that the server refused a request for being too full."""
        if slot.acquired_at >= self._narrowed_at:  # those refused together count once
            again = self.allowed == self._full_at
            self._rounds = min(2 * self._rounds, _MOST_ROUNDS) if again else 1
            self._full_at = self.allowed
            await self._narrow(self.allowed // 2)

    async def timed_out(self, slot: Slot, *, for_good: bool) -> bool:
        """Note that a request was not answered in time; `for_good`: it is not sent again.

        Where others were answered meanwhile, the server is slow. Otherwise it hangs: what waits is sent again
        at once, so that all of it has failed after a second time limit, and then one by one.

        Returns:
            Whether it hangs.
        """
        meanwhile = self._answers - slot.answers
        if meanwhile or for_good:
            await self._narrow(meanwhile // 2)
        self._hangs = self._hangs or (for_good and not meanwhile)
        return not meanwhile

    async def _narrow(self, limit: int) -> None:
        limit = max(1, limit)
        if limit >= self.allowed:
            return
        self._withheld += self.allowed - limit
        self.allowed = limit
        self._answers_of_round = 0
        self._narrowed_at = now()
        while self._withheld and not self._free.locked():
            await self._free.acquire()  # does not wait: a slot is free
            self._withheld -= 1

    def _release(self) -> None:
        if self._withheld:
            self._withheld -= 1
        else:
            self._free.release()
