"""What of the results an adapter gives back, and in which order."""

import numpy as np

from qwen3_vllm._core.reranking.ranking import results_of, select

RESULTS = results_of(np.array([0.9, 0.2, 0.8, 0.5], np.float32))
DATES = [0.0, 1.0, 0.3, 0.1]


def test_a_mix_ranks_what_the_threshold_leaves() -> None:
    ranked = select(RESULTS, DATES, top_n=2, score_threshold=0.3, combine=lambda score, date: score + date)

    assert [(result.index, round(mixed, 6)) for result, mixed in ranked] == [(2, 1.1), (0, 0.9)]


def test_equal_mixes_keep_the_order_of_relevance() -> None:
    ranked = select(RESULTS, DATES, top_n=None, score_threshold=None, combine=lambda score, date: 1.0)

    assert [result.index for result, _ in ranked] == [0, 2, 3, 1]
