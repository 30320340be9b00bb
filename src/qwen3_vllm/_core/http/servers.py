"""Runs flows against several servers of one model: each does a share of the work, and what one of them fails.

A server is used once it is checked to serve the same model as the others. One that fails is set aside, and
checked again later, when there is work.
"""

import asyncio
import copy
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar, cast

from qwen3_vllm import errors
from qwen3_vllm._core.http.flow import Deadline, Ended, Flow, Round, Shares, drive
from qwen3_vllm._core.http.health import Health
from qwen3_vllm._core.http.loop import PerLoop, now
from qwen3_vllm._core.http.retries import may_succeed_elsewhere, retry_delay
from qwen3_vllm._core.http.transport import Runner, Transport
from qwen3_vllm._core.http.turns import Turns
from qwen3_vllm._core.settings import ServerSettings
from qwen3_vllm._core.telemetry import Observer
from qwen3_vllm._core.usage import UsageCount

C = TypeVar("C")
T = TypeVar("T")

logger = logging.getLogger(__name__)

_PATIENCE = 5.0  # seconds, in which the first call lets other servers be checked when one is ready
_NAMED = 5  # failures that a message names
# What is wrong with the addresses, rather than with a server for the moment.
_STRANGE = (errors.WrongServerError, errors.ConfigurationError)


@dataclass(frozen=True)
class Check(Generic[C]):
    """How to see that servers do the same.

    Attributes:
        ask: What a server answers to a few fixed texts, all that was known of it forgotten.
        differ: Given two answers: what is different, in words; None where they are of one model.
    """

    ask: Callable[[C], Flow[Any]]
    differ: Callable[[Any, Any], str | None]


@dataclass(eq=False, slots=True)
class _Server(Generic[C]):
    member: C
    transport: Transport
    health: Health
    in_flight: int = 0
    checking: "asyncio.Task[None] | None" = None

    @property
    def usable(self) -> bool:
        return self.health.usable

    @property
    def allowed(self) -> int:
        return self.transport.allowed

    @property
    def pausing(self) -> bool:
        return self.transport.pausing


# Runs the flow of a share, which it is given the means to begin, on a server.
_Run: TypeAlias = Callable[[_Server[C], Callable[[Any], Flow[Any]]], Coroutine[Any, Any, Any]]


class _Group(Generic[C]):
    """The servers as one event loop sees them.

    Attributes:
        met: Whether the first check of all of them is over.
        first: Which server the others must be like, and what it answered.
    """

    def __init__(self, members: Sequence[tuple[C, Transport]], most: int, *, keeps_one: bool) -> None:
        self.servers = [_Server(member, transport, Health(now)) for member, transport in members]
        self.turns = Turns(self.servers, most, keeps_one=keeps_one)
        self.met = False
        self.first: tuple[str, Any] | None = None
        self.finding: asyncio.Task[errors.Qwen3VLLMError | None] | None = None


