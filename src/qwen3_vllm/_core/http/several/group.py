"""Several servers of one model, as one event loop sees them: who can be used, and who has a turn.

A server is used once it is checked to serve the same model as the others. One that fails is set aside, and
checked again later, when there is work.
"""

import asyncio
import copy
import logging
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from qwen3_vllm import errors
from qwen3_vllm._core.http.connections.loop import KEEP_ALIVE_SECONDS, now
from qwen3_vllm._core.http.flow import Deadline, uncounted
from qwen3_vllm._core.http.retries import retry_delay
from qwen3_vllm._core.http.several.health import Health
from qwen3_vllm._core.http.several.server import Check, Server
from qwen3_vllm._core.http.several.turns import Turns
from qwen3_vllm._core.http.transport import Transport

M = TypeVar("M")

logger = logging.getLogger(__name__)

REST_SECONDS = KEEP_ALIVE_SECONDS  # after which connections are no longer used
_PATIENCE = 5.0  # seconds, in which the first call lets other servers be checked when one is ready
_NAMED = 5  # failures that a message names
# What is wrong with the addresses, rather than with a server for the moment.
_STRANGE = (errors.WrongServerError, errors.ConfigurationError)


class Group(Generic[M]):
    """The servers of one client, for one event loop."""

    def __init__(
        self,
        members: Sequence[tuple[M, Transport]],
        check: Check[M],
        *,
        max_concurrency: int,
        max_retries: int,
        keeps_one: bool,
    ) -> None:
        self.servers = [Server(member, transport, Health(now)) for member, transport in members]
        self._turns = Turns(self.servers, max_concurrency, keeps_one=keeps_one)
        self._check = check
        self._max_retries = max_retries
        self._met = False  # whether the first check of all of them is over
        self._first: tuple[str, Any] | None = None  # whom the others must be like, and what it answered
        self._finding: asyncio.Task[errors.Qwen3VLLMError | None] | None = None

    async def turn(self, bulk: bool, avoid: Server[M] | None) -> Server[M]:
        """Wait for a server; see `Turns`.

        Raises:
            Qwen3VLLMError: None can be used, or, at first, one is a stranger among them.
        """
        while True:
            if not self._met:
                await self._find()
            for server in self.servers:
                if server.health.due:
                    self._begin_check(server)
            free = await self._turns.take(bulk, avoid)
            if free is not None:
                return free
            await self._find()

    def begin_turn(self, server: Server[M]) -> None:
        """Note that a server is sent work.

        After a rest that takes a new connection: a look at who answers then takes its time beside the work.
        """
        if now() - server.used_at > REST_SECONDS:
            self._begin_confirm(server)
        server.used_at = now()

    def end_turn(self, server: Server[M], bulk: bool) -> None:
        server.used_at = now()
        self._turns.give_back(server, bulk)

    def failed(self, server: Server[M], error: errors.Qwen3VLLMError, began: float) -> None:
        """Note what a server ended in that began then."""
        if server.health.failed(error, began):
            logger.warning("%s is not used for now: %s", server.transport.root, error)
            self._turns.look_again()

    async def confirm(self, server: Server[M]) -> errors.Qwen3VLLMError | None:
        """Look whether what has just answered is what was checked: it may have been started anew since.

        Returns:
            Why it is not, or cannot be said to be.
        """
        answered = now()
        while server.connections != server.transport.connections_made and server.confirmed_at < answered:
            await asyncio.shield(self._begin_confirm(server))
            if not server.usable:
                return server.health.error
        return None

    def _begin_confirm(self, server: Server[M]) -> asyncio.Task[None]:
        if server.confirming is None or server.confirming.done():
            server.confirming = asyncio.create_task(self._confirm(server))
        return server.confirming

    async def _confirm(self, server: Server[M]) -> None:
        began = now()
        try:
            await self._compare(server, anew=False)
        except errors.OverloadedError:
            pass  # one that is too full is in order
        except errors.Qwen3VLLMError as error:
            self._set_aside(server, error)
        else:
            # All of them: a server that takes this one's place listens only after this one has ended, and
            # then the look fails.
            server.connections = server.transport.connections_made
        server.confirmed_at = began

    async def _find(self) -> None:
        """Check all that are not usable until one is, once for all who wait; raises why none is."""
        if self._finding is None or self._finding.done():
            self._finding = asyncio.create_task(self._check_all())
        error = await asyncio.shield(self._finding)
        if error is not None:
            raise copy.copy(error)

    async def _check_all(self) -> errors.Qwen3VLLMError | None:
        attempt = 0
        while True:
            await self._settled({self._begin_check(each) for each in self.servers if not each.usable})
            problems = [server.health.error for server in self.servers if server.health.error is not None]
            if any(server.usable for server in self.servers):
                stranger = next((each for each in problems if isinstance(each, _STRANGE)), None)
                if self._met or stranger is None:
                    self._meet()
                    return None
                return stranger
            delays = [delay for each in problems if (delay := retry_delay(each, attempt)) is not None]
            if not delays or attempt >= self._max_retries:
                return _of_all(problems)
            await asyncio.sleep(min(delays))
            attempt += 1

    def _meet(self) -> None:
        """End the first check; until then, what is wrong with a server may be the error of a call."""
        if self._met:
            return
        self._met = True
        for server in self.servers:
            if server.health.error is not None:
                logger.warning("%s is not used for now: %s", server.transport.root, server.health.error)

    async def _settled(self, checks: set[asyncio.Task[None]]) -> None:
        """Wait until one server is usable, and, before the first use, for the others a little longer."""
        until: float | None = None
        while checks:
            if until is None and any(server.usable for server in self.servers):
                until = now() + (0.0 if self._met else _PATIENCE)
            left = None if until is None else until - now()
            if left is not None and left <= 0:
                return
            done, checks = await asyncio.wait(checks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for check in done:
                check.result()

    def _begin_check(self, server: Server[M]) -> asyncio.Task[None]:
        if server.checking is None or server.checking.done():
            server.checking = asyncio.create_task(self._check_one(server))
        return server.checking

    async def _check_one(self, server: Server[M]) -> None:
        is_new = not self._met
        try:
            await self._compare(server, anew=True)
        except errors.Qwen3VLLMError as error:
            self._set_aside(server, error)
        else:
            server.connections = server.transport.connections_made
            server.used_at = now()
            server.health.passed()
            if not is_new:
                logger.info("%s is used again.", server.transport.root)
        self._turns.look_again()

    async def _compare(self, server: Server[M], *, anew: bool) -> None:
        """Ask a server what all must answer alike; raises `WrongServerError` where it does not."""
        root = server.transport.root
        answer = await server.transport.drive(
            uncounted(self._check.ask(server.member, anew)), Deadline(None, root)
        )
        if self._first is None:
            self._first = root, answer
        different = self._check.differ(*self._first, answer)
        if different is not None:
            raise errors.WrongServerError(f"{root} {different}")

    def _set_aside(self, server: Server[M], error: errors.Qwen3VLLMError) -> None:
        known = server.health.error
        pause = server.health.set_aside(error)
        is_news = type(known) is not type(error) or (isinstance(error, _STRANGE) and str(known) != str(error))
        log = logger.warning if self._met and is_news else logger.debug
        log("%s is not used for the next %.1f s: %s", server.transport.root, pause, error)
        self._turns.look_again()


def _of_all(problems: Sequence[errors.Qwen3VLLMError]) -> errors.Qwen3VLLMError:
    """Make one error of why no server can be used: that of one which may mend itself, if there is one."""
    first = next((each for each in problems if retry_delay(each, 0) is not None), problems[0])
    error = copy.copy(first)
    named = " ".join(str(each) for each in problems[:_NAMED])
    more = f" And {len(problems) - _NAMED} more." if len(problems) > _NAMED else ""
    error.args = (f"None of {len(problems)} servers can be used. {named}{more}", *first.args[1:])
    return error
