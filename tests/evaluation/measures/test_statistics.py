"""Intervals and p-values: as scipy and plain enumeration have them."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from qwen3_vllm.evaluation.measures.statistics import bootstrap, holm, paired_randomisation


@pytest.fixture
def stats() -> Any:
    """scipy.stats, which takes half a second to import."""
    from scipy import stats

    return stats


@pytest.fixture
def values() -> np.ndarray:
    """Quality of 200 queries, as nDCG spreads: many zeros and ones."""
    rng = np.random.default_rng(3)
    return np.clip(rng.normal(0.5, 0.5, (200, 2)), 0, 1)


def test_an_interval_is_that_of_scipy(values: np.ndarray, stats: Any) -> None:
    estimates = bootstrap(values, seed=0)

    for column, estimate in zip(values.T, estimates, strict=True):
        theirs = stats.bootstrap(
            (column,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(1)
        ).confidence_interval
        assert estimate.value == pytest.approx(column.mean())
        assert (estimate.low, estimate.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)


def test_a_seed_gives_the_same_numbers_each_time(values: np.ndarray) -> None:
    assert bootstrap(values, seed=7) == bootstrap(values, seed=7)
    assert bootstrap(values, seed=7) != bootstrap(values, seed=8)


def test_an_interval_holds_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    columns = rng.normal(0.3, 1.0, (100, 300))  # 300 experiments of 100 queries each
    inside = [each.low <= 0.3 <= each.high for each in bootstrap(columns, seed=0, resamples=1000)]
    assert 0.90 <= np.mean(inside) <= 0.98


@pytest.mark.parametrize("queries", [1, 2, 8, 13])
def test_few_queries_are_tried_with_every_pattern_of_signs(queries: int) -> None:
    differences = np.random.default_rng(queries).choice([-0.4, 0.0, 0.1, 0.7], (queries, 3))
    seen = np.abs(differences.sum(axis=0))
    patterns = [np.array(signs) @ differences for signs in product((-1, 1), repeat=queries)]
    expected = np.mean([np.abs(sums) >= seen - 1e-9 for sums in patterns], axis=0)

    assert paired_randomisation(differences, seed=0) == pytest.approx(expected)


def test_a_p_value_is_that_of_scipy(values: np.ndarray, stats: Any) -> None:
    differences = values[:, 0] - values[:, 1] + 0.05
    theirs = stats.permutation_test(
        (differences,),
        np.mean,
        vectorized=True,
        permutation_type="samples",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).pvalue

    assert paired_randomisation(differences[:, None], seed=0)[0] == pytest.approx(theirs, abs=0.015)


def test_equal_set_ups_do_not_differ() -> None:
    assert paired_randomisation(np.zeros((50, 1)), seed=0)[0] == 1.0


def test_p_values_of_no_difference_are_spread_evenly() -> None:
    """So that a test at 5 % calls 5 % of chance differences significant."""
    differences = np.random.default_rng(5).normal(0, 1, (60, 1000))
    p_values = paired_randomisation(differences, seed=0, resamples=1000)
    assert np.mean(p_values < 0.05) == pytest.approx(0.05, abs=0.02)


def test_holm_adjusts_as_in_its_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
