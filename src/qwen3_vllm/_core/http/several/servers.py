"""Runs flows against several servers of one model: each does a share, and what one fails goes to another."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, TypeAlias, TypeVar, cast

from qwen3_vllm import errors
from qwen3_vllm._core.http.connections.loop import PerLoop, now
from qwen3_vllm._core.http.flow import Deadline, Ended, Flow, Round, Shares, drive
from qwen3_vllm._core.http.retries import may_succeed_elsewhere
from qwen3_vllm._core.http.runner import Runner
from qwen3_vllm._core.http.several.group import Group
from qwen3_vllm._core.http.several.server import Check, Server
from qwen3_vllm._core.http.transport import Transport
from qwen3_vllm._core.settings import ServerSettings
from qwen3_vllm._core.telemetry.observer import Observer
from qwen3_vllm._core.usage import UsageCount

M = TypeVar("M")
T = TypeVar("T")

# Seconds without a response after which a server with work is asked for a sign of life, and which that may
# take. `timeout` is long enough for the longest batch of a busy server; one that is stopped is seen sooner.
_SILENCE = 10.0

_Start: TypeAlias = Callable[[Any], Flow[Any]]
# Runs the flow of a share, which it is given the means to begin, on a server.
_Run: TypeAlias = Callable[[Server[M], _Start], Coroutine[Any, Any, Any]]


class Servers(Runner, Generic[M]):
    """Runs flows against several servers, with one limit of requests in flight, and one of each within it."""

    def __init__(
        self,
        members: Sequence[tuple[M, Transport]],
        settings: ServerSettings,
        check: Check[M],
        *,
        keeps_one: bool,
    ) -> None:
        """Take for each server what makes flows for it, and its transport.

        Args:
            settings: Of all of them.
            keeps_one: Of three servers or more, keep the first free of bulk.
        """
        self._transports = [transport for _, transport in members]
        self._settings = settings
        self._group = PerLoop(
            lambda: Group(
                members,
                check,
                max_concurrency=settings.max_concurrency,
                max_retries=settings.max_retries,
                keeps_one=keeps_one,
            )
        )
        self.count_in(UsageCount())
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

        async def run(server: Server[M], start: _Start) -> Any:
            return await server.transport.drive(start(server.member), deadline, observer)

        async def send_off(step: Round | Shares) -> None:
            shares = _as_share(step) if isinstance(step, Round) else step
            for error in shares.because.values():
                observer.sent_again(error)
            pending = dict(enumerate(shares.work))
            if not await deadline.met_by(self._work_off(shares, pending, run)):
                late = Ended(None, {}, deadline.missed())
                for index in pending:
                    shares.deliver(index, late)

        return await drive(flow, deadline, send_off)

    async def _work_off(self, step: Shares, pending: dict[int, _Start], run: _Run[M]) -> None:
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

    async def _do_share(self, step: Shares, index: int, start: _Start, run: _Run[M]) -> Ended:
        group = self._group.get()
        try:
            server = await group.turn(step.bulk, cast("Server[M] | None", step.avoid.get(index)))
        except errors.Qwen3VLLMError as error:
            return Ended(None, {}, error)
        began, hangs = now(), False
        group.begin_turn(server)

        async def work() -> Any:
            return await run(server, start), await group.confirm(server)

        try:
            (failures, result), stranger = await _watched(group, server, work())
            if stranger is not None:
                return Ended(server, {}, stranger, lost=True)
            problem = next(filter(may_succeed_elsewhere, failures.values()), None)
        except _Hangs as hang:
            failures, problem, hangs = {}, errors.RequestTimeoutError(str(hang)), True
            result = problem
        except errors.Qwen3VLLMError as error:
            failures, result = {}, error
            problem = error if may_succeed_elsewhere(error) else None
        finally:
            group.end_turn(server, step.bulk)
        if problem is None:
            server.health.answered()
        else:
            group.failed(server, problem, began)
        # A text may be what keeps a server busy for ever: then it must not go round.
        lost = hangs or not (server.usable or isinstance(problem, errors.RequestTimeoutError))
        return Ended(server, failures, result, lost)


class _Hangs(errors.RequestTimeoutError):
    """A server gives no sign of life."""


async def _watched(group: Group[M], server: Server[M], work: Coroutine[Any, Any, T]) -> T:
    """Do a share of work; raises `_Hangs` where the server does so, and there are others."""
    began, task = now(), asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=_SILENCE))[0]:
            silent = now() - max(began, server.health.answered_at)
            others = any(each.usable for each in group.servers if each is not server)
            if others and silent >= _SILENCE and not await server.lives(_SILENCE):
                raise _Hangs(
                    f"{server.transport.root} hangs: it has not responded for {silent:.0f} s, not even "
                    "to GET /health."
                )
        return task.result()
    finally:
        task.cancel()


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
