"""Runs flows against one server: rounds of calls at once, and the attempts of each."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from qwen3_vllm import errors
from qwen3_vllm._core.http.connections.loop import PerLoop, background, now
from qwen3_vllm._core.http.exchange import Exchange
from qwen3_vllm._core.http.flow import Deadline, Flow, Round, Shares, drive
from qwen3_vllm._core.http.load import Load, Tries
from qwen3_vllm._core.http.progress import Progress
from qwen3_vllm._core.http.runner import Runner
from qwen3_vllm._core.settings import ServerSettings
from qwen3_vllm._core.telemetry.observer import NOBODY, Observer
from qwen3_vllm._core.usage import Usage, UsageCount, note
from qwen3_vllm._core.vllm_api.calls import Call, health

T = TypeVar("T")

_HUNG = 2.5  # time limits without any response, after which what has waited for its turn is not sent


class Transport(Runner):
    """Runs flows against one server, with one limit of requests in flight."""

    def __init__(self, settings: ServerSettings, *, start_command: str) -> None:
        """`start_command` is what an error advises when nothing listens at the address."""
        self._settings = settings
        self._exchange = Exchange(settings, start_command=start_command)
        self.usage = UsageCount()
        self._at_once = settings.max_concurrency
        self._others: Callable[[], bool] | None = None
        self._load = PerLoop(lambda: Load(settings, self.root, self._others))

    def join(self, others: Callable[[], bool]) -> None:
        """Be one of several servers: a flow sends one request at a time, and leaves what fails to others.

        `others`: whether another of them can do the work now.
        """
        self._others, self._at_once = others, 1

    @property
    def allowed(self) -> int:
        """Requests that the server can take at once, by what it has answered; to be called on the loop."""
        return self._load.get().limit.allowed

    @property
    def pausing(self) -> bool:
        """Whether the server was too full just now; to be called on the loop."""
        return self._load.get().pace.pausing

    async def lives(self, seconds: float) -> bool:
        """Ask whether the server answers anything at all within a time, whatever it is."""
        try:
            async with asyncio.timeout(seconds):
                with background.buffers.taken() as buffer:
                    await self._exchange.send(health(), buffer, id)
        except (TimeoutError, errors.ServerUnreachableError):
            return False
        except errors.Qwen3VLLMError:
            pass
        return True

    @property
    def root(self) -> str:
        """Where the routes are that have no `/v1`."""
        return self._exchange.root

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where the server's API may be, the place in use first."""
        return tuple(dict.fromkeys((self._exchange.address, *self._exchange.addresses)))

    def move_to(self, address: str) -> None:
        """Use one of the addresses from here on."""
        self._exchange.move_to(address)

    @property
    def connections_made(self) -> int:
        """Connections made to this server so far; while none is added, the process there is the same."""
        return self._exchange.connections_made

    async def _drive(self, flow: Flow[T], observer: Observer) -> T:
        observer.begin_requests()
        return await self.drive(flow, Deadline(self._settings.total_timeout, self.root), observer)

    async def drive(self, flow: Flow[T], deadline: Deadline, observer: Observer = NOBODY) -> T:
        """Run a flow to its end, on the loop."""
        progress = Progress(observer)

        async def send_off(step: Round | Shares) -> None:
            assert isinstance(step, Round)  # shares are for those who have several servers
            await self._round(step, progress, deadline)

        try:
            return await drive(flow, deadline, send_off)
        finally:
            self._load.get().outage.tell()

    async def _round(self, step: Round, progress: Progress, deadline: Deadline) -> None:
        progress.fatal = progress.hung
        progress.refused.clear()
        pending = dict(enumerate(step.calls))
        if not await deadline.met_by(self._answer(step, pending, progress)):
            late = deadline.missed()
            for index in pending:
                step.deliver(index, late)

    async def _answer(self, step: Round, pending: dict[int, Call[Any]], progress: Progress) -> None:
        """Deliver each result as it comes; `pending` keeps the calls that the time is not enough for."""
        waiting = iter(list(pending.items()))

        async def work() -> None:
            for index, call in waiting:
                await self._answer_one(index, call, step, progress)
                del pending[index]

        if len(pending) == 1:
            await work()
            return
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._at_once, len(pending))):
                group.create_task(work())

    async def _answer_one(self, index: int, call: Call[Any], step: Round, progress: Progress) -> None:
        at_once = self._load.get().limit.allowed
        tokens: list[int] = []
        result = await self._send(call, progress, tokens)
        if step.is_usage and not isinstance(result, errors.Qwen3VLLMError):
            note(Usage(1, tokens[-1], 0) if tokens else Usage(1, 0, 1), self.usage)
            progress.observer.answered(self.root, tokens[-1] if tokens else None)
        if not call.tentative:
            progress.note(call.path, result, at_once)
        step.deliver(index, result)

    async def _send(self, call: Call[T], progress: Progress, tokens: list[int]) -> T | errors.Qwen3VLLMError:
        """Send a call until it is answered or fails for good; the tokens of the last attempt are noted."""
        load = self._load.get()
        began = now()
        tries = Tries(self._settings.max_retries)
        while True:
            async with load.limit.slot() as slot:
                delay = 0.0
                while not delay:  # what is sent again at once keeps its slot
                    await load.pace.wait()
                    fatal = progress.fatal or progress.refused.get(call.path)
                    if fatal is not None:
                        return fatal
                    silent = load.limit.hung_since(began)
                    if not tries.made and silent > _HUNG * self._settings.timeout:
                        return errors.RequestTimeoutError(
                            f"{self.root} has not responded for {silent:.1f} s: nothing more is sent to it."
                        )
                    slot = load.limit.renewed()
                    tokens.clear()
                    try:
                        with background.buffers.taken() as buffer:
                            result = await self._exchange.send(call, buffer, tokens.append)
                        load.answered(slot, call)
                        return result
                    except errors.Qwen3VLLMError as error:
                        error.args = tuple(_full_stop(self._exchange.mask(words)) for words in error.args)
                        again = await load.failed(slot, call, error, tries)
                        if again is None:
                            return error
                        progress.observer.sent_again(error)
                        delay = again
            if delay > 0:
                await asyncio.sleep(delay)


def _full_stop(words: str) -> str:
    """End a message in one full stop, whatever the server's words in it end in."""
    words = words.rstrip()
    return words if words.endswith(("!", "?", "…")) else words.rstrip(".") + "."
