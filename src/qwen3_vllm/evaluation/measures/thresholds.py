"""The score from which on results are right often enough, or enough of the right ones are kept. Pure."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qwen3_vllm.evaluation.measures.statistics import interval, resampled

Goal = Literal["precision", "recall"]
RESAMPLES = 1000


@dataclass(frozen=True)
class ScoredCandidates:
    """Candidates of all queries.

    Attributes:
        query: int64, the place of each candidate's query.
        score: float32.
        relevant: bool; candidates that nobody judged are not relevant.
    """

    query: NDArray[np.int64]
    score: NDArray[np.float32]
    relevant: NDArray[np.bool_]


@dataclass(frozen=True)
class Threshold:
    """A score to keep results from, and what it gives.

    Attributes:
        goal: What was asked for, of at least `target`.
        score: Results with this score or a higher one are kept; None: no score reaches the target.
        low: Lower end of the 95 % interval of `score`, by bootstrap over queries; None as `score`.
        high: Upper end; None where so many resamples do not reach the target that it has none.
        precision: Share of relevant ones among the results that are kept; without a score, the best there is.
        recall: Share of the relevant candidates that are kept; without a score, that of the best precision.
    """

    goal: Goal
    target: float
    score: float | None
    low: float | None
    high: float | None
    precision: float
    recall: float


def find_threshold(
    candidates: ScoredCandidates, goal: Goal, target: float, queries: int, seed: int
) -> Threshold:
    """Find the score at which precision or recall reaches `target`.

    For precision it is the lowest such score, which keeps most; for recall the highest, which keeps least.
    Candidates of one query depend on each other, so whole queries are drawn for the interval.
    """
    order = np.argsort(-candidates.score, kind="stable")
    score, query = candidates.score[order], candidates.query[order]
    relevant = candidates.relevant[order].astype(np.float64)
    ends = np.flatnonzero(np.append(score[1:] != score[:-1], True))  # equal scores are kept together
    precision, recall = _curves(relevant, np.ones(len(score)), ends)
    place = _reached(precision, recall, goal, target)
    found = []
    for counts in resampled(queries, RESAMPLES, seed):
        for drawn in counts:
            reached = _reached(*_curves(relevant, drawn[query].astype(np.float64), ends), goal, target)
            found.append(np.inf if reached is None else float(score[ends[reached]]))
    if place is None:
        best = int(np.nanargmax(precision)) if not np.isnan(precision).all() else 0
        return Threshold(goal, target, None, None, None, _number(precision[best]), _number(recall[best]))
    with np.errstate(invalid="ignore"):
        low, high = (None if not np.isfinite(end) else end for end in _interval(np.array(found)))
    return Threshold(
        goal, target, float(score[ends[place]]), low, high, float(precision[place]), float(recall[place])
    )


def _curves(
    relevant: NDArray[np.float64], weights: NDArray[np.float64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision and recall of keeping results down to each score; NaN where nothing is kept."""
    hits, kept = np.cumsum(weights * relevant)[ends], np.cumsum(weights)[ends]
    with np.errstate(invalid="ignore", divide="ignore"):
        return hits / kept, hits / hits[-1]


def _reached(
    precision: NDArray[np.float64], recall: NDArray[np.float64], goal: Goal, target: float
) -> int | None:
    curve = precision if goal == "precision" else recall
    places = np.flatnonzero(curve >= target - 1e-12)
    if len(places) == 0:
        return None
    return int(places[-1] if goal == "precision" else places[0])


def _interval(found: NDArray[np.float64]) -> tuple[float, float]:
    ordered = np.sort(found)
    if np.isfinite(ordered).all():
        return interval(ordered)
    last = len(ordered) - 1  # without interpolating between a score and infinity
    return float(ordered[int(0.025 * last)]), float(ordered[-int(0.025 * last) - 1])


def _number(value: float) -> float:
    return 0.0 if np.isnan(value) else float(value)
