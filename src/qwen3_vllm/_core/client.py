"""What both clients are: settings that do not change, and what runs their flows."""

import inspect
from abc import ABC, abstractmethod
from asyncio import sleep as asleep
from collections.abc import Callable
from time import sleep
from typing import Any, ClassVar, Concatenate, Generic, NoReturn, ParamSpec, Self, TypeVar

from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.http.runner import Runner
from qwen3_vllm._core.readiness import Waiting
from qwen3_vllm._core.settings import ServerSettings, addresses_of, check_picklable
from qwen3_vllm._core.telemetry.observe import Learned, Operation, observe
from qwen3_vllm._core.telemetry.observer import Observer
from qwen3_vllm._core.usage import Usage
from qwen3_vllm.errors import ConfigurationError, Qwen3VLLMError

C = TypeVar("C")
P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=ServerSettings)


def takes_options_of(
    settings: Callable[P, ServerSettings],
) -> Callable[[Callable[Concatenate[C, ...], R]], Callable[Concatenate[C, P], R]]:
    """Give a method the keywords of a settings class, for type checkers, editors and `help`."""

    def decorate(method: Callable[Concatenate[C, ...], R]) -> Callable[Concatenate[C, P], R]:
        given = inspect.signature(method)
        own, *_ = given.parameters.values()
        options = inspect.signature(settings).parameters.values()
        method.__signature__ = given.replace(parameters=[own, *options])  # type: ignore[attr-defined]
        return method

    return decorate


class Client(ABC, Generic[S]):
    """Has settings and a way to its servers, which never change: a copy is the client itself.

    A pickle holds the settings without secrets: keys are read from the environment where it is loaded.
    """

    _operation: ClassVar[Operation]
    _settings: S
    _transport: Runner

    @property
    def settings(self) -> S:
        """The options of this client, defaults filled in."""
        return self._settings

    @property
    def usage(self) -> Usage:
        """Tokens and requests of this client's calls so far, or since `reset_usage`."""
        return self._transport.usage.usage

    def reset_usage(self) -> None:
        """Let `usage` count from zero; `count_usage` counts a block of calls without this."""
        self._transport.usage.reset()

    def wait_until_ready(self, timeout: float = 600.0) -> None:
        """Return when the server answers a real request: for a service that starts beside its server.

        Of several servers one is enough; the others join when they answer.
        It waits through what a loading server does: refused connections, 404, 500 and above, silence.

        Args:
            timeout: Seconds, in all.

        Raises:
            RequestTimeoutError: It was not ready in time; says what was wrong at the end.
            Qwen3VLLMError: What waiting cannot fix: a wrong key, another kind of server, a wrong template.
        """
        waiting = Waiting(timeout)
        while True:
            try:
                return self._for_one_try(waiting)._try()
            except Qwen3VLLMError as error:
                pause = waiting.pause_after(error)
            sleep(pause)

    async def await_until_ready(self, timeout: float = 600.0) -> None:  # noqa: ASYNC109  of several requests
        """Return when the server answers a real request; see `wait_until_ready`."""
        waiting = Waiting(timeout)
        while True:
            try:
                return await self._for_one_try(waiting)._atry()
            except Qwen3VLLMError as error:
                pause = waiting.pause_after(error)
            await asleep(pause)

    def _for_one_try(self, waiting: Waiting) -> Self:
        # Another client, so that nothing learned from a server that is loading stays, and nothing is counted.
        return type(self)(**{**dict(self._settings), "total_timeout": waiting.seconds_left, "max_retries": 0})

    def _try(self) -> None:
        self._transport.run(self._smallest_request())

    async def _atry(self) -> None:
        await self._transport.arun(self._smallest_request())

    def _observed(self) -> Observer:
        """Show a call to OpenTelemetry, from `with` to its end."""
        return observe(self._operation, addresses_of(self._settings), self._learned)

    @abstractmethod
    def _smallest_request(self) -> Flow[object]:
        """Embed or score one short text."""

    @abstractmethod
    def _learned(self) -> Learned:
        """The model and the dimensions, as far as they are known."""

    @abstractmethod
    def _begin(self, settings: S) -> None:
        """Set up a new client, or one that was pickled."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self._settings.__repr_args__())
        return f"{type(self).__name__}({shown})"

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_"):
            self._refuse_change(name)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self._refuse_change(name)

    def _refuse_change(self, name: str) -> NoReturn:
        raise ConfigurationError(
            f"{type(self).__name__}: {name} cannot change; with_options(…) makes another client"
        )

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __getstate__(self) -> S:
        check_picklable(self._settings, type(self))
        return self._settings

    def __setstate__(self, settings: S) -> None:
        self._begin(settings)


def transport_of(client: Client[Any]) -> Runner:
    """What runs the flows of a client, for more requests within its limit."""
    return client._transport


def try_once(client: Client[Any]) -> None:
    """Make the smallest request that a client can make."""
    client._try()


def address_of(client: Client[Any]) -> str:
    """Where the servers of a client are, for messages."""
    return ", ".join(addresses_of(client.settings))
