"""What a client learns from a server before its first request, once for all threads and event loops."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from packaging.version import InvalidVersion, Version

from qwen3_vllm import errors, wire
from qwen3_vllm.transport import Flow, OfLoop, send

T = TypeVar("T")

# Before this release vLLM never answers a pooling input of exactly the context length when its scheduler
# splits it: it keeps a place for a sampled token that never comes (vllm#29496, #55427; its scheduler.py).
_FULL_CONTEXT_SINCE = Version("0.32.0")


@dataclass(frozen=True, slots=True)
class Served:
    """The model of a server.

    Attributes:
        context: Tokens an input may have; None if the server does not tell.
        root: Its checkpoint; None if the server does not tell.
    """

    model: str
    context: int | None
    version: Version | None
    root: str | None = None


class Known(Generic[T]):
    """A fact that is asked once, whoever needs it first; the others wait for that answer."""

    def __init__(self) -> None:
        self.value: T | None = None
        self._asking = OfLoop(asyncio.Lock)

    def get(self, ask: Callable[[], Flow[T]]) -> Flow[T]:
        if self.value is not None:
            return self.value
        asking = self._asking.get()
        yield asking
        try:
            if self.value is None:
                self.value = yield from ask()
            return self.value
        finally:
            asking.release()

    def forget(self) -> None:
        self.value = None


def ask_served(model: str | None) -> Flow[Served]:
    """Find the model to name in requests, and how long an input may be.

    Args:
        model: The name the user gave; None takes the first that the server lists.

    Raises:
        ModelNotFoundError: The server lists models, but not this one.
        WrongServerError: The server lists none.
    """
    listed, version = yield from send(*_questions())
    if isinstance(listed, errors.RouteNotFoundError) and model is not None:
        return Served(model, None, None)  # a proxy that passes on a few routes only
    if isinstance(listed, errors.Qwen3VLLMError):
        raise listed
    assert isinstance(listed, list)
    names = [served.name for served in listed]
    if not names:
        raise errors.WrongServerError("The server lists no model at /v1/models")
    if model is not None and model not in names:
        raise errors.ModelNotFoundError(
            f"The server serves {', '.join(map(repr, names))}, not {model!r}: pass one of these as model, "
            "or none",
            status=404,
        )
    served = listed[names.index(model) if model is not None else 0]
    release = _parse(version) if isinstance(version, str) else None
    context = served.max_model_len
    if context is not None and (release is None or release < _FULL_CONTEXT_SINCE):
        context -= 1
    return Served(served.name, context, release, served.root)


def _questions() -> tuple[wire.Call[list[wire.ServedModel] | str], ...]:
    return wire.models(), wire.version()  # type: ignore[return-value]  # Call is read-only in T


def _parse(version: str) -> Version | None:
    try:
        return Version(Version(version).base_version)
    except InvalidVersion:
        return None