class Servers(Runner, Generic[C]):
    """Runs flows against several servers, with one limit of requests in flight, and one of each within it."""

    def __init__(
        self,
        members: Sequence[tuple[C, Transport]],
        settings: ServerSettings,
        check: Check[C],
        *,
        keeps_one: bool,
    ) -> None:
        """Take for each server what makes flows for it, and its transport.

        Args:
            settings: Of all of them.
            keeps_one: Of three servers or more, keep the first free of bulk.
        """
        self._transports = [transport for _, transport in members]
        self.count_in(UsageCount())
        self._settings = settings
        self._check = check
        most = settings.max_concurrency
        self._group = PerLoop(lambda: _Group(members, most, keeps_one=keeps_one))
        for transport in self._transports:
            transport.join(self._others_of(transport))

    def count_in(self, usage: UsageCount) -> None:
        """Count together with others from here on."""
        super().count_in(usage)
        for transport in self._transports:
            transport.count_in(usage)

    @property
    def root(self) -> str:
        """Where the servers are."""
        return ", ".join(transport.root for transport in self._transports)

    def _others_of(self, transport: Transport) -> Callable[[], bool]:
        def others() -> bool:
            servers = self._group.get().servers
            return any(
                each.usable and not each.pausing and each.transport is not transport for each in servers
            )

        return others

    async def _drive(self, flow: Flow[T], observer: Observer) -> T:
        observer.begin_requests()
        deadline = Deadline(self._settings.total_timeout, self.root)

        async def run(server: _Server[C], start: Callable[[Any], Flow[Any]]) -> Any:
            return await server.transport.drive(start(server.member), deadline, observer)

        async def send_off(step: Round | Shares) -> None:
            shares = _as_share(step) if isinstance(step, Round) else step
            pending = dict(enumerate(shares.work))
            if not await deadline.met_by(self._work_off(shares, pending, run)):
                late = Ended(None, {}, deadline.missed())
                for index in pending:
                    shares.deliver(index, late)

        return await drive(flow, deadline, send_off)

    async def _work_off(
        self, step: Shares, pending: dict[int, Callable[[Any], Flow[Any]]], run: _Run[C]
    ) -> None:
        """Deliver how each share ended; `pending` keeps those that the time is not enough for."""
        waiting = iter(list(pending.items()))
        none_usable: Ended | None = None

        async def work() -> None:
            nonlocal none_usable
            for index, start in waiting:
                ended = none_usable or await self._do_share(step, index, start, run)
                if ended.by is None:
                    none_usable = ended
                del pending[index]
                step.deliver(index, ended)

        if len(pending) == 1:
            await work()
            return
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._settings.max_concurrency, len(pending))):
                group.create_task(work())

    async def _do_share(
        self, step: Shares, index: int, start: Callable[[Any], Flow[Any]], run: _Run[C]
    ) -> Ended:
        group = self._group.get()
        try:
            server = await self._turn(group, step.bulk, step.avoid.get(index))
        except errors.Qwen3VLLMError as error:
            return Ended(None, {}, error)
        began = now()
        try:
            failures, result = await run(server, start)
        except errors.Qwen3VLLMError as error:
            failures, result = {}, error
        finally:
            group.turns.give_back(server, step.bulk)
        ends = [*failures.values(), *([result] if isinstance(result, errors.Qwen3VLLMError) else [])]
        problem = next(filter(may_succeed_elsewhere, ends), None)
        if problem is None:
            server.health.answered()
        elif server.health.failed(problem, began):
            logger.warning("%s is not used for now: %s", server.transport.root, problem)
            group.turns.look_again()
        return Ended(server, failures, result)

    async def _turn(self, group: _Group[C], bulk: bool, avoid: object) -> _Server[C]:
        """Wait for a server.

        Raises:
            Qwen3VLLMError: None can be used, or, at first, one is a stranger among them.
        """
        while True:
            if not group.met:
                await self._find(group)
            for server in group.servers:
                if server.health.due:
                    self._begin_check(group, server)
            free = await group.turns.take(bulk, cast("_Server[C] | None", avoid))
            if free is not None:
                return free
            await self._find(group)

    async def _find(self, group: _Group[C]) -> None:
        """Check all that are not usable until one is, once for all who wait; raises why none is."""
        if group.finding is None:
            group.finding = asyncio.create_task(self._check_all(group))
            group.finding.add_done_callback(lambda _: setattr(group, "finding", None))
        error = await asyncio.shield(group.finding)
        if error is not None:
            raise copy.copy(error)

    async def _check_all(self, group: _Group[C]) -> errors.Qwen3VLLMError | None:
        attempt = 0
        while True:
            checks = [self._begin_check(group, server) for server in group.servers if not server.usable]
            await _settled(group, checks)
            problems = [server.health.error for server in group.servers if server.health.error is not None]
            if any(server.usable for server in group.servers):
                stranger = next((each for each in problems if isinstance(each, _STRANGE)), None)
                if group.met or stranger is None:
                    group.met = True
                    return None
                return stranger
            delays = [delay for each in problems if (delay := retry_delay(each, attempt)) is not None]
            if not delays or attempt >= self._settings.max_retries:
                return _of_all(problems)
            await asyncio.sleep(min(delays))
            attempt += 1

    def _begin_check(self, group: _Group[C], server: _Server[C]) -> "asyncio.Task[None]":
        if server.checking is None or server.checking.done():
            server.checking = asyncio.create_task(self._check_one(group, server))
        return server.checking

    async def _check_one(self, group: _Group[C], server: _Server[C]) -> None:
        root, was_used = server.transport.root, group.met
        try:
            answer = await server.transport.drive(self._check.ask(server.member), Deadline(None, root))
            if group.first is None:
                group.first = root, answer
            different = self._check.differ(group.first[1], answer)
            if different is not None:
                raise errors.WrongServerError(
                    f"{root} {different} than {group.first[0]}: it serves another model, or other weights, "
                    "whatever its name. Serve one model at all addresses of a client, or leave this one out."
                )
        except errors.Qwen3VLLMError as error:
            known = server.health.error
            pause = server.health.set_aside(error)
            log = logger.debug if known is not None and type(known) is type(error) else logger.warning
            log("%s is not used for the next %.1f s: %s", root, pause, error)
        else:
            server.health.passed()
            if was_used:
                logger.info("%s is used again.", root)
        group.turns.look_again()


async def _settled(group: _Group[Any], checks: "Sequence[asyncio.Task[None]]") -> None:
    """Wait until one server is usable, and, before the first use, for the others a little longer."""
    waiting = set(checks)
    until: float | None = None
    while waiting:
        if until is None and any(server.usable for server in group.servers):
            until = now() + (0.0 if group.met else _PATIENCE)
        left = None if until is None else until - now()
        if left is not None and left <= 0:
            return
        done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        for check in done:
            check.result()


def _as_share(step: Round) -> Shares:
    """Send all calls of a round to one server."""

    def send_on(_: Any) -> Flow[tuple[dict[int, errors.Qwen3VLLMError], None]]:
        yield step
        return {}, None

    def deliver(_: int, ended: Ended) -> None:
        if isinstance(ended.result, errors.Qwen3VLLMError):
            for index in range(len(step.calls)):
                step.deliver(index, ended.result)

    return Shares([send_on], deliver)


def _of_all(problems: Sequence[errors.Qwen3VLLMError]) -> errors.Qwen3VLLMError:
    """Make one error of why no server can be used: that of one which may mend itself, if there is one."""
    first = next((each for each in problems if retry_delay(each, 0) is not None), problems[0])
    error = copy.copy(first)
    named = " ".join(str(each) for each in problems[:_NAMED])
    more = f" And {len(problems) - _NAMED} more." if len(problems) > _NAMED else ""
    error.args = (f"None of {len(problems)} servers can be used. {named}{more}", *first.args[1:])
    return error
