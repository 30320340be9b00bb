"""Thresholds: as trying every score one by one has them."""

from typing import get_args

import numpy as np
import pytest

from qwen3_vllm.evaluation.measures.thresholds import Goal, ScoredCandidates, find_threshold

QUERIES = 20
GOALS: tuple[Goal, ...] = get_args(Goal)


def candidates(seed: int = 0, each: int = 10) -> ScoredCandidates:
    rng = np.random.default_rng(seed)
    query = np.repeat(np.arange(QUERIES), each)
    relevant = rng.random(len(query)) < 0.3
    score = np.round(np.clip(rng.normal(0.4 + 0.3 * relevant, 0.2), 0, 1), 2).astype(np.float32)
    return ScoredCandidates(query, score, relevant)


def by_trying(found: ScoredCandidates, goal: str, target: float) -> float | None:
    reached = []
    for score in sorted(set(found.score.tolist())):
        kept = found.score >= np.float32(score)
        share = found.relevant[kept].sum() / (kept if goal == "precision" else found.relevant).sum()
        if share >= target:
            reached.append(score)
    if not reached:
        return None
    return min(reached) if goal == "precision" else max(reached)


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("target", [0.4, 0.7])
def test_a_threshold_is_the_one_that_trying_finds(goal: Goal, target: float) -> None:
    found = find_threshold(candidates(), goal, target, QUERIES, seed=0)

    assert found.score == by_trying(candidates(), goal, target)
    assert found.score is not None
    assert found.low is not None
    assert found.low <= found.score
    assert found.high is None or found.score <= found.high
    kept = candidates().score >= np.float32(found.score)
    assert found.precision == pytest.approx(candidates().relevant[kept].mean())
    assert found.recall == pytest.approx(candidates().relevant[kept].sum() / candidates().relevant.sum())


def test_an_interval_narrows_with_more_queries() -> None:
    few = find_threshold(candidates(), "recall", 0.8, QUERIES, seed=0)
    parts = [candidates(seed) for seed in range(20)]
    many = ScoredCandidates(
        np.concatenate([part.query + QUERIES * number for number, part in enumerate(parts)]),
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.relevant for part in parts]),
    )
    more = find_threshold(many, "recall", 0.8, 20 * QUERIES, seed=0)
    assert few.low is not None and few.high is not None and more.low is not None and more.high is not None
    assert more.high - more.low < few.high - few.low


def test_what_no_score_reaches_is_said_with_the_best_there_is() -> None:
    query, score = np.repeat(np.arange(2), 2), np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    found = find_threshold(
        ScoredCandidates(query, score, np.array([False, True, True, True])), "precision", 0.9, 2, seed=0
    )
    assert (found.score, found.low, found.high) == (None, None, None)
    assert found.precision == pytest.approx(0.75)


def test_nothing_relevant_reaches_nothing() -> None:
    nothing = ScoredCandidates(np.zeros(3, np.int64), np.ones(3, np.float32), np.zeros(3, np.bool_))
    for goal in GOALS:
        found = find_threshold(nothing, goal, 0.5, 1, seed=0)
        assert (found.score, found.precision, found.recall) == (None, 0.0, 0.0)


def test_equal_scores_are_kept_together() -> None:
    """The second of two equal scores is not relevant: no threshold can tell them apart."""
    found = find_threshold(
        ScoredCandidates(np.array([0, 1]), np.array([0.5, 0.5], np.float32), np.array([True, False])),
        "precision",
        1.0,
        2,
        seed=0,
    )
    assert found.score is None
    assert found.precision == 0.5
