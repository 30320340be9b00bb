"""Who is sent what next, where several servers do the same: the one with the least to do."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import randrange
from typing import Generic, Protocol, TypeVar

# As the balancer of `serve` has it: from so many servers on, the first gets no bulk, and takes so many
# queries while there is bulk.
_SERVERS_FOR_A_LANE = 3
_QUERIES_IN_THE_LANE = 64
_LEFT_TO_QUERIES = 8  # one of so many requests in flight


class Candidate(Protocol):
    """A server as seen from here.

    Attributes:
        in_flight: Shares of work that it has now.
        usable: Whether it may be sent anything.
        allowed: Requests that it can take at once.
        pausing: Whether it has said that it is too full, and is left alone for a moment.
    """

    in_flight: int

    @property
    def usable(self) -> bool: ...
    @property
    def allowed(self) -> int: ...
    @property
    def pausing(self) -> bool: ...


S = TypeVar("S", bound=Candidate)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting(Generic[S]):
    avoid: S | None
    turn: "asyncio.Future[S | None]"


class Turns(Generic[S]):
    """Hands out servers, `most` requests at once in all; queries go before bulk. For one event loop."""

    def __init__(self, servers: Sequence[S], most: int, *, keeps_one: bool) -> None:
        """`keeps_one`: of three servers or more, keep the first free of bulk."""
        self._servers = servers
        self._most = most
        self._keeps_one = keeps_one
        self._in_flight = {True: 0, False: 0}
        self._waiting: dict[bool, deque[_Waiting[S]]] = {False: deque(), True: deque()}
        self._next = randrange(len(servers))  # many processes do not all begin with the same one

    async def take(self, bulk: bool, avoid: S | None) -> S | None:
        """Wait for a turn; None where no server is usable. `avoid`: not this one, if there is another."""
        waiting = _Waiting(avoid, asyncio.get_running_loop().create_future())
        self._waiting[bulk].append(waiting)
        self.look_again()
        try:
            return await waiting.turn
        except asyncio.CancelledError:
            if waiting.turn.done() and not waiting.turn.cancelled() and (server := waiting.turn.result()):
                self.give_back(server, bulk)
            raise

    def give_back(self, server: S, bulk: bool) -> None:
        """End a turn."""
        server.in_flight -= 1
        self._in_flight[bulk] -= 1
        self.look_again()

    def look_again(self) -> None:
        """Hand out what is free now: a turn ended, or a server has become usable, or is so no longer."""
        usable = [server for server in self._servers if server.usable]
        for bulk, queue in self._waiting.items():
            while queue:
                waiting = queue[0]
                if not waiting.turn.done():
                    server = self._choose(usable, bulk, waiting.avoid)
                    if server is None and usable:
                        break
                    waiting.turn.set_result(server)
                    if server is not None:
                        server.in_flight += 1
                        self._in_flight[bulk] += 1
                queue.popleft()

    def _choose(self, usable: Sequence[S], bulk: bool, avoid: S | None) -> S | None:
        most = self._most
        lane = usable[0] if self._keeps_one and len(usable) >= _SERVERS_FOR_A_LANE else None
        if lane is not None and bulk:
            usable = usable[1:]
            if self._in_flight[True] >= most - most // _LEFT_TO_QUERIES:
                return None
        if sum(self._in_flight.values()) >= most:
            return None
        free = [server for server in usable if server.in_flight < server.allowed]
        free = [server for server in free if not server.pausing] or free
        free = [server for server in free if server is not avoid] or free
        if not free:
            return None
        if lane is not None and not bulk:
            if lane in free and self._in_flight[True] and lane.in_flight < _QUERIES_IN_THE_LANE:
                return lane
            return min(free, key=lambda server: server.in_flight)  # bulk of other processes is not seen here
        self._next += 1
        at = self._next % len(free)
        return min(free[at:] + free[:at], key=lambda server: server.in_flight)
