"""Whether the servers of a client do the same, by what each answers to a few fixed texts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qwen3_vllm import errors
from qwen3_vllm._core.discovery.capabilities import try_one
from qwen3_vllm._core.http.flow import Flow
from qwen3_vllm._core.vllm_api.calls import models

# Tokens. Before 0.32 `qwen3-vllm serve` starts vLLM with one more than a text may have.
_SAME_CONTEXT = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What one server answers.

    Attributes:
        results: The vectors or scores of the fixed texts.
        context: The context length that it lists, in tokens; None where it lists none.
    """

    results: NDArray[np.float32]
    context: int | None


def ask_context_listed(model: str) -> Flow[int | None]:
    """Ask a server how long a text may be."""
    listed = yield from try_one(models())
    if isinstance(listed, errors.Qwen3VLLMError):
        return None
    return next((line.max_model_len for line in listed if line.name == model), None)


def difference(
    root: str,
    first: Answer,
    other: Answer,
    is_same_model: Callable[[NDArray[np.float32], NDArray[np.float32]], bool],
    results: Literal["vectors", "scores"],
) -> str | None:
    """Say what is different at a server from what `first`, at `root`, has answered; None if nothing is."""
    if not is_same_model(first.results, other.results):
        return (
            f"gives other {results} than {root} gave this client before: it serves another model, or other "
            "weights, whatever its name. Serve one model at all addresses, or leave this one out."
        )
    if first.context and other.context and abs(first.context - other.context) > _SAME_CONTEXT:
        return (
            f"has a context of {other.context} tokens, where {root} had {first.context} for this client "
            "before: a long text would be cut elsewhere. Serve with one --max-model-len at all addresses, or "
            "leave this one out."
        )
    return None
