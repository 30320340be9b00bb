"""What a client learns from any server before its first request."""

from dataclasses import dataclass
from typing import Any

from qwen3_vllm import errors
from qwen3_vllm._core.http.flow import Flow, send
from qwen3_vllm._core.vllm_api.calls import Call, models
from qwen3_vllm._core.vllm_api.error_bodies import pools_full_context

# They say nothing about the input, and the caller's own request would meet them too.
NO_ANSWER = (errors.ServerUnreachableError, errors.RequestTimeoutError)


@dataclass(frozen=True, slots=True)
class Served:
    """The model of a server.

    Attributes:
        context: Its context length in tokens; None if the server does not report it.
        root: Its checkpoint; None if the server does not report it.
    """

    model: str
    context: int | None
    root: str | None = None


def ask_served(model: str | None) -> Flow[Served]:
    """Find the model to name in requests, and its context length.

    Args:
        model: The name the user gave; None takes the first that the server lists.

    Raises:
        ModelNotFoundError: The server lists models, but not this one.
        WrongServerError: The server lists none.
    """
    (listed,) = yield from send(models())
    if isinstance(listed, errors.RouteNotFoundError) and model is not None:
        return Served(model, None)  # a proxy that passes on a few routes only
    if isinstance(listed, errors.Qwen3VLLMError):
        raise listed
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
    return Served(served.name, served.max_model_len, served.root)


def overlong(context: int) -> int:
    """Tokens of an input that every server of this context refuses.

    Not just above it: a proxy may report less than the server has, and an input of exactly the server's
    context is what must not be tried.
    """
    return context + context // 2 + 3


def ask_limit(context: int, refused: Call[Any]) -> Flow[int]:
    """Find out how long an input may be: the whole context, or one token less.

    Before 0.32.0 vLLM never answers a pooling input of exactly the context length when its scheduler splits
    it: it reserves a position for a sampled token that never comes (vllm#29496, #55427). To try that would
    be to hang. But the same release changed the words in which an input that is too long is refused, and
    they come from the server itself, where /version may be a gateway's own. Other words count as old.

    Args:
        refused: A call with an input of `overlong(context)` tokens.
    """
    (answer,) = yield from send(refused)
    if isinstance(answer, NO_ANSWER):
        raise answer
    return context if pools_full_context(answer) else context - 1
