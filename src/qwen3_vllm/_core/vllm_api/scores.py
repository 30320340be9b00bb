"""Pairs, or finished prompts, in, P(yes) out: /v1/score, /v1/rerank and /classify."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qwen3_vllm._core.vllm_api.calls import (
    ITEM_BYTES,
    SLACK_BYTES,
    Answer,
    Call,
    TokenIds,
    items_of,
    json_of,
    tokens_of,
    unexpected,
)

# Where pairs are scored: some gateways have only the second, which takes one query a request.
PairRoute = Literal["score", "rerank"]


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores in the order asked, float32 in [0, 1], and the tokens the server counted for all of them."""

    values: NDArray[np.float32]
    prompt_tokens: int | None


def score(
    model: str, text_1: str | Sequence[str], text_2: Sequence[str], *, instruction: str | None = None
) -> Call[Scores]:
    """Score pairs: one `text_1` with each of `text_2`, or pair by pair.

    `/v1/score`, not `/score`: vLLM's own key check covers /v1 only. `instruction` has an effect from vLLM
    0.22 with a chat template; older ones ignore it silently.
    """
    body: dict[str, Any] = {"model": model, "text_1": text_1, "text_2": list(text_2)}
    if instruction is not None:
        body["instruction"] = instruction

    def decode(answer: Answer) -> Scores:
        return _scores(answer, len(text_2), lambda item: item["score"])

    return Call("/v1/score", body, decode, SLACK_BYTES + len(text_2) * ITEM_BYTES)


def rerank(
    model: str, query: str, documents: Sequence[str], *, instruction: str | None = None
) -> Call[Scores]:
    """Score documents by `/v1/rerank`, in the shape of vLLM, Jina and Cohere; in order, not ranked."""
    body: dict[str, Any] = {"model": model, "query": query, "documents": list(documents)}
    body["top_n"] = len(documents)
    if instruction is not None:
        body["instruction"] = instruction

    def decode(answer: Answer) -> Scores:
        return _scores(answer, len(documents), lambda item: item["relevance_score"], "results")

    return Call(
        "/v1/rerank", body, decode, SLACK_BYTES + sum(map(len, documents)) * 12 + len(documents) * ITEM_BYTES
    )


def score_by(
    route: PairRoute,
    model: str,
    query: str | Sequence[str],
    documents: Sequence[str],
    *,
    instruction: str | None = None,
) -> Call[Scores]:
    """Score pairs by a route; "rerank" takes one query."""
    if route == "score":
        return score(model, query, documents, instruction=instruction)
    assert isinstance(query, str)
    return rerank(model, query, documents, instruction=instruction)


def classify(model: str, prompts: Sequence[str | TokenIds]) -> Call[Scores]:
    """Score finished prompts, as text or (from vLLM 0.15) as token ids. No server templates these."""

    def probability(item: Mapping[str, Any]) -> Any:
        probabilities = item["probs"]
        if len(probabilities) != 1:
            raise ValueError("more classes than one")
        return probabilities[0]

    def decode(answer: Answer) -> Scores:
        return _scores(answer, len(prompts), probability)

    body = {"model": model, "input": list(prompts)}
    return Call("/classify", body, decode, SLACK_BYTES + len(prompts) * ITEM_BYTES)


def _scores(
    answer: Answer, count: int, read: Callable[[Mapping[str, Any]], Any], name: str = "data"
) -> Scores:
    try:
        values = np.asarray([read(item) for item in items_of(answer, count, name)], dtype=np.float32)
    except (KeyError, TypeError, ValueError):
        values = np.empty(0, np.float32)
    if values.shape != (count,):
        raise unexpected(answer, "one score per text")
    # NaN fails the comparison too. Rounding on the server may pass 1 by a little.
    if not (np.greater_equal(values, -1e-5) & np.less_equal(values, 1 + 1e-5)).all():
        raise unexpected(answer, "scores from 0 to 1", f"scores from {values.min()} to {values.max()}")
    return Scores(values.clip(0, 1), tokens_of(json_of(answer)))
