"""How long an input may be, found out by trying."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from qwen3_vllm import errors
from qwen3_vllm._core.discovery.capabilities import try_one
from qwen3_vllm._core.http.flow import Flow, send
from qwen3_vllm._core.vllm_api.calls import Call
from qwen3_vllm._core.vllm_api.error_bodies import pools_full_context

# They say nothing about the input, and the caller's own request would meet them too.
_NO_ANSWER = (errors.ServerUnreachableError, errors.RequestTimeoutError)
_LONGEST_CONTEXT, _SHORTEST_CONTEXT = 2**17, 2**8  # tokens, where they must be found out
_BELOW = 97  # so that a chat template fits beside


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
    (answer,) = yield from send(replace(refused, tentative=True))
    if isinstance(answer, _NO_ANSWER):
        raise answer
    return context if pools_full_context(answer) else context - 1


def ask_context(bound: int, call: Callable[[int], Call[Any]]) -> Flow[int | None]:
    """Find out how long an input may certainly be, where no refusal says so, by trying shorter ones.

    Args:
        bound: The most tokens that a refused input can have.
        call: Makes a good request with an input of so many tokens.

    Returns:
        None if length was not what was refused.
    """
    longest = 1 << (bound + _BELOW - 1).bit_length()
    tokens = min(longest, _LONGEST_CONTEXT)
    while tokens >= _SHORTEST_CONTEXT:
        # Not a power of two: an input of exactly the context length may hang.
        answer = yield from try_one(call(tokens - _BELOW))
        if not isinstance(answer, errors.Qwen3VLLMError):
            return None if tokens == longest else tokens - _BELOW
        tokens //= 2
    return None
