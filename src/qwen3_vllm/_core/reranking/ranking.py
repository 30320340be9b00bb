"""Scores ranked, and the best chosen as the adapters' options say. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from qwen3_vllm import errors

T = TypeVar("T")
RelevanceScores = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RerankResult:
    """A document's place in a ranking.

    Attributes:
        index: Its place in the caller's list.
        relevance_score: P(yes), in [0, 1].
        label: "yes" from 0.5 up, else "no".
    """

    index: int
    relevance_score: float
    label: Literal["yes", "no"]


def results_of(scores: RelevanceScores) -> list[RerankResult]:
    """Rank scores, best first, ties in input order."""
    return [
        RerankResult(int(i), float(scores[i]), "yes" if scores[i] >= 0.5 else "no")
        for i in np.argsort(-scores, kind="stable")
    ]


def select(
    results: list[RerankResult],
    items: Sequence[T],
    *,
    top_n: int | None,
    score_threshold: float | None,
    combine: Callable[[float, T], float] | None,
) -> list[tuple[RerankResult, float]]:
    """Keep the best results as the adapters' options say, each with the number it was ranked by.

    Args:
        items: What `results` rank: documents or nodes.
        top_n: Results to keep; None for all.
        score_threshold: Leaves out results with a lower relevance_score, before ranking by a mix.
        combine: Returns the number to rank by; None ranks by relevance_score.

    Raises:
        InputError: `combine` returned something that is not a number.
    """
    kept = [r for r in results if score_threshold is None or r.relevance_score >= score_threshold]
    if combine is None:
        return [(result, result.relevance_score) for result in kept[:top_n]]
    mixed = [_number(combine(result.relevance_score, items[result.index]), result.index) for result in kept]
    order = sorted(range(len(kept)), key=lambda i: -mixed[i])
    return [(kept[i], mixed[i]) for i in order[:top_n]]


def _number(mixed: object, index: int) -> float:
    try:
        number = float(mixed)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = np.nan
    if np.isnan(number):
        raise errors.InputError(f"combine gave {mixed!r:.50} for document {index}, not a number")
    return number
