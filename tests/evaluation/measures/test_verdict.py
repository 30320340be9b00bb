"""Which set-up is chosen, and what is said of it."""

import pytest

from qwen3_vllm.evaluation.measures.statistics import Estimate
from qwen3_vllm.evaluation.measures.verdict import Contender, best_of, cost, decide, in_milliseconds


def estimate(value: float) -> Estimate:
    return Estimate(value, value - 0.02, value + 0.02)


def contender(name: str, value: float, p_value: float | None, ms: float | None, size: int) -> Contender:
    seconds = None if ms is None else ms / 1000
    return Contender(name, estimate(value), estimate(0.8 - value), p_value, seconds, size)


def losing(low: float, high: float) -> Contender:
    """Cheaper than the best, and by Holm's p not worse."""
    return Contender("cheap", estimate(0.78), Estimate(0.02, low, high), 0.3, 0.07, 4096)


SLOW_BEST = contender("rerank 100", 0.80, None, 150, 4096)


def test_the_cheapest_that_is_not_worse_is_chosen() -> None:
    verdict = decide(
        [
            contender("search alone", 0.60, 0.0003, 10, 4096),
            contender("rerank 20", 0.78, 0.4, 40, 4096),
            contender("rerank 20, int8", 0.77, 0.06, 40.4, 1024),
            SLOW_BEST,
        ],
        "nDCG@10",
        200,
    )

    assert (verdict.best, verdict.recommended, verdict.difference_shown) == (3, 2, True)
    assert verdict.sentences == (
        "The best is set-up 4 (rerank 100): nDCG@10 0.800 (0.780 to 0.820) over 200 queries; 1 of the other "
        "3 set-ups is significantly worse.",
        "The cheapest that is not significantly worse is set-up 3 (rerank 20, int8): nDCG@10 0.770 (0.750 "
        "to 0.790), 0.030 less than the best (0.010 to 0.050: worse, if it were not one of 3 comparisons), "
        "40 ms per query, 1,024 bytes per vector (the best: 150 ms per query, 4,096 bytes per vector).",
    )


@pytest.mark.parametrize(("low", "said"), [(0.001, True), (0.0, False), (-0.01, False)])
def test_a_loss_that_only_the_correction_leaves_open_is_called_one(low: float, said: bool) -> None:
    verdict = decide([losing(low, 0.05), SLOW_BEST], "nDCG@10", 12)
    assert ("worse, if it were not one of" in verdict.sentences[1]) == said
    assert f"({low:.3f} to 0.050" in verdict.sentences[1]


def test_no_difference_shown_is_said_so() -> None:
    verdict = decide([contender("search alone", 0.79, 0.05, 10, 4096), SLOW_BEST], "nDCG@10", 12)

    assert (verdict.recommended, verdict.difference_shown) == (0, False)
    assert verdict.sentences[0].startswith("No difference shown: the other set-up is not significantly worse")
    assert "more judged queries may still show a difference" in verdict.sentences[1]


@pytest.mark.parametrize(("queries", "others", "too_few"), [(5, 1, True), (6, 1, False), (6, 2, True)])
def test_queries_too_few_for_any_p_value_are_called_so(queries: int, others: int, too_few: bool) -> None:
    worse = [contender("search alone", 0.1, 0.07, 10, 4096)] * others
    verdict = decide([*worse, SLOW_BEST], "nDCG@10", queries)
    assert ("cannot show any difference" in verdict.sentences[1]) == too_few


def test_the_best_may_be_the_cheapest() -> None:
    others = [contender("big", 0.7, 0.3, 200, 8), contender("bad", 0.1, 0.001, 1, 8)]
    verdict = decide([SLOW_BEST, *others], "nDCG@10", 12)
    assert verdict.recommended == verdict.best == 0
    assert verdict.sentences[1] == (
        "It is also the cheapest of the 2 that remain: 150 ms per query, 4,096 bytes per vector."
    )


def test_the_best_may_be_the_only_one_that_is_good() -> None:
    verdict = decide([contender("search alone", 0.5, 0.001, 1, 8), SLOW_BEST], "nDCG@10", 12)
    assert verdict.sentences[0].endswith("the other set-up is significantly worse.")
    assert verdict.sentences[1] == (
        "No cheaper set-up remains: it takes 150 ms per query, 4,096 bytes per vector."
    )


def test_all_others_may_be_worse() -> None:
    verdict = decide([SLOW_BEST, *(contender(name, 0.1, 0.01, 1, 8) for name in "ab")], "nDCG@10", 12)
    assert verdict.sentences[0].endswith("both other set-ups are significantly worse.")


def test_one_set_up_is_compared_with_nothing() -> None:
    verdict = decide([SLOW_BEST], "nDCG@10", 12)
    assert not verdict.difference_shown
    assert verdict.sentences[1] == "It is the only set-up, so nothing was compared."


def test_times_that_differ_by_less_than_a_digit_are_equal() -> None:
    assert cost(0.0404, 1024) < cost(0.0396, 4096)
    assert cost(0.040, 4096) < cost(0.042, 1024)


def test_a_set_up_without_a_time_is_not_called_cheap() -> None:
    assert cost(9.0, 4096) < cost(None, 1)


def test_of_equally_good_set_ups_the_cheapest_is_the_best() -> None:
    assert best_of([(0.5, 0.1, 100), (0.7, 0.1, 100), (0.7, 0.1, 25), (0.7, 0.3, 1)]) == 2


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.000446, "0.45"), (0.0123, "12"), (0.1504, "150"), (12.34, "12,000"), (0.01, "10")],
)
def test_milliseconds_have_two_digits(seconds: float, words: str) -> None:
    assert in_milliseconds(seconds) == words
