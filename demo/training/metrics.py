"""Scores of a ranking in which one document answers each query. Pure."""

import math
from collections.abc import Sequence


def rank_of(answer: int, ranking: Sequence[int]) -> int | None:
    """Return the place of the answer, from 0, or None if it is not in the ranking."""
    return ranking.index(answer) if answer in ranking else None


def recall(ranks: Sequence[int | None], k: int = 10) -> float:
    """Return the share of queries whose answer is among the first k."""
    return sum(rank is not None and rank < k for rank in ranks) / len(ranks)


def ndcg(ranks: Sequence[int | None], k: int = 10) -> float:
    """Return the mean nDCG@k: 1 / log2(place + 2), as one document is relevant and the best sum is 1."""
    return sum(1 / math.log2(rank + 2) for rank in ranks if rank is not None and rank < k) / len(ranks)
