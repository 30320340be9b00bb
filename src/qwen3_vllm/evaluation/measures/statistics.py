"""How sure a number is, and whether a difference is more than chance. Pure, and seeded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
CONFIDENCE = 0.95
_AT_ONCE = 500  # resamples in memory
_EXACT_UP_TO = 13  # 2**13 sign patterns are fewer than RESAMPLES

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A mean over queries, with a 95 % interval."""

    value: float
    low: float
    high: float


def resampled(queries: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield how often each query is drawn in each bootstrap resample: shape (some resamples, queries)."""
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _AT_ONCE):
        size = min(_AT_ONCE, resamples - start)
        drawn = rng.integers(0, queries, (size, queries)) + queries * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * queries).reshape(size, queries)


def bootstrap(values: Values, seed: int, resamples: int = RESAMPLES) -> list[Estimate]:
    """Estimate the mean of each column, with its percentile bootstrap interval over the rows (queries)."""
    queries = len(values)
    means = np.concatenate([counts @ values / queries for counts in resampled(queries, resamples, seed)])
    return [
        Estimate(float(value), *interval(column))
        for value, column in zip(values.mean(axis=0), means.T, strict=True)
    ]


def interval(numbers: Values) -> tuple[float, float]:
    """The middle 95 % of resampled numbers."""
    low, high = np.quantile(numbers, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def paired_randomisation(differences: Values, seed: int, resamples: int = RESAMPLES) -> Values:
    """Two-sided p-value of each column: how often random signs make a mean difference as large as that seen.

    Up to 13 queries all sign patterns are tried, else `resamples` random ones; the pattern that was seen
    counts as one of them, so that p is never 0.
    """
    queries = len(differences)
    seen = np.abs(differences.sum(axis=0)) * (1 - 1e-9) - 1e-12  # sums in another order differ by rounding
    if queries <= _EXACT_UP_TO:
        patterns = (np.arange(2**queries)[:, None] >> np.arange(queries)) & 1
        as_large = (np.abs((2.0 * patterns - 1) @ differences) >= seen).sum(axis=0)
        return np.asarray(as_large / 2**queries)
    rng = np.random.default_rng(seed)
    as_large = np.zeros(differences.shape[1], np.int64)
    for start in range(0, resamples, _AT_ONCE):
        size = min(_AT_ONCE, resamples - start)
        signs = 2.0 * rng.integers(0, 2, (size, queries)) - 1
        as_large += (np.abs(signs @ differences) >= seen).sum(axis=0)
    return np.asarray((as_large + 1) / (resamples + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number, by Holm's step-down; compare the results with 0.05."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted
